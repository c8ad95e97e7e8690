"""The study of captioners: how seeds are pooled and pairs made, what is not done again, what the page says."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured_photos import CONFIG, Data
from torch.nn import functional as F

from carousel.captioning import teacher_forced
from carousel.data.vocabulary import START
from carousel.errors import ConfigError, DataError
from carousel.metrics import CiderD, Difference, bleu, caption_statistics
from carousel.training.progress import LiveProgress

ROOT, RANKS = Path(__file__).parents[1], "retrieval-4x1.json"
TRUTHS = [
    [f"a {thing} on the {place}", f"the {thing}"] for thing in ("dog", "cat", "man") for place in ("grass", "sand")
]


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def tables(benchmarks: Any) -> Any:
    return importlib.import_module("captioning_tables")


@pytest.fixture(scope="module")
def study(benchmarks: Any) -> Any:
    return importlib.import_module("captioning_study")


def said(tables: Any, *texts: str) -> Any:
    return tables.Said(["a", "b", "c", "d", "e", "f"][: len(texts)], caption_statistics(texts, TRUTHS), 3, 7)


GOOD = [photo[0] for photo in TRUTHS]
POOR = ["a bird in the air", *GOOD[1:]]
WORSE = ["a bird in the air", "a plane in the air", *GOOD[2:]]


# --- pooling and pairing ----------------------------------------------------------------------------------------------


def test_seeds_are_pooled_photo_by_photo(tables: Any) -> None:
    pooled = tables.estimates({1: said(tables, *POOR), 0: said(tables, *WORSE)})
    consensus = CiderD(TRUTHS)
    each = [consensus.scores(texts, range(6)) for texts in (POOR, WORSE)]
    assert pooled["cider_d"].value == pytest.approx(100 * np.mean(each))
    assert pooled["bleu_4"].value == pytest.approx(50 * (bleu(POOR, TRUTHS).bleu_4 + bleu(WORSE, TRUTHS).bleu_4))
    draw = np.random.default_rng(0)
    photo = np.mean(each, axis=0)
    means = [draw.multinomial(6, np.full(6, 1 / 6)) @ photo / 6 for _ in range(1000)]
    assert pooled["cider_d"][1:] == pytest.approx(100 * np.quantile(means, [0.025, 0.975]))


def test_the_same_seed_twice_is_no_narrower_than_once(tables: Any) -> None:
    once, twice = {0: said(tables, *POOR)}, {0: said(tables, *POOR), 1: said(tables, *POOR)}
    assert tables.estimates(twice)["cider_d"] == pytest.approx(tables.estimates(once)["cider_d"])


def test_a_difference_is_of_the_seeds_that_both_have(tables: Any) -> None:
    ours = {0: said(tables, *POOR), 1: said(tables, *GOOD), 7: said(tables, *GOOD)}
    theirs = {0: said(tables, *GOOD), 1: said(tables, *GOOD), 5: said(tables, *WORSE)}
    found = tables.differences(ours, theirs)["cider_d"]
    each = tables.differences_by_seed(ours, theirs)
    assert len(each) == 2 and each[0] < 0 == each[1]
    assert found.value == pytest.approx(np.mean(each)) and found.high == 0.0
    assert list(tables.by_seed(theirs)) == [0, 1, 5]


def test_a_pair_is_of_the_same_photos(tables: Any) -> None:
    shuffled = said(tables, *GOOD)._replace(files=["b", "a", "c", "d", "e", "f"])
    with pytest.raises(DataError, match=r"^photos: not the same for both \(got others\)"):
        tables.differences({0: said(tables, *GOOD)}, {0: shuffled})
    with pytest.raises(DataError, match=r"^photos: not the same for all seeds"):
        tables.estimates({0: said(tables, *GOOD), 1: shuffled})


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "each", "seeds", "words"),
    [
        ((-2.0, -3.0, -1.0), (-2.0, -1.0, -3.0), 3, "Worse: the interval lies below zero, as the claim has it."),
        ((2.0, 1.0, 3.0), (2.0, 1.0, 3.0), 3, "Better: the interval lies above zero, against the claim."),
        ((2.0, 0.5, 3.0), (5.0, -1.0, 2.0), 3, "Better: the interval lies above zero, against the claim. But the seeds "
         "do not agree, so that others may turn it."),
        ((-0.5, -1.5, 0.75), (-1.0, 0.5, -1.0), 3, "No difference is shown: the interval holds zero. At most 1.5 worse "
         "and at most 0.8 better."),
        ((-2.0, -3.0, -1.0), (-2.0,), 1, "Not settled, 1 of 3 seeds: worse: the interval lies below zero, as the claim "
         "has it."),
    ],
)  # fmt: skip
def test_the_verdict_is_the_intervals(
    tables: Any, interval: tuple[float, float, float], each: Sequence[float], seeds: int, words: str
) -> None:
    assert tables._verdict(Difference(*interval, 0.01), each, seeds, 3) == words


def test_the_answer_says_what_is_missing_and_which_way_the_numbers_go(tables: Any) -> None:
    pre = {0: said(tables, *GOOD), 1: said(tables, *GOOD)}
    assert tables.answer({"pre": pre}, 3) == (
        "**Not answered yet.** Captioned so far: `par` no seed, `pre` seeds 0, 1; both must have a seed."
    )
    text = tables.answer({"pre": pre, "par": {0: said(tables, *POOR), 1: said(tables, *WORSE)}}, 2)
    assert "CIDEr-D of `par` minus `pre`, seeds 0, 1: -" in text
    swapped = tables.answer({"par": pre, "pre": {0: said(tables, *POOR), 1: said(tables, *WORSE)}}, 2)
    assert "seeds 0, 1: +" in swapped


def test_tables_name_each_variant_once(tables: Any) -> None:
    found = {"pre": {0: said(tables, *GOOD)}, "par": {0: said(tables, *POOR), 1: said(tables, *POOR)}}
    title, line, pre, par = tables.quality(found, {"pre": 12.4}, {"par": 55.0})
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (title, pre, par)]
    assert len(set(map(len, cells))) == 1 and line.count("---") == len(cells[0])
    by_name = [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
    assert [(row["variant"], row["seeds"], row["training, min"], row["one photo, ms"]) for row in by_name] == [
        ("`pre`", "1", "12", ""),
        ("`par`", "2", "", "55"),
    ]
    assert by_name[0]["seed by seed"].count(",") == 0 and by_name[1]["seed by seed"].count(",") == 1
    assert len(tables.beams({1: found, 3: found})) == 2 + 4
    [_, _, only] = tables.against(found)
    assert only.startswith("| `par` | 1 | -")
    assert tables.against({"par": found["par"]}) == ["No variant has a seed in common with `pre` yet."]


def test_retrieval_is_the_mean_over_seeds(tables: Any) -> None:
    names = [f"{side}_{key}" for side in ("annotation", "search") for key in ("recall_1", "recall_10", "median_rank")]
    runs = {
        seed: {"photos": 9, "captions": 45, "scores": {"cosine": dict.fromkeys(names, value)}}
        for seed, value in ((0, 10.0), (1, 20.0))
    }
    rows = tables.retrieval([{}, {"similarity": runs}])
    assert rows[2].startswith("| `similarity` | cosine | 9 | 45 | 2 | 15.0 | 15.0 |")
    assert tables.retrieval([{}]) == ["Not measured yet."]


def test_the_words_around_the_tables_stay(tables: Any) -> None:
    page = "Before.\n<!-- made: one -->\n{}<!-- end -->\nBetween.\n<!-- made: two -->\n{}<!-- end -->\nAfter.\n"
    new = tables.filled(page.format("old\n", ""), {"one": ["| a |", "| b |"], "two": ["c"]})
    assert new == page.format("| a |\n| b |\n", "c\n")
    assert tables.filled(new, {"one": ["| a |", "| b |"], "two": ["c"]}) == new
    with pytest.raises(DataError, match=r"^page: marks \(got one, two\); one, three"):
        tables.filled(new, {"one": [], "three": []})


# --- from data to the page --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, study: Any) -> Any:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_CACHE", str(folder / "cache"))
        data = Data(folder)
        (folder / "captions.jsonl.gz").write_bytes(gzip.compress(data.captions.read_bytes()))
        (folder / "images").symlink_to(data.photos)
        chosen = [variant for variant in study.VARIANTS if variant.name in ("pre", "par", "pre-start", "pre-critical")]
        settings = {**CONFIG, "epochs": 2}
        yield study.Study(
            folder, folder / "out", folder / "results", [0], chosen, (1, 3), settings, timed=2, retrieval_photos=4
        )


def run(study: Any, small: Any) -> None:
    with LiveProgress() as live:
        for variant in small.variants:
            for step in study.STEPS.values():
                step(small, variant, 0, live)


def test_what_is_done_is_not_done_again(study: Any, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = small.out / "page.md"
    run(study, small)
    page.write_text((ROOT / "docs/captioning-study.md").read_text(encoding="utf-8"))
    study.write_page(small, page)
    text = page.read_text()
    assert "CIDEr-D of `par` minus `pre`, seed 0:" in text and "| `par` | 3 | 1 |" in text
    assert page.with_suffix(".png").stat().st_size > 1000
    at = {file: file.stat().st_mtime_ns for file in small.results.rglob("*.json")}
    assert {file.name for file in at} == {"training.json", "beam-1.json", "beam-3.json", "speed.json", RANKS}
    assert len(at) == 5 * len(small.variants)
    for name in ("train", "evaluate", "load", "log_likelihoods"):
        monkeypatch.setattr(study, name, None)
    run(study, small)
    assert at == {file: file.stat().st_mtime_ns for file in at}
    lost = small.results / "pre-0" / "beam-3.json"
    lost.unlink()
    with pytest.raises(TypeError):  # that one, and it alone, is made again
        run(study, small)
    monkeypatch.undo()
    run(study, small)
    assert lost.exists()


def test_results_stay_where_models_do_not(study: Any, small: Any, tmp_path: Path) -> None:
    run(study, small)
    elsewhere = dataclasses.replace(small, out=tmp_path)
    run(study, elsewhere)
    assert not any(tmp_path.iterdir())
    lost = small.results / "pre-critical-0" / "speed.json"
    lost.unlink()
    run(study, elsewhere)  # trains it again, and what it begins with
    assert lost.exists() and {run.name for run in tmp_path.iterdir()} == {"pre-0", "pre-critical-0"}


def test_results_are_of_these_photos(study: Any, small: Any) -> None:
    with pytest.raises(DataError, match=r"captions.jsonl.gz: test photos \(got \d+\); the 1 of the results"):
        study.scored(small, {"another.png": "a red picture"})


def test_a_run_with_other_settings_is_not_taken(study: Any, small: Any) -> None:
    run(study, small)
    config = small.out / "par-0" / "config.toml"
    study.check(config, _wanted(study, small))
    with pytest.raises(ConfigError, match=r"image_at \(got par\); pre; another OUT"):
        study.check(config, {**_wanted(study, small), "image_at": "pre"})
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    with LiveProgress() as live, pytest.raises(ConfigError, match=r"seed \(got 1\); 0; another OUT, or remove this"):
        study.model_of(small, next(variant for variant in small.variants if variant.name == "par"), 0, live)
    config.write_text(config.read_text().replace("seed = 1", "seed = 0"))


def _wanted(study: Any, small: Any) -> dict[str, Any]:
    from carousel.captioning import CaptioningConfig

    return CaptioningConfig(**{**small.settings, "image_at": "par", "seed": 0}).model_dump()


def test_likelihoods_are_those_of_sentences_read_one_by_one(study: Any, small: Any) -> None:
    run(study, small)
    spoken = ["a red picture", "a blue picture a green picture picture picture", "a", "red", "a red", "a red picture"]
    sentences = [text.split() for text in spoken]
    for variant in small.variants:
        model = study.load(small.run(variant, 0).model)
        [decoder] = model.members
        seen = torch.randn(2, model.encoder.features, generator=torch.Generator().manual_seed(0))
        found = study.log_likelihoods(model, seen, sentences)
        for k, words in enumerate(sentences):
            inputs, lengths, targets = teacher_forced([model.vocabulary.encode(words)], 18, model.config.predict_start)
            for photo in range(2):
                with torch.inference_mode():
                    logits = decoder(seen[photo : photo + 1], inputs, lengths)
                logp = -F.cross_entropy(logits, targets, reduction="none")[targets != START].sum()
                torch.testing.assert_close(found[photo, k], logp, atol=1e-4, rtol=1e-4)


def test_what_sentences_begin_with_in_common_is_there_once(study: Any) -> None:
    tree = study.levels([[7, 8, 9], [7, 8], [5], [7, 8]])
    assert [level.words.tolist() for level in tree] == [[START], [7, 5], [8], [9]]
    assert [level.parents.tolist() for level in tree] == [[0], [0, 0], [0], [0]]
    assert [(level.ended.tolist(), level.at.tolist()) for level in tree[1:]] == [
        ([2], [1]),
        ([1, 3], [0, 0]),
        ([0], [0]),
    ]
