"""The compiled loop against the plain loop of `cell.step` in float64."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carousel.cells import GRU, LSTM, Cell, ResetAfterGRU
from carousel.nn import unroll

FLOOR, CEILING = 1e-6, 5e-6  # of forward errors; gradients are held to GRADIENTS of the largest one of their tensor
GRADIENTS = 1e-5
SMALL = 0.1  # a largest gradient below that is what is left of larger terms, as the outputs are weighted by about 1


@dataclass
class Problem:
    """A cell, what it is run on, and what wants a gradient."""

    cell: Cell
    inputs: Tensor  # (T, B, I)
    state: Any  # None: the cell's own
    lengths: Tensor | None

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What a gradient is asked for."""
        named = {"inputs": self.inputs, **dict(self.cell.named_parameters())}
        if self.state is not None:
            named |= {f"state.{name}": field for name, field in self.state._asdict().items()}
        return {name: tensor for name, tensor in named.items() if tensor.requires_grad}

    def double(self) -> Problem:
        def exact(tensor: Tensor) -> Tensor:
            return tensor.detach().double().requires_grad_(tensor.requires_grad)

        state = None if self.state is None else type(self.state)(*map(exact, self.state))
        return Problem(copy.deepcopy(self.cell).double(), exact(self.inputs), state, self.lengths)


def plain_ragged(problem: Problem) -> tuple[Tensor, Any]:
    """The loop as `unroll` shows it, sequences past their length left as they are."""
    cell, B = problem.cell, problem.inputs.shape[1]
    state = cell.initial_state(B) if problem.state is None else problem.state
    outputs = []
    for t, x in enumerate(problem.inputs):
        alive = torch.ones(B, 1, dtype=torch.bool) if problem.lengths is None else (t < problem.lengths)[:, None]
        new = cell.step(torch.where(alive, x, 0.0), state)
        state = cell.State(*(torch.where(alive, *pair) for pair in zip(new, state, strict=True)))
        outputs.append(torch.where(alive, state[0], 0.0))
    return torch.stack(outputs), state


def results_and_gradients(problem: Problem, outputs: Tensor, state: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs and final state, and the gradients of a random weighting of them."""
    results = [outputs, *state]
    leaves = problem.leaves
    generator = torch.Generator().manual_seed(11)
    drawn = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
    loss: Any = sum((r * w).sum() for r, w in zip(results, drawn, strict=True) if r.requires_grad)
    found: Any = [None] * len(leaves)
    if isinstance(loss, Tensor):
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return [r.detach() for r in results], {n: torch.zeros_like(x) if g is None else g for (n, x), g in pairs}


def check(problem: Problem) -> dict[str, float]:
    """Raise AssertionError unless the compiled loop is as accurate as it should be; returns the errors found."""
    double = problem.double()
    exact, exact_gradients = results_and_gradients(double, *plain_ragged(double))
    torch_own, own_gradients = results_and_gradients(problem, *plain_ragged(problem))
    outputs, state = unroll(problem.cell, problem.inputs, problem.state, problem.lengths, engine="compiled")
    got, gradients = results_and_gradients(problem, outputs, state)
    if problem.lengths is not None:
        past = torch.arange(len(outputs))[:, None] >= problem.lengths
        assert not outputs[past].any(), "outputs in the padding"
    errors = {}
    for name, a, b, own in zip(("outputs", *state._fields), got, exact, torch_own, strict=True):
        assert a.shape == b.shape and a.dtype == torch.float32
        scale = max(1.0, float(b.abs().max()))
        error, allowed = float((a - b).abs().max()) / scale, 2 * float((own - b).abs().max()) / scale
        errors[name] = error
        bound = min(max(allowed, FLOOR), CEILING)
        assert error <= bound, f"{name}: off by {error:.2e}, more than {bound:.2e}"
    for name, a in gradients.items():
        b = exact_gradients[name]
        assert a.shape == b.shape
        largest = max(float(b.abs().max()), SMALL)
        error, own_error = (float((one - b).abs().max()) / largest for one in (a, own_gradients[name]))
        errors[f"d {name}"] = error
        # Where a gradient is a small difference of large terms, float32 has no more: PyTorch's own error bounds it.
        bound = max(GRADIENTS, 4 * own_error)
        assert error <= bound, f"gradient of {name}: off by {error:.2e} of its largest, {largest:.2e}"
    return errors


def noncontiguous(tensor: Tensor) -> Tensor:
    """The same values, every other one of a larger tensor."""
    return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]


def random_problem(seed: int, make: Callable[[int, int], Cell]) -> Problem:
    """A problem of random sizes: one, odd, next to whole vectors; ragged or not; with a state or not; any gradients."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    T, B = draw.choice([1, 2, 3, 5, 9]), draw.choice([1, 2, 3, 7, 8, 9, 13, 25])
    I, H = draw.choice([1, 2, 3, 7, 16]), draw.choice([1, 2, 3, 5, 7, 8, 13, 15, 16, 17, 31])  # noqa: E741
    cell = make(I, H)
    inputs = torch.randn(T, B, I)
    if draw.random() < 0.3:
        inputs = torch.randn(B, T, I).transpose(0, 1) if draw.random() < 0.5 else noncontiguous(inputs)
    state = None
    if draw.random() < 0.6:
        fields = [torch.randn_like(field) / 2 for field in cell.initial_state(B)]
        state = cell.State(*(noncontiguous(field) if draw.random() < 0.3 else field for field in fields))
    lengths = torch.tensor([draw.randint(1, T) for _ in range(B)]) if draw.random() < 0.5 else None
    everything = draw.random() < 0.4
    for tensor in [inputs, *cell.parameters(), *(state or ())]:
        tensor.requires_grad_(everything or draw.random() < 0.5)
    return Problem(cell, inputs, state, lengths)


def row_by_row(outputs: Tensor, state: Any) -> Tensor:
    """(B, ·) all that belongs to each sequence."""
    return torch.cat([outputs.transpose(0, 1).flatten(1), *state], dim=1)


OURS: dict[str, Callable[[int, int], Cell]] = {"LSTM": LSTM, "GRU": GRU, "ResetAfterGRU": ResetAfterGRU}
