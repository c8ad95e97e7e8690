"""``carousel cells``: the recurrences there are, and what one of them computes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carousel.errors import ConfigError

if TYPE_CHECKING:
    from carousel.cells import Cell
    from carousel.reports.cells import CellFacts

COLUMNS = ("name", "what it is", "paper", "weights", "FLOPs", "engine")
DROPPED = ("what it is", "engine", "FLOPs", "weights", "paper")  # where they have no room, in this order


def cells(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, to see it in full.")] = None,
    input_size: Annotated[int, typer.Option("--input", min=1, help="The input size that costs are for.")] = 64,
    hidden_size: Annotated[int, typer.Option("--hidden", min=1, help="The hidden size that costs are for.")] = 128,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An .svg or .png: the gates of NAME, and the network unfolded in time."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recurrences, with papers and costs; or show the equations of one, and draw it."""
    if name is None and draw is not None:
        raise ConfigError("--draw: of which cell (got no NAME); one that `carousel cells` lists; give its name")
    from carousel.cells import cell_class
    from carousel.reports.cells import catalogue, cell_facts, cell_picture, write_drawing

    if name is None:
        listed = catalogue(input_size, hidden_size)
        print(
            _as_json([dataclasses.asdict(one) for one in listed])
            if as_json
            else _table(listed, input_size, hidden_size)
        )
        return
    cell = cell_class(name)(input_size, hidden_size)
    written = None if draw is None else write_drawing(draw, cell_picture(name, cell))
    facts = cell_facts(name, input_size, hidden_size)
    print(_as_json(_details(facts, cell)) if as_json else _page(facts, cell))
    if written is not None:
        print(written, file=sys.stderr if as_json else sys.stdout)


def _as_json(found: Any) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False)


def _table(listed: list[CellFacts], input_size: int, hidden_size: int) -> str:
    """As many columns as fit on the terminal; of what a cell is, as much as fits."""
    lines = [dict(zip(COLUMNS, _row(facts), strict=True)) for facts in listed]
    widths = {title: max(len(title), *(len(line[title]) for line in lines)) for title in COLUMNS}
    room = shutil.get_terminal_size((10**6, 0)).columns  # what is no terminal gets everything
    shown = list(COLUMNS)
    for title in DROPPED:
        if sum(min(widths[each], 24) + 2 for each in shown) - 2 > room:
            shown.remove(title)
    widths["what it is"] -= max(0, sum(widths[each] + 2 for each in shown) - 2 - room)

    def written(line: dict[str, str]) -> str:
        cut = {title: textwrap.shorten(line[title], widths[title], placeholder="…") for title in shown}
        return "  ".join(
            text.rjust(widths[title]) if title in ("weights", "FLOPs") else text.ljust(widths[title])
            for title, text in cut.items()
        ).rstrip()

    costs = "FLOPs in matrix products, one step of one sequence, forward"
    about = f"for input size {input_size} and hidden size {hidden_size}; {costs}; `carousel cells NAME` shows one"
    header = written({title: title for title in COLUMNS})
    return "\n".join([header, *map(written, lines), "", *textwrap.wrap(about, min(room, 100))])


def _row(facts: CellFacts) -> tuple[str, ...]:
    engines = dict.fromkeys([facts.engine or "–", *(["scan"] if facts.scan else [])])
    costs = ("–" if number is None else f"{number:,}" for number in (facts.parameters, facts.flops))
    return facts.name, facts.description, f"{facts.author} {facts.year}", *costs, ", ".join(engines)


def _page(facts: CellFacts, cell: Cell) -> str:
    import carousel
    from carousel.cells.description import describe

    about = describe(type(cell))
    width = min(shutil.get_terminal_size((100, 0)).columns, 100)
    options = [
        textwrap.fill(f"{o.name} = {o.default!r}" + (f": {o.text}" if o.text else ""), width, subsequent_indent="    ")
        for o in about.options
    ]
    parts = [
        textwrap.fill(f"{facts.name}: {about.sentence}", width),
        textwrap.indent(about.equations, "    "),
        textwrap.fill(about.paper, width),
        textwrap.fill(about.notes, width),
        "\n".join(["options", *(textwrap.indent(option, "  ") for option in options)]) if options else "",
        f"{facts.parameters:,} weights" + (", with a scan over time" if facts.scan else ""),
        str(carousel.explain(cell).cells[0]),
    ]
    return "\n\n".join(filter(None, parts))


def _details(facts: CellFacts, cell: Cell) -> dict[str, Any]:
    import carousel
    from carousel.cells.description import describe

    about, explained = describe(type(cell)), carousel.explain(cell).cells[0]
    options = {
        o.name: o.default if isinstance(o.default, int | float | str | None) else repr(o.default) for o in about.options
    }
    step = explained.equations.step if explained.equations else None
    return {**dataclasses.asdict(facts), "equations": about.equations, "options": options, "compiled": step}
