"""The similarity model: trigrams, the two towers, the loss, its training and its file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from carousel.captioning.dmsm import DMSM, SimilarityConfig, Trigrams, letter_trigrams, similarity_loss
from carousel.captioning.similarity import Captioned, SimilarityTask, cosines, load, retrieved, save
from carousel.errors import ModelFileError
from carousel.training import RunFolder, fit

SENTENCES = [["a", "dog"], ["two", "dogs", "run", "fast"], ["cat"]]
SMALL = SimilarityConfig(
    trigram_size=12, maps=16, size=10, negatives=5, batch_size=12, epochs=8, learning_rate=0.02, patience=20,
    dropout=0.0, feature_dropout=0.0, averaging=0.0,
)  # fmt: skip


def small(features: int = 6, config: SimilarityConfig = SMALL) -> DMSM:
    torch.manual_seed(0)
    return DMSM(config, features, Trigrams.build(word for words in SENTENCES for word in words))


def test_a_word_of_n_letters_has_n_trigrams_each_counted() -> None:
    assert letter_trigrams("aaaa") == ["#aa", "aaa", "aaa", "aa#"]
    known = Trigrams.build(["aaaa", "b"])
    assert known.to_list() == ["#aa", "#b#", "aa#", "aaa"]
    assert sorted(known.numbers("aaaa")) == [0, 2, 3, 3] and known.numbers("xyz") == []


def test_a_word_is_the_sum_of_its_trigrams_vectors() -> None:
    model = small().eval()
    table = model.embedding.weight
    numbers = model.trigrams.numbers("dogs")
    torch.testing.assert_close(model._words(["dogs"])[1], sum(table[number] for number in numbers))
    assert len(numbers) == 4


def test_similar_words_share_most_of_their_vector_and_unknown_ones_have_none() -> None:
    model = small().eval()
    pad, dog, dogs, never = model._words(["dog", "dogs", "xyz"])
    assert not pad.any() and not never.any()
    assert torch.cosine_similarity(dog, dogs, 0) > 0.3


def test_padding_never_leaks() -> None:
    model = small().eval()
    together = model.sentences(SENTENCES)
    alone = torch.cat([model.sentences([words]) for words in SENTENCES])
    torch.testing.assert_close(together, alone)


def test_a_sentence_without_words_has_a_vector_and_gradients_are_finite() -> None:
    model = small()
    found = model.sentences([[], ["dog"]])
    found.sum().backward()
    assert found.isfinite().all() and model.embedding.weight.grad is not None
    assert model.embedding.weight.grad.isfinite().all()


def direct_loss(cosines: Tensor, photo: Tensor, gamma: float) -> float:
    """The formula, one pair after the other."""
    total = 0.0
    for i in range(len(photo)):
        others = [j for j in range(len(photo)) if photo[j] != photo[i]]
        true = math.exp(gamma * float(cosines[i, i]))
        total -= math.log(true / (true + sum(math.exp(gamma * float(cosines[i, j])) for j in others)))
    return total / len(photo)


def test_the_loss_is_the_formula_and_the_same_photos_other_captions_are_no_negatives() -> None:
    photo = torch.tensor([0, 1, 1, 2, 3])
    R = torch.rand(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    assert similarity_loss(R, photo, 10.0, 50).item() == pytest.approx(direct_loss(R, photo, 10.0), rel=1e-12)


def test_so_many_negatives_are_drawn_and_never_a_caption_of_the_same_photo() -> None:
    photo, R = torch.tensor([0, 0, 0, 1, 2, 3, 4]), torch.zeros(7, 7)
    drawn = similarity_loss(R, photo, 1.0, 3, torch.Generator().manual_seed(0))
    assert drawn.exp().item() == pytest.approx(4)  # the true one and three others, all alike
    R[:3, :3] = 99.0
    R.fill_diagonal_(0.0)
    again = similarity_loss(R, photo, 1.0, 3, torch.Generator().manual_seed(0))
    assert again.exp().item() == pytest.approx(4)
    few = similarity_loss(torch.zeros(4, 4), torch.tensor([0, 0, 0, 1]), 1.0, 2, torch.Generator().manual_seed(0))
    assert few.item() == pytest.approx((3 * math.log(2) + math.log(3)) / 4)


def test_gradients_of_the_model_and_its_loss() -> None:
    model = small(3, SMALL.model_copy(update={"trigram_size": 3, "maps": 3, "size": 2})).double().eval()
    photos = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    names = [name for name, _ in model.named_parameters()]

    def loss(*parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        found = torch.func.functional_call(model, state, (photos, SENTENCES))
        return similarity_loss(found, torch.arange(3), 10.0, 50)

    assert torch.autograd.gradcheck(loss, [p.detach().requires_grad_() for p in model.parameters()])


def test_first_right_one_counts_both_ways() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.8], [0.5, 0.4, 0.3]])
    both = retrieved(scores, torch.tensor([0, 0, 1]))
    assert both.annotation.recall_1 == 0.5 and both.annotation.median_rank == 2.0  # ranks 1 and 3
    assert both.search.recall_1 == pytest.approx(1 / 3)  # the second caption fits the other photo better, so the third


def planted(n: int, seed: int) -> Captioned:
    """Photos of one of three things in one of four places, with sentences that say both."""
    draw = torch.Generator().manual_seed(seed)
    thing, place = torch.randint(3, (n,), generator=draw), torch.randint(4, (n,), generator=draw)
    features = torch.cat([torch.eye(3)[thing], torch.eye(4)[place]], 1) + 0.1 * torch.randn(n, 7, generator=draw)
    things, places = ("dog", "cat", "man"), ("grass", "snow", "water", "street")
    said = [(things[t], places[p]) for t, p in zip(thing.tolist(), place.tolist(), strict=True)]
    return Captioned(features, [[f"a {t} on {p}".split(), f"{p} and a {t}".split()] for t, p in said])


class Quiet:
    def stepped(self, progress: object) -> None: ...

    def validated(self, record: object, best: bool) -> None: ...


def test_it_learns_what_fits_and_a_resumed_run_ends_the_same(tmp_path: Path) -> None:
    def task(folder: str) -> SimilarityTask:
        return SimilarityTask(SMALL, planted(60, 0), planted(24, 1), tmp_path / folder / "model.safetensors")

    whole = task("whole")
    plan = SMALL.plan(whole.objective, data=whole.digest())
    history = fit(whole, plan, RunFolder(tmp_path / "whole"), Quiet())
    assert history[-1]["search_median_rank"] <= 3 and history[-1]["loss"] < 0.7 * history[0]["loss"]
    trained = load(tmp_path / "whole" / "model.safetensors")
    fits, fits_not = trained(planted(1, 5).features, [planted(1, 5).captions[0][0], ["a", "cat", "on", "snow"]])[0]
    assert planted(1, 5).captions[0][0] != ["a", "cat", "on", "snow"] and fits > fits_not + 0.2

    broken = task("halves")
    real = broken.loss

    def stops(epoch: int, step: int):  # type: ignore[no-untyped-def]
        if (epoch, step) == (6, 3):
            raise KeyboardInterrupt
        return real(epoch, step)

    broken.loss = stops  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(broken, plan, RunFolder(tmp_path / "halves"), Quiet())
    again = fit(task("halves"), plan, RunFolder(tmp_path / "halves"), Quiet(), resume=True)
    assert [r["loss"] for r in again] == [r["loss"] for r in history]


def test_the_file_gives_the_same_cosines_again(tmp_path: Path) -> None:
    model, found = small(7).eval(), planted(5, 3)
    model.standardise_by(found.features)
    save(tmp_path / "s.safetensors", model, {})
    torch.testing.assert_close(
        cosines(load(tmp_path / "s.safetensors"), found), cosines(model, found), atol=5e-3, rtol=0
    )


def test_a_file_whose_parts_do_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    model = small()
    model.trigrams = Trigrams(["dog"])
    save(tmp_path / "s.safetensors", model, {})
    with pytest.raises(ModelFileError) as refused:
        load(tmp_path / "s.safetensors")
    assert "\n" not in str(refused.value) and "its parts do not fit together" in str(refused.value)
