"""A stream is `step`, element by element, with nothing carried over that should not be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import Case, every_cell, random_state
from torch import Tensor, nn

from carousel.cells import LSTM, Elman
from carousel.errors import ConfigError
from carousel.nn import Recurrent, Stream


def stepped(network: Recurrent, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    outputs = []
    for x in inputs:
        output, state = network.step(x, state)
        outputs.append(output)
    return torch.stack(outputs), state


@every_cell
@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize(("batch", "hidden_size"), [(1, 16), (3, 5)])
def test_a_stream_is_step_by_step(case: Case, batch: int, hidden_size: int) -> None:
    cell = case.cell(3, hidden_size).float()
    inputs = torch.randn(7, batch, 3)
    start = cell.State(*(field.detach() for field in random_state(cell, batch)))
    with torch.no_grad():
        wanted, state = stepped(Recurrent(cell), inputs, (start,))
    stream = Stream([cell], [start], batch=batch)
    torch.testing.assert_close(torch.stack([stream(x) for x in inputs]), wanted, rtol=0, atol=5e-6)
    for got, field in zip(stream.state[0], state[0], strict=True):
        torch.testing.assert_close(got, field, rtol=0, atol=5e-6)


def test_layers_feed_each_other_and_reset_begins_anew() -> None:
    network, inputs = Recurrent("gru", 3, 4, layers=3), torch.randn(5, 2, 3)
    with torch.no_grad():
        wanted, _ = stepped(network, inputs)
    stream = network.stream(batch=2)
    for _ in range(2):
        torch.testing.assert_close(torch.stack([stream(x) for x in inputs]), wanted, rtol=0, atol=1e-6)
        stream.reset()


def test_outputs_and_states_are_the_callers_to_keep() -> None:
    stream = Recurrent("lstm", 3, 4).stream()
    outputs = [stream(torch.randn(1, 3)) for _ in range(150)]
    state = stream.state[0]
    copies = [output.clone() for output in [*outputs, *state]]
    for _ in range(3):
        stream(torch.randn(1, 3))
    assert all(map(torch.equal, [*outputs], copies))
    assert torch.equal(state.h, copies[-2])


def test_a_state_taken_is_not_overwritten() -> None:
    stream = Recurrent("lstm", 3, 4).stream()
    stream(torch.randn(1, 3))
    (state,) = stream.state
    before = state.c.clone()
    for _ in range(4):
        stream(torch.randn(1, 3))
    assert torch.equal(state.c, before)


def test_changed_weights_are_seen_at_the_next_step() -> None:
    cell, x = LSTM(3, 4), torch.randn(1, 3)
    stream = Stream([cell])
    stream(x)
    (state,) = stream.state
    with torch.no_grad():
        cell.packed.weight_hidden.mul_(2)
        cell.packed.bias.add_(1)  # type: ignore[union-attr]
        wanted = cell.step(x, state).h
    torch.testing.assert_close(stream(x), wanted, rtol=0, atol=1e-6)


def test_a_cell_that_cannot_be_compiled_streams_too() -> None:
    class Own(Elman):
        pass

    with pytest.warns(UserWarning, match="Own runs eagerly: .*selu"):
        stream = Stream([Own(3, 4, activation=nn.SELU())])
    assert stream(torch.randn(1, 3)).shape == (1, 4)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(2, 3), torch.zeros(1, 4), torch.zeros(1, 3).double()])
def test_other_inputs_are_refused(x: Tensor) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent("gru", 3, 4).stream()(x)
    assert str(caught.value) == (
        f"x: wrong shape or type (got {tuple(x.shape)} of {x.dtype}); (1, 3) of torch.float32; one time step"
    )


def test_what_cannot_stream_is_refused() -> None:
    with pytest.raises(ConfigError, match="stream: reads no future"):
        Recurrent("gru", 3, 4, bidirectional=True).stream()
    with pytest.raises(ConfigError, match=r"batch: not a number of streams \(got 0\)"):
        Recurrent("gru", 3, 4).stream(batch=0)
