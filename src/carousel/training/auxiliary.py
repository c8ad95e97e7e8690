"""Against gradients that vanish: from the state at random places of a sequence, what is around them is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import ConfigError
from carousel.nn import Recurrent


class Anchor(NamedTuple):
    """Where the state is taken, after so many steps, and the first step of the segment that is told from it."""

    at: int
    start: int


def truncated(network: Recurrent, inputs: Tensor, steps: int, state: Any = None) -> tuple[Tensor, Any]:
    """Outputs of the last `steps` (T, B, I) and the state after them; no gradient goes back beyond them.

    >>> inputs = torch.randn(9, 2, 3, requires_grad=True)
    >>> outputs, _ = truncated(Recurrent("gru", 3, 4), inputs, 2)
    >>> outputs.sum().backward()
    >>> len(outputs), inputs.grad.abs().sum((1, 2)).nonzero().flatten().tolist()
    (2, [7, 8])
    """
    before = max(0, len(inputs) - steps)
    if before:
        with torch.no_grad():
            _, state = network(inputs[:before], state)
    return network(inputs[before:], state)  # type: ignore[no-any-return]


class AuxiliaryLoss(nn.Module):
    """An unsupervised loss at random anchors: makes a state remember (or foresee) where the main loss is truncated.

        L = L_main + L_aux,    L_aux = mean over anchors a of 1/l Σ_{k=1..l} d(y_{b+k}, x_{b+k})

        past:    s_a = network(x_{1..a});  y_{b+1..b+l} = readout(decoder(x_{b..b+l-1}; s_a)),  b + l <= a - 1
        future:  y_{a+1..a+l} = readout(decoder(h_{a..a+l-1})),  h the outputs of the network

    d is `criterion`, a and b are uniform, the same for all sequences of a batch. Gradients go through the decoder and
    on through the network, no further back than `reach` steps before the anchor, so that a step costs as much however
    long the sequences are, but for a forward pass without gradient.

    Trinh, Dai, Luong and Le 2018, "Learning Longer-term Dependencies in RNNs with Auxiliary Losses", ICML;
    arXiv:1803.00144: r-LSTM is `past`, p-LSTM `future`.

    Args:
        decoder: for `past` its lowest layers start from the network's state, and others from their own, so that those
            are to be of the same cells and sizes; it reads inputs. For `future` it reads the network's outputs.
        readout: from the decoder's outputs to what `criterion` takes.
        segment: l, how many steps are told.
        reach: in steps.
        anchors: of each batch.
        criterion: of what is told and what was there, each with steps and sequences in one axis; a mean.

    Raises:
        ConfigError: a number of steps is not one, or sequences are too short, see `anchors`.

    Notes:
        The true x_{b+1}, ... are fed to the decoder, which the paper leaves open.
        The paper trains with L_aux alone at first, which is a loop of yours.

    >>> network, decoder = Recurrent("lstm", 3, 8), Recurrent("lstm", 3, 8, layers=2)
    >>> auxiliary = AuxiliaryLoss(decoder, nn.Linear(8, 3), segment=4, reach=10)
    >>> inputs = torch.randn(50, 2, 3)
    >>> outputs, _ = truncated(network, inputs, 10)
    >>> loss = outputs[-1].square().mean() + auxiliary(network, inputs, generator=torch.Generator().manual_seed(0))
    """

    def __init__(
        self,
        decoder: Recurrent,
        readout: nn.Module,
        *,
        segment: int,
        reach: int,
        anchors: int = 1,
        tells: Literal["past", "future"] = "past",
        criterion: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    ) -> None:
        super().__init__()
        for name, count in (("segment", segment), ("reach", reach), ("anchors", anchors)):
            if count < 1:
                raise ConfigError(f"{name}: not a number of them (got {count}); 1 or more; segment and reach are steps")
        if tells not in ("past", "future"):
            raise ConfigError(f"tells: unknown (got {tells!r}); past, future; past is r-LSTM, future p-LSTM")
        self.decoder, self.readout, self.criterion = decoder, readout, criterion
        self.segment, self.reach, self.count, self.tells = segment, reach, anchors, tells

    def anchors(self, steps: int, generator: torch.Generator) -> list[Anchor]:
        """Those of a batch of sequences of so many steps."""
        first, last = (self.segment + 1, steps) if self.tells == "past" else (1, steps - self.segment)
        if last < first:
            raise ConfigError(
                f"inputs: too short for a segment (got {steps} steps); {self.segment + 1} or more; a smaller segment"
            )

        def drawn(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        ats = [drawn(first, last) for _ in range(self.count)]
        return [Anchor(at, drawn(0, at - first) if self.tells == "past" else at - 1) for at in ats]

    def forward(
        self, network: Recurrent, inputs: Tensor, targets: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """The loss, with the anchors that the generator draws.

        Args:
            network: any, of one direction.
            inputs: (T, B, I) that it reads; of ragged sequences as many steps as the shortest has.
            targets: (T, B, ...) what is told; the inputs by default.
        """
        if network.bidirectional or network.batch_first:
            raise ConfigError(
                f"network: no state in the middle of (T, B, I) (got {network.extra_repr()}); one direction, time "
                "first; another network"
            )
        wanted = inputs.detach() if targets is None else targets
        return torch.stack(
            [self._told(network, inputs, wanted, at) for at in self.anchors(len(inputs), generator)]
        ).mean()

    def _told(self, network: Recurrent, inputs: Tensor, targets: Tensor, anchor: Anchor) -> Tensor:
        (at, start), length = anchor, self.segment
        if self.tells == "past":
            _, state = truncated(network, inputs[:at], self.reach)
            state += self.decoder.initial_state(inputs.shape[1])[len(state) :]
            outputs, _ = self.decoder(inputs[start : start + length], state)
        else:
            seen, _ = truncated(network, inputs[: at + length - 1], self.reach + length - 1)
            outputs, _ = self.decoder(seen[-length:])
        there = targets[start + 1 : start + 1 + length]
        return self.criterion(self.readout(outputs).flatten(0, 1), there.flatten(0, 1))
