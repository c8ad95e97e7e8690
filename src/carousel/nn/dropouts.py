"""Noise inside the recurrence: zoneout, dropout of the candidate, and dropped recurrent weights.

Each mask is a dropout in the step, so that the compiler draws it before its loop.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from carousel.cells import Affine, Cell, Packed
from carousel.compiler.tracer import StepTracer
from carousel.errors import ConfigError
from carousel.nn.wrapper import Wrapper, check_probability, innermost


class Zoneout(Wrapper):
    """A cell whose units keep their old value now and then.

        d_t ~ Bernoulli(p), for each unit of each field at each step
        s_t = d_t ⊙ s_{t-1} + (1 − d_t) ⊙ ŝ_t          in training
        s_t = p s_{t-1} + (1 − p) ŝ_t                  in evaluation

    with ŝ_t what the cell's step gives.

    Krueger et al. 2017, arXiv:1606.01305, section 3.2.

    Args:
        cell: any cell.
        probability: p, one number, or one for each field that zones out: `{"h": 0.05, "c": 0.5}`.

    Notes:
        As in the paper, h_t of an LSTM is made from its new c before that zones out.

    >>> from carousel.cells import LSTM
    >>> import torch
    >>> cell = Zoneout(LSTM(3, 4), {"h": 0.05, "c": 0.5})
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    def __init__(self, cell: Cell, probability: float | Mapping[str, float]) -> None:
        super().__init__(cell)
        fields = innermost(cell).State._fields
        rates = probability if isinstance(probability, Mapping) else dict.fromkeys(fields, probability)
        for name, rate in rates.items():
            if name not in fields:
                raise ConfigError(
                    f"zoneout: no such field (got {name!r}); {', '.join(fields)}; name fields of the state"
                )
            check_probability("zoneout", rate)
        self.rates = dict(rates)

    def step(self, x: Tensor, state: Any) -> Any:
        new = self.cell.step(x, state)
        kept = {
            name: getattr(state, name)
            + (1 - p) * F.dropout(getattr(new, name) - getattr(state, name), p, self.training)
            for name, p in self.rates.items()
            if p
        }
        return new._replace(**kept)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={rate}" for name, rate in self.rates.items())


class CandidateDropout(Wrapper):
    """A cell of which the candidate alone is dropped out, so that nothing remembered is lost.

        g_t = dropout(φ(W_g x_t + U_g h_{t-1} + b_g))

    a new mask at each step. What it is added to, c_{t-1} of an LSTM or h_{t-1} of a GRU, is not touched.

    Semeniuta, Severyn and Barth 2016, arXiv:1603.05118, section 3.

    Args:
        cell: a cell with an affine map `candidate`, whose step can be traced.
        probability: p, of a unit's candidate to be zero in training.

    Notes:
        Kept units are scaled by 1/(1 − p) in training, as `torch.nn.Dropout` does; the paper scales by 1 − p later.

    Raises:
        ConfigError: the cell has no candidate, or its step branches on values.

    >>> from carousel.cells import GRU
    >>> import torch
    >>> cell = CandidateDropout(GRU(3, 4), 0.25)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    def __init__(self, cell: Cell, probability: float) -> None:
        super().__init__(cell)
        check_probability("candidate_dropout", probability)
        self.probability = probability
        self._dropped_step = _with_candidate_dropped(cell)

    def step(self, x: Tensor, state: Any) -> Any:
        fields = self._dropped_step(self.cell, x, state, self.probability, self.training)
        return self.State(*fields)

    def train(self, mode: bool = True) -> CandidateDropout:
        super().train(mode)
        self._dropped_step = _with_candidate_dropped(self.cell)  # the cell's own step may differ in training
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_dropped_step"}  # generated code

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._dropped_step = _with_candidate_dropped(self.cell)

    def extra_repr(self) -> str:
        return f"{self.probability}"


def _with_candidate_dropped(cell: Cell) -> Callable[..., tuple[Any, ...]]:
    """The cell's step as a function of (cell, x, state, p, training) that gives the fields of the new state."""
    name, candidate = type(innermost(cell)).__name__, getattr(innermost(cell), "candidate", None)
    if not isinstance(candidate, Affine | nn.Linear):
        raise ConfigError(f"candidate_dropout: no candidate (got {name}); a cell with a map of that name; use zoneout")
    try:
        graph = StepTracer(cell, leaf=lambda module: isinstance(module, Packed) or module is candidate).trace(cell)
    except Exception as reason:
        raise ConfigError(
            f"candidate_dropout: cannot trace (got {name}); a step without branches on values; use zoneout"
        ) from reason
    _, state = graph.find_nodes(op="placeholder")
    with graph.inserting_after(state):
        training = graph.placeholder("training")
        probability = graph.placeholder("probability")
    products = [
        node
        for node in graph.find_nodes(op="call_module")
        if cell.get_submodule(str(node.target)) is getattr(candidate, "packed", candidate)
        and (isinstance(candidate, nn.Linear) or node.args[0] == candidate.k)
    ]
    if not products:
        raise ConfigError(f"candidate_dropout: not computed on its own (got {name}); a step that calls it; use zoneout")
    node = _made_of(products, graph)
    with graph.inserting_after(node):
        dropped = graph.call_function(F.dropout, (node, probability, training))
    node.replace_all_uses_with(dropped, delete_user_cb=partial(operator.is_not, dropped))
    (output,) = graph.find_nodes(op="output")
    new: Any = output.args[0]
    output.args = ((*new.args, *(new.kwargs[field] for field in cell.State._fields[len(new.args) :])),)
    graph.erase_node(new)
    graph.lint()
    step: Callable[..., tuple[Any, ...]] = type(fx.GraphModule(cell, graph)).forward
    return step


