"""The auxiliary loss: where its gradient goes, what it tells, and what draws its anchors."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from carousel.errors import ConfigError
from carousel.nn import Recurrent
from carousel.training import Anchor, AuxiliaryLoss, auxiliary, truncated

T, B, SEGMENT, REACH = 30, 2, 3, 5
Tells = Literal["past", "future"]


def made(tells: Tells = "past", kind: str = "lstm", **options: Any) -> tuple[Recurrent, AuxiliaryLoss]:
    torch.manual_seed(0)
    network = Recurrent(kind, 4, 6)
    decoder = Recurrent(kind, 4, 6, layers=2) if tells == "past" else Recurrent(kind, 6, 6)
    return network, AuxiliaryLoss(decoder, nn.Linear(6, 4), segment=SEGMENT, reach=REACH, tells=tells, **options)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reached(tells: Tells, seed: int) -> tuple[set[int], set[int]]:
    """The steps whose inputs have a gradient, and those that should."""
    network, loss = made(tells)
    inputs = torch.randn(T, B, 4, requires_grad=True)
    loss(network, inputs, generator=draws(seed)).backward()
    assert inputs.grad is not None
    found = set(inputs.grad.abs().sum((1, 2)).nonzero().flatten().tolist())
    [(at, start)] = loss.anchors(T, draws(seed))
    read = range(start, start + SEGMENT)  # by the decoder, or of the network's outputs
    return found, {*range(max(0, at - REACH), at), *read}


@pytest.mark.parametrize("tells", ["past", "future"])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_goes_back_so_far_and_no_further(tells: Tells, seed: int) -> None:
    found, expected = reached(tells, seed)
    assert found == expected


def test_a_cut_that_is_forgotten_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary, "truncated", lambda network, inputs, steps, state=None: network(inputs, state))
    assert all(found > expected for found, expected in (reached("past", seed) for seed in range(1, 4)))


@pytest.mark.parametrize("tells", ["past", "future"])
def test_all_weights_learn(tells: Tells) -> None:
    network, loss = made(tells)
    loss(network, torch.randn(T, B, 4), generator=draws()).backward()
    assert all(p.grad is not None and p.grad.any() for p in [*network.parameters(), *loss.parameters()])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("tells", ["past", "future"])
def test_it_is_the_loss_written_out(tells: Tells, kind: str) -> None:
    """Step by step: what stands k steps behind the segment's first is told after the decoder's k-th step."""
    network, loss = made(tells, kind, anchors=2)
    inputs, told = torch.randn(T, B, 4), list[Tensor]()
    for at, start in loss.anchors(T, draws(3)):
        state, outputs = None, []
        for x in inputs:
            if tells == "past" and len(outputs) == at:
                break
            h, state = network.step(x, state)
            outputs.append(h)
        lower = state if tells == "past" else ()
        own = (*lower, *loss.decoder.initial_state(B)[len(lower) :])
        for k in range(start, start + SEGMENT):
            y, own = loss.decoder.step(inputs[k] if tells == "past" else outputs[k], own)
            told.append((loss.readout(y) - inputs[k + 1]).square().mean())
    expected = torch.stack(told).mean()
    assert loss(network, inputs, generator=draws(3)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_seed_decides_the_anchors() -> None:
    network, loss = made(anchors=3)
    inputs = torch.randn(T, B, 4)
    values = [loss(network, inputs, generator=draws(seed)).item() for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("tells", ["past", "future"])
def test_anchors_are_everywhere_and_segments_where_they_should(tells: Tells) -> None:
    anchors = made(tells, anchors=2000)[1].anchors(T, draws())
    if tells == "past":
        assert {a.at for a in anchors} == set(range(SEGMENT + 1, T + 1))
        assert {a.start for a in anchors} == set(range(T - SEGMENT))
        assert all(a.start + SEGMENT < a.at for a in anchors)
    else:
        assert {a.at for a in anchors} == set(range(1, T - SEGMENT + 1))
        assert all(a.start == a.at - 1 for a in anchors)
    assert made(tells)[1].anchors(SEGMENT + 1, draws()) == [Anchor(SEGMENT + 1, 0) if tells == "past" else Anchor(1, 0)]


def test_truncating_changes_no_value() -> None:
    network = made()[0]
    inputs = torch.randn(T, B, 4)
    outputs, state = network(inputs)
    last, end = truncated(network, inputs, 7)
    assert torch.allclose(last, outputs[-7:], atol=1e-6) and torch.allclose(end[0].c, state[0].c, atol=1e-6)
    assert torch.equal(truncated(network, inputs, T + 1)[0], outputs)


def test_what_cannot_be_is_one_line() -> None:
    network, loss = made()
    with pytest.raises(ConfigError, match=r"^inputs: too short for a segment \(got 3 steps\); 4 or more; a smaller"):
        loss(network, torch.randn(3, B, 4), generator=draws())
    with pytest.raises(ConfigError, match=r"^network: no state in the middle of \(T, B, I\) \(got bidirectional=True"):
        loss(Recurrent("gru", 4, 6, bidirectional=True), torch.randn(T, B, 4), generator=draws())
    with pytest.raises(ConfigError, match=r"^reach: not a number of them \(got 0\); 1 or more"):
        AuxiliaryLoss(loss.decoder, loss.readout, segment=3, reach=0)
    with pytest.raises(ConfigError, match=r"^tells: unknown \(got 'now'\); past, future"):
        AuxiliaryLoss(loss.decoder, loss.readout, segment=3, reach=3, tells="now")  # type: ignore[arg-type]
