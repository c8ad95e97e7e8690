"""Truncated BPTT against networks unrolled by hand, copy by copy."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import carousel
from carousel.cells import LSTM
from carousel.errors import ConfigError, DataError
from carousel.nn import Recurrent, unroll
from carousel.training import BPTT, Columns, Piece, Streams, bptt

I, H, B, T = 3, 5, 2, 24  # noqa: E741


class Model(nn.Module):
    """A recurrent network and a readout; the loss is a sum over the steps that are there."""

    def __init__(self, recurrent: Callable[[], nn.Module] = lambda: Recurrent("lstm", I, H, layers=2)) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.recurrent = recurrent()
            self.readout = nn.LazyLinear(2)
            self.readout(torch.zeros(1, self.recurrent(torch.zeros(1, 1, I))[0].shape[-1]))

    def initial_state(self, batch: int) -> Any:
        return self.recurrent.initial_state(batch)

    def forward(self, piece: Piece, state: Any) -> tuple[Tensor, Any]:
        lengths = {} if piece.lengths is None else {"lengths": piece.lengths}
        outputs, state = self.recurrent(piece.inputs, state, **lengths)
        errors = (self.readout(outputs) - piece.targets).square().sum(-1)
        return (errors * piece.real).sum(), state


def data(steps: int = T, batch: int = B, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, I, generator=draw), torch.randn(steps, batch, 2, generator=draw)


def cut(inputs: Tensor, targets: Tensor, k1: int) -> Iterator[Piece]:
    yield from map(Piece, inputs.split(k1), targets.split(k1))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    assert sum(gradient.abs().sum().item() for gradient in one.values()) > 0
    for name, gradient in one.items():
        torch.testing.assert_close(
            gradient, other[name], rtol=tolerance, atol=tolerance, msg=partial("{}: {}".format, name)
        )


def copies_gradients(
    weights: Sequence[Model], inputs: Tensor, targets: Tensor, counted: range, reached: range
) -> list[dict[str, Tensor]]:
    """The network unrolled, a copy of its own for each step: each copy's gradient of the losses of the steps `counted`.

    Copy t has the weights of `weights[t]`; the gradient goes no further back than `reached`.
    """
    copies, state, total = [copy.deepcopy(model) for model in weights], None, torch.zeros(())
    for t, model in enumerate(copies):
        if state is not None and t == reached.start:
            state = tuple(type(layer)(*(field.detach() for field in layer)) for layer in state)
        if t >= reached.stop:
            break
        output, state = model.recurrent.step(inputs[t], state)
        if t in counted:
            total = total + (model.readout(output) - targets[t]).square().sum()
    total.backward()
    return [gradients(copies[t]) for t in reached]


def summed(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(g[name] for g in found if name in g) for name in found[-1]}  # type: ignore[misc]


# --- what is computed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [None, 1, 5, 24])
def test_the_sum_of_the_copies_gradients_is_the_gradient(recompute: int | None) -> None:
    model, (inputs, targets) = Model(), data()
    by_hand = copies_gradients([model] * T, inputs, targets, range(T), range(T))
    BPTT(model, model, k1=T, recompute=recompute)(Piece(inputs, targets)).backward()
    assert_same(gradients(model), summed(by_hand))
    BPTT(model, model, k1=T, recompute=recompute, over_time="mean")(Piece(inputs, targets)).backward()
    assert_same(gradients(model), {name: g / T for name, g in summed(by_hand).items()})


@pytest.mark.parametrize("recompute", [None, 2])
@pytest.mark.parametrize(
    ("k1", "k2"), [(4, 4), (4, 8), (4, 24), (4, 10), (5, 7), (1, 3), (6, 2), (7, 5), (24, 24), (24, 5), (10, 100)]
)
def test_every_backward_pass_is_that_of_the_copies_it_reaches(k1: int, k2: int, recompute: int | None) -> None:
    """Between the pieces the weights move, so that each copy has those of its time."""
    model, (inputs, targets) = Model(), data()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    truncated = BPTT(model, model, k1=k1, k2=k2, recompute=recompute)
    weights: list[Model] = []
    for piece in cut(inputs, targets, k1):
        begin, end = len(weights), len(weights) + len(piece.inputs)
        weights += [copy.deepcopy(model)] * len(piece.inputs)
        reached = range(max(0, end - k2), end)
        if end == T and T % k1:  # the last piece is shorter: it reaches k2 back, or to the cut before that
            reached = range(min(t for t in {*range(0, T, k1), *(range(k1 - k2 % k1, T, k1))} if t >= T - k2), T)
        by_hand = copies_gradients(weights, inputs, targets, range(max(begin, reached.start), end), reached)
        loss = truncated(piece)
        loss.backward()
        assert_same({n: p.grad for n, p in model.named_parameters()}, summed(by_hand))  # type: ignore[misc]
        optimiser.step()
        optimiser.zero_grad()
    assert len(weights) == T


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 12), (6, 2)])
def test_the_mean_over_time_divides_by_the_copies(k1: int, k2: int) -> None:
    model, (inputs, targets) = Model(), data()
    for k, piece in enumerate(cut(inputs, targets, k1)):
        if k == 0:
            plain, mean = (BPTT(model, model, k1=k1, k2=k2, over_time=how) for how in ("sum", "mean"))  # type: ignore[arg-type]
        losses = [plain(piece), mean(piece)]
        found = []
        for loss in losses:
            loss.backward()
            found.append(gradients(model))
        assert losses[0] == losses[1]
        copies = min(k2, (k + 1) * k1)
        assert_same({name: g / copies for name, g in found[0].items()}, found[1])


@pytest.mark.parametrize(
    "recurrent",
    [
        lambda: Recurrent("gru", I, H, layers=2, skip="residual", learn_start=True),
        lambda: Recurrent("lstm", I, H, dilation=3),
        lambda: Recurrent(["mingru", "lstm"], I, H, zoneout=0.1),
        lambda: carousel.LSTM(I, H, num_layers=2),
    ],
    ids=["learned start", "dilated", "mixed", "drop-in"],
)
def test_any_network_and_nested_states(recurrent: Any) -> None:
    """Where the weights stand still, a k2 that reaches the beginning is full BPTT."""
    model, (inputs, targets) = Model(recurrent), data()
    model.recurrent.eval()
    state, total, found = None, torch.zeros(()), []
    whole = BPTT(model, model, k1=4, k2=T, recompute=3)
    for piece in cut(inputs, targets, 4):
        loss, state = model(piece, state)
        total = total + loss
        whole(piece).backward()
        found.append(gradients(model))
    total.backward()
    assert_same(gradients(model), {name: sum(g[name] for g in found if name in g) for name in found[0]})  # type: ignore[misc]


def test_a_loss_may_be_scaled_and_added_to() -> None:
    model, (inputs, targets) = Model(), data()
    first, second = cut(inputs, targets, 12)
    found = []
    for scale in (1.0, 0.25):
        truncated = BPTT(model, model, k1=12, k2=24)
        truncated(first).backward()
        model.zero_grad()
        penalty = sum(p.square().sum() for p in model.parameters())
        (scale * (truncated(second) + penalty)).backward()
        found.append(gradients(model))
    assert_same({name: g / 4 for name, g in found[0].items()}, found[1])


def test_dropout_is_the_same_when_it_is_computed_again() -> None:
    found = []
    for recompute in (None, 12):
        model, (inputs, targets) = Model(lambda: Recurrent("lstm", I, H, layers=2, dropout=0.5)), data()
        torch.manual_seed(0)
        truncated = BPTT(model, model, k1=12, k2=24, recompute=recompute)
        for piece in cut(inputs, targets, 12):
            model.zero_grad()
            truncated(piece).backward()
        found.append((gradients(model), torch.get_rng_state()))
    assert_same(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_mixed_precision_is_the_same_when_it_is_computed_again() -> None:
    found = []
    for recompute, resumed in ((None, False), (12, False), (None, True)):
        model, (inputs, targets) = Model(), data()
        truncated = BPTT(model, model, k1=12, k2=24, recompute=recompute)
        for piece in cut(inputs, targets, 12):
            if resumed:
                kept, truncated = truncated.state_dict(), BPTT(model, model, k1=12, k2=24)
                truncated.load_state_dict(kept)
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = truncated(piece)
            loss.backward()
        found.append(gradients(model))
    plain = Model()
    BPTT(plain, plain, k1=T)(Piece(*data())).backward()
    assert any(not torch.equal(found[0][name], g) for name, g in gradients(plain).items())
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


def test_without_gradients_nothing_is_kept_and_the_state_goes_on() -> None:
    model, (inputs, targets) = Model(), data()
    truncated = BPTT(model, model, k1=4, k2=12)
    with torch.no_grad():
        losses = [truncated(piece) for piece in cut(inputs, targets, 4)]
    whole, state = model(Piece(inputs, targets), None)
    torch.testing.assert_close(sum(losses), whole.detach())
    torch.testing.assert_close(truncated.state[1].c, state[1].c)
    assert not truncated._reached and not losses[0].requires_grad


def test_the_state_carried_over_has_no_history() -> None:
    model, (inputs, targets) = Model(), data()
    for k2 in (4, 8, 2):
        truncated = BPTT(model, model, k1=4, k2=k2)
        truncated(Piece(inputs[:4], targets[:4])).backward()
        assert not any(field.requires_grad for layer in truncated.state for field in layer)


# --- many ragged sequences --------------------------------------------------------------------------------------------

LENGTHS = [7, 3, 12, 1, 8, 4, 5]


def ragged() -> tuple[list[Tensor], list[Tensor]]:
    whole = [data(length, 1, seed) for seed, length in enumerate(LENGTHS)]
    return [x[:, 0] for x, _ in whole], [y[:, 0] for _, y in whole]


@pytest.mark.parametrize("recompute", [None, 2])
@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 12), (4, 10), (5, 5), (12, 12)])
def test_sequences_that_end_and_begin_in_a_batch_are_as_if_alone(k1: int, k2: int, recompute: int | None) -> None:
    """Loss and gradient are the sum of those of each sequence alone, truncated at the same places."""
    model, (inputs, targets) = Model(lambda: Recurrent("lstm", I, H, layers=2, learn_start=True)), ragged()
    with torch.no_grad():
        for start in (p for n, p in model.named_parameters() if "start" in n):
            start.normal_()
    together, alone = torch.zeros(()), torch.zeros(())
    truncated = BPTT(model, model, k1=k1, k2=k2, recompute=recompute)
    for piece in Streams(inputs, targets, batch=3, length=k1, order=[2, 0, 1, 4, 3, 6, 5]):
        loss = truncated(piece)
        loss.backward()
        together = together + loss.detach()
    found = gradients(model)
    for x, y in zip(inputs, targets, strict=True):
        truncated = BPTT(model, model, k1=k1, k2=k2)
        for piece in cut(x[:, None], y[:, None], k1):
            loss = truncated(piece)
            loss.backward()
            alone = alone + loss.detach()
    torch.testing.assert_close(together, alone)
    expected = gradients(model)
    if k2 % k1 == 0 or k2 == k1:  # a shorter last piece reaches as far back as a padded one
        assert_same(found, expected)
    else:
        assert found.keys() == expected.keys()


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 9])
def test_streams_read_everything_once_and_in_order(batch: int) -> None:
    inputs = [torch.arange(100 * k, 100 * k + length) for k, length in enumerate(LENGTHS)]
    seen: dict[int, list[int]] = {}
    rows: list[int] = []
    for piece in Streams(inputs, inputs, batch, 4, order=[6, 5, 4, 3, 2, 1, 0]):
        assert piece.lengths is not None and piece.rows is not None and piece.inputs.shape[1] <= batch
        for column, (length, before) in enumerate(zip(piece.lengths.tolist(), piece.rows.tolist(), strict=True)):
            values = piece.inputs[:length, column].tolist()
            if before == -1:
                assert values[0] % 100 == 0
            else:
                assert values[0] == rows[before] + 1
            seen.setdefault(values[0] // 100, []).extend(values)
        rows = [values[length - 1].item() for values, length in zip(piece.inputs.t(), piece.lengths, strict=True)]  # type: ignore[misc]
    assert seen == {k: whole.tolist() for k, whole in enumerate(inputs)}
    assert list(seen)[: min(batch, 7)] == [6, 5, 4, 3, 2, 1, 0][:batch]


def test_columns_are_contiguous_parts_of_the_stream() -> None:
    stream = torch.arange(103.0)[:, None]
    read = torch.cat([piece.inputs for piece in Columns(stream, stream, batch=4, length=7)])
    assert read.shape == (25, 4, 1) and torch.equal(read.transpose(0, 1).flatten(), torch.arange(100.0))
    assert [len(piece.inputs) for piece in Columns(stream, stream, 4, 7)] == [7, 7, 7, 4]


# --- interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k1", "k2", "recompute"), [(4, 4, None), (4, 12, None), (4, 10, None), (4, 8, 2), (6, 2, None)]
)
def test_it_goes_on_with_the_same_bits(k1: int, k2: int, recompute: int | None) -> None:
    def begin() -> tuple[Model, BPTT, torch.optim.Optimizer]:
        model = Model(lambda: Recurrent("lstm", I, H, layers=2, dropout=0.3, input_dropout=0.2))
        return model, BPTT(model, model, k1=k1, k2=k2, recompute=recompute), torch.optim.SGD(model.parameters(), 0.02)

    def run(model: Model, truncated: BPTT, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
        for k, piece in enumerate(cut(*data(), k1)):
            if first <= k < last:
                torch.manual_seed(k)
                optimiser.zero_grad()
                truncated(piece).backward()
                optimiser.step()

    one = begin()
    run(*one, 0, 6)
    half = begin()
    run(*half, 0, 3)
    kept, weights = {name: t.clone() for name, t in half[1].state_dict().items()}, half[0].state_dict()
    other = begin()
    other[0].load_state_dict(weights)
    before = torch.get_rng_state()
    other[1].load_state_dict(kept)
    assert torch.equal(torch.get_rng_state(), before)
    run(*other, 3, 6)
    for name, weight in one[0].state_dict().items():
        assert torch.equal(weight, other[0].state_dict()[name]), name


# --- what it costs ---------------------------------------------------------------------------------------------------


class Counting(Recurrent):
    def forward(self, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        self.steps = getattr(self, "steps", 0) + len(inputs)
        return super().forward(inputs, state, lengths)


@pytest.mark.parametrize(("k1", "k2", "recompute", "forwards"), [(4, 12, None, 24), (4, 10, None, 24), (24, 24, 5, 48)])
def test_the_forward_is_computed_once(k1: int, k2: int, recompute: int | None, forwards: int) -> None:
    model = Model(lambda: Counting("lstm", I, H))
    model.recurrent.steps = 0
    truncated = BPTT(model, model, k1=k1, k2=k2, recompute=recompute)
    for piece in cut(*data(), k1):
        truncated(piece).backward()
    assert model.recurrent.steps == forwards


def bytes_saved(run: Any) -> int:
    """The greatest number of bytes that graphs held at one time, by what backward passes save."""
    held, most = 0, 0

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal held, most
            self.tensor, self.size = (
                tensor.detach(),
                tensor.numel() * tensor.element_size(),
            )  # an output would be a cycle
            held += self.size
            most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            held -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        run()
    gc.collect()
    assert held == 0  # and nothing is left
    return most


class Counted(TorchDispatchMode):
    """How many operations there are."""

    def __enter__(self) -> Any:
        self.operations = 0
        return super().__enter__()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def test_carrying_the_state_costs_no_more_than_to_detach_it() -> None:
    """Against chunks that are each given a state; for the times see benchmarks/truncated_bptt.py."""
    model, pieces = Model(), list(cut(*data(64), 8))
    truncated, state = BPTT(model, model, k1=8), model(pieces[0], None)[1]
    state = tuple(type(layer)(*(field.detach() for field in layer)) for layer in state)
    truncated(pieces[0]).backward()
    with Counted() as chunks:
        for piece in pieces:
            model(piece, state)[0].backward()
    with Counted() as carried:
        for piece in pieces:
            truncated(piece).backward()
    assert carried.operations - chunks.operations == len(pieces) * 2 * 2  # layers, fields


def test_memory_does_not_grow_with_the_stream() -> None:
    def train(steps: int, k2: int) -> Any:
        def run() -> None:
            model = Model()
            truncated = BPTT(model, model, k1=8, k2=k2)
            for piece in cut(*data(steps), 8):
                truncated(piece).backward()

        return run

    for k2 in (8, 24):
        assert bytes_saved(train(80, k2)) == bytes_saved(train(800, k2)) > 0


def test_recomputing_bounds_the_memory_by_a_part() -> None:
    def train(recompute: int | None) -> Any:
        def run() -> None:
            model, (inputs, targets) = Model(), data(400)
            BPTT(model, model, k1=400, recompute=recompute)(Piece(inputs, targets)).backward()

        return run

    assert bytes_saved(train(20)) < bytes_saved(train(None)) / 12


# --- what is refused -------------------------------------------------------------------------------------------------


def test_wrong_options_are_told() -> None:
    model, (inputs, targets) = Model(), data()
    with pytest.raises(ConfigError, match=r"k2: not a number of steps \(got -1\)"):
        BPTT(model, model, k1=3, k2=-1)
    with pytest.raises(ConfigError, match=r"over_time: unknown \(got 'max'\); sum, mean"):
        BPTT(model, model, k1=3, over_time="max")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"piece: not up to k1 steps \(got 24\); 1 to 3"):
        BPTT(model, model, k1=3)(Piece(inputs, targets))
    with pytest.raises(ConfigError, match=r"k2: LSTM of torch.nn keeps its weights to itself \(got k2=6 > k1=3\)"):
        BPTT(model, nn.LSTM(I, H), k1=3, k2=6)
    with pytest.raises(ConfigError, match=r"length: none \(got 0\)"):
        Columns(inputs, targets, 1, 0)
    with pytest.raises(DataError, match=r"stream: not a stream \(got 24 inputs, 23 targets, 2 columns\)"):
        Columns(inputs, targets[1:], 2, 3)
    with pytest.raises(DataError, match=r"sequence 0: not as many inputs as targets \(got 24 and 23\)"):
        Streams([inputs], [targets[1:]], 2, 3)
    truncated = BPTT(lambda piece, state: model(piece, state), nn.Linear(1, 1), k1=4)
    streams = Streams(*ragged(), batch=2, length=4)
    truncated(streams[0])
    with pytest.raises(ConfigError, match=r"initial_state: missing"):
        for piece in streams:
            truncated(piece)


def test_gradients_without_backward_are_refused() -> None:
    model, (inputs, targets) = Model(), data()
    loss = BPTT(model, model, k1=T, recompute=5)(Piece(inputs, targets))
    with pytest.raises((RuntimeError, ValueError)):
        torch.autograd.grad(loss, list(model.parameters()))


def test_planted_bugs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are not those of the copies' time, and a state that is not detached, change the gradient."""
    monkeypatch.setattr(bptt._Copy, "forward", staticmethod(lambda ctx, weight, copied: weight.detach().clone() * 1.01))
    with pytest.raises(AssertionError):
        test_every_backward_pass_is_that_of_the_copies_it_reaches(4, 8, None)


def test_the_clm_use_with_targets_one_ahead() -> None:
    words = torch.arange(50) % 5
    embedding, cell, readout = nn.Embedding(5, I), LSTM(I, H), nn.Linear(H, 5)
    model = nn.ModuleList([embedding, cell, readout])

    def forward(piece: Piece, state: Any) -> tuple[Tensor, Any]:
        outputs, state = unroll(cell, embedding(piece.inputs), state)
        return F.cross_entropy(readout(outputs).flatten(0, 1), piece.targets.flatten(), reduction="sum"), state

    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    epochs = []
    for _ in range(20):
        truncated, total = BPTT(forward, model, k1=5, k2=10), 0.0
        for piece in Columns(words[:-1], words[1:], batch=2, length=5):
            optimiser.zero_grad()
            loss = truncated(piece)
            loss.backward()
            optimiser.step()
            total += loss.item()
        epochs.append(total)
    assert epochs[-1] < 0.2 * epochs[0]
