"""Photos to sentences, and the one file that does it."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from carousel.captioning import Captioner, CaptioningConfig, Decoding, Looked, PhotoEncoder, caption_photos, rows
from carousel.captioning.captioner import decoder
from carousel.data.vocabulary import UNKNOWN, Vocabulary
from carousel.errors import ConfigError, ModelFileError
from carousel.metrics.diversity import sentence_hash
from carousel.training import read_model_file, write_model_file

WORDS = ["<pad>", "<start>", "<stop>", "<unk>", "a", "red", "green", "blue", "picture", "of", "nothing"]


def captioner(members: int = 1, seed: int = 0, encoder: PhotoEncoder | None = None, **options: Any) -> Captioner:
    """An untrained one, whose weights fit half precision."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary.from_list(WORDS)
    defaults = {"hidden_size": 8, "embedding_size": 6}
    config = CaptioningConfig(**{**defaults, **options})
    encoder = encoder or PhotoEncoder(config.finetune_from)
    decoders = [decoder(config, encoder, len(vocabulary)) for _ in range(members)]
    for parameter in [*encoder.parameters(), *(p for nic in decoders for p in nic.parameters())]:
        if parameter.requires_grad:
            parameter.data = (parameter.data * (1 + 0.1 * torch.rand(parameter.shape))).half().float()
    for nic in decoders:
        nic.feature_mean.normal_().copy_(nic.feature_mean.half().float())
    return Captioner(config, vocabulary, encoder, decoders, torch.tensor([sentence_hash("A red picture.")]))


@pytest.fixture(scope="module")
def frozen() -> Captioner:
    return captioner(hidden_size=16, embedding_size=16)


def features(n: int = 4) -> Tensor:
    return 2 * torch.randn(n, PhotoEncoder.features, generator=torch.Generator().manual_seed(5))


def photos(n: int = 2) -> Tensor:
    return torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"members": 2, "cell": "gru", "image_at": "merge"},
        {"tied": True, "image_at": "init", "layers": 2},
        {"finetune_from": 11, "tied": True, "members": 2},
        {"finetune_from": 9, "image_at": "par", "length_normalisation": 0.7, "beam": 5},
        {"decoder": "adaptive", "members": 2},
        {"decoder": "adaptive", "finetune_from": 11, "image_at": "par", "cell": "gru", "tied": True},
        {"decoder": "attend", "tied": True, "layers": 2},
    ],
    ids=str,
)
def test_it_comes_back_from_its_file(tmp_path: Path, options: dict[str, Any]) -> None:
    original, path = captioner(**options), tmp_path / "model.safetensors"
    original.facts["note"] = "kept"
    original.save(path, {"validation": {"cider": 0.5}})
    loaded = Captioner.load(path)
    assert loaded.config == original.config and loaded.vocabulary.to_list() == WORDS
    assert loaded.facts["validation"] == {"cider": 0.5} and loaded.facts["note"] == "kept"
    assert len(loaded.members) == options.get("members", 1)
    assert torch.equal(loaded.training_hashes, original.training_hashes)
    assert loaded.caption(photos(), Decoding(n=4)) == original.caption(photos(), Decoding(n=4))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_eight_bits_take_less_room_and_give_nearly_the_same_weights(tmp_path: Path) -> None:
    original = captioner(decoder="adaptive", image_at="par", hidden_size=320, embedding_size=320)
    original.save(tmp_path / "half")
    original.save(tmp_path / "small", eight_bits=True)
    assert (tmp_path / "small").stat().st_size < 0.6 * (tmp_path / "half").stat().st_size
    before, after = (one.members[0].state_dict() for one in (original, Captioner.load(tmp_path / "small")))
    errors = [float((after[name] - w).abs().max() / w.abs().max()) for name, w in before.items() if w.any()]
    assert 0 < max(errors) < 0.5 / 127 + 1e-3  # half a step of a row's scale, and half precision


def test_a_file_from_before_there_was_a_choice_of_decoders(tmp_path: Path) -> None:
    """Version 0.1's files name no decoder."""
    path = tmp_path / "model.safetensors"
    original = captioner()
    original.save(path)
    tensors, facts = read_model_file(path, "captioning")
    new = ("decoder", "attention_size", "doubly_stochastic", "candidates", "temperature", "object_penalty")
    facts["config"] = {name: value for name, value in facts["config"].items() if name not in new}
    write_model_file(path, tensors, facts)
    assert Captioner.load(path).caption(photos(), Decoding(n=2)) == original.caption(photos(), Decoding(n=2))


def test_tied_weights_are_kept_once(tmp_path: Path) -> None:
    captioner(tied=True).save(tmp_path / "model")
    tensors, _ = read_model_file(tmp_path / "model", "captioning")
    assert "decoder.0.embedding.weight" in tensors and "decoder.0.output.weight" not in tensors
    assert all(t.dtype == torch.float16 for name, t in tensors.items() if name != "training_hashes")
    nic = Captioner.load(tmp_path / "model").members[0]
    assert nic.output.weight is nic.embedding.weight


