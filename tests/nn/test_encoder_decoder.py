"""The encoder-decoder: padding, steps against whole sequences, gradients to everything, coverage."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from carousel.decoding import beam_search
from carousel.errors import ConfigError
from carousel.nn import Design, EncoderDecoder, coverage_loss

START, STOP = 1, 2
DESIGNS = [
    *({"attention": score, "feed": feed} for score in ("general", "additive") for feed in ("nothing", "attentional")),
    {"attention": "additive", "feed": "context"},
    {"attention": "additive", "coverage": True},
    {"attention": "additive", "feed": "attentional", "coverage": True},
    {"attention": "dot", "bidirectional": False},
    {"attention": "concat", "layers": 2},
    {"attention": "none", "layers": 2, "bidirectional": False},
    {"attention": "none", "feed": "context", "cell": "gru"},
    {"attention": "general", "copies": True},
    {"attention": "additive", "feed": "attentional", "copies": True},
]


def network(**options: Any) -> EncoderDecoder:
    torch.manual_seed(3)
    copies = options.get("copies", False)
    vocabularies = (9, 9) if copies else (9, 8)
    made = EncoderDecoder(Design(**{"hidden_size": 6, "embedding_size": 5, **options}), vocabularies, shared=copies)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return made.double().eval()


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[4, 5, 6], [7, 8, 2], [4, 2, 0], [6, 0, 0], [2, 0, 0]])
    return ids, torch.tensor([5, 3, 2])


def looked_at(ids: Tensor, steps: int) -> Tensor:
    return ids.t().expand(steps, -1, -1)


WORDS = torch.tensor([[1, 1, 1], [4, 5, 6], [7, 4, 4], [5, 6, 0]])


@pytest.mark.parametrize("options", DESIGNS, ids=str)
@torch.no_grad()
def test_neither_padding_nor_neighbours_are_seen(options: dict[str, Any]) -> None:
    made, (ids, lengths) = network(**options), batch()
    together, weights = made.decode(WORDS, *made.read(ids, lengths))
    dirty = ids.masked_fill(torch.arange(5)[:, None] >= lengths, 8)
    assert torch.equal(together, made.decode(WORDS, *made.read(dirty, lengths))[0])
    for b, length in enumerate(lengths.tolist()):
        alone, _ = made.decode(WORDS[:, b : b + 1], *made.read(ids[:length, b : b + 1], lengths[b : b + 1]))
        assert torch.allclose(together[:, b : b + 1], alone)
        if options["attention"] != "none":
            assert (weights[:, b, length:] == 0).all() and torch.allclose(weights[:, b].sum(-1), torch.ones(4).double())


@pytest.mark.parametrize("options", DESIGNS, ids=str)
@torch.no_grad()
def test_word_by_word_is_all_at_once(options: dict[str, Any]) -> None:
    made, (ids, lengths) = network(**options), batch()
    memory, state = made.read(ids, lengths)
    whole = made.logits(*made.decode(WORDS, memory, state), looked_at(ids, 4))
    step = made.stepper(memory, ids.t())
    for t, words in enumerate(WORDS):
        logits, state = step(words, state)
        assert torch.allclose(logits, whole[t])


@pytest.mark.parametrize("options", DESIGNS, ids=str)
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    made, (ids, lengths) = network(**options), batch()
    outputs, weights = made.decode(WORDS, *made.read(ids, lengths))
    (made.logits(outputs, weights, looked_at(ids, 4)).square().sum() + weights.square().sum()).backward()
    # an LSTM's bias for what is never fed, and the rest: all must get something
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("options", DESIGNS, ids=str)
@torch.no_grad()
def test_a_wide_beam_finds_what_trying_everything_finds(options: dict[str, Any]) -> None:
    made, (ids, lengths) = network(**options), batch()
    memory, state = made.read(ids, lengths)
    found = beam_search(
        made.stepper(memory, ids.t()),
        state,
        batch=3,
        start=START,
        stop=STOP,
        width=230,
        n_best=3,
        max_length=3,
        forbidden=(0, 3),
    )
    for b in range(3):
        every: dict[tuple[int, ...], float] = {}
        for length in range(4):
            for words in itertools.product(range(4, len(made.bias)), repeat=length):
                said = words if length == 3 else (*words, STOP)
                every[words] = forced(made, ids[:, b : b + 1], lengths[b : b + 1], said)
        best = sorted(every, key=every.__getitem__, reverse=True)[:3]
        assert [sentence.words for sentence in found[b]] == best
        assert [sentence.logprob for sentence in found[b]] == pytest.approx([every[words] for words in best])


def forced(made: EncoderDecoder, ids: Tensor, lengths: Tensor, said: tuple[int, ...]) -> float:
    """log p(said | ids), by one pass over all of it."""
    words, ids = torch.tensor([START, *said[:-1]])[:, None], ids[: int(lengths)]
    logits = made.logits(*made.decode(words, *made.read(ids, lengths)), looked_at(ids, len(words)))[:, 0]
    logits[:, [0, START, 3]] = -math.inf
    return float(logits.log_softmax(1).gather(1, torch.tensor(said)[:, None]).sum())


@torch.no_grad()
def test_one_direction_goes_on_from_where_it_was() -> None:
    made, (ids, _) = network(bidirectional=False), batch()
    whole, _ = made.encode(ids)
    first, state = made.encode(ids[:2])
    then, _ = made.encode(ids[2:], state=state)
    assert torch.allclose(torch.cat([first, then]), whole)


@torch.no_grad()
def test_coverage_turns_away_from_what_was_seen() -> None:
    made, (ids, lengths) = network(attention="additive", coverage=True), batch()
    memory, state = made.read(ids, lengths)
    seen = state.looked.clone()
    seen[:, 0] = 5.0
    query = torch.randn(3, 6, dtype=torch.double)
    free = made._look(query, memory, state.looked)[1]
    assert made.weigh_looked is not None and made.attention is not None
    made.weigh_looked.copy_(-9.0 * made.attention.v.weight[0].sign())  # type: ignore[union-attr, operator]
    assert (made._look(query, memory, seen)[1][:, 0] < free[:, 0]).all()


def test_coverage_loss_counts_real_steps_alone() -> None:
    weights = torch.tensor([[[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2])
    assert float(coverage_loss(weights, torch.tensor([[True, True], [True, False]]))) == pytest.approx(1 / 3)


def test_coverage_wants_the_additive_score() -> None:
    with pytest.raises(ConfigError, match=r"coverage: is inside .* \(got attention=general\); attention=additive; set"):
        Design(coverage=True)


@torch.no_grad()
def test_what_is_copied_is_what_was_looked_at() -> None:
    made, (ids, lengths) = network(copies=True), batch()
    outputs, weights = made.decode(WORDS, *made.read(ids, lengths))
    assert made.gate is not None
    made.gate.weight.zero_()
    for share in (0.0, 0.3):
        made.gate.bias.fill_(math.log(share / (1 - share)) if share else -1e4)
        said = (outputs @ made.target.weight.t() + made.bias).softmax(-1)
        for t, b, word in itertools.product(range(4), range(3), range(9)):
            again = sum(float(weights[t, b, j]) for j in range(int(lengths[b])) if ids[j, b] == word)
            expected = (1 - share) * float(said[t, b, word]) + share * again
            assert float(made.logits(outputs, weights, looked_at(ids, 4))[t, b, word].exp()) == pytest.approx(expected)


def test_copying_wants_attention_one_vocabulary_and_what_was_read() -> None:
    with pytest.raises(ConfigError, match=r"copies: .* \(got attention=none\); attention=general; set it"):
        Design(copies=True, attention="none")
    with pytest.raises(ConfigError, match=r"copies: .* \(got two vocabularies\); one; shared=True"):
        EncoderDecoder(Design(copies=True), (9, 9))
    with pytest.raises(ConfigError, match=r"logits: nothing to copy from .* give both"):
        network(copies=True).logits(torch.zeros(2, 5).double())
