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


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^factor: too few \(got 0\)"):
        Pyramid("gru", 3, 4, factor=0)
    with pytest.raises(ConfigError, match=r"^dropout: not a probability \(got 2\)"):
        Pyramid("gru", 3, 4, dropout=2)
    with pytest.raises(ConfigError, match=r"^state: does not fit \(got 1\); one per layer, 2"):
        Pyramid("gru", 3, 4)(torch.zeros(5, 2, 3), (None,))
    with pytest.raises(ConfigError, match=r"^inputs: wrong shape \(got \(5, 3\)\)"):
        Pyramid("gru", 3, 4)(torch.zeros(5, 3))
