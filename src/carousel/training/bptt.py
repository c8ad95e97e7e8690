"""Backpropagation through time over sequences that do not end: truncated, with the state carried over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError
from carousel.nn.drop_in import DropIn
from carousel.training.carried import carried, fields, given_back, map_state, restarted, with_fields
from carousel.training.pieces import Piece

Forward: TypeAlias = Callable[[Piece, Any], tuple[Tensor, Any]]
OVER_TIME = ("sum", "mean")


class BPTT:
    """Truncated backpropagation through time, BPTT(k1, k2): every k1 steps a backward pass over the last k2.

        for piece in pieces:                            # k1 steps each
            loss, state = forward(piece, state)
            loss.backward()                             # through the last k2 steps, beyond the piece if k2 > k1
            optimiser.step()

    is, with a `BPTT` that keeps the state and what the backward pass needs,

        for piece in pieces:
            bptt(piece).backward()
            optimiser.step()

    Williams and Peng 1990, Neural Computation 2(4), BPTT(h; h') with h = k2 and h' = k1, as Sutskever's thesis (2013)
    calls them. With k2 = k1 a gradient never leaves its piece; a piece that is the whole sequence gives full BPTT.

    Every step is computed once, and each loss enters one backward pass, that after its piece, which goes over k2 steps:
    k2 > k1 costs k2 / k1 times the backward, not k2 / k1 times everything. What is computed is exact:

        dL_n = Σ_j ∂L_n / ∂W_j · dW,    j over the copies of the network in the last k2 steps,

    L_n the loss of the piece, and W_j the weights as they were when step j was computed. Where the weights stand still,
    this is the derivative of L_n but for what lies more than k2 steps before the end of the piece. With k2 > k1 each
    piece therefore keeps a copy of the weights, for as long as it is reached. With k2 < k1 the first k1 − k2 steps of a
    piece run without gradients, and their losses count in the value alone.

    Args:
        forward: from a piece and the state before it (None at first) to the loss and the state after it. The loss is to
            be a sum over steps, or that times a constant, because a piece may be computed in several parts. States are
            nested tuples of tensors, such as those of `carousel.Recurrent`.
        module: whose weights `forward` reads.
        k1, k2: in steps; k2 = k1 by default. The last piece of a sequence may be shorter; its reach is at most k2.
        over_time: "sum" or "mean" of the copies' gradients; the mean divides the sum by the steps it goes over.
        recompute: keep no more than the states between parts of so many steps, and compute each part again when its
            turn comes backward, with the same dropout. √k2 bounds the memory best; costs one more forward pass.
        initial_state: of so many sequences, for those that begin anew within the batch; that of the module by default.

    Notes:
        Where a piece is computed in parts (k2 > k1, k2 < k1, `recompute`), call `backward()`: `torch.autograd.grad` is
        refused. With `recompute` a forward pass updates buffers (batch normalisation) twice.

    `state` is what the last piece ended with, without its history; `reset` begins another sequence.

    >>> from carousel.nn import Recurrent
    >>> from carousel.training import Columns
    >>> network = Recurrent("gru", 1, 1)
    >>> def forward(piece, state):
    ...     outputs, state = network(piece.inputs, state)
    ...     return (outputs - piece.targets).square().sum(), state
    >>> bptt, wave = BPTT(forward, network, k1=10, k2=30), torch.sin(torch.arange(201.0))[:, None]
    >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    >>> for piece in Columns(wave[:-1], wave[1:], batch=2, length=10):
    ...     optimiser.zero_grad()
    ...     bptt(piece).backward()
    ...     optimiser.step()
    >>> bptt.state[0].h.shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        forward: Forward,
        module: nn.Module,
        *,
        k1: int,
        k2: int | None = None,
        over_time: Literal["sum", "mean"] = "sum",
        recompute: int | None = None,
        initial_state: Callable[[int], Any] | None = None,
    ) -> None:
        for name, steps in (("k1", k1), ("k2", k2), ("recompute", recompute)):
            if steps is not None and steps < 1:
                raise ConfigError(f"{name}: not a number of steps (got {steps}); 1 or more; k2 is how far gradients go")
        if over_time not in OVER_TIME:
            raise ConfigError(f"over_time: unknown (got {over_time!r}); {', '.join(OVER_TIME)}; sum is the gradient")
        self.forward, self.module, self.k1, self.k2 = forward, module, k1, k2 or k1
        self.over_time, self.recompute = over_time, recompute
        self.initial_state = initial_state or getattr(module, "initial_state", None)
        foreign = [m for m in module.modules() if isinstance(m, nn.RNNBase) and not isinstance(m, DropIn)]
        if self.k2 > k1 and foreign:
            raise ConfigError(
                f"k2: {type(foreign[0]).__name__} of torch.nn keeps its weights to itself (got k2={k2} > k1={k1}); "
                "k2 up to k1; take carousel's"
            )
        self.reset()

    def reset(self, state: Any = None) -> None:
        """Begin another sequence, from the initial state or a given one; the gradient does not go back beyond it."""
        self.state = map_state(Tensor.detach, state)
        self._reached: list[_Part] = []  # those that the next backward pass may go through, the oldest first

    def __call__(self, piece: Piece) -> Tensor:
        """The loss of the next piece, of k1 steps; its `backward()` is the truncated one."""
        steps = len(piece.inputs)
        if not 0 < steps <= self.k1:
            raise ConfigError(f"piece: not up to k1 steps (got {steps}); 1 to {self.k1}; cut the sequence into pieces")
        cuts = self._cuts(steps)
        if cuts == [0, steps] and self.k2 <= self.k1 and not self.recompute:
            loss, state = self._run(piece, self.state)
            self.state = map_state(Tensor.detach, state)
            return loss if self.over_time == "sum" else _scaled(loss, 1 / steps)
        self._forget_beyond(self.k2 - steps)
        copies = self._copies() if self.k2 > self.k1 else {}
        losses = []
        for start, end in pairwise(cuts):
            part = _Part(self, piece.cut(start, end), copies)
            follows = self._reached[-1] if self._reached else None
            keep = steps - start <= self.k2 and torch.is_grad_enabled()
            losses.append(part.begin(self.state, follows, keep=keep))
            self.state = map_state(Tensor.detach, part.end)
            if keep:
                self._reached.append(part)
        return _scaled(torch.stack(losses).sum().requires_grad_(torch.is_grad_enabled()), self._backward)

    def _cuts(self, steps: int) -> list[int]:
        """Where a piece is cut: there is a cut k2 steps before the end of every piece."""
        reached = (steps if self.k2 < self.k1 else self.k1) - self.k2 % self.k1
        parts = range(0, steps, self.recompute or steps)
        return sorted({*parts, steps, *([reached] if 0 < reached < steps else [])})

    def _run(self, piece: Piece, state: Any) -> tuple[Tensor, Any]:
        """`forward`, but that some sequences begin anew, and others have ended in an earlier part."""
        if piece.rows is not None and state is not None:
            if self.initial_state is None:
                raise ConfigError(
                    "initial_state: missing (got None); a function of the batch size; sequences begin anew"
                )
            state = restarted(state, piece.rows, self.initial_state)
        alive = piece.alive
        if alive is None:
            return self.forward(piece, state)
        loss, ends = self.forward(piece, map_state(lambda field: field.index_select(0, alive), state))
        pairs = zip(fields(state), fields(ends), strict=True)
        return loss, with_fields(ends, [before.index_copy(0, alive, after) for before, after in pairs])

    def _copies(self) -> dict[str, Tensor]:
        trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        return {name: _Copy.apply(p, p.detach().clone()) for name, p in trained.items()}  # type: ignore[no-untyped-call]

    def _forget_beyond(self, steps: int) -> None:
        """Keep no more of what was computed than so many steps; its losses have had their turn."""
        while self._reached and sum(part.steps for part in self._reached) > steps:
            del self._reached[0]
        for part in self._reached:
            part.new = False

    def _backward(self, gradient: Tensor) -> None:
        reached, further, back = self._reached[::-1], None, 0
        if self.over_time == "mean":
            gradient = gradient / sum(part.steps for part in reached)
        for part in reached:
            back += part.steps
            further = part.backward(gradient, further, again=back + self.k1 <= self.k2)
        self._forget_beyond(max(0, self.k2 - self.k1))

    def state_dict(self) -> dict[str, Tensor]:
        """The carried state and what the next backward pass goes through, by name, to go on after an interruption."""
        found = carried("state", self.state)
        for k, part in enumerate(self._reached):
            found |= {f"part.{k}.{name}": tensor for name, tensor in part.tensors().items()}
        return found

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`, with the same bits; parts that a gradient will reach are computed again."""
        self.reset(given_back("state", tensors))
        k = 0
        while f"part.{k}.inputs" in tensors:
            prefix = f"part.{k}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            follows = self._reached[-1] if self._reached else None
            self._reached.append(_Part.loaded(self, own, follows))
            k += 1


class _Part:
    """Steps that were computed, as a function of the state before them and of the weights as they were."""

    def __init__(self, bptt: BPTT, piece: Piece, copies: dict[str, Tensor]) -> None:
        self.bptt, self.piece, self.copies, self.steps = bptt, piece, copies, len(piece.inputs)
        self.new = True
        self.loss: Tensor | None = None

    def begin(self, state: Any, follows: _Part | None, *, keep: bool) -> Tensor:
        """Compute the loss and the end; keep what the backward pass needs, or with `recompute` what it begins with."""
        self.start = map_state(lambda field: _leaf(field, follows is not None), state)
        self.drawn = _random_state()
        self.cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        with torch.set_grad_enabled(keep and not self.bptt.recompute):
            loss, self.end = self.run()
        if loss.requires_grad:
            self.loss = loss
        return loss.detach()

    def run(self) -> tuple[Tensor, Any]:
        with _reads(self.bptt.module, self.copies):
            return self.bptt._run(self.piece, self.start)

    def backward(self, gradient: Tensor, further: list[Tensor | None] | None, *, again: bool) -> list[Tensor | None]:
        """From dL/dloss and dL/dend to dL/dstart; gradients of the weights are added to theirs."""
        loss, end = self.loss, self.end
        if loss is None:
            with torch.enable_grad(), _drawing(self.drawn), _casting(self.cast):
                loss, end = self.run()
        pairs = [(loss, gradient)] if self.new else []
        if further is not None:
            pairs += [(f, g) for f, g in zip(fields(end), further, strict=True) if g is not None and f.requires_grad]
        starts = fields(self.start)
        for field in starts:
            field.grad = None
        if pairs:
            torch.autograd.backward([f for f, _ in pairs], [g for _, g in pairs], retain_graph=again)
        return [field.grad for field in starts]

    def tensors(self) -> dict[str, Tensor]:
        found = {name: t for name, t in self.piece._asdict().items() if t is not None} | {"drawn": self.drawn[0]}
        if self.cast is not None:
            found["cast"] = torch.zeros(1, dtype=self.cast)
        found |= {f"weights.{name}": copy for name, copy in self.copies.items()}
        return found | {f"drawn.{k}": state for k, state in enumerate(self.drawn[1:])} | carried("start", self.start)

    @classmethod
    def loaded(cls, bptt: BPTT, tensors: Mapping[str, Tensor], follows: _Part | None) -> _Part:
        piece = Piece(*(tensors.get(name) for name in Piece._fields))  # type: ignore[arg-type]
        weights = dict(bptt.module.named_parameters())
        copies = {
            name: _Copy.apply(weights[name], tensors[f"weights.{name}"])  # type: ignore[no-untyped-call]
            for name in weights
            if f"weights.{name}" in tensors
        }
        part, drawn = cls(bptt, piece, copies), [tensors["drawn"]]
        while f"drawn.{len(drawn) - 1}" in tensors:
            drawn.append(tensors[f"drawn.{len(drawn) - 1}"])
        cast = tensors["cast"].dtype if "cast" in tensors else None
        with torch.enable_grad(), _drawing(drawn), _casting(cast):
            part.begin(given_back("start", tensors), follows, keep=True)
        part.new, part.drawn = False, drawn
        return part


def _leaf(field: Tensor, linked: bool) -> Tensor:
    """The field as what a graph begins with, if a part before it is to learn of its gradient."""
    return field.detach().requires_grad_(linked and field.is_floating_point())


class _Copy(torch.autograd.Function):
    """The values of a copy, whose gradient is the weight's."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        return copy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Then(torch.autograd.Function):
    """A loss as it is, whose gradient is scaled or, by a function, spread."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, then: float | Callable[[Tensor], None]) -> Tensor:
        ctx.then = then
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        if not callable(ctx.then):
            return gradient * ctx.then, None
        if not torch.autograd._is_checkpoint_valid():  # type: ignore[no-untyped-call]
            raise RuntimeError("BPTT: call backward() on the loss; torch.autograd.grad would not see all of it")
        ctx.then(gradient)
        return None, None


def _scaled(loss: Tensor, then: float | Callable[[Tensor], None]) -> Tensor:
    scaled: Tensor = _Then.apply(loss, then)  # type: ignore[no-untyped-call]
    return scaled


@contextmanager
def _reads(module: nn.Module, copies: Mapping[str, Tensor]) -> Iterator[None]:
    """While it lasts, the module computes with the copies."""
    if not copies:
        yield
        return
    shared = {id(weight): copies[name] for name, weight in module.named_parameters() if name in copies}
    places = [
        (part._parameters, name, weight)
        for part in module.modules()
        for name, weight in part._parameters.items()
        if id(weight) in shared
    ]
    try:
        for parameters, name, weight in places:
            parameters[name] = shared[id(weight)]  # type: ignore[assignment]  # read by attribute
        yield
    finally:
        for parameters, name, weight in places:
            parameters[name] = weight


def _random_state() -> list[Tensor]:
    of_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *of_devices]


def _casting(dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision, or none, as it was when a part was first computed."""
    return torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def _drawing(state: list[Tensor]) -> Iterator[None]:
    """While it lasts, random numbers are those that followed `state`."""
    with torch.random.fork_rng(devices=range(len(state) - 1)):
        torch.set_rng_state(state[0])
        for device, one in enumerate(state[1:]):
            torch.cuda.set_rng_state(one, device)
        yield
