"""Decoders that look: reading is stepping, weights are shares of the places, nothing leaks between photos."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from carousel.captioning import Adaptive, Attend, CaptioningConfig, Looked, rows, teacher_forced
from carousel.captioning.attend import doubly_stochastic
from carousel.data.vocabulary import PAD, START, UNKNOWN
from carousel.decoding import beam_search
from carousel.decoding.sentence import select_rows

FEATURES, PLACES, V, S = 5, 3, 9, 6
CAPTIONS = [[4, 5, 6, 7], [8], [], [5, 5, UNKNOWN]]
COUNTS = torch.tensor([1, 3])  # captions of each photo
FORMS = [
    {"decoder": decoder, "cell": cell, "layers": layers, **more}
    for decoder, cell, layers in itertools.product(("attend", "adaptive"), ("lstm", "gru"), (1, 2))
    for more in ([{}] if decoder == "attend" else [{"image_at": at} for at in ("pre", "init", "par")])
] + [{"decoder": "attend", "tied": True}, {"decoder": "adaptive", "tied": True}]
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
every_decoder = pytest.mark.parametrize("form", [{"decoder": "attend"}, {"decoder": "adaptive"}], ids=str)
Looking = Attend | Adaptive


def model(**options: Any) -> Looking:
    torch.manual_seed(0)
    defaults = {"hidden_size": 6, "embedding_size": 4, "attention_size": 5, "dropout": 0.0, "feature_dropout": 0.0}
    config = CaptioningConfig(**{**defaults, **options})
    made = (Attend if config.decoder == "attend" else Adaptive)(config, FEATURES, V, places=PLACES).double()
    torch.nn.init.normal_(made.places.project.weight)  # what is looked at matters from the start
    made.standardise_by(photos(20))
    return made


def photos(n: int = 2, seed: int = 1) -> Looked:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((n, FEATURES), (n, S, PLACES - 1), (n, S, 1))
    return Looked(*(3 + 2 * torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes))


def photo(seen: Looked, k: int) -> Looked:
    return Looked(*(field[k : k + 1] for field in seen))


@every_form
def test_reading_is_stepping(form: dict[str, Any]) -> None:
    decoder, seen = model(**form), photos()
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    logits = decoder(seen, words, lengths, COUNTS)
    assert len(logits) == int(lengths.sum())
    at = 0
    for k, caption in zip([0, 1, 1, 1], CAPTIONS, strict=True):
        step, state = decoder.begin(photo(seen, k))
        for word in (START, *caption):
            ahead, state = step(torch.tensor([word]), state)
            torch.testing.assert_close(ahead[0], logits[at], atol=1e-12, rtol=1e-12)
            at += 1


@every_decoder
def test_rows_of_one_photo_are_side_by_side_in_a_search(form: dict[str, Any]) -> None:
    decoder, seen = model(**form), photos()
    step, state = decoder.begin(seen)
    state = select_rows(state, torch.tensor([0, 0, 0, 1, 1, 1]))
    words = torch.tensor([4, 5, 6, 6, 5, 4])
    together, _ = step(words, state)
    for k, word, found in zip([0, 0, 0, 1, 1, 1], words, together, strict=True):
        alone_step, alone = decoder.begin(photo(seen, k))
        torch.testing.assert_close(alone_step(word[None], alone)[0][0], found, atol=1e-12, rtol=1e-12)
    step, state = decoder.begin(seen)
    both = beam_search(step, state, batch=2, start=START, stop=2, width=3, n_best=3, max_length=5)
    for k in (0, 1):
        step, state = decoder.begin(photo(seen, k))
        [alone_found] = beam_search(step, state, batch=1, start=START, stop=2, width=3, n_best=3, max_length=5)
        assert [sentence.words for sentence in alone_found] == [sentence.words for sentence in both[k]]


@every_form
def test_weights_are_shares_of_all_places(form: dict[str, Any]) -> None:
    decoder = model(**form)
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    weights = decoder.read(photos(), words, lengths, COUNTS).weights
    assert weights is not None and weights.shape == (int(lengths.sum()), S + (form["decoder"] == "adaptive"))
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), dtype=torch.float64))
    assert (weights > 0).all()


@every_decoder
def test_every_place_is_seen_at_every_word(form: dict[str, Any]) -> None:
    decoder, seen = model(**form), photos()
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    before = decoder(seen, words, lengths, COUNTS)
    for place in range(S):
        grid = seen.grid.clone()
        grid[:, place] += 1.0
        changed = (decoder(seen._replace(grid=grid), words, lengths, COUNTS) - before).abs().amax(1)
        assert (changed > 1e-7).all()


@every_decoder
def test_places_have_no_order(form: dict[str, Any]) -> None:
    decoder, seen = model(**form), photos()
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    order = torch.randperm(S)
    turned = seen._replace(grid=seen.grid[:, order], early=seen.early[:, order])
    one, other = (decoder.read(each, words, lengths, COUNTS) for each in (seen, turned))
    torch.testing.assert_close(one.logits, other.logits)
    assert one.weights is not None and other.weights is not None
    torch.testing.assert_close(one.weights[:, order], other.weights[:, :S])


@every_decoder
def test_a_place_that_fits_draws_all_the_attention(form: dict[str, Any]) -> None:
    decoder, seen = model(**form), photos()
    with torch.no_grad():
        score = decoder.attention
        for parameter in score.parameters():
            parameter.zero_()
        score.U.weight[0, 0], score.v.weight[0, 0] = 1.0, 50.0
        decoder.places.project.weight.zero_()
        decoder.places.project.weight[0, 0] = 5.0  # v's first unit is the grid's first channel
    grid = seen.grid.clone()
    grid[0, :, 0], grid[1, :, 0] = 0.0, 0.0
    grid[0, 4, 0], grid[1, 2, 0] = 9.0, 9.0
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    weights = decoder.read(seen._replace(grid=grid), words, lengths, COUNTS).weights
    assert weights is not None
    first = int(lengths[0])
    assert (weights[:first, 4] > 0.99).all() and (weights[first:, 2] > 0.99).all()


@every_form
def test_a_caption_feels_neither_padding_nor_others(form: dict[str, Any]) -> None:
    decoder, seen = model(**form), photos()
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    together = decoder(seen, words, lengths, COUNTS).split(lengths.tolist())
    for row, k in enumerate([0, 1, 1, 1]):
        alone = decoder(photo(seen, k), *teacher_forced([CAPTIONS[row]], 18)[:2])
        torch.testing.assert_close(together[row], alone, atol=1e-12, rtol=1e-12)
    words[words == PAD] = 7
    torch.testing.assert_close(torch.cat(together), decoder(seen, words, lengths, COUNTS), atol=0, rtol=0)
    broken = Looked(*(torch.cat([torch.full_like(field[:1], float("nan")), field[1:]]) for field in seen))
    assert torch.equal(torch.cat(together[1:]), decoder(broken, words, lengths, COUNTS)[int(lengths[0]) :])


@every_form
def test_every_parameter_learns(form: dict[str, Any]) -> None:
    decoder = model(**form)
    words, lengths, targets = teacher_forced([[4, 5, 6, 7, 8], [UNKNOWN, 4]], 18)
    F.cross_entropy(decoder(photos(), words, lengths), targets).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@every_decoder
def test_gradients_are_the_derivatives(form: dict[str, Any]) -> None:
    decoder = model(**form, hidden_size=3, embedding_size=2)
    words, lengths, targets = teacher_forced([[4, 5], [6]], 18)
    names, parameters = zip(*decoder.named_parameters(), strict=True)

    def loss(grid: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        seen = photos()._replace(grid=grid)
        return F.cross_entropy(torch.func.functional_call(decoder, given, (seen, words, lengths)), targets)

    inputs = [photos().grid.requires_grad_(), *(p.detach().clone().requires_grad_() for p in parameters)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_the_sentinel_is_the_last_place() -> None:
    decoder, seen = model(decoder="adaptive"), photos()
    assert isinstance(decoder, Adaptive)
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    with torch.no_grad():
        score = decoder.attention
        score.U.weight.zero_()
        score.W.weight.zero_()
        score.v.weight.fill_(1.0)
        decoder.gate.bias.fill_(50.0)  # s = h
        decoder.sentinel_key.weight.zero_()
        reading = decoder.read(seen, words, lengths, COUNTS)
        way = decoder._unrolled(seen, words, lengths, COUNTS)
    assert reading.weights is not None
    torch.testing.assert_close(reading.weights, torch.full_like(reading.weights, 1 / (S + 1)))
    h = torch.cat([hidden[:n] for hidden, n in zip(way.hidden.unbind(1), lengths.tolist(), strict=True)])
    v = decoder.places(seen).transpose(0, 1)[[0] * 5 + [1] * 7]
    torch.testing.assert_close(reading.logits, decoder._logits((v.sum(1) + h) / (S + 1) + h))


def test_doubly_stochastic_is_least_when_every_place_was_looked_at_once() -> None:
    lengths = torch.tensor([3, 3])
    even = torch.eye(3).repeat(2, 1)
    assert float(doubly_stochastic(even, lengths)) == 0.0
    assert float(doubly_stochastic(even[[0, 0, 0, 3, 4, 5]], lengths)) == pytest.approx((4 + 1 + 1) / 6)


def test_places_are_standardised() -> None:
    decoder, seen = model(decoder="adaptive"), photos(40, seed=3)
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    few = rows(seen, [0, 1])
    few = Looked(*(field.double() for field in few))
    before = decoder(few, words, lengths, COUNTS)
    shift = torch.tensor([5.0, -7.0], dtype=torch.float64)
    decoder.places.mean[:2] = decoder.places.mean[:2] * 3 + shift
    decoder.places.scale[:2] *= 3
    torch.testing.assert_close(decoder(few._replace(grid=few.grid * 3 + shift), words, lengths, COUNTS), before)


@pytest.mark.parametrize("options", [{"predict_start": True}, {"image_at": "merge"}], ids=str)
@pytest.mark.parametrize("decoder", ["attend", "adaptive"])
def test_what_belongs_to_nic_alone(decoder: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"only with image_at = pre, decoder = nic|which looks after"):
        CaptioningConfig(decoder=decoder, **options)


def test_pooled_features_are_not_enough() -> None:
    with pytest.raises(TypeError, match="needs the grid"):
        model(decoder="adaptive").begin(photos().pooled)
