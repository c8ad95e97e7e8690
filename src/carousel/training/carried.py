"""States as nested tuples of tensors: what flows from batch to batch, and is kept in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def fields(state: Any) -> list[Tensor]:
    """The tensors of a state, in order; none of None.

    >>> len(fields(((torch.zeros(1), torch.zeros(1)), torch.zeros(1))))
    3
    """
    if state is None:
        return []
    return [state] if isinstance(state, Tensor) else [field for part in state for field in fields(part)]


def with_fields(state: Any, tensors: list[Tensor]) -> Any:
    """The same nest of tuples with other tensors."""
    return _filled(state, iter(tensors))


def _filled(state: Any, tensors: Iterator[Tensor]) -> Any:
    if state is None:
        return None
    if isinstance(state, Tensor):
        return next(tensors)
    parts = [_filled(part, tensors) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The state with the function applied to every tensor."""
    return with_fields(state, [function(field) for field in fields(state)])


def restarted(state: Any, rows: Tensor, initial_state: Callable[[int], Any]) -> Any:
    """For each sequence of a batch the row of the state that it goes on from, or the initial state where that is -1.

    >>> restarted((torch.tensor([[5.0], [6.0]]),), torch.tensor([1, -1]), lambda batch: (torch.zeros(batch, 1),))
    (tensor([[6.],
            [0.]]),)
    """
    if bool((rows == torch.arange(len(rows))).all()) and len(rows) == len(fields(state)[0]):
        return state
    going_on = rows >= 0
    picked = map_state(lambda field: field.index_select(0, rows.clamp(min=0)), state)
    if bool(going_on.all()):
        return picked
    pairs = zip(fields(picked), fields(initial_state(len(rows))), strict=True)
    return with_fields(picked, [torch.where(_as_column(going_on, kept), kept, new) for kept, new in pairs])


def _as_column(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (like.dim() - 1))


def carried(name: str, state: Any) -> dict[str, Tensor]:
    """The tensors of a state by their places.

    >>> list(carried("state", ((torch.zeros(1), torch.zeros(1)), torch.zeros(1))))
    ['state.0.0', 'state.0.1', 'state.1']
    """
    if state is None:
        return {}
    if isinstance(state, Tensor):
        return {name: state.detach()}
    return {place: t for k, part in enumerate(state) for place, t in carried(f"{name}.{k}", part).items()}


def given_back(name: str, tensors: Mapping[str, Tensor]) -> Any:
    """The state of which `carried` gave the tensors, as plain tuples; None if it gave none.

    >>> given_back("state", carried("state", ((torch.zeros(1),), torch.ones(1))))
    ((tensor([0.]),), tensor([1.]))
    """
    if name in tensors:
        return tensors[name]
    parts: list[Any] = []
    while any(place.startswith(f"{name}.{len(parts)}.") or place == f"{name}.{len(parts)}" for place in tensors):
        parts.append(given_back(f"{name}.{len(parts)}", tensors))
    return tuple(parts) or None