def _made_of(products: list[fx.Node], graph: fx.Graph) -> fx.Node:
    """The last function that all uses of the products go through; without one, what is added to the state."""

    def uses(of: list[fx.Node], but: fx.Node | None = None) -> set[fx.Node]:
        found = {node for node in of if node is not but}
        for node in graph.nodes:
            if node is not but and not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return found

    (output,), (_, state, *_) = graph.find_nodes(op="output"), graph.find_nodes(op="placeholder")
    after, of_state = uses(products), uses([state])
    way: list[fx.Node] = [node for node in graph.nodes if node in after and output not in uses(products, but=node)]
    way = way[: way.index(output) - 1]  # but for the State that is made in the end
    functions: list[fx.Node] = [node for node in way if node not in products and _name(node) not in _ARITHMETIC]
    if functions:
        return functions[-1]
    for node in way:
        if _name(node) in ("add", "sub") and any(arg in of_state - after for arg in node.all_input_nodes):
            return way[way.index(node) - 1]
    return way[-1]


_ARITHMETIC = ("add", "sub", "mul", "neg", "chunk", "split", "getitem")


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


@contextmanager
def dropped_weights(cells: Sequence[Cell], probability: float) -> Iterator[None]:
    """While it lasts, every recurrent weight is zero with this probability: DropConnect, one draw for all time steps.

    Merity, Keskar and Socher 2018, arXiv:1708.02182, section 2, "weight-dropped LSTM".

    >>> from carousel.cells import GRU
    >>> cell = GRU(3, 4)
    >>> with dropped_weights([cell], 1.0):
    ...     cell.packed.weight_hidden.count_nonzero().item()
    0
    """
    recurrent = {U.untyped_storage().data_ptr() for cell in cells for U in cell.recurrent_weights()}
    whole = [
        (block._parameters, name, weight)
        for cell in cells
        for block in cell.modules()
        for name, weight in block._parameters.items()
        if weight is not None and weight.untyped_storage().data_ptr() in recurrent
    ]
    try:
        for parameters, name, weight in whole:
            parameters[name] = F.dropout(weight, probability)  # type: ignore[assignment]  # read by attribute
        yield
    finally:
        for parameters, name, weight in whole:
            parameters[name] = weight
