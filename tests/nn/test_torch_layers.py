"""The drop-in layers are those of torch.nn: the same arguments, weights, calls, numbers and gradients."""

from __future__ import annotations

import copy
import doctest
import functools
import inspect
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cell_registry import assert_same, gradients, ragged_inputs
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import carousel
from carousel.errors import ConfigError
from carousel.nn import directions

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm-projected": ("LSTM", {"proj_size": 2}),
    "gru": ("GRU", {}),
    "rnn-tanh": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
}
NAMES = ("LSTM", "GRU", "RNN")
LENGTHS = {"packed-sorted": [6, 4, 2, 1], "packed": [2, 6, 1, 4]}
every_kind = pytest.mark.parametrize("kind", KINDS)


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """Carousel's layer and torch's, from one seed, in float64."""
    name, own = KINDS[kind]
    made = []
    for package in (carousel, nn):
        torch.manual_seed(0)
        made.append(getattr(package, name)(3, 4, **own, **options).double())
    return made[0], made[1]


@functools.cache
def lasting_pair(kind: str, layers: int, bidirectional: bool, bias: bool) -> tuple[Any, Any]:
    """`pair`, made once: a layer prepares its cells at its first call, which takes longer than all calls here."""
    return pair(kind, num_layers=layers, bidirectional=bidirectional, bias=bias)