def test_a_decoder_that_looks_is_not_taken_for_one_that_does_not(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    captioner(decoder="adaptive").save(path)
    tensors, facts = read_model_file(path, "captioning")
    config = facts["config"]
    for other_tensors, other_config in (
        (tensors, {**config, "decoder": "nic"}),
        (tensors, {**config, "decoder": "attend"}),
        (tensors, {**config, "decoder": "os.system"}),
        (tensors, {**config, "attention_size": 7}),
        ({n: t for n, t in tensors.items() if n != "decoder.0.attention.v.weight"}, config),
        ({**tensors, "decoder.0.places.mean": torch.zeros(7)}, config),
    ):
        write_model_file(path, other_tensors, {**facts, "config": other_config})
        with pytest.raises(ModelFileError, match="its parts do not fit together"):
            Captioner.load(path)


def test_parts_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    captioner(finetune_from=11).save(path)
    tensors, facts = read_model_file(path, "captioning")
    config = facts["config"]
    for other_tensors, other_facts in (
        (tensors, {"config": {**config, "hidden_size": 9}}),
        (tensors, {"config": {**config, "layers": 1_000_000_000}}),
        (tensors, {"config": {**config, "cell": "os.system"}}),
        (tensors, {"config": {**config, "new": 1}}),
        (tensors, {"config": "lstm"}),
        (tensors, {"vocabulary": [*WORDS, "more"]}),
        (tensors, {"vocabulary": [*WORDS[:-1], "a"]}),
        (tensors, {"vocabulary": [*WORDS[:-1], 7]}),
        (tensors, {"vocabulary": WORDS[4:]}),
        (tensors, {"members": 2}),
        (tensors, {"members": 0}),
        (tensors, {"members": "1"}),
        ({n: t for n, t in tensors.items() if n != "training_hashes"}, {}),
        ({n: t for n, t in tensors.items() if n != "encoder.head.convolution.weight"}, {}),
        ({**tensors, "encoder.other": torch.zeros(1)}, {}),
    ):
        write_model_file(path, other_tensors, {**facts, **other_facts})
        with pytest.raises(ModelFileError, match="its parts do not fit together") as caught:
            Captioner.load(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


# --- sentences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoding", [Decoding(n=9), Decoding(n=60, sample=True, temperature=3.0)])
def test_lists_are_sorted_distinct_and_without_unknown_words(frozen: Captioner, decoding: Decoding) -> None:
    altered = captioner(encoder=frozen.encoder)
    altered.members[0].output.bias.data[UNKNOWN] = 20.0
    for found in altered.describe(features(), decoding):
        assert [c.logprob for c in found] == sorted((c.logprob for c in found), reverse=True)
        assert len({c.text for c in found}) == len(found) <= decoding.n
        for caption in found:
            assert not {"<pad>", "<start>", "<stop>", "<unk>"} & set(caption.text.split())
            assert [word for word, _ in caption.words] == caption.text.split()
            assert all(0 < probability <= 1 for _, probability in caption.words)


def test_one_photo_at_a_time_is_the_same(frozen: Captioner) -> None:
    together = frozen.describe(features(), Decoding(n=3))
    alone = [frozen.describe(row[None], Decoding(n=3))[0] for row in features()]
    assert [[c.text for c in found] for found in together] == [[c.text for c in found] for found in alone]


def test_equal_members_speak_as_one(frozen: Captioner) -> None:
    two = copy.copy(frozen)
    two.members = frozen.members * 2
    for one, other in zip(frozen.describe(features()), two.describe(features()), strict=True):
        assert one[0].text == other[0].text and one[0].logprob == pytest.approx(other[0].logprob, abs=1e-4)


def looked(n: int = 4) -> Looked:
    draw = torch.Generator().manual_seed(6)
    return Looked(2 * features(n), torch.randn(n, 49, 320, generator=draw), torch.randn(n, 49, 112, generator=draw))


@pytest.mark.parametrize("decoder", ["attend", "adaptive"])
def test_one_photo_at_a_time_is_the_same_where_it_looks(frozen: Captioner, decoder: str) -> None:
    looks = captioner(members=2, encoder=frozen.encoder, decoder=decoder, hidden_size=16, embedding_size=16)
    together = looks.describe(looked(), Decoding(n=3))
    alone = [looks.describe(rows(looked(), [k]), Decoding(n=3))[0] for k in range(4)]
    assert [[c.text for c in found] for found in together] == [[c.text for c in found] for found in alone]
    assert len({found[0].logprob for found in together}) == 4


@pytest.mark.parametrize("decoder", ["attend", "adaptive"])
def test_where_was_looked_for_each_word(frozen: Captioner, decoder: str) -> None:
    looks = captioner(members=2, encoder=frozen.encoder, decoder=decoder)
    captions = [found[0] for found in looks.caption(photos(), Decoding(max_length=5))]
    maps = looks.attention(photos(), captions)
    for caption, found in zip(captions, maps, strict=True):
        assert found.words == caption.text.split() and found.places.shape == (len(found.words), 7, 7)
        assert (found.sentinel is not None) == (decoder == "adaptive")
        rest = 0.0 if found.sentinel is None else found.sentinel
        torch.testing.assert_close(found.places.sum((1, 2)) + rest, torch.ones(len(found.words)))
    [alone] = looks.attention(photos()[1:], captions[1:])
    torch.testing.assert_close(alone.places, maps[1].places)


def test_a_whole_photo_has_no_places(frozen: Captioner) -> None:
    with pytest.raises(ConfigError, match=r"sees a photo as a whole \(got decoder nic\).*--set decoder=adaptive"):
        frozen.attention(photos(), [found[0] for found in frozen.caption(photos())])


def test_samples_depend_on_the_seed_alone(frozen: Captioner) -> None:
    first, again, other = (frozen.describe(features(), Decoding(n=5, sample=True, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_drawing_for_training_leaves_the_decoder_in_training(frozen: Captioner) -> None:
    frozen.members[0].train()
    for generator in (torch.Generator().manual_seed(0), None):
        drawn = frozen.candidates(features(2), 3, generator)
        assert [len(sentences) for sentences in drawn] == [3, 3] and frozen.members[0].training


def test_what_is_drawn_for_training_at_hardly_any_temperature_is_the_likeliest_word_by_word(frozen: Captioner) -> None:
    words = [sentence.words for [sentence] in frozen.candidates(features(3), 1)]
    cold, warm = (frozen.candidates(features(3), 4, torch.Generator().manual_seed(0), heat) for heat in (1e-3, 1.0))
    assert [[sentence.words for sentence in drawn] for drawn in cold] == [[best] * 4 for best in words]
    assert [[sentence.words for sentence in drawn] for drawn in warm] != [[best] * 4 for best in words]


@pytest.mark.parametrize(("text", "novel"), [("a red picture", False), ("a blue picture", True), ("", True)])
def test_a_training_caption_is_not_novel(frozen: Captioner, text: str, novel: bool) -> None:
    says = captioner(encoder=frozen.encoder, image_at="merge", cell="elman", hidden_size=11, embedding_size=11)
    nic = says.members[0]
    ids = [1, *says.vocabulary.encode(text.split()), 2]
    with torch.no_grad():  # each word names the next
        for parameter in nic.parameters():
            parameter.zero_()
        nic.embedding.weight.copy_(torch.eye(11))
        nic.decoder.cells[0].packed.weight_input.copy_(5 * torch.eye(11))  # type: ignore[union-attr]
        for before, after in pairwise(ids):
            nic.output.weight[after, before] = 50.0
    [[caption]] = says.describe(features(1))
    assert (caption.text, caption.novel) == (text, novel)
    assert caption.logprob == pytest.approx(0.0, abs=1e-6)


def test_json(frozen: Captioner, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    results = list(caption_photos(frozen, [tmp_path / "red.png", tmp_path / "none.png"], Decoding(n=2)))
    good, bad = (json.loads(json.dumps(result.as_json())) for result in results)
    assert good.keys() == {"file", "captions"} and len(good["captions"]) == 2
    for caption in good["captions"]:
        assert list(caption) == ["text", "logprob", "novel", "words"]
        assert [word for word, _ in caption["words"]] == caption["text"].split()
    assert bad["file"] == str(tmp_path / "none.png") and "no such file" in bad["error"] and len(bad) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_a_broken_photo_does_not_stop_the_others(frozen: Captioner, tmp_path: Path, batch_size: int) -> None:
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for i, file in enumerate(files):
        Image.effect_noise((64, 64), 30 * i + 1).convert("RGB").save(file)
    expected = {str(file): frozen.caption(read(file))[0][0].text for file in files}
    files[2].write_bytes(files[2].read_bytes()[:300])
    results = list(caption_photos(frozen, files, batch_size=batch_size))
    assert [result.file for result in results] == [str(file) for file in files]
    assert [result.error is None for result in results] == [True, True, False, True, True]
    assert all(result.captions[0].text == expected[result.file] for result in results if result.error is None)
    assert results[2].captions == [] and "2.png: the picture is damaged" in str(results[2].error)


def test_no_photos_no_captions(frozen: Captioner) -> None:
    assert list(caption_photos(frozen, [])) == []


def read(file: Path) -> Tensor:
    from carousel.vision.photo import read_photo

    return read_photo(file)[None]
