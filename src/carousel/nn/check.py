"""Checks of any cell, ours or yours, against what holds for cells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from carousel.cells import Cell, cell_class
from carousel.errors import CheckFailed, ConfigError
from carousel.nn.contract import CONTRACT, Broken, NotApplicable, Subject


@dataclass(frozen=True)
class Check:
    """One property of a cell; called, it holds, or raises `CheckFailed`."""

    holds: Callable[[Subject], str | None]
    subject: Subject

    @property
    def name(self) -> str:
        return self.holds.__name__

    @property
    def what(self) -> str:
        """What has to hold, in one sentence."""
        return self.holds.__doc__ or ""

    def __call__(self) -> None:
        """Raise CheckFailed, one line, unless the property holds or does not concern the cell."""
        self.run()

    def run(self) -> tuple[bool, str]:
        """Whether the property concerns the cell at all, and what else there is to say."""
        with torch.random.fork_rng(devices=()), torch.enable_grad():
            try:
                return True, self.holds(self.subject) or ""
            except NotApplicable as reason:
                return False, str(reason)
            except Broken as broken:
                raise CheckFailed(f"{self.name}: {broken}") from None
            except Exception as error:
                got = f"{type(error).__name__}: {error}".split("\n")[0]
                raise CheckFailed(f"{self.name}: it raises (got {got}); {self.what} See the error above") from error

    def __str__(self) -> str:
        return self.name


class Checks(tuple[Check, ...]):
    """All checks of a cell, see `check_cell`."""

    def report(self) -> str:
        """Run all of them; one line for each."""
        lines, failed = [], 0
        width = max(len(check.name) for check in self)
        for check in self:
            try:
                concerned, note = check.run()
                verdict = "ok" if concerned else "--"
            except CheckFailed as failure:
                verdict, note = "FAILED", str(failure).removeprefix(f"{check.name}: ")
                failed += 1
            lines.append(f"  {check.name:{width}}  {verdict:6}  {note or check.what}")
        return "\n".join([f"{failed or 'none'} of {len(self)} checks failed", *lines])


def check_cell(
    cell: str | type[Cell] | Callable[..., Cell] | Cell,
    input_size: int = 3,
    hidden_size: int = 4,
    *,
    parameters: Callable[[int, int], int] | int | None = None,
    **options: Any,
) -> Checks:
    """The checks that every cell should pass, to be called one by one or all at once:

        for check in check_cell(MyCell):
            check()                                             # raises CheckFailed

        print(check_cell(MyCell).report())                      # runs all, one line each

        @pytest.mark.parametrize("check", check_cell(MyCell), ids=str)
        def test_my_cell(check):
            check()

    A cell is made anew for each check, and is checked as it is made: in training mode, unless a ready-made one is in
    evaluation. The random numbers of the caller are left alone.

    Args:
        cell: a `Cell` class or what else makes a cell of two sizes, a name in `carousel.cells.CELLS`, or a ready-made
            cell, which is copied and has its own sizes.
        input_size, hidden_size: I and H; small ones are as good as large ones, and faster.
        parameters: how many parameters there should be: a number, or a function of I and H, which is tried at several.
        options: passed on to the cell.

    Raises:
        ConfigError: the cell is none of these.

    >>> checks = check_cell("gru", parameters=lambda i, h: 3 * h * (i + h + 1))
    >>> [check.name for check in checks][:3]
    ['shapes', 'state', 'pure']
    >>> checks[0]()
    """
    if not (callable(cell) or isinstance(cell, str)):
        got = type(cell).__name__
        raise ConfigError(f"cell: not a cell (got {got}); a Cell, a class of them or a name; see carousel.cells.CELLS")
    if isinstance(cell, Cell):
        if options:
            raise ConfigError(
                f"{next(iter(options))}: ready-made cells take no options (got {next(iter(options.values()))}); none; "
                "set it on the cell"
            )
        given = cell
        subject = Subject(lambda seed: _redrawn(given, seed), parameters)
    else:
        kind = cell_class(cell) if isinstance(cell, str) else cell

        def make(input_size: int, hidden_size: int) -> Cell:
            return kind(input_size, hidden_size, **options)

        def seeded(seed: int) -> Cell:
            torch.manual_seed(seed)
            return make(input_size, hidden_size)

        subject = Subject(seeded, parameters, make)
    return Checks(Check(holds, subject) for holds in CONTRACT)


def _redrawn(cell: Cell, seed: int) -> Cell:
    """A copy of the cell, for any seed but 0 with other weights near its own."""
    torch.manual_seed(seed)
    twin = copy.deepcopy(cell)
    if seed:
        with torch.no_grad():
            for weight in twin.parameters():
                weight.add_(torch.randn_like(weight) / 10)
    return twin
