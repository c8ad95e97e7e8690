"""What a captioner learns from, and what its validation says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from coloured_photos import Data

from carousel.captioning import Captioner, rows
from carousel.data.vocabulary import START, STOP
from carousel.training import epoch_order, generator


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    folder = tmp_path_factory.mktemp("colours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_CACHE", str(folder / "cache"))
        yield Data(folder)


@pytest.mark.parametrize("predict_start", [False, True])
def test_the_loss_is_the_sum_over_words(data: Data, predict_start: bool) -> None:
    task = data.task(predict_start=predict_start, flips=False)
    found = task.loss(epoch=0, step=1)
    total, words = 0.0, 0
    for photo in epoch_order(8, 0, 0)[4:8]:
        features = task.encoder.upper(rows(task.train.lower, [photo]))
        for sentence in task.encoded[photo]:
            if predict_start:
                hidden, _ = task.decoder.decoder.step(task.decoder.embed_image(features))
                total -= task.decoder.output(hidden).log_softmax(1)[0, START].item()
                words += 1
            state = task.decoder.start(features)
            for last, following in zip([START, *sentence], [*sentence, STOP], strict=True):
                logits, state = task.decoder.step(torch.tensor([last]), state)
                total -= logits.log_softmax(1)[0, following].item()
                words += 1
    assert found.words == words and found.total == pytest.approx(total, rel=1e-5)
    assert found.mean.item() == pytest.approx(total / words, rel=1e-5)


def test_label_smoothing_is_trained_with_and_not_reported(data: Data) -> None:
    plain, smooth = data.task().loss(0, 0), data.task(label_smoothing=0.2).loss(0, 0)
    assert smooth.total == pytest.approx(plain.total) and smooth.mean.item() != pytest.approx(plain.mean.item())


@pytest.mark.parametrize("predict_start", [False, True])
def test_perplexity_counts_words_and_stop(data: Data, predict_start: bool) -> None:
    task = data.task(predict_start=predict_start)
    with torch.no_grad():
        task.decoder.output.weight.zero_()
        task.decoder.output.bias.zero_()
        task.decoder.eval()
        assert task.validate()["perplexity"] == pytest.approx(len(task.vocabulary), rel=1e-5)


@pytest.mark.parametrize("candidates", ["beam", "samples"])
@pytest.mark.parametrize("predict_start", [False, True])
def test_self_critical_gradients_favour_what_scores(data: Data, predict_start: bool, candidates: str) -> None:
    """With rewards of 1 for a sentence with "red" and 0 else, a step makes "red" likelier."""
    task = data.task(
        loss="self-critical", predict_start=predict_start, samples=20, batch_photos=8, candidates=candidates
    )

    class Red:
        def scores(self, texts: list[str], finished: list[bool], photos: list[int]) -> list[float]:
            assert photos == [photo for photo in photos[::20] for _ in range(20)]
            return [float("red" in text) for text in texts]

    task.__dict__["reward"] = Red()
    before = task.decoder.output.bias.detach().clone()
    optimiser = torch.optim.SGD(task.decoder.parameters(), lr=1.0)
    found = task.loss(0, 0)
    found.mean.backward()
    optimiser.step()
    [red] = task.vocabulary.encode(["red"])
    moved = task.decoder.output.bias - before
    assert moved.argmax() == red and moved[red] > 0


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_sentences_are_scored_by_the_probabilities_they_were_drawn_with(data: Data, temperature: float) -> None:
    task = data.task(loss="self-critical", samples=3, batch_photos=2, temperature=temperature, flips=False)
    photos = epoch_order(8, 0, 0)[:2]
    seen = rows(task.train.lower, photos)
    drawn = task.captioner.candidates(seen, 3, generator(0, "samples", 0, 0), temperature)
    total, words = 0.0, 0
    for place, sentences in enumerate(drawn):
        texts, ended = [task.vocabulary.decode(s.words) for s in sentences], [s.finished for s in sentences]
        rewards = task.reward.scores(texts, ended, [photos[place]] * 3)
        for sentence, better in zip(sentences, 1.5 * (rewards - rewards.mean()), strict=True):
            state = task.decoder.start(rows(seen, [place]))
            written = [START, *sentence.words, STOP][: task.config.max_length + 2]  # without the stop where cut
            for last, following in pairwise(written):
                logits, state = task.decoder.step(torch.tensor([last]), state)
                total -= better * (logits / temperature).log_softmax(1)[0, following].item()
                words += 1
    assert task.loss(0, 0).mean.item() == pytest.approx(total / words, rel=1e-4)


def test_the_likelihood_has_its_share_of_a_self_critical_loss(data: Data) -> None:
    means = [
        data.task(**given, batch_photos=2, flips=False, dropout=0.0).loss(0, 0).mean.item()
        for given in (
            {"loss": "self-critical"},
            {"loss": "likelihood"},
            {"loss": "self-critical", "likelihood_share": 0.25},
        )
    ]
    critical, likelihood, both = means
    assert both == pytest.approx(0.75 * critical + 0.25 * likelihood, rel=1e-5)
    assert both != pytest.approx(critical, rel=1e-2)


def test_mirrored_photos_are_half_and_of_their_own_photo(data: Data) -> None:
    task = data.task()
    assert task.train.mirrored is not None
    lower, mirrored = torch.arange(8.0)[:, None], -torch.arange(8.0)[:, None]
    task.train = task.train._replace(lower=lower, mirrored=mirrored)
    flipped = [task._maybe_mirrored([3, 1, 7], 0, step)[:, 0].tolist() for step in range(200)]
    assert all([abs(value) for value in row] == [3, 1, 7] for row in flipped)
    assert abs(sum(value < 0 for row in flipped for value in row) / 600 - 0.5) < 0.08
    assert torch.equal(lower[:, 0], torch.arange(8.0))  # the kept ones are not overwritten


def test_an_encoder_is_tuned_by_what_a_decoder_looks_at(data: Data) -> None:
    """With the photo as a whole blanked out, gradients reach the blocks through the places that are attended to."""
    task = data.task(decoder="adaptive", finetune_from=11, attention_size=8, dropout=0.0)
    torch.nn.init.zeros_(task.decoder.get_parameter("image.weight"))
    task.loss(0, 0).mean.backward()
    trained = {name: p for name, p in task.encoder.network.named_parameters() if p.requires_grad}
    reached = {name.rpartition(".")[0] for name, p in trained.items() if p.grad is not None and p.grad.any()}
    assert "blocks.11.expand.convolution" in reached and "blocks.15.project.convolution" in reached
    assert not any(name.startswith("head") for name in reached)  # its output is seen of the whole photo alone


def test_from_itself_nobody_learns_and_from_several_their_mean(data: Data) -> None:
    task, other = data.task(teacher_share=1.0), data.task(seed=1).decoder.eval()
    own = copy.deepcopy(task.decoder).eval()
    task.teacher = Captioner(task.config, task.vocabulary, task.encoder, [own], torch.zeros(0, dtype=torch.int64))
    task.loss(0, 0).mean.backward()
    assert max(float(p.grad.abs().max()) for p in task.decoder.parameters() if p.grad is not None) < 1e-6
    task.teacher.members.append(other)
    words, lengths = torch.tensor([[START, START], [4, 5], [6, 0]]), torch.tensor([3, 2])
    lower = rows(task.train.lower, [3])
    given = task.encoder.upper(lower), words, lengths, torch.tensor([2])
    mean = torch.stack([member.read(*given).logits.softmax(1) for member in (own, other)]).mean(0)
    torch.testing.assert_close(task._taught(task.teacher, lower, *given[1:]), mean)
    with_captions = data.task(teacher_share=0.25)
    with_captions.teacher = task.teacher
    found = with_captions.loss(0, 0)
    alone = data.task().loss(0, 0)
    assert found.total == pytest.approx(alone.total)  # what is reported is the captions' likelihood
    taught = data.task(teacher_share=1.0)
    taught.teacher = task.teacher
    expected = 0.75 * alone.mean.item() + 0.25 * taught.loss(0, 0).mean.item()
    assert found.mean.item() == pytest.approx(expected, rel=1e-5)