def fields(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def start_of(module: nn.RNNBase, *batch: int) -> Any:
    cells = module.num_layers * (1 + module.bidirectional)
    sizes = [module.proj_size or 4, 4][: 1 + isinstance(module, nn.LSTM)]
    state = [torch.randn(cells, *batch, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    return tuple(state) if len(state) > 1 else state[0]


def call(module: nn.RNNBase, inputs: Tensor, form: str, start: Any) -> list[Tensor]:
    """Outputs and the fields of the final state."""
    if form == "single":
        inputs = inputs[:, 0]
    elif form in LENGTHS:
        packed = pack_padded_sequence(inputs, torch.tensor(LENGTHS[form]), enforce_sorted=form == "packed-sorted")
        outputs, state = module(packed, start)
        assert isinstance(outputs, PackedSequence)
        return [outputs.data, pad_packed_sequence(outputs)[0], *fields(state)]
    elif module.batch_first:
        inputs = inputs.transpose(0, 1)
    outputs, state = module(inputs, start)
    return [outputs, *fields(state)]


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("form", ["time-first", "batch-first", "single", *LENGTHS])
@pytest.mark.parametrize("started", [False, True], ids=["zeros", "started"])
def test_the_same_as_torch(kind: str, layers: int, bidirectional: bool, bias: bool, form: str, started: bool) -> None:
    ours, theirs = lasting_pair(kind, layers, bidirectional, bias)
    ours.batch_first = theirs.batch_first = form == "batch-first"
    inputs = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    start = start_of(theirs, *([] if form == "single" else [4])) if started else None
    got, wanted = call(ours, inputs, form, start), call(theirs, inputs, form, start)
    assert_same(got, wanted, tolerance=1e-10)
    ends = [inputs, *(fields(start) if started else [])]
    found = gradients(got, [*ends, *ours.parameters()])
    assert_same(found, gradients(wanted, [*ends, *theirs.parameters()]), tolerance=1e-10)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_lengths_are_packing(kind: str, bidirectional: bool, batch_first: bool) -> None:
    ours, theirs = lasting_pair(kind, 2, bidirectional, True)
    ours.batch_first = theirs.batch_first = batch_first
    lengths, start = torch.tensor([2, 6, 1, 4]), start_of(theirs, 4)
    dirty, clean = ragged_inputs(lengths, fill=torch.nan), ragged_inputs(lengths)
    turned = [inputs.transpose(0, 1) if batch_first else inputs for inputs in (dirty, clean)]
    outputs, state = ours(turned[0], start, lengths=lengths)
    packed, wanted_state = theirs(
        pack_padded_sequence(turned[1], lengths, enforce_sorted=False, batch_first=batch_first), start
    )
    wanted = pad_packed_sequence(packed, batch_first=batch_first)[0]
    got, wanted = [outputs, *fields(state)], [wanted, *fields(wanted_state)]
    assert_same(got, wanted, tolerance=1e-10)
    found = gradients(got, [dirty, *fields(start), *ours.parameters()])
    assert_same(found, gradients(wanted, [clean, *fields(start), *theirs.parameters()]), tolerance=1e-10)


@every_kind
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_a_seed_gives_the_weights_of_torch_and_draws_no_more(kind: str, bias: bool) -> None:
    name, own = KINDS[kind]
    draws = []
    for package in (carousel, nn):
        torch.manual_seed(3)
        layer = getattr(package, name)(3, 4, num_layers=2, bidirectional=True, bias=bias, **own)
        draws.append((list(layer.named_parameters()), torch.rand(1)))
    (ours, drawn), (theirs, drawn_there) = draws
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert_same([p for _, p in ours], [p for _, p in theirs], tolerance=0)
    assert torch.equal(drawn, drawn_there)


@every_kind
def test_state_dicts_go_both_ways(kind: str) -> None:
    ours, theirs = pair(kind, num_layers=2, bidirectional=True)
    for reader, writer in ((ours, theirs), (theirs, ours)):
        for parameter in writer.parameters():
            nn.init.uniform_(parameter)
        reader.load_state_dict(writer.state_dict(), strict=True)
        assert list(reader.state_dict()) == list(writer.state_dict())
        assert_same(list(reader.state_dict().values()), list(writer.state_dict().values()), tolerance=0)
        inputs = torch.randn(5, 2, 3, dtype=torch.float64)
        assert_same([reader(inputs)[0]], [writer(inputs)[0]], tolerance=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_are_those_of_torch(name: str) -> None:
    documented = str(getattr(nn, name).__doc__).partition("(")[2].partition(")")[0]  # torch takes *args
    shown = [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(getattr(carousel, name)).parameters.values()
    ]
    assert [*documented.split(","), "engine='auto'"] == shown


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_torch_run(name: str) -> None:
    [example] = [
        "".join(one.source for one in doctest.DocTestParser().get_examples(text))
        for text in re.findall(r"Examples::\n(.*)", str(getattr(nn, name).__doc__), re.DOTALL)
    ]
    results = []
    for package in (carousel, nn):
        torch.manual_seed(0)
        names: dict[str, Any] = {"nn": package, "torch": torch}
        exec(example, names)
        results.append([names["output"], names["hn"]])
    assert_same(*results, tolerance=1e-6)


@every_kind
def test_it_looks_like_torch(kind: str) -> None:
    ours, theirs = pair(kind, num_layers=2, bidirectional=True, bias=False, batch_first=True, dropout=0.3)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, type(theirs))
    assert list(ours.children()) == [] and list(ours.buffers()) == []
    ours.flatten_parameters()


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_dropout_is_that_of_torch(kind: str, bidirectional: bool) -> None:
    ours, theirs = pair(kind, num_layers=2, dropout=0.4, bidirectional=bidirectional)
    inputs, results = torch.randn(6, 4, 3, dtype=torch.float64), []
    for layer in (ours, theirs):
        torch.manual_seed(1)
        results.append(layer(inputs)[0])
    assert_same([results[0]], [results[1]], tolerance=1e-10)
    assert not torch.equal(ours(inputs)[0], results[0])
    assert_same([ours.eval()(inputs)[0]], [theirs.eval()(inputs)[0]], tolerance=1e-10)


def test_dropout_of_one_layer_warns_as_torch_does() -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
        carousel.LSTM(3, 4, dropout=0.5)


def through_a_file(layer: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_kind
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_a_file], ids=["copy", "deepcopy", "file"])
@pytest.mark.parametrize("called", [False, True], ids=["new", "called"])
def test_a_copy_is_the_same_layer(kind: str, duplicate: Callable[[Any], Any], called: bool) -> None:
    layer, _ = pair(kind)
    inputs = torch.randn(2, 2, 3, dtype=torch.float64)
    if called:
        layer(inputs)[0].sum().backward()
    twin = duplicate(layer)
    before = layer(inputs)[0]
    assert_same([twin(inputs)[0]], [before], tolerance=0)
    twin.weight_hh_l0 = nn.Parameter(3 * twin.weight_hh_l0.detach())
    changed = twin(inputs)[0]
    assert not torch.equal(changed, before)
    if duplicate is not copy.copy:
        assert torch.equal(layer(inputs)[0], before)


def test_a_replica_has_cells_of_its_own() -> None:
    layer = carousel.LSTM(3, 4)
    replica, inputs = layer._replicate_for_data_parallel(), torch.randn(5, 2, 3)
    assert replica._cells[0] is not layer._cells[0]
    for name, parameter in layer.named_parameters():
        setattr(replica, name, parameter.clone())  # a replica has tensors for parameters
    assert_same([replica(inputs)[0]], [layer(inputs)[0]], tolerance=0)


@every_kind
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_the_type_follows_the_weights(kind: str) -> None:
    layer, theirs = pair(kind)
    inputs = torch.randn(5, 2, 3)
    layer(inputs.double())
    assert layer.float()(inputs)[0].dtype == torch.float32
    assert_same([layer(inputs)[0]], [theirs.float()(inputs)[0]], tolerance=1e-6)
    assert layer.to(torch.bfloat16)(inputs.bfloat16())[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(inputs.bfloat16())[0].shape == (5, 2, theirs.proj_size or 4)


def test_device_and_type_reach_the_parameters() -> None:
    layer = carousel.GRU(3, 4, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.float64)}


@every_kind
def test_an_optimiser_moves_it_as_it_moves_torch(kind: str) -> None:
    layers = pair(kind, bidirectional=True)
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    for layer in layers:
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            layer(inputs)[0].square().sum().backward()
            optimiser.step()
    assert_same(*(list(layer.parameters()) for layer in layers), tolerance=1e-8)


@every_kind
@pytest.mark.parametrize("first", [True, False], ids=["first-call", "later-call"])
def test_functional_calls_use_the_weights_they_are_given(kind: str, first: bool) -> None:
    ours, theirs = pair(kind, bidirectional=True)
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    own = theirs(inputs)[0]
    if not first:
        assert_same([ours(inputs)[0]], [own], tolerance=1e-10)
    given = {name: torch.randn_like(p, requires_grad=True) for name, p in theirs.named_parameters()}
    results = [torch.func.functional_call(layer, given, inputs)[0] for layer in (ours, theirs)]
    assert_same(results[:1], results[1:], tolerance=1e-10)
    found, wanted = (gradients([result], list(given.values())) for result in results)
    assert_same(found, wanted, tolerance=1e-10)
    assert_same([ours(inputs)[0]], [own], tolerance=1e-10)


@every_kind
def test_reparametrised_weights_are_followed(kind: str) -> None:
    ours, theirs = (parametrizations.weight_norm(layer, "weight_hh_l0") for layer in pair(kind))
    with torch.no_grad():
        for layer in (ours, theirs):
            layer.parametrizations.weight_hh_l0.original0.mul_(2)
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    assert_same([ours(inputs)[0]], [theirs(inputs)[0]], tolerance=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ["auto", "eager", "compiled"])
def test_the_engine_reaches_every_run(monkeypatch: pytest.MonkeyPatch, name: str, engine: str) -> None:
    seen, run_padded, run_both = [], directions.run_padded, directions.run_both

    def listening(*arguments: Any, engine: str = "auto", **ends: bool) -> Any:
        seen.append(engine)
        return run_padded(*arguments, **ends)

    def listening_both(*arguments: Any, engine: str = "auto") -> Any:
        seen.append(engine)
        return run_both(*arguments)

    monkeypatch.setattr(directions, "run_padded", listening)
    monkeypatch.setattr(directions, "run_both", listening_both)
    getattr(carousel, name)(3, 4, num_layers=2, bidirectional=True, engine=engine)(torch.randn(5, 2, 3))
    getattr(carousel, name)(3, 4, num_layers=2, engine=engine)(torch.randn(5, 2, 3))
    assert seen == [engine] * 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("LSTM", {"input_size": 0}, "input_size: not a size (got 0); 1 or more; give the number of features"),
        ("GRU", {"hidden_size": 2.0}, "hidden_size: not a size (got 2.0); 1 or more; give the number of features"),
        ("RNN", {"num_layers": 0}, "num_layers: not a number of layers (got 0); 1 or more; 1 is the plain cell"),
        ("GRU", {"dropout": 1.5}, "dropout: not a probability (got 1.5); 0 to 1; 0 turns it off"),
        ("LSTM", {"proj_size": 4}, "proj_size: does not fit (got 4); 0 to 3, below hidden_size; 0 turns it off"),
        ("LSTM", {"proj_size": -1}, "proj_size: does not fit (got -1); 0 to 3, below hidden_size; 0 turns it off"),
        (
            "RNN",
            {"nonlinearity": "sigmoid"},
            "nonlinearity: unknown (got 'sigmoid'); tanh, relu; for others see carousel.Recurrent('elman')",
        ),
        (
            "GRU",
            {"engine": "fast"},
            "engine: unknown (got 'fast'); auto, eager, compiled, scan; 'auto' compiles what it can",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(carousel, name)(**{"input_size": 3, "hidden_size": 4} | options)
    assert str(caught.value) == message


def packed(size: int) -> PackedSequence:
    return pack_padded_sequence(torch.zeros(5, 2, size), torch.tensor([5, 2]))


@pytest.mark.parametrize(
    ("options", "arguments", "lengths", "message"),
    [
        (
            {},
            (torch.zeros(5, 2, 4),),
            None,
            "input: wrong shape (got (5, 2, 4)); (T, B, 3), or (T, 3) of one sequence, none of them 0; "
            "give input_size features",
        ),
        (
            {"batch_first": True},
            (torch.zeros(2, 3, 5),),
            None,
            "input: wrong shape (got (2, 3, 5)); (B, T, 3), or (T, 3) of one sequence, none of them 0; transpose it",
        ),
        ({}, (torch.zeros(0, 2, 3),), None, "input: wrong shape (got (0, 2, 3)); "),
        ({}, (torch.zeros(3),), None, "input: wrong shape (got (3,)); "),
        ({}, (torch.zeros(1, 5, 2, 3),), None, "input: wrong shape (got (1, 5, 2, 3)); "),
        ({}, (packed(4),), None, "input: wrong shape (got (7, 4)); "),
        (
            {},
            (torch.zeros(5, 2, 3).double(),),
            None,
            "input: wrong type (got torch.float64); torch.float32, that of the weights; convert one",
        ),
        (
            {},
            (packed(3),),
            torch.tensor([5, 2]),
            "lengths: known already (got a PackedSequence); with a padded batch only; leave them out",
        ),
        (
            {},
            (torch.zeros(5, 3),),
            torch.tensor([5]),
            "lengths: known already (got a single sequence); with a padded batch only; leave them out",
        ),
        ({}, (torch.zeros(5, 2, 3),), torch.tensor([6, 1]), "lengths: out of range (got 6); 1 to 5"),
        (
            {},
            (torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))),
            None,
            "hx: does not fit (got (1, 2, 4) and (1, 3, 4)); (1, 2, 4) and (1, 2, 4); leave it out to begin at zero",
        ),
        (
            {"proj_size": 2, "bidirectional": True},
            (torch.zeros(5, 3), (torch.zeros(2, 4), torch.zeros(2, 4))),
            None,
            "hx: does not fit (got (2, 4) and (2, 4)); (2, 2) and (2, 4); leave it out to begin at zero",
        ),
        ({}, (packed(3), (torch.zeros(1, 2, 4),)), None, "hx: does not fit (got (1, 2, 4)); (1, 2, 4) and (1, 2, 4)"),
    ],
)
def test_calls_that_cannot_be_are_refused(
    options: dict[str, Any], arguments: tuple[Any, ...], lengths: Tensor | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        carousel.LSTM(3, 4, **options)(*arguments, lengths=lengths)
    assert str(caught.value).startswith(message)


def test_a_state_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^hx: does not fit \(got \(1, 2, 4\) and \(1, 2, 4\)\); \(1, 2, 4\);"):
        carousel.GRU(3, 4)(torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(ConfigError, match=r"^hx: does not fit \(got \(1, 2, 4\)\); \(1, 2, 4\) and \(1, 2, 4\);"):
        carousel.LSTM(3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 2, 4))
