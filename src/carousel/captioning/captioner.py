"""A trained captioner: everything between photos and sentences, and its one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carousel.captioning.attend import Adaptive, Attend
from carousel.captioning.candidates import candidates_of
from carousel.captioning.captions import Attention, Caption, Decoding, Maps
from carousel.captioning.config import CaptioningConfig, DecoderName
from carousel.captioning.decoder import Decoder, teacher_forced
from carousel.captioning.judge import Judge, Verdict
from carousel.captioning.nic import NIC
from carousel.captioning.packing import packed, unpacked
from carousel.captioning.photo_encoder import FoldedEncoder, Looked, PhotoEncoder, Seen, pooled, rows
from carousel.data.vocabulary import PAD, START, STOP, UNKNOWN, Vocabulary
from carousel.decoding import Sentence, Step, beam_search, ensemble, sample
from carousel.errors import ConfigError
from carousel.metrics.diversity import sentence_hash
from carousel.training import read_model_file, write_model_file
from carousel.training.model_file import parts_fit
from carousel.vision.photo import read_photo

TASK = "captioning"
PLACES = 49
DECODERS: dict[DecoderName, type[NIC | Attend]] = {"nic": NIC, "attend": Attend, "adaptive": Adaptive}
SHIPPED = Path(__file__).parent / "weights" / "flickr8k-attend.safetensors"  # the best of those that ship


def decoder(config: CaptioningConfig, encoder: PhotoEncoder, vocabulary: int) -> Decoder:
    """A decoder of the kind that the config names, untrained."""
    return DECODERS[config.decoder](config, encoder.features, vocabulary)


class FromPhotos:
    """What captioners of all schools have in common: they describe what one encoder sees in photos."""

    encoder: PhotoEncoder

    @cached_property
    def _fast_encoder(self) -> FoldedEncoder:
        return self.encoder.folded()

    def look(self, photos: Tensor) -> Looked:
        """What the encoder sees in 8-bit RGB photos (N, 3, 224, 224) as `read_photo` gives them."""
        with torch.inference_mode():
            seen: Looked = self._fast_encoder(photos)
            return seen

    def caption(self, photos: Tensor, decoding: Decoding = Decoding()) -> list[list[Caption]]:  # noqa: B008
        """Captions, best first, of 8-bit RGB photos (N, 3, 224, 224) as `read_photo` gives them."""
        return self.describe(self.look(photos), decoding)

    def describe(self, seen: Seen, decoding: Decoding = Decoding()) -> list[list[Caption]]:  # noqa: B008
        """Captions, best first, of what was seen in photos."""
        raise NotImplementedError

    def predict(self, inputs: Sequence[str | Path]) -> list[Caption]:
        """The best caption of each photo file. Raises `PhotoError`."""
        return [self.caption(read_photo(photo)[None])[0][0] for photo in inputs]


class Captioner(FromPhotos):
    """Decoders (one, or an ensemble that averages probabilities) over one photo encoder, and their vocabulary."""

    def __init__(
        self,
        config: CaptioningConfig,
        vocabulary: Vocabulary,
        encoder: PhotoEncoder,
        members: Sequence[Decoder],
        training_hashes: Tensor,  # (N,) int64, sorted: `sentence_hash` of every training caption
        facts: Mapping[str, Any] | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.config, self.vocabulary, self.encoder, self.members = config, vocabulary, encoder, list(members)
        self.training_hashes, self.facts, self.judge = training_hashes, dict(facts or {}), judge
        self._known = frozenset(training_hashes.tolist())

    def describe(self, seen: Seen, decoding: Decoding = Decoding()) -> list[list[Caption]]:  # noqa: B008
        """Captions, best first, of what the encoder sees in photos: features (N, F), or `Looked`.

        A model that has learned to judge looks at as many candidates as it learned on, unless a beam is given, ranks
        them anew and says how sure it is of each. Captions drawn at random are not judged.
        """
        if self.judge is None or not decoding.judged or decoding.sample:
            return self._searched(seen, decoding)
        many = max(decoding.n, self.judge.beam if decoding.beam is None else decoding.beam)
        lists = self._searched(seen, decoding._replace(n=many, beam=many))
        verdicts = self.judge(pooled(seen), [candidates_of(captions) for captions in lists])
        return [
            judged(captions, best[: decoding.n], decoding.hedge) for captions, best in zip(lists, verdicts, strict=True)
        ]

    def _searched(self, features: Seen, decoding: Decoding) -> list[list[Caption]]:
        """Captions in the decoder's own order."""
        with torch.inference_mode():
            step, state = self._begin(features)
            found = self._decode(step, state, len(pooled(features)), decoding)
        return [[self._caption(sentence) for sentence in sentences] for sentences in found]

    def attention(self, photos: Tensor, captions: Sequence[Caption]) -> list[Attention]:
        """Where was looked for each word of a caption of each photo (N, 3, 224, 224): the mean over the decoders.

        Raises `ConfigError` for a model that sees a photo as a whole.
        """
        if self.config.decoder == "nic":
            raise ConfigError(
                "attention: this model sees a photo as a whole (got decoder nic); attend or adaptive; train one with "
                "--set decoder=adaptive"
            )
        spoken = [[word for word, _ in caption.words] for caption in captions]
        encoded = [self.vocabulary.encode(words) for words in spoken]
        words, lengths, _ = teacher_forced(encoded, max(map(len, encoded)))
        with torch.inference_mode():
            seen = self.look(photos)
            found = [member.eval().read(seen, words, lengths).weights for member in self.members]
        mean = torch.stack([weights for weights in found if weights is not None]).mean(0)
        maps = []
        for said, each in zip(spoken, torch.split(mean, lengths.tolist()), strict=True):
            places, rest = each[:-1, :PLACES].reshape(-1, 7, 7), each[:-1, PLACES:]  # the last step is the stop's
            maps.append(Attention(said, places, rest[:, 0] if rest.shape[1] else None))
        return maps

    def maps(self, photos: Tensor, lists: Sequence[Sequence[Caption]]) -> list[list[Maps]]:
        """The attention to each word of each photo's first caption; none of a model that sees a photo as a whole."""
        if self.config.decoder == "nic":
            return [[] for _ in lists]
        found = self.attention(photos, [captions[0] for captions in lists])
        shares = [None if looked.sentinel is None else (1 - looked.sentinel).tolist() for looked in found]
        what = "where it looked for each word"
        return [[Maps(what, one.words, one.places, share)] for one, share in zip(found, shares, strict=True)]

    def candidates(
        self, seen: Seen, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> list[list[Sentence]]:
        """`n` sentences for each photo seen, without dropout: a beam's, or drawn at random where by a generator."""
        limit = self.config.max_length + 1  # words and the stop
        with torch.no_grad():
            training = [member.training for member in self.members]
            step, state = self._begin(seen)
            common: dict[str, Any] = {"batch": len(pooled(seen)), "start": START, "stop": STOP, "max_length": limit}
            common["forbidden"] = (PAD, UNKNOWN)
            if generator is None:
                found = beam_search(step, state, width=n, n_best=n, **common)
            else:
                found = sample(step, state, n=n, temperature=temperature, generator=generator, **common)
            for member, was in zip(self.members, training, strict=True):
                member.train(was)
        return found

    def _begin(self, features: Seen) -> tuple[Step, Any]:
        for member in self.members:
            member.eval()
        seen = rows(features, slice(None))
        steps, states = zip(*(member.begin(seen) for member in self.members), strict=True)
        return ensemble(steps), states

    def _decode(self, step: Any, state: Any, batch: int, d: Decoding) -> list[list[Sentence]]:
        common: dict[str, Any] = {
            "batch": batch,
            "start": START,
            "stop": STOP,
            "max_length": d.max_length,
            "forbidden": (PAD, UNKNOWN),
            "no_repeat": d.no_repeat,
        }
        if d.sample:
            generator = torch.Generator().manual_seed(d.seed)
            drawn = sample(
                step,
                state,
                n=d.n,
                temperature=d.temperature,
                top_k=d.top_k,
                top_p=d.top_p,
                generator=generator,
                **common,
            )
            different = [{sentence.words: sentence for sentence in sentences}.values() for sentences in drawn]
            return [sorted(sentences, key=lambda s: -s.logprob) for sentences in different]
        width = self.config.beam if d.beam is None else d.beam
        power = self.config.length_normalisation if d.length_normalisation is None else d.length_normalisation
        return beam_search(step, state, width=width, n_best=d.n, length_normalisation=power, **common)

    def _caption(self, sentence: Sentence) -> Caption:
        words = [self.vocabulary.decode([word]) for word in sentence.words]
        text = " ".join(words)
        probabilities = torch.tensor(sentence.word_logprobs).exp().tolist()
        novel = sentence_hash(text) not in self._known
        return Caption(text, sentence.logprob, novel, list(zip(words, probabilities, strict=True)))

    def save(self, path: str | Path, facts: Mapping[str, Any] | None = None, *, eight_bits: bool = False) -> None:
        """Write the one file that `load` reads; weights in half precision, decoders' large matrices in `eight_bits`."""
        tensors = {f"encoder.{name}": t.half() for name, t in self.encoder.trained_state().items()}
        for i, member in enumerate(self.members):
            state = member.state_dict()
            if self.config.tied:
                del state["output.weight"]
            smaller = packed(state) if eight_bits else {name: t.half() for name, t in state.items()}
            tensors |= {f"decoder.{i}.{name}": t for name, t in smaller.items()}
        tensors["training_hashes"] = self.training_hashes
        judging = {}
        if self.judge is not None:
            more, judging["judge"] = self.judge.parts()
            tensors |= {f"judge.{name}": tensor for name, tensor in more.items()}
        known = {
            "task": TASK,
            "config": self.config.model_dump(),
            "vocabulary": self.vocabulary.to_list(),
            "members": len(self.members),
            **judging,
            **self.facts,
            **(facts or {}),
        }
        write_model_file(path, tensors, known)

    @classmethod
    def load(cls, path: str | Path = SHIPPED) -> Captioner:
        """Read a captioner; without a path the one that ships. Raises `ModelFileError`."""
        tensors, facts = read_model_file(path, TASK)
        with parts_fit(path):
            config = CaptioningConfig(**facts.pop("config"))
            vocabulary = Vocabulary.from_list(facts.pop("vocabulary"))
            encoder = PhotoEncoder(config.finetune_from)
            trained = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
            if missing := encoder.trained_state().keys() - trained.keys():
                raise KeyError(min(missing))
            encoder.load_trained_state(trained)
            members = []
            for i in range(facts.pop("members")):
                member = decoder(config, encoder, len(vocabulary))
                prefix = f"decoder.{i}."
                state = unpacked({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
                if config.tied:
                    state["output.weight"] = state["embedding.weight"]
                member.load_state_dict(state)
                members.append(member.eval())
            if not members:
                raise ValueError("no members")
            judge = None
            if "judge" in facts:
                parts = {n.removeprefix("judge."): t for n, t in tensors.items() if n.startswith("judge.")}
                judge = Judge.from_parts(parts, facts.pop("judge"))
            return cls(config, vocabulary, encoder, members, tensors["training_hashes"], facts, judge)


def judged(captions: Sequence[Caption], verdicts: Sequence[Verdict], hedging: bool) -> list[Caption]:
    """Captions in the order of their verdicts; the first is hedged where it is not sure enough, and `hedging` is on."""
    found = []
    for i, verdict in enumerate(verdicts):
        caption = captions[verdict.place]._replace(confidence=verdict.confidence, grade=verdict.grade)
        if hedging and i == 0 and verdict.hedge is not None:
            caption = caption._replace(text=verdict.hedge, unsure_of=caption.text)
        found.append(caption)
    return found
