"""The maximum-entropy language model: its features, its gradient, what it learns, and its search."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from carousel.captioning.coverage import Covering, search
from carousel.captioning.melm import Evidence, MaxEntModel, Noise, Standing, nce_loss
from carousel.captioning.ngrams import NGrams, Tokens, tokens
from carousel.data.vocabulary import PAD, START, STOP

SIZE = 8  # of the vocabulary: four specials and words 4..7
CORPUS = [[4, 5, 6], [4, 5, 7], [4, 6], [5, 4, 5, 6, 7], [7]]


def evidence(*photos: dict[int, float], size: int = SIZE) -> Evidence:
    """Photos by the log-probabilities of their detected concepts."""
    score = torch.zeros(len(photos), size, dtype=torch.float64)
    detected = torch.zeros(len(photos), size, dtype=torch.bool)
    for i, photo in enumerate(photos):
        for word, logp in photo.items():
            score[i, word], detected[i, word] = logp, True
    return Evidence(detected, score)


def random_model(order: int = 4, seed: int = 0, scale: float = 1.0) -> MaxEntModel:
    model = MaxEntModel(NGrams.of(tokens(CORPUS, order), SIZE, order), triggers=3).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.requires_grad_(False)


def by_hand(model: MaxEntModel, words: list[int], word: int, photo: dict[int, float]) -> float:
    """s(w) as the docstring has it, feature by feature; `photo` has the detected concepts alone."""
    before, said = ([START] * 3 + words)[-3:], set(words)
    sentences = [[START] * (model.ngrams.order - 1) + sentence + [STOP] for sentence in CORPUS]
    unsaid = set(photo) - said
    total = float(model.weights[word, 0] + (model.weights[word, 1] if word in unsaid else 0))
    for n in range(2, model.ngrams.order + 1):
        grams = {tuple(s[i : i + n]) for s in sentences for i in range(model.ngrams.order - n, len(s) - n + 1)}
        gram = (*before[-(n - 1) :], word)
        if gram in grams:
            index = model.ngrams.starts[n - 2] + sorted(grams).index(gram)
            total += float(model.weights[index, 0] + (model.weights[index, 1] if word in unsaid else 0))
    if word in unsaid:
        total += float(model.attribute + model.score[word] * photo[word])
    if word in said:
        total += float(model.repeat[word])
    if word == STOP:
        total += float(model.length[len(words)] + (0 if unsaid else model.end))
    return total + float(sum(model.trigger[u - 4, word] for u in said if u - 4 < model.triggers))


# --- n-grams ----------------------------------------------------------------------------------------------------------


def test_ngrams_are_those_of_the_corpus() -> None:
    corpus = tokens(CORPUS, 3)
    found = NGrams.of(corpus, SIZE, 3, min_count=2)
    padded = [[START, START, *words, STOP] for words in CORPUS]
    pairs = Counter(pair for words in padded for pair in itertools.pairwise(words[1:]))
    triples = Counter(triple for words in padded for triple in zip(words, words[1:], words[2:], strict=False))
    for a, b, c in itertools.product(range(SIZE), repeat=3):
        one, two, three = found.find(torch.tensor([[a, b]]), torch.tensor([[c]]))[0, 0].tolist()
        assert one == c and (two >= 0) == (pairs[b, c] >= 2) and (three >= 0) == (triples[a, b, c] >= 2)
    assert found.features == SIZE + sum(n >= 2 for n in pairs.values()) + sum(n >= 2 for n in triples.values())


def test_what_goes_on_is_what_is_found() -> None:
    found = NGrams.of(tokens(CORPUS, 4), SIZE, 4)
    before = torch.tensor([[START, 4, 5], [7, 7, 7], [4, 5, 6]])
    row, word, feature = found.after(before)
    listed = {(r, w, f) for r, w, f in zip(row.tolist(), word.tolist(), feature.tolist(), strict=True)}
    every = found.find(before, torch.arange(SIZE).expand(3, -1))[:, :, 1:]
    looked_up = {(r, w, f) for r in range(3) for w in range(SIZE) for f in every[r, w].tolist() if f >= 0}
    assert listed == looked_up and len(listed) == len(row) > 5


def test_an_order_that_does_not_fit_is_lowered() -> None:
    assert NGrams.of(tokens([[4]], 4), 2**20, 4).order == 3


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photo", [{}, {4: -0.5}, {4: -0.5, 6: -2.0, 7: -0.1}])
def test_the_score_is_the_sum_of_the_features(photo: dict[int, float]) -> None:
    model, seen = random_model(), evidence(photo)
    for said in ([], [4], [4, 5], [4, 5, 6, 7], [6, 6]):
        unsaid = Standing.begin(seen)
        for word in said:
            unsaid = unsaid.say(torch.tensor([word]))
        before = ([START] * 3 + said)[-3:]
        logits = model.logits(torch.tensor([before]), unsaid)[0]
        expected = [by_hand(model, said, word, photo) for word in range(SIZE)]
        assert logits.tolist() == pytest.approx(expected)


def test_a_word_in_doubt_has_its_own_feature() -> None:
    seen = Evidence(torch.zeros(1, SIZE, dtype=torch.bool), torch.zeros(1, SIZE, dtype=torch.float64))
    seen.score[0, 5] = -2.0
    model, before = random_model(), torch.tensor([[START, START, START]])
    begun = Standing.begin(seen)
    without = model.logits(before, begun._replace(score=torch.zeros_like(seen.score)))
    difference = model.logits(before, begun) - without
    assert difference[0, 5].item() == pytest.approx(-2.0 * model.absence[5].item())
    assert torch.equal(difference[0, torch.arange(SIZE) != 5], torch.zeros(SIZE - 1, dtype=torch.float64))
    said = begun.say(torch.tensor([5]))
    assert torch.equal(model.logits(before, said), model.logits(before, said._replace(score=0 * seen.score)))


def test_some_words_are_scored_as_all_are() -> None:
    model, seen = random_model(), evidence({4: -0.5, 6: -2.0}, {5: -1.0})
    unsaid = Standing.begin(seen).say(torch.tensor([4, 5]))  # the second photo has nothing left
    before, words = torch.tensor([[START, START, 4], [START, START, 5]]), torch.tensor([[6, STOP, 4], [7, STOP, 5]])
    some = unsaid.of(words)
    assert torch.allclose(model.scores(before, words, some), model.logits(before, unsaid).gather(1, words))


def test_its_gradient_is_that_of_finite_differences() -> None:
    model, seen = random_model(scale=0.3), evidence({4: -0.5, 6: -2.0}, {5: -1.0})
    before, words = torch.tensor([[START, START, 4], [START, START, 5]]), torch.tensor([[6, STOP, 4], [7, STOP, 5]])
    unsaid = Standing.begin(seen).say(torch.tensor([4, 5]))
    some = unsaid.of(words)
    noise = torch.full(words.shape, math.log(0.2), dtype=torch.float64)

    def loss(*parameters: Tensor) -> Tensor:
        named = dict(zip((name for name, _ in model.named_parameters()), parameters, strict=True))
        return nce_loss(torch.func.functional_call(_Scores(model), {f"model.{n}": p for n, p in named.items()},
                                                   (before, words, some)), noise)  # fmt: skip

    assert torch.autograd.gradcheck(loss, tuple(p.detach().requires_grad_() for p in model.parameters()))


class _Scores(torch.nn.Module):
    def __init__(self, model: MaxEntModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, before: Tensor, words: Tensor, unsaid: Standing) -> Tensor:
        return self.model.scores(before, words, unsaid)


# --- noise-contrastive estimation -------------------------------------------------------------------------------------


def test_the_noise_has_the_distribution_that_it_says() -> None:
    corpus = tokens(CORPUS, 3)
    noise, previous = Noise(corpus, SIZE), torch.tensor([4, START, 3])  # nothing follows 3
    chances = noise.logprob(previous, torch.arange(SIZE).expand(3, -1)).exp()
    assert chances.sum(1).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert chances[0, 5].item() == pytest.approx(0.5 * 4 / 19 + 0.5 * 3 / 4)  # 5: 4 of 19 tokens, 3 of 4 after a 4
    drawn = noise.draw(previous, 20_000, torch.Generator().manual_seed(0))
    shares = torch.stack([torch.bincount(row, minlength=SIZE) for row in drawn]) / 20_000
    assert (shares - chances).abs().max() < 0.015


def test_the_loss_is_the_one_in_the_paper() -> None:
    scores, noise = torch.tensor([[0.3, -0.2, 0.5]]), torch.tensor([[-1.0, -2.0, -0.5]])
    ratio = scores.exp() / (scores.exp() + 2 * noise.exp())
    assert nce_loss(scores, noise).item() == pytest.approx(-float(ratio[0, 0].log() + (1 - ratio[0, 1:]).log().sum()))


def trained(corpus: Tokens, size: int, seen: Evidence, photo: Tensor, steps: int = 250) -> MaxEntModel:
    """By the whole corpus in each step."""
    model, noise = MaxEntModel(NGrams.of(corpus, size, 2)), Noise(corpus, size)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(0)
    prefix = torch.zeros(len(corpus.word), int(corpus.place.max()), dtype=torch.int64)
    for i, place in enumerate(corpus.place.tolist()):
        prefix[i, :place] = corpus.word[i - place : i]
    at = Standing.after(seen.rows(photo).float(), prefix)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.3 * (1 - step / steps)
        words = torch.cat([corpus.word[:, None], noise.draw(corpus.before[:, -1], 10, generator)], 1)
        scores = model.scores(corpus.before, words, at.of(words))
        optimiser.zero_grad()
        nce_loss(scores, noise.logprob(corpus.before[:, -1], words)).backward()
        optimiser.step()
    return model


def test_it_converges_to_the_distribution_of_a_grammar() -> None:
    after = {START: {4: 0.7, 5: 0.3}, 4: {5: 0.5, 6: 0.5}, 5: {6: 0.9, STOP: 0.1}, 6: {STOP: 1.0}}
    draw = torch.Generator().manual_seed(0)
    sentences = []
    for _ in range(1000):
        words = [START]
        while words[-1] != STOP:
            chances = torch.tensor(list(after[words[-1]].values()))
            words.append(list(after[words[-1]])[int(torch.multinomial(chances, 1, generator=draw))])
        sentences.append(words[1:-1])
    corpus, nothing = tokens(sentences, 2), evidence({})
    model = trained(corpus, SIZE, nothing, corpus.sentence * 0)
    with torch.no_grad():
        begun = Standing.after(
            nothing.rows(torch.zeros(4).long()), torch.tensor([[PAD, PAD], [4, PAD], [5, PAD], [4, 6]])
        )
        scores = model.logits(torch.tensor([[START], [4], [5], [6]]), begun)
    for row, words in zip(scores.exp(), after.values(), strict=True):  # normalised without being told to
        for word, chance in words.items():
            assert row[word].item() == pytest.approx(chance, abs=0.05)


def test_it_learns_to_say_what_is_seen() -> None:
    colours = [5, 6, 7]
    photos = [{colour: -0.1} for colour in colours] * 10
    corpus = tokens([[4, *photo] for photo in photos], 2)
    model = trained(corpus, SIZE, evidence(*photos), corpus.sentence, steps=200)
    for photo, lists in zip(photos[:3], search(model, evidence(*photos[:3]).float(), width=5, most=3), strict=True):
        assert lists[0].sentence.words == (4, *photo) and lists[0].covered == 1


# --- the search -------------------------------------------------------------------------------------------------------


def exhaustive(model: MaxEntModel, photo: dict[int, float], longest: int) -> dict[tuple[int, ...], float]:
    """Log-probabilities of all sentences of at most `longest` words."""
    seen, found = evidence(photo), {}
    for length in range(1, longest + 1):
        for words in itertools.product(range(4, SIZE), repeat=length):
            unsaid, total = Standing.begin(seen), 0.0
            for t, word in enumerate((*words, STOP)):
                before = ([START] * 3 + list(words[:t]))[-3:]
                total += model.logits(torch.tensor([before]), unsaid).log_softmax(1)[0, word].item()
                unsaid = unsaid.say(torch.tensor([word]))
            found[words] = total
    return found


def test_a_wide_beam_finds_what_an_exhaustive_search_finds() -> None:
    photos = [{4: -0.5, 6: -2.0}, {}]
    model = random_model(seed=3)
    with torch.no_grad():
        lists = search(model, evidence(*photos), width=4**3, most=20, cover=0, max_length=3)
        for found, photo in zip(lists, photos, strict=True):
            every = exhaustive(model, photo, 3)
            best = sorted(every, key=lambda words: -every[words])[:20]
            assert [one.sentence.words for one in found] == best
            assert [one.sentence.logprob for one in found] == pytest.approx([every[words] for words in best])
            assert [one.covered for one in found] == [len(set(words) & set(photo)) for words in best]
            for one in found:
                assert sum(one.sentence.word_logprobs) > one.sentence.logprob  # without the stop


def test_sentences_that_cover_more_go_before() -> None:
    photo = {4: -0.5, 6: -2.0, 7: -1.0}
    model = random_model(seed=3)
    with torch.no_grad():
        every = exhaustive(model, photo, 4)
        covers = {words: len(set(words) & set(photo)) for words in every}
        for cover, most in ((3, 5), (3, 60), (2, 5), (1, 10), (9, 5)):
            threshold = cover
            while sum(count >= threshold for count in covers.values()) < most:
                threshold -= 1
            allowed = sorted((w for w in every if covers[w] >= threshold), key=lambda words: -every[words])
            [found] = search(model, evidence(photo), width=4**4, most=most, cover=cover, max_length=4)
            assert [one.sentence.words for one in found] == allowed[:most], (cover, most)


def test_a_sentence_ends_where_its_end_is_likely() -> None:
    photo, model = {4: -0.5, 6: -2.0}, random_model(seed=3)
    with torch.no_grad():
        every = exhaustive(model, photo, 3)
        for endings in (1, 2, 4):
            allowed = {}
            for words in every:
                at = Standing.begin(evidence(photo))
                for word in words:
                    at = at.say(torch.tensor([word]))
                before = ([START] * 3 + list(words))[-3:]
                logits = model.logits(torch.tensor([before]), at)[0]
                likelier = int((logits > logits[STOP]).sum())
                if len(words) == 3 or likelier < endings:
                    allowed[words] = every[words]
            best = sorted(allowed, key=lambda words: -allowed[words])
            [found] = search(model, evidence(photo), width=4**3, most=999, cover=0, endings=endings, max_length=3)
            assert [one.sentence.words for one in found] == best and len(best) < len(every), endings


def test_each_photo_of_a_batch_has_its_own_sentences() -> None:
    photos, model = [{4: -0.5}, {}, {5: -1.0, 6: -0.1, 7: -3.0}], random_model(seed=5)
    with torch.no_grad():
        together = search(model, evidence(*photos), width=6, most=4, max_length=5)
        alone: list[list[Covering]] = [search(model, evidence(p), width=6, most=4, max_length=5)[0] for p in photos]
    for these, those in zip(together, alone, strict=True):
        assert [one.sentence.words for one in these] == [one.sentence.words for one in those]
