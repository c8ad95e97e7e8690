"""The graph of a step evaluated by PyTorch: slow, exact in any type, differentiable any number of times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells import gauged
from carousel.compiler.graph import Graph, Node
from carousel.compiler.operands import Operands, Recurrence


def run(
    recurrence: Recurrence, operands: Operands, state: Sequence[Tensor], sizes: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (Σ sizes, H) and the state after each sequence's own last step; inputs are packed."""
    steps = [tensor.split_with_sizes(list(sizes)) for tensor in operands.inputs]
    fields, outputs, ended = list(state), [], []
    for t, size in enumerate(sizes):
        if size < len(fields[0]):
            ended.append([field[size:] for field in fields])
            fields = [field[:size] for field in fields]
        at_t = Operands([parts[t] for parts in steps], operands.weights, operands.vectors)
        fields = step(recurrence.graph, recurrence.state, at_t, fields)
        outputs.append(fields[0])
    for end in reversed(ended):
        fields = [torch.cat(pair) for pair in zip(fields, end, strict=True)]
    return torch.cat(outputs), fields


def step(graph: Graph, results: Sequence[Node], operands: Operands, state: Sequence[Tensor]) -> list[Tensor]:
    """The results, (B, width) each, of one step with operands of that step."""
    values: dict[Node, Any] = {}
    for node in graph.used(results):
        values[node] = _value(node, [values[arg] for arg in node.args], operands, state)
    rows = len(state[0])
    return [torch.as_tensor(values[node]).expand(rows, node.width) for node in results]


def _value(node: Node, args: list[Any], operands: Operands, state: Sequence[Tensor]) -> Any:
    if node.op == "constant":
        return node.attr
    if node.op == "per_width":
        return 1 / node.attr
    if node.op == "state":
        return state[node.attr]
    if node.op == "input":
        tensor, start = node.attr
        return operands.inputs[tensor][:, start : start + node.width]
    if node.op == "vector":
        tensor, start = node.attr
        return operands.vectors[tensor].reshape(-1)[start : start + node.width]
    if node.op == "product":
        return sum(
            F.linear(arg, _rows(operands, weight, node.width)) for weight, arg in zip(node.attr, args, strict=True)
        )
    if node.op == "spread":
        return args[0]
    if node.op == "gauged":
        return gauged(*args, *node.attr)
    if node.op == "elu":
        return F.elu(args[0], node.attr)
    if node.op == "pow":
        return torch.pow(args[0], node.attr)
    tensors = [arg if isinstance(arg, Tensor) else torch.as_tensor(arg, dtype=state[0].dtype) for arg in args]
    return _POINTWISE[node.op](*tensors)


def _rows(operands: Operands, weight: tuple[int, int, bool], width: int) -> Tensor:
    tensor, start, transposed = weight
    assert not transposed, "a forward step"
    return operands.weights[tensor][start : start + width]


_POINTWISE: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "abs", "sign", "minimum", "maximum")},
    **{name: getattr(torch, name) for name in ("relu", "sqrt", "exp", "log", "sigmoid", "tanh", "detach")},
    "gt": lambda a, b: (a > b).to(a.dtype),
    "ge": lambda a, b: (a >= b).to(a.dtype),
    "eq": lambda a, b: (a == b).to(a.dtype),
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "softplus": F.softplus,
    "sum": lambda a: a.sum(1, keepdim=True),
    "max": lambda a: a.amax(1, keepdim=True).detach(),
}
