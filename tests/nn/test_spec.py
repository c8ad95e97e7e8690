"""Networks in one line of text."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from carousel.cells import CELLS
from carousel.errors import ConfigError
from carousel.nn import Dilated, Recurrent, RecurrentSpec
from carousel.nn.spec import KINDS


def test_every_option_can_be_written() -> None:
    parameters = inspect.signature(Recurrent).parameters.values()
    options = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert KINDS.keys() == options.keys()
    defaults = {name: type(p.default) for name, p in options.items() if p.default is not None}
    assert {name: KINDS[name] for name in defaults} == defaults


@pytest.mark.parametrize(
    "text",
    [
        "gru:128",
        "gru:128 layers=2 bidirectional skip=residual",
        "lstm,gru:64,32 dilation=1,2 dropout=0.1 locked bias=no",
        "lstm:8 forget_bias=2.5 engine=eager zoneout=0.25 merge=sum",
        "elman:8 activation=relu",
    ],
)
def test_text_makes_the_round(text: str) -> None:
    spec = RecurrentSpec.parse(text)
    assert str(spec) == text and RecurrentSpec.parse(str(spec)) == spec
    Recurrent.parse(text, input_size=3)


def test_text_is_the_arguments() -> None:
    text = "lstm,gru:6,4 dilation=1,2 bidirectional merge=sum skip=dense forget_bias=3 dropout=0.1 batch_first=true"
    torch.manual_seed(0)
    one = Recurrent.parse(text, input_size=3)
    torch.manual_seed(0)
    options = {"dilation": (1, 2), "bidirectional": True, "merge": "sum", "skip": "dense", "dropout": 0.1}
    other = Recurrent(("lstm", "gru"), 3, (6, 4), forget_bias=3.0, batch_first=True, **options)  # type: ignore[arg-type]
    assert repr(one) == repr(other) and type(one.cells[2]) is Dilated
    assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_can_be_written(name: str) -> None:
    assert Recurrent.parse(f"{name}:4", input_size=3).hidden_size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "network: no cell and size (got ''); CELL:SIZE first; for example gru:128"),
        ("gru", "network: no cell and size (got 'gru'); CELL:SIZE first; for example gru:128"),
        (
            "lstn:8",
            "cell: unknown (got 'lstn'); lstm, lstm-np, slstm and all that `carousel cells` lists; "
            "did you mean 'lstm'?",
        ),
        ("gru:x", "size: not a value (got 'x'); a whole number; write size=VALUE"),
        ("gru:8 layers=two", "layers: not a value (got 'two'); a whole number; write layers=VALUE"),
        ("gru:8 layers", "layers: not a value (got 'yes'); a whole number; write layers=VALUE"),
        ("gru:8 dropout=", "dropout: not a value (got ''); a number; write dropout=VALUE"),
        ("gru:8 locked=maybe", "locked: not a value (got 'maybe'); yes or no; write locked=VALUE"),
        ("gru:8 layers=1 layers=2", "layers: given twice (got 'layers=2'); once; leave one out"),
        (
            "gru:8 bidirectionl",
            f"option: unknown (got 'bidirectionl'); bias, {', '.join(KINDS)}; did you mean 'bidirectional'?",
        ),
        ("gru:8 skip=residul", "skip: unknown (got 'residul'); residual, dense; did you mean 'residual'?"),
    ],
)
def test_text_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent.parse(text, input_size=3)
    assert str(caught.value) == message


def test_an_initialisation_is_named() -> None:
    U = Recurrent.parse("lstm:4 layers=2 initialisation=orthogonal", 3).cells[1].forget.U.detach()
    torch.testing.assert_close(U @ U.t(), torch.eye(4))
    assert torch.equal(Recurrent.parse("gru:4 initialisation=identity", 3).cells[0].update.U, torch.eye(4))
    biases = Recurrent.parse("lstm:256 initialisation=chrono:1000", 3).cells[0].forget.b
    assert 5 < biases.max().item() <= math.log(999) and biases.min().item() >= 0
    text = "gru:4 initialisation=orthogonal"
    assert str(RecurrentSpec.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gru:4 initialisation=ortogonal",
            r"initialisation: unknown \(got 'ortogonal'\); .*did you mean 'orthogonal'\?",
        ),
        ("gru:4 initialisation=identity:3", r"initialisation: not one with a number \(got 'identity:3'\); chrono:T"),
        ("lstm:4 initialisation=chrono:x", r"initialisation: not one with a number \(got 'chrono:x'\); chrono:T"),
        ("lstm:4 initialisation=chrono:1", r"longest: too short to remember \(got 1\)"),
        ("gru:4 initialisation=chrono", r"chrono_: no forget gate .*got GRU"),
    ],
)
def test_an_initialisation_that_cannot_be_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recurrent.parse(text, 3)
