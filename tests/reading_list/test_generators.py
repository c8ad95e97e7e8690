"""The sequences are those of the papers."""

import itertools

import pytest
import torch
from torch import Tensor

from carousel.reading_list import pascanu_2013
from carousel.reading_list.feng_2024 import selective
from carousel.reading_list.gers_2000 import closing, endless, streams
from carousel.reading_list.gers_2001 import counted
from carousel.reading_list.gers_2002 import cosine, generating, measuring, rectangle, spikes, triangle
from carousel.reading_list.hochreiter_1997 import (
    additions,
    distracted,
    multiplications,
    noise_free,
    reber_strings,
    temporal_order,
    two_sequence,
)
from carousel.reading_list.reber import SYMBOLS, coins, one_hot, predicted, reber


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def accepts(string: str) -> bool:
    """Whether a string is embedded Reber, by walking over the grammar's edges as the paper draws them."""
    edges = {
        (0, "T"): 1, (0, "P"): 2, (1, "S"): 1, (1, "X"): 3, (2, "T"): 2, (2, "V"): 4,
        (3, "X"): 2, (3, "S"): 5, (4, "P"): 3, (4, "V"): 5, (5, "E"): 6,
    }  # fmt: skip
    outer, inner = string[1], string[2:-2]
    if string[0] != "B" or string[-1] != "E" or outer not in "TP" or string[-2] != outer or inner[0] != "B":
        return False
    state = 0
    for symbol in inner[1:]:
        if (state, symbol) not in edges:
            return False
        state = edges[state, symbol]
    return state == 6


def test_embedded_reber_strings_are_in_the_grammar_and_say_what_may_follow() -> None:
    drawn = coins(seeded())
    strings = [list(reber(drawn)) for _ in range(300)]
    texts = ["".join(symbol for symbol, _ in string) for string in strings]
    assert all(map(accepts, texts))
    assert not any(accepts(text[:-2] + ("P" if text[1] == "T" else "T") + "E") for text in texts)
    assert min(map(len, texts)) == 9
    for string in strings:
        for (_, follow), (symbol, _) in itertools.pairwise(string):
            assert symbol in follow
    followers: dict[str, set[str]] = {}  # what was seen after each beginning is what is said to be possible
    for string, text in zip(strings, texts, strict=True):
        for t in range(1, 6):
            followers.setdefault(text[:t], set()).add(text[t])
            assert len(string[t - 1][1]) <= 2
    common = {start: seen for start, seen in followers.items() if sum(text.startswith(start) for text in texts) > 40}
    said = {text[:t]: set(string[t - 1][1]) for string, text in zip(strings, texts, strict=True) for t in range(1, 6)}
    assert common == {start: said[start] for start in common}


def test_test_strings_are_not_trained_on() -> None:
    train, test = reber_strings(0)

    def texts(inputs: Tensor) -> set[str]:
        rows = inputs.argmax(-1).T.tolist(), inputs.any(-1).T.tolist()
        return {"".join(SYMBOLS[k] for k, real in zip(*row, strict=True) if real) for row in zip(*rows, strict=True)}

    assert train.inputs.shape[1] == test.inputs.shape[1] == 256
    assert not texts(train.inputs) & texts(test.inputs)
    real = train.following >= 0
    assert bool((train.legal.gather(-1, train.following.clamp(min=0)[..., None])[..., 0][real] == 1).all())
    assert torch.equal(real, train.inputs.any(-1))


def test_all_that_may_follow_must_come_first() -> None:
    legal = torch.tensor([1.0, 0.0, 1.0])
    assert predicted(torch.tensor([3.0, 1.0, 2.0]), legal)
    assert not predicted(torch.tensor([3.0, 2.0, 1.0]), legal)


