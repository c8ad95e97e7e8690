"""The CRF against all sequences written out."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

from carousel.nn import LinearChainCRF, TagRules

K = 3
LENGTHS = torch.tensor([4, 1, 3])


@pytest.fixture
def crf() -> LinearChainCRF:
    found = LinearChainCRF(K).double()
    draw = torch.Generator().manual_seed(0)
    for weights in found.parameters():
        nn.init.normal_(weights, generator=draw)
    return found


@pytest.fixture
def emissions() -> Tensor:
    return torch.randn(4, len(LENGTHS), K, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def written_out(crf: LinearChainCRF, emissions: Tensor) -> dict[tuple[int, ...], float]:
    """s of every sequence for emissions (T, K), by the definition."""
    found = {}
    for tags in product(range(K), repeat=len(emissions)):
        score = (crf.first[tags[0]] + crf.last[tags[-1]]).item()
        score += sum(emissions[t, k].item() for t, k in enumerate(tags))
        found[tags] = score + sum(crf.then[i, j].item() for i, j in pairwise(tags))
    return found


def test_scores_and_partition_are_those_of_all_sequences(crf: LinearChainCRF, emissions: Tensor) -> None:
    log_z = crf.log_partition(emissions, LENGTHS)
    for b, T in enumerate(LENGTHS.tolist()):
        all_of_them = written_out(crf, emissions[:T, b])
        expected = torch.tensor(list(all_of_them.values()), dtype=torch.double).logsumexp(0)
        assert torch.allclose(log_z[b], expected, atol=1e-12)
        for tags, score in all_of_them.items():
            padded = torch.full((4, 3), 2)
            padded[:T, b] = torch.tensor(tags)
            assert crf.score(emissions, padded, LENGTHS)[b].item() == pytest.approx(score, abs=1e-12)


def test_probabilities_of_all_sequences_add_up_to_one(crf: LinearChainCRF, emissions: Tensor) -> None:
    one, length = emissions[:, :1], torch.tensor([4])
    every = product(range(K), repeat=4)
    assert sum(crf(one, torch.tensor(tags)[:, None], length).exp().item() for tags in every) == pytest.approx(
        1, abs=1e-12
    )


def test_marginals_are_sums_over_sequences(crf: LinearChainCRF, emissions: Tensor) -> None:
    with torch.inference_mode():
        found = crf.marginals(emissions + 0, LENGTHS)
    for b, T in enumerate(LENGTHS.tolist()):
        expected = torch.zeros(4, K, dtype=torch.double)
        z = crf.log_partition(emissions, LENGTHS)[b].item()
        for tags, score in written_out(crf, emissions[:T, b]).items():
            expected[torch.arange(T), list(tags)] += torch.tensor(score - z, dtype=torch.double).exp()
        assert torch.allclose(found[:, b], expected, atol=1e-12)


@pytest.mark.parametrize("ruled", [False, True])
def test_decoding_finds_the_best_that_is_allowed(crf: LinearChainCRF, emissions: Tensor, ruled: bool) -> None:
    first, then = torch.tensor([True, False, True]), torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]]) == 1
    rules = TagRules(first, then, torch.tensor([True, True, False])) if ruled else None
    path = crf.decode(emissions, LENGTHS, rules)
    differs = 0
    for b, T in enumerate(LENGTHS.tolist()):
        every = written_out(crf, emissions[:T, b])
        allowed = {
            tags: score
            for tags, score in every.items()
            if rules is None or (first[tags[0]] and rules.last[tags[-1]] and all(then[pair] for pair in pairwise(tags)))
        }
        best = max(allowed, key=allowed.__getitem__)
        assert tuple(path[:T, b].tolist()) == best and (path[T:, b] == best[-1]).all()
        differs += best != max(every, key=every.__getitem__)
    assert bool(differs) == ruled  # the rules cost something here


def test_gradients_in_float64(crf: LinearChainCRF, emissions: Tensor) -> None:
    tags = torch.tensor([[0, 1, 2], [1, 0, 0], [2, 2, 1], [0, 1, 1]])
    weights = [parameter.detach().clone().requires_grad_() for parameter in crf.parameters()]

    def log_p(e: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(("first", "then", "last"), values, strict=True))
        found: Tensor = torch.func.functional_call(crf, named, (e, tags, LENGTHS))
        return found

    assert torch.autograd.gradcheck(log_p, (emissions.requires_grad_(), *weights))


def test_padding_never_leaks(crf: LinearChainCRF, emissions: Tensor) -> None:
    tags = torch.tensor([[0, 1, 2], [1, 0, 0], [2, 2, 1], [0, 1, 1]])
    padding = torch.arange(4)[:, None] >= LENGTHS
    for noise in (1e4, -1e4):
        other = emissions.masked_fill(padding[..., None], noise).requires_grad_()
        assert torch.equal(crf(other, tags.masked_fill(padding, 1), LENGTHS), crf(emissions, tags, LENGTHS))
        assert torch.equal(crf.decode(other, LENGTHS)[~padding], crf.decode(emissions, LENGTHS)[~padding])
        crf(other, tags, LENGTHS).sum().backward()  # type: ignore[no-untyped-call]
        assert other.grad is not None and not other.grad[padding].any()


def test_without_transitions_it_is_a_softmax_at_every_step(emissions: Tensor) -> None:
    crf = LinearChainCRF(K, learned=False).double()
    tags = torch.tensor([[0, 1, 2], [1, 0, 0], [2, 2, 1], [0, 1, 1]])
    steps = emissions.log_softmax(2).gather(2, tags[..., None])[..., 0]
    real = torch.arange(4)[:, None] < LENGTHS
    assert torch.allclose(crf(emissions, tags, LENGTHS), (steps * real).sum(0))
    assert not any(parameter.requires_grad for parameter in crf.parameters())


def test_scores_far_apart_stay_finite(crf: LinearChainCRF) -> None:
    e = torch.tensor([1e3, 0.0, -1e3]).expand(50, 2, K)
    lengths = torch.tensor([50, 7])
    found = crf.float()(e, torch.zeros(50, 2, dtype=torch.long), lengths)
    assert found.isfinite().all() and (found.abs() < 1e-6 * 5e4).all()  # of scores of 50,000, in float32


def test_decoding_in_a_batch_is_decoding_alone_whatever_the_padding(crf: LinearChainCRF) -> None:
    """Of many sequences, and with tags that seldom stay: else a wrong step back out of the padding hardly shows."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        crf.then.copy_(crf.then.roll(1, 0))
    lengths = torch.arange(60) % 6 + 1
    emissions = torch.randn(6, 60, K, dtype=torch.double, generator=draw)
    padding = torch.arange(6)[:, None] >= lengths
    noise = 100 * torch.randn(6, 60, K, dtype=torch.double, generator=draw)
    together = crf.decode(emissions.where(~padding[..., None], noise), lengths)
    for b, T in enumerate(lengths.tolist()):
        every = written_out(crf, emissions[:T, b])
        alone = crf.decode(emissions[:T, b : b + 1], lengths[b : b + 1])[:, 0]
        assert tuple(alone.tolist()) == max(every, key=every.__getitem__)
        assert torch.equal(together[:T, b], alone) and (together[T:, b] == alone[-1]).all()
