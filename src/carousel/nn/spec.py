"""A network in one line of text."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from carousel.cells import Cell, cell_class
from carousel.errors import ConfigError
from carousel.nn.shape import one_of

KINDS: dict[str, type] = {
    **{"layers": int, "bidirectional": bool, "merge": str, "skip": str, "dilation": int, "dropout": float},
    **{"locked": bool, "input_dropout": float, "state_dropout": float, "candidate_dropout": float, "zoneout": float},
    **{"weight_dropout": float, "learn_start": bool, "initialisation": str, "batch_first": bool, "engine": str},
}
WORDS = {"yes": True, "no": False, "true": True, "false": False}


@dataclass(frozen=True)
class RecurrentSpec:
    """What `Recurrent` is made from, but for the input size, as text and back.

        CELL[,CELL...]:SIZE[,SIZE...] [OPTION | OPTION=VALUE[,VALUE...]]...

    Several cells, sizes or values are those of the layers. An option without a value is switched on. Options are those
    of `Recurrent` and of the cells.

    >>> spec = RecurrentSpec.parse("gru:128 layers=2 bidirectional skip=residual")
    >>> spec.options
    (('layers', 2), ('bidirectional', True), ('skip', 'residual'))
    >>> str(spec)
    'gru:128 layers=2 bidirectional skip=residual'
    """

    cells: tuple[str, ...]
    hidden_sizes: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> RecurrentSpec:
        """Read the text.

        Raises:
            ConfigError: it is not as above; one line says what of it, and names the nearest option.
        """
        head, *rest = text.split() or [""]
        names, colon, sizes = head.partition(":")
        if not (names and colon and sizes):
            raise ConfigError(f"network: no cell and size (got {head!r}); CELL:SIZE first; for example gru:128")
        cells = tuple(names.split(","))
        classes = [cell_class(name) for name in cells]
        options: dict[str, Any] = {}
        for word in rest:
            name, equals, value = word.partition("=")
            kinds = {**_kinds(classes), **KINDS}
            one_of("option", name, list(kinds))
            if name in options:
                raise ConfigError(f"{name}: given twice (got {word!r}); once; leave one out")
            options[name] = _value(name, kinds[name], value) if equals else _value(name, kinds[name], "yes")
        return cls(cells, tuple(_one("size", int, size) for size in sizes.split(",")), tuple(options.items()))

    def __str__(self) -> str:
        words = [f"{','.join(self.cells)}:{','.join(map(str, self.hidden_sizes))}"]
        words += [name if value is True else f"{name}={_text(value)}" for name, value in self.options]
        return " ".join(words)


def _kinds(classes: list[type[Cell]]) -> dict[str, type]:
    """The options of the cells that can be written, and what each is."""
    found: dict[str, type] = {}
    for make in classes:
        for name, parameter in inspect.signature(make).parameters.items():
            kind = type(parameter.default)
            if parameter.default in (None, inspect.Parameter.empty):
                kind = {"int": int, "float": float}.get(str(parameter.annotation).removesuffix(" | None"), str)
            if name not in ("input_size", "hidden_size") and kind in (bool, int, float, str):
                found[name] = kind
    return found


def _value(name: str, kind: type, text: str) -> Any:
    values = tuple(_one(name, kind, part) for part in text.split(","))
    return values if len(values) > 1 else values[0]


def _one(name: str, kind: type, text: str) -> Any:
    try:
        return WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        allowed = {bool: "yes or no", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name}: not a value (got {text!r}); {allowed}; write {name}=VALUE") from None


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return "no" if value is False else str(value)