def test_endless_streams_are_strings_one_after_the_other() -> None:
    stream = list(itertools.islice(endless(seeded()), 2000))
    for (_, follow), (symbol, _) in itertools.pairwise(stream):
        assert symbol in follow
    strings = "".join(symbol for symbol, _ in stream).replace("EB", "E B").replace("TB", "T B").replace("PB", "P B")
    assert strings.count("E") > 100
    inputs, legal = one_hot(stream)
    asked = closing(inputs, legal)
    for t in asked.nonzero()[:, 0].tolist()[:-1]:
        text = "".join(symbol for symbol, _ in stream)
        begins = text.rindex("B", 0, text.rindex("B", 0, t)) + 1
        assert text[t] == "E" and text[t + 1] == text[begins] and text[t + 2] == "E"
    assert int(asked.sum()) == sum(symbol == "E" and len(follow) == 1 and follow in "TP" for symbol, follow in stream)


def test_pieces_of_a_stream_go_on() -> None:
    (first, _), (second, _) = itertools.islice(streams(2, "test"), 2)
    whole = one_hot(itertools.islice(endless(_source()), 100))[0]
    assert torch.equal(torch.cat([first, second])[:, 1], whole)


def _source() -> torch.Generator:
    from carousel.training.seeding import generator

    return generator("continual", "test", 1)


def test_the_noise_free_lag_repeats_its_first_symbol() -> None:
    x, y = noise_free(100, 0)[:, 0], noise_free(100, 1)[:, 0]
    assert len(x) == 101 and x[0] == x[-1] == 99 and y[0] == y[-1] == 100
    assert torch.equal(x[1:-1], y[1:-1]) and torch.equal(x[1:-1], torch.arange(99))


def test_distractors_lie_between_the_symbol_and_its_return() -> None:
    q, p = 30, 7
    inputs, targets, ends = distracted(q, p, 400, seeded())
    symbols = inputs.float().argmax(-1)
    assert bool((symbols[0] == p + 1).all())
    assert torch.equal(symbols[1] - p - 2, targets)
    assert set(targets.tolist()) == {0, 1}
    assert bool((symbols[ends, torch.arange(400)] == p).all())
    between = (torch.arange(len(inputs))[:, None] < ends) & (torch.arange(len(inputs))[:, None] > 1)
    assert bool((symbols[between] < p).all())
    lengths = ends + 2  # with what is asked for, the last symbol
    assert int(lengths.min()) == q + 4 and abs(float(lengths.float().mean()) - (q + 13)) < 2


def test_two_sequences_differ_in_their_beginnings_alone() -> None:
    inputs, targets, ends = two_sequence(3, 2000, seeded())
    assert torch.equal(inputs[:3, :, 0], torch.where(targets < 0.5, 1.0, -1.0).expand(3, -1))
    assert targets.unique().tolist() == pytest.approx([0.2, 0.8])
    assert abs(float(inputs[3:].var()) - 0.2) < 0.01
    assert (int(ends.min()), int(ends.max())) == (99, 109)


def test_the_product_is_that_of_the_marked_numbers() -> None:
    sums, products = additions(100, 500, seeded()), multiplications(100, 500, seeded())
    numbers, marks = products.inputs.unbind(-1)
    assert torch.equal(marks, sums.inputs[..., 1])
    assert bool(((marks == 1).sum(0) == 2).all())
    chosen = torch.where(marks == 1, numbers, 1.0)
    assert torch.allclose(products.targets, chosen.prod(0))
    assert float(numbers.min()) >= 0 and float(numbers.max()) <= 1
    first = marks[0] == 1
    assert bool(first.any()) and bool((numbers[0][first] == 1).all())
    assert bool((marks[products.ends, torch.arange(500)] == -1).all())


