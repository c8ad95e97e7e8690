"""What holds for every cell of ours, besides what `check_cell` holds any cell to."""

from __future__ import annotations

import pytest
import torch
from cell_registry import CASES, Case, assert_same, every_cell, random_state, unscaled
from torch import fx

from carousel.cells import CELLS, Cell, Packed, cell_class
from carousel.errors import ConfigError
from carousel.nn import trajectory


@every_cell
def test_the_initial_state_is_zero_like_the_weights(case: Case) -> None:
    assert all(field.dtype == torch.float64 and not field.any() for field in case.cell().initial_state(2))


@every_cell
def test_a_step_can_be_traced_as_plain_operations(case: Case) -> None:
    class Through(fx.Tracer):
        traced_func_name = "step"

        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
            return not isinstance(m, Packed) and super().is_leaf_module(m, module_qualified_name)

        def iter(self, obj: fx.Proxy):  # type: ignore[no-untyped-def]
            return iter([obj[k] for k in range(len(cell.State._fields))])

    cell = case.cell()
    if not case.traceable:
        with pytest.raises((TypeError, fx.proxy.TraceError)):
            Through().trace(cell)
        return
    traced = fx.GraphModule(cell, Through().trace(cell))
    x, state = torch.randn(2, 3, dtype=torch.float64), random_state(cell, 2)
    assert_same(list(traced(x, state)), list(cell.step(x, state)), tolerance=0)


@every_cell
def test_without_recurrent_weights_it_is_a_feed_forward_unit(case: Case) -> None:
    """Gates and candidates see x alone: what of the state still matters is carried over by a map affine in the state.

    So a cell without a carried state computes a function of x, and a gated one s' = f(x) ⊙ s + g(x).
    """
    if (carried := case.carried) is None:
        return
    cell = case.cell()
    x = torch.randn(2, 3, dtype=torch.float64)
    one, other = carried(random_state(cell, 2)), carried(random_state(cell, 2))
    assert not all(map(torch.equal, cell.step(x, one), cell.step(x, other)))
    with torch.no_grad():
        for weight in cell.recurrent_weights():
            weight.zero_()
    middle = cell.State(*((a + b) / 2 for a, b in zip(one, other, strict=True)))
    new, new_other, new_middle = (carried(cell.step(x, state)) for state in (one, other, middle))
    for field in cell.State._fields:
        replaced = carried(cell.step(x, one._replace(**{field: getattr(other, field)})))
        if not all(map(torch.equal, replaced, new)):  # the field is carried over
            assert_same([getattr(new_middle, field)], [(getattr(new, field) + getattr(new_other, field)) / 2])
    if carried is not unscaled:  # as gates of multiples are not
        gates, gates_other, gates_middle = (trajectory(cell, x[None], state).gates for state in (one, other, middle))
        for name in gates.keys() - set(cell.State._fields):
            assert_same([gates_middle[name].to(x)], [(gates[name].to(x) + gates_other[name]) / 2])


def test_no_cell_of_the_catalogue_is_left_out() -> None:
    assert set(CELLS.values()) <= {type(case.cell()) for case in CASES if case.carried}


def test_packed_maps_are_the_rows_of_one_block() -> None:
    packed = Packed(3, 4, maps=2)
    x, h = torch.randn(5, 3), torch.randn(5, 4)
    for k, affine in enumerate(packed):
        rows = slice(4 * k, 4 * k + 4)
        assert packed.bias is not None and affine.b is not None
        assert torch.equal(affine.W, packed.weight_input[rows])
        assert torch.equal(affine.U, packed.weight_hidden[rows])
        assert torch.equal(affine.b, packed.bias[rows])
        by_hand = x @ packed.weight_input[rows].t() + h @ packed.weight_hidden[rows].t() + packed.bias[rows]
        assert_same([affine(x, h), affine.input(x) + affine.hidden(h)], [by_hand, by_hand], tolerance=1e-5)
    assert sorted(packed.state_dict()) == ["bias", "weight_hidden", "weight_input"]
    assert [affine.b for affine in Packed(3, 4, maps=2, bias=False)] == [None, None]


def test_packed_maps_may_read_another_width() -> None:
    packed = Packed(3, 4, maps=2, recurrent_size=5)
    assert packed.weight_hidden.shape == (8, 5)
    assert [affine(torch.zeros(2, 3), torch.zeros(2, 5)).shape for affine in packed] == [(2, 4), (2, 4)]
    assert "recurrent_size=5" in repr(packed) and "recurrent_size" not in repr(Packed(3, 4, maps=2))


def test_packed_maps_may_read_the_input_alone() -> None:
    packed = Packed(3, 4, maps=2, recurrent_size=0)
    assert sorted(packed.state_dict()) == ["bias", "weight_input"]
    assert [affine.input(torch.zeros(2, 3)).shape for affine in packed] == [(2, 4), (2, 4)]


def test_new_weights_are_within_the_bounds_of_torch() -> None:
    packed = Packed(50, 100, maps=3)
    for parameter in packed.parameters():
        assert 0.09 < parameter.abs().max() <= 0.1


def test_a_cell_without_a_step_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Cell defines no step"):
        Cell(3, 4)(torch.zeros(2, 3), None)


def test_a_cell_without_a_scan_says_so() -> None:
    cell = cell_class("lstm")(3, 4)
    assert not cell.has_scan
    with pytest.raises(NotImplementedError, match="LSTM defines no scan"):
        cell.scan(torch.zeros(5, 2, 3), cell.initial_state(2))


@pytest.mark.parametrize("name", CELLS)
def test_every_name_makes_its_cell(name: str) -> None:
    assert type(cell_class(name)(3, 4)) is CELLS[name]


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("ltsm", ["lstm", "lem", "lstm-np"]),
        ("GRU", ["gru", "sru", "mingru"]),
        ("gru-after", ["gru-reset-after", "gru-layer-norm", "gru"]),
    ],
)
def test_an_unknown_name_gives_the_nearest(typed: str, nearest: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        cell_class(typed)
    assert str(caught.value) == (
        f"cell: unknown (got {typed!r}); {', '.join(nearest)} and all that `carousel cells` lists; "
        f"did you mean {nearest[0]!r}?"
    )


@pytest.mark.parametrize(("sizes", "name"), [((0, 4), "input_size"), ((3, -1), "hidden_size")])
def test_sizes_below_one_are_refused(sizes: tuple[int, int], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: not a size \(got {min(sizes)}\); 1 or more"):
        cell_class("lstm")(*sizes)
