"""A captioner made of parts: concepts, candidate sentences that say them, and a ranking; and its one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.captioning.candidates import Candidate
from carousel.captioning.captioner import FromPhotos, judged
from carousel.captioning.captions import Attention, Caption, Decoding, Maps
from carousel.captioning.compose_config import ComposeConfig
from carousel.captioning.concepts import Concepts
from carousel.captioning.coverage import search
from carousel.captioning.dmsm import DMSM
from carousel.captioning.judge import Judge
from carousel.captioning.melm import LEAST, MaxEntModel, evidence
from carousel.captioning.ngrams import NGrams
from carousel.captioning.packing import packed, unpacked
from carousel.captioning.photo_encoder import Looked, PhotoEncoder, Seen
from carousel.captioning.ranking import FEATURES, Grounded, ranked
from carousel.captioning.similarity import similarity_from, similarity_parts
from carousel.captioning.word_classes import word_class
from carousel.data.vocabulary import Vocabulary
from carousel.decoding import Sentence
from carousel.errors import ConfigError
from carousel.metrics.diversity import sentence_hash
from carousel.training import read_model_file, write_model_file
from carousel.training.model_file import parts_fit

TASK = "compose"
CONTENT = ("noun", "verb", "adjective")

Floats = NDArray[np.float64]


class Pipeline(FromPhotos):
    """Concepts -> candidates -> ranking, trained apart: Fang et al. 2015, arXiv:1411.4952v3.

        V      = the concepts whose chance reaches their threshold
        S_1..M = the likeliest sentences of the language model, given V, that say most of V
        answer = argmax over S_i of weights · features(S_i)

    It captions as `Captioner` does, and takes the same photos.
    """

    def __init__(
        self,
        config: ComposeConfig,
        vocabulary: Vocabulary,
        concepts: Concepts,
        thresholds: Tensor,  # (C,), of log p
        language: MaxEntModel,
        similarity: DMSM,
        weights: Floats,  # of FEATURES
        training_hashes: Tensor,  # (N,) int64, sorted: `sentence_hash` of every training caption
        facts: Mapping[str, Any] | None = None,
        judge: Judge | None = None,  # with weights of its own
    ) -> None:
        self.config, self.vocabulary, self.encoder = config, vocabulary, PhotoEncoder()
        self.concepts, self.thresholds, self.language = concepts.eval(), thresholds, language.eval()
        self.similarity, self.weights = similarity.eval(), weights
        self.training_hashes, self.facts, self.judge = training_hashes, dict(facts or {}), judge
        self._known = frozenset(training_hashes.tolist())
        self._numbers = torch.tensor(vocabulary.encode(concepts.words))
        self._content = {w: i for i, w in enumerate(concepts.words) if word_class(w) in CONTENT}

    def attention(self, photos: Tensor, captions: Sequence[Caption]) -> list[Attention]:
        """Raises `ConfigError`: nothing attends; `Concepts.heat_maps` shows where words were seen."""
        raise ConfigError("attention: nothing here attends (got a captioner made of parts); a decoder; leave it out")

    def maps(self, photos: Tensor, lists: Sequence[Sequence[Caption]], most: int = 8) -> list[list[Maps]]:
        """Where the likeliest of the concepts that reach their thresholds were seen, whatever the captions say."""
        found = []
        with torch.inference_mode():
            seen = self.look(photos)
            every_place = self._fast_encoder.every_place(seen) if self.config.pooling == "pooled" else None
            for k, there in enumerate(self.concepts(seen).there):
                detected = [word for word, i in self._content.items() if there[i] >= self.thresholds[i]]
                words = sorted(detected, key=lambda word: -float(there[self._content[word]]))[:most]
                one = Looked(*(field[k : k + 1] for field in seen))
                places = None if every_place is None else every_place[k : k + 1]
                heat = self.concepts.heat_maps(one, words, places)[0]
                chances = [float(there[self._content[word]].exp()) for word in words]
                found.append([Maps("where concepts were seen", words, heat, chances)])
        return found

    def describe(self, seen: Seen, decoding: Decoding = Decoding()) -> list[list[Caption]]:  # noqa: B008
        """Captions, best first, of what was seen in photos. Raises `ConfigError` where they are to be sampled."""
        if decoding.sample:
            raise ConfigError(
                "sample: a captioner made of parts does not sample (got --sample); its best; leave it out"
            )
        assert isinstance(seen, Looked)
        found = []
        judge = self.judge if decoding.judged else None
        for some, rows in zip(*self.choices(seen, decoding.beam or (judge.beam if judge else None)), strict=True):
            captions = [self._caption(one) for one in some]
            if judge is None:
                best = np.argsort(-(rows @ self.weights), kind="stable")[: decoding.n]
                found.append([captions[k] for k in best])
            else:
                verdicts = judge.verdicts(some, rows)
                found.append(judged(captions, verdicts[: decoding.n], decoding.hedge))
        return found

    def choices(
        self, seen: Looked, beam: int | None = None, batch: int = 64
    ) -> tuple[list[list[Candidate]], list[Floats]]:
        """The candidates of each photo, likeliest first, and their `FEATURES` (n, 10); so many photos at a time."""
        lists: list[list[Candidate]] = []
        rows: list[Floats] = []
        with torch.inference_mode():
            for i in range(0, len(seen.pooled), batch):
                some = Looked(*(field[i : i + batch].float() for field in seen))
                there = self.concepts(some).there
                found = self.candidates(there, beam)
                rows += [self.rows(each, some.pooled[k], there[k]) for k, each in enumerate(found)]
                lists += found
        return lists, rows

    def candidates(self, there: Tensor, beam: int | None = None, batch: int = 16) -> list[list[Candidate]]:
        """What the language model would say, likeliest first, of photos with the log-chances (N, C)."""
        c, found = self.config, []
        for i in range(0, len(there), batch):
            some = evidence(there[i : i + batch], self.thresholds, self._numbers, len(self.vocabulary))
            lists = search(
                self.language,
                some,
                width=beam or c.beam,
                most=c.candidates,
                cover=c.cover,
                endings=c.endings,
                max_length=c.max_length,
            )
            for sentences in lists:
                found.append([self._candidate(one, covered, rank) for rank, (one, covered) in enumerate(sentences)])
        return found

    def _candidate(self, one: Sentence, covered: int, rank: int) -> Candidate:
        words, text = tuple(map(self.vocabulary.word, one.words)), self.vocabulary.decode(one.words)
        chances = tuple(np.exp(one.word_logprobs).tolist())
        novel = sentence_hash(text) not in self._known
        return Candidate(text, words, one.logprob, covered, rank, chances, novel)

    def rows(self, candidates: Sequence[Candidate], pooled: Tensor, there: Tensor) -> Floats:
        """The `FEATURES` (n, 10) of one photo's candidates: its pooled features (1712,), its log-chances (C,)."""
        with torch.inference_mode():
            cosines = self.similarity(pooled[None].float(), [candidate.words for candidate in candidates])[0]
        chances = there.tolist()
        seen = np.array([self._seen(candidate.words, chances) for candidate in candidates])
        return np.column_stack([ranked(candidates, cosines.double().numpy()), seen])

    def _seen(self, words: Sequence[str], chances: Sequence[float]) -> Grounded:
        found = [max(LEAST, chances[self._content[word]]) for word in set(words) & self._content.keys()] or [0.0]
        surprise = float(np.sum(np.log1p(-np.exp(np.minimum(found, -0.01)))))
        return Grounded(float(np.mean(found)), min(found), surprise)

    def _caption(self, one: Candidate) -> Caption:
        return Caption(one.text, one.logprob, one.novel, list(zip(one.words, one.probabilities, strict=True)))

    def save(self, path: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write the one file that `load` reads; see `packed`."""
        similarity, of_similarity = similarity_parts(self.similarity)
        parts = {
            "concepts": packed(self.concepts.state_dict()),
            "language": packed(self.language.state_dict()),
            "ngrams": {str(n): table for n, table in enumerate(self.language.ngrams.tables)},
            "similarity": packed(similarity),
        }
        tensors = {f"{part}.{name}": tensor for part, some in parts.items() for name, tensor in some.items()}
        tensors |= {"thresholds": self.thresholds, "weights": torch.from_numpy(self.weights)}
        known = {
            "task": TASK,
            "config": self.config.model_dump(),
            "vocabulary": self.vocabulary.to_list(),
            "words": self.concepts.words,
            "similarity": of_similarity,
            **({"judge": self.judge.parts()[1]} if self.judge else {}),
            **self.facts,
            **(facts or {}),
        }
        write_model_file(path, tensors | {"training_hashes": self.training_hashes}, known)

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Read a captioner made of parts. Raises `ModelFileError`."""
        tensors, facts = read_model_file(path, TASK)
        with parts_fit(path):
            parts: dict[str, dict[str, Tensor]] = {
                part: {} for part in ("concepts", "language", "ngrams", "similarity")
            }
            for name, tensor in tensors.items():
                part, dot, rest = name.partition(".")
                if dot:
                    parts[part][rest] = tensor
            config = ComposeConfig(**facts.pop("config"))
            vocabulary = Vocabulary.from_list(facts.pop("vocabulary"))
            concepts = Concepts(facts.pop("words"), config.pooling, config.context, config.detector_dropout)
            concepts.load_state_dict(unpacked(parts["concepts"]))
            if len(tensors["thresholds"]) != len(concepts.words) or len(tensors["weights"]) != len(FEATURES):
                raise ValueError("a threshold for each concept and a weight for each feature")
            tables = [parts["ngrams"][str(n)] for n in range(len(parts["ngrams"]))]
            language = MaxEntModel(NGrams(tables, len(vocabulary)), config.triggers)
            language.load_state_dict(unpacked(parts["language"]))
            similarity = similarity_from(unpacked(parts["similarity"]), facts.pop("similarity"))
            weights = tensors["weights"].numpy()
            judge = Judge.from_parts({}, facts.pop("judge")) if "judge" in facts else None
            if judge is not None and len(judge.weights) != len(FEATURES):
                raise ValueError("a weight for each feature")
            least, hashes = tensors["thresholds"], tensors["training_hashes"]
            return cls(config, vocabulary, concepts, least, language, similarity, weights, hashes, facts, judge)
