"""Pyramids: each layer reads pairs of the outputs below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import assert_same, ragged_inputs

from carousel.errors import ConfigError
from carousel.nn import Pyramid, join_steps, unroll

LENGTHS = torch.tensor([7, 1, 4, 2])


def test_an_odd_step_is_joined_with_zeros() -> None:
    inputs = ragged_inputs(LENGTHS, fill=torch.nan)
    joined, lengths = join_steps(inputs, LENGTHS)
    assert lengths is not None and lengths.tolist() == [4, 1, 2, 1]
    for b, length in enumerate(LENGTHS.tolist()):
        for t in range(4):
            pair = [inputs[s, b] if s < length else torch.zeros(3).double() for s in (2 * t, 2 * t + 1)]
            assert_same([joined[t, b]], [torch.cat(pair)], 0)
    assert join_steps(inputs, factor=3)[0].shape == (3, 4, 9)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"dilation": 2, "zoneout": 0.1}, {"learn_start": True, "batch_first": True}], ids=str
)
def test_a_ragged_batch_is_each_sequence_alone(options: dict[str, Any], bidirectional: bool) -> None:
    torch.manual_seed(0)
    pyramid = Pyramid("gru", 3, 4, layers=3, bidirectional=bidirectional, dropout=0.5, **options).double().eval()
    inputs = ragged_inputs(LENGTHS, fill=torch.nan)
    first = pyramid.batch_first
    outputs, _, lengths = pyramid(inputs.transpose(0, 1) if first else inputs, None, LENGTHS)
    outputs = outputs.transpose(0, 1) if first else outputs
    assert lengths.tolist() == [2, 1, 1, 1] and len(outputs) == 2
    for b, length in enumerate(LENGTHS.tolist()):
        alone = inputs[:length, b : b + 1]
        wanted = pyramid(alone.transpose(0, 1) if first else alone).outputs
        assert_same([outputs[: lengths[b], b : b + 1]], [wanted.transpose(0, 1) if first else wanted])
    (grad,) = torch.autograd.grad(outputs.sum(), inputs)
    assert not grad[torch.arange(7)[:, None] >= LENGTHS].any()


def test_a_pyramid_is_its_layers() -> None:
    pyramid, inputs = Pyramid("lstm", 3, 4, layers=2), torch.randn(5, 2, 3)
    below, first = unroll(pyramid.layers[0].cells[0], inputs)  # type: ignore[arg-type, union-attr, index]
    pairs = torch.stack([torch.cat([below[0], below[1]], 1), torch.cat([below[2], below[3]], 1)])
    above, _ = unroll(pyramid.layers[1].cells[0], pairs)  # type: ignore[arg-type, union-attr, index]
    outputs, state, lengths = pyramid(inputs)
    assert_same([outputs[:2], *state[0][0]], [above, *first], 1e-6)
    assert lengths is None and len(outputs) == 3
    again = pyramid(inputs[:4], state)
    assert not torch.equal(again.outputs, pyramid(inputs[:4]).outputs)


@pytest.mark.parametrize("T", range(1, 10))
@pytest.mark.parametrize(
    "options",
    [{}, {"factor": 3}, {"dilation": 2, "learn_start": True}, {"skip": "residual", "batch_first": True}, {"layers": 1}],
    ids=str,
)
def test_a_stream_is_the_whole_sequence(options: dict[str, Any], T: int) -> None:
    torch.manual_seed(0)
    pyramid = Pyramid("lstm", 3, 4, **{"layers": 3, "dropout": 0.5} | options).double().eval()
    inputs = torch.randn(T, 2, 3, dtype=torch.float64, requires_grad=True)
    whole = pyramid(inputs.transpose(0, 1) if pyramid.batch_first else inputs)
    outputs, state = [], None
    for x in inputs:
        output, state = pyramid.step(x, state)
        outputs.append(output)
    assert state is not None
    last, state = pyramid.finish(state)
    found = [output for output in [*outputs, last] if output is not None]
    every = pyramid.factor ** (len(pyramid.layers) - 1)
    assert [t for t, output in enumerate(outputs, start=1) if output is not None] == list(range(every, T + 1, every))
    assert (last is None) == (T % every == 0)
    wanted = whole.outputs.transpose(0, 1) if pyramid.batch_first else whole.outputs
    assert_same(found, list(wanted))
    for got, expected in zip(state.layers, whole.state, strict=True):
        assert_same([field for one in got for field in one], [field for one in expected for field in one])
    (by_step,) = torch.autograd.grad(torch.stack(found).square().sum(), inputs)
    (at_once,) = torch.autograd.grad(wanted.square().sum(), inputs)
    assert_same([by_step], [at_once])


def test_a_stream_goes_on_where_it_was_and_leaves_old_states_alone() -> None:
    pyramid, (a, b, c) = Pyramid("gru", 3, 4), torch.randn(3, 2, 3)
    _, one = pyramid.step(a)
    second, _ = pyramid.step(b, one)
    other, _ = pyramid.step(c, one)
    assert second is not None and other is not None
    assert_same([second, other], [pyramid(torch.stack([a, x])).outputs[0] for x in (b, c)], 1e-6)


def test_dropout_is_of_what_the_layers_above_read() -> None:
    pyramid, x = Pyramid("elman", 3, 4, dropout=1.0, bias=False), torch.randn(2, 3)
    _, state = pyramid.step(x)
    output, state = pyramid.step(x, state)
    assert output is not None and not output.any() and state.layers[0][0].h.all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^factor: too few \(got 0\)"):
        Pyramid("gru", 3, 4, factor=0)
    with pytest.raises(ConfigError, match=r"^dropout: not a probability \(got 2\)"):
        Pyramid("gru", 3, 4, dropout=2)
    with pytest.raises(ConfigError, match=r"^state: does not fit \(got 1\); one per layer, 2"):
        Pyramid("gru", 3, 4)(torch.zeros(5, 2, 3), (None,))
    with pytest.raises(ConfigError, match=r"^inputs: wrong shape \(got \(5, 3\)\)"):
        Pyramid("gru", 3, 4)(torch.zeros(5, 3))
    with pytest.raises(ConfigError, match=r"^step: reads no future \(got bidirectional=True\)"):
        Pyramid("gru", 3, 4, bidirectional=True).step(torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r"^x: wrong shape \(got \(3,\)\)"):
        Pyramid("gru", 3, 4).step(torch.zeros(3))
    state = Pyramid("gru", 3, 4, layers=3).step(torch.zeros(2, 3))[1]
    with pytest.raises(ConfigError, match=r"^state: does not fit \(got 3\); one per layer, 2"):
        Pyramid("gru", 3, 4).step(torch.zeros(2, 3), state)