@pytest.mark.parametrize("places", [(10, 50), (10, 33, 66)])
def test_the_class_is_the_order_of_x_and_y(places: tuple[int, ...]) -> None:
    inputs, targets, ends = temporal_order(places, 500, seeded())
    symbols, everyone = inputs.argmax(-1), torch.arange(500)
    assert bool((symbols[0] == 6).all()) and bool((symbols[ends, everyone] == 7).all())
    assert (int(ends.min()) + 1, int(ends.max()) + 1) == (100, 110)
    for k in range(500):
        at = ((symbols[: ends[k], k] == 4) | (symbols[: ends[k], k] == 5)).nonzero()[:, 0]
        assert len(at) == len(places)
        assert all(place <= int(t) + 1 <= place + 10 for place, t in zip(places, at, strict=True))
        assert int("".join(str(int(symbols[t, k]) - 4) for t in at), 2) == targets[k]
    assert set(targets.tolist()) == set(range(2 ** len(places)))


@pytest.mark.parametrize(("letters", "names"), [(2, "Sab"), (3, "Sabc")])
def test_strings_that_count(letters: int, names: str) -> None:
    counts = [1, 2, 5]
    inputs, legal, real = counted(letters, counts)
    ends = [*names[1:], "T"]
    for k, n in enumerate(counts):
        text = "".join(names[i] for i in inputs[:, k].argmax(-1)[real[:, k]].tolist())
        assert text == "S" + "".join(letter * n for letter in names[1:])
        for t, symbol in enumerate(text):
            follow = {ends[i] for i in legal[t, k].nonzero()[:, 0].tolist()}
            wanted = {"a", "b"} if symbol == "a" else {(text + "T")[t + 1]}
            assert follow == wanted


def test_spikes_are_late_by_their_delays() -> None:
    _, times = spikes(10, 50, 3, seeded())
    inputs, targets, asked = measuring(10, 50, 3, seeded())
    for k in range(3):
        at = inputs[:, k, 0].nonzero()[:, 0]
        assert torch.equal(at, times[:, k]) and torch.equal(asked[:, k].nonzero()[:, 0], at)
        assert torch.equal(targets[at, k], torch.diff(at, prepend=torch.tensor([0])) - 10.0)
    inputs, targets, asked = generating(10, 50, 3, seeded())
    for k in range(3):
        at = targets[:, k].nonzero()[:, 0]
        assert torch.equal(at, times[:, k])
        begins = torch.cat([torch.tensor([0]), at[:-1]])
        assert torch.equal(at - begins, 10 + inputs[begins, k, 0].long())
        assert int(inputs[:, k].sum()) == int(inputs[begins, k].sum())
        assert bool(asked[: at[-1] + 1, k].all()) and not bool(asked[at[-1] + 1 :, k].any())


@pytest.mark.parametrize("function", [cosine, triangle, rectangle])
def test_functions_repeat(function: object) -> None:
    values = function(10, 40)  # type: ignore[operator]
    assert torch.allclose(values[:30], values[10:], atol=1e-5)
    assert float(values.min()) == 0 and float(values.max()) == 1
    assert not torch.allclose(values[:35], values[5:], atol=0.1)


@pytest.mark.parametrize("length", [50, 200])
def test_the_order_of_a_and_b_is_the_class(length: int) -> None:
    inputs, orders = pascanu_2013.temporal_order(length, 500, seeded())
    symbols = inputs.argmax(-1)
    for k in range(500):
        first, second = (symbols[:, k] < 2).nonzero()[:, 0].tolist()
        assert length // 10 <= first < length // 5 and length // 2 <= second < length // 2 + length // 10
        assert symbols[first, k] + 2 * symbols[second, k] == orders[k]
    assert set(orders.tolist()) == {0, 1, 2, 3}
    assert set(symbols.flatten().tolist()) == set(range(6))


def test_what_was_selected_is_said_in_its_order() -> None:
    inputs, wanted = selective(200, 30, seeded())
    symbols = inputs.argmax(-1)
    assert bool((symbols[30:] == 9).all()) and len(inputs) == 34
    for k in range(200):
        assert [s for s in symbols[:30, k].tolist() if s] == wanted[:, k].tolist()
    assert set(wanted.flatten().tolist()) == set(range(1, 9))
