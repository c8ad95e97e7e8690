"""The units that are picked are those that were made to stand out."""

from __future__ import annotations

import torch

from carousel.diagnostics import LayerDiagnosis
from carousel.diagnostics.units import telling_units


def test_planted_units_are_picked_for_what_they_do() -> None:
    generator = torch.Generator().manual_seed(0)
    states = 0.1 * torch.randn(12, 6, 20, generator=generator)
    tokens = [["dog" if (3 * b + t) % 5 == 0 else f"word{t}" for t in range(12)] for b in range(6)]
    at_dog = torch.tensor([[token == "dog" for token in line] for line in tokens]).T
    states[..., 4] += 3.0 * at_dog.cumsum(0)  # a counter of dogs
    states[..., 7] *= 100  # large, for no reason
    states[..., 9] += torch.arange(12)[:, None]  # a clock
    states[..., 11] *= 5
    memory = torch.full((20,), 2.0)
    memory[11] = 50.0
    layer = LayerDiagnosis("layer 1", torch.full((6,), 12), {"c": states}, [], {"c": memory}, None, {})
    found = {unit.number: unit.why for unit in telling_units(layer, tokens)}
    assert found[4].startswith("reacts most to “dog”: +3.")
    assert found[7].startswith("swings most")
    assert found[11] == "remembers longest of those that move: 50.0 steps"
    assert found[9].startswith("follows the position: correlation 1.00") or found[9].startswith("swings most")
    assert torch.equal(telling_units(layer, tokens)[0].values, states[..., 4])
