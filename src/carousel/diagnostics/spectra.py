"""What one step does to a state, to first order: the Jacobian's eigenvalues, the recurrent weights' singular values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacrev

from carousel.cells import Affine, Cell
from carousel.diagnostics.observation import Layer
from carousel.nn.wrapper import innermost

STATES = 4  # at which the Jacobian is taken
LARGEST = 2048  # state size: eigenvalues of a larger matrix take minutes


def state_jacobians(layer: Layer, states: int = STATES) -> Tensor | None:
    """dS_t/dS_{t-1} at some real states, evenly over the batch: (K, D, D), S all fields of the state side by side.

    None where a state is larger than 2048 numbers.

    >>> from carousel.diagnostics import observing
    >>> from carousel.nn import Recurrent
    >>> network = Recurrent("elman", 3, 4, activation="identity")
    >>> with observing(network) as layers:
    ...     _ = network(torch.randn(5, 2, 3))
    >>> torch.allclose(state_jacobians(layers[0])[0], network.cells[0].packed.weight_hidden)
    True
    """
    cell, names = layer.cell, [name for name in layer.cell.State._fields if not name.endswith("_mask")]
    state = cell.State(*(torch.cat(fields).detach() for fields in zip(*layer.before, strict=True)))
    floating = [name for name in names if getattr(state, name).is_floating_point()]
    shapes = [getattr(state, name).shape[1:] for name in floating]
    sizes = [shape.numel() for shape in shapes]
    if not 0 < sum(sizes) <= LARGEST:
        return None
    rows = torch.linspace(0, len(layer.inputs) - 1, min(states, len(layer.inputs))).round().long()
    inputs = layer.inputs.detach()

    def taken(row: int) -> Tensor:
        one = cell.State(*(field[row : row + 1] for field in state))

        def step(flat: Tensor) -> Tensor:
            parts = zip(floating, torch.split(flat, sizes), shapes, strict=True)
            before = one._replace(**{name: part.view(1, *shape) for name, part, shape in parts})
            after = cell.step(inputs[row : row + 1], before)
            return torch.cat([getattr(after, name).flatten() for name in floating])

        jacobian: Tensor = jacrev(step)(torch.cat([getattr(one, name).flatten() for name in floating]))
        return jacobian.detach()

    return torch.stack([taken(row) for row in rows.tolist()])


def spectrum(layer: Layer, states: int = STATES) -> Tensor | None:
    """The eigenvalues of `state_jacobians`: (K, D), complex; None where those are too large."""
    jacobians = state_jacobians(layer, states)
    return None if jacobians is None else torch.linalg.eigvals(jacobians.cpu())


def singular_values(cell: Cell) -> dict[str, Tensor]:
    """Of every recurrent weight, the largest first, by the name of its map.

    >>> from carousel.cells import GRU
    >>> list(singular_values(GRU(3, 4)))
    ['reset', 'update', 'candidate']
    """
    cell = innermost(cell)
    names = {_place(weight): name for name, weight in cell.named_parameters()}
    for name, value in vars(cell).items():
        if isinstance(value, Affine) and value.packed.recurrent_size:
            names[_place(value.U)] = name
    found: dict[str, Tensor] = {}
    for k, weight in enumerate(cell.recurrent_weights(), start=1):
        matrix = weight.detach().float()
        if matrix.dim() == 1:  # a unit that reads itself alone
            matrix = matrix.diag()
        found[names.get(_place(weight), f"U{k}")] = torch.linalg.svdvals(matrix).cpu()
    return found


def _place(weight: Tensor) -> tuple[int, torch.Size]:
    return weight.data_ptr(), weight.shape
