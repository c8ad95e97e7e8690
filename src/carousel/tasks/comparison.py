"""Which cell when: the same problem for several recurrences, at equal parameters and equal time or steps."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from carousel import __version__
from carousel.data.labelled import Roles
from carousel.data.tables import open_table
from carousel.data.text_file import first_bytes
from carousel.errors import ConfigError, DataError
from carousel.nn import Recurrent, RecurrentSpec
from carousel.reports.curves import curves_png
from carousel.tasks.adding import Adding
from carousel.tasks.chorales import Chorales
from carousel.tasks.copying import Copying
from carousel.tasks.digits import Digits
from carousel.tasks.problem import Problem, SequenceModel, score
from carousel.tasks.sequences import Sequences
from carousel.tasks.texts import Texts
from carousel.training.model_file import write_atomically
from carousel.training.names import nearest
from carousel.training.optimisers import OPTIMISERS
from carousel.training.progress import LiveProgress, duration
from carousel.training.seeding import derived_seed
from carousel.training.trial import Budget, Point, run_trial

BUILT_IN = ("adding", "copy", "digits", "chorales")
COLUMNS = ("network", "hidden", "parameters", "test", "spread", "rate", "steps", "ms a step", "diverged")
DEFAULTS = {"optimiser": "adam", "clip_norm": 1.0}  # of settings that older files do not name
UNITS = 100  # of the bar, for a run
POINTS = 20  # of a learning curve
LARGEST = 2**14  # hidden size to look for


@dataclass(frozen=True)
class Run:
    """One network trained once."""

    network: str
    learning_rate: float
    seed: int
    hidden_size: int
    parameters: int
    validation: float
    test: float
    steps: int
    seconds: float
    diverged: bool
    curve: list[Point]


@dataclass(frozen=True)
class Row:
    """One network over all seeds, at the learning rate that did best on the validation data."""

    network: str
    runs: list[Run]

    @property
    def test(self) -> float:
        return statistics.fmean(run.test for run in self.runs)

    def cells(self) -> tuple[str, ...]:
        """The row's text, as `COLUMNS`."""
        scores, first = [run.test for run in self.runs], self.runs[0]
        steps = statistics.median(run.steps for run in self.runs)
        taken = 1000 * sum(run.seconds for run in self.runs) / max(1, sum(run.steps for run in self.runs))
        diverged = sum(run.diverged for run in self.runs)
        return (
            self.network,
            str(first.hidden_size),
            f"{first.parameters:,}",
            f"{self.test:.4g}",
            f"{min(scores):.4g} to {max(scores):.4g}" if len(scores) > 1 else "",
            f"{first.learning_rate:g}",
            f"{steps:,.0f}",
            f"{taken:.3g}",
            f"{diverged} of {len(scores)}" if diverged else "",
        )


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    settings: dict[str, Any]
    baselines: dict[str, float]
    runs: list[Run]

    @property
    def about(self) -> str:
        return str(self.settings["problem"])

    @property
    def rows(self) -> list[Row]:
        """The best first."""
        found = [self._row(network) for network in dict.fromkeys(run.network for run in self.runs)]
        return sorted(found, key=lambda row: row.test, reverse=bool(self.settings["higher_is_better"]))

    def _row(self, network: str) -> Row:
        by_rate = sorted((run for run in self.runs if run.network == network), key=lambda run: run.learning_rate)
        rows = [Row(network, list(runs)) for _, runs in groupby(by_rate, key=lambda run: run.learning_rate)]
        sign = -1 if self.settings["higher_is_better"] else 1
        return min(rows, key=lambda row: sign * statistics.fmean(run.validation for run in row.runs))

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The table: a line for each network, then the baselines."""
        yield from (row.cells() for row in self.rows)
        for name, value in self.baselines.items():
            yield (name, "", "", f"{value:.4g}", *[""] * (len(COLUMNS) - 4))

    @property
    def conditions(self) -> str:
        """How it was measured, in a sentence."""
        s: dict[str, Any] = {**DEFAULTS, **self.settings}
        time_of = "processor time" if s["threads"] == 1 else "training"
        each = f"{duration(s['seconds'])} of {time_of}" if s["seconds"] else f"{s['steps']:,} steps"
        threads = "1 thread" if s["threads"] == 1 else f"{s['threads']} threads"
        seeds = len({run.seed for run in self.runs})
        over = f"{seeds} seeds, mean and extremes" if seeds > 1 else "one seed"
        rates = " or ".join(f"{rate:g}" for rate in sorted({run.learning_rate for run in self.runs}))
        chosen = ", chosen on validation data" if " or " in rates else ""
        return (
            f"{each} for each run on {threads}; about {s['parameters']:,} parameters; {over}; learning rate "
            f"{rates}{chosen}; batches of {s['batch_size']}; {s['optimiser'].capitalize()}, one cycle, gradients "
            f"clipped to norm {s['clip_norm']:g}."
        )

    def markdown(self) -> str:
        """The table with what it holds for."""
        rows = [COLUMNS, ("---",) * len(COLUMNS), *self.lines()]
        table = ["| " + " | ".join(cells) + " |" for cells in rows]
        return "\n".join([f"# {self.about}", "", self.conditions, "", *table, ""])

    def json(self) -> str:
        return json.dumps(
            {
                "carousel": __version__,
                "settings": self.settings,
                "baselines": self.baselines,
                "runs": [{**asdict(run), "curve": [point._asdict() for point in run.curve]} for run in self.runs],
            },
            indent=1,
        )

    @classmethod
    def read(cls, path: Path) -> Comparison:
        """What `json` wrote."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            runs = [Run(**{**run, "curve": [Point(**point) for point in run["curve"]]}) for run in found["runs"]]
            return cls(DEFAULTS | found["settings"], found["baselines"], runs)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}: not a comparison (got {error!r}); what carousel compare writes; choose another --out"
            ) from None


def problem_named(
    task: str | Path, *, data: str | Path | None = None, length: int | None = None, batch_size: int | None = None
) -> Problem:
    """A built-in problem by name, or that of a file.

    Raises:
        ConfigError: an option that the problem does not have, or none of that name.
        DataError: its data are missing or wrong.

    >>> problem_named("copy", length=30).about[:27]
    'copy memory (Arjovsky et al'
    """
    options: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    if task in ("digits", "chorales") and data is None:
        what = "the folder of MNIST's four idx files" if task == "digits" else "JSB_Chorales.mat or its folder"
        raise ConfigError(f"data: {task} needs a path (got none); {what}; nothing is downloaded; give --data PATH")
    if task not in ("digits", "chorales") and data is not None:
        raise ConfigError(f"data: not for {task} (got {data}); digits and chorales read it; leave it out")
    if length is not None and task not in ("adding", "copy"):
        raise ConfigError(f"length: not for {task} (got {length}); adding and copy have one; leave it out")
    if task == "adding":
        return Adding(length=100 if length is None else length, **options)
    if task == "copy":
        return Copying(delay=100 if length is None else length, **options)
    if data is not None:
        return (Digits if task == "digits" else Chorales)(data, **options)
    if not Path(task).exists() and not Path(task).suffix:
        raise ConfigError(
            f"task: unknown (got {str(task)!r}); {', '.join(BUILT_IN)}, or a file of sequences or texts; see carousel "
            "compare --help"
        )
    return (Texts if _has_texts(Path(task)) else Sequences)(task, **options)


def _has_texts(path: Path) -> bool:
    """Whether a file or folder holds texts with labels, rather than JSON Lines of numbers."""
    if path.is_dir() or not first_bytes(path, 4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return True
    table = open_table(path)
    return "inputs" not in table.columns and Roles.of(table) is not None


def compare(
    task: str | Path | Problem,
    cells: Sequence[str],
    *,
    data: str | Path | None = None,
    length: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seeds: int = 3,
    parameters: int | None = None,
    learning_rates: Sequence[float] = (3e-3,),
    optimiser: str = "adam",
    clip_norm: float = 1.0,
    batch_size: int | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Train every network on one problem, with as many parameters and for as long, and say how well each does.

    Args:
        task: "adding", "copy", "digits", "chorales", a file of sequences (see `carousel.data.sequences`), texts with
            labels (see `carousel.data.tables`), or a `Problem` of your own.
        cells: names of cells, each with options of `RecurrentSpec` if need be: "lstm", "lstm forget_bias=3 layers=2",
            "lstm initialisation=chrono:100".
        data: where the data of digits or chorales are.
        length: T of adding or copy.
        minutes, steps: of training, for each run; one of the two. One minute by default.
        seeds: each network is trained with seed 0, 1, ... Batches are the same for all networks.
        parameters: of the whole network, its last layer included; the hidden size is what comes nearest.
        learning_rates: each is tried; the one with the best mean on the validation data counts.
        optimiser, clip_norm: by name, see `carousel.training.OPTIMISERS`; the greatest norm of the gradients, `inf` to
            leave them alone.
        batch_size: sequences a step; by default what suits the problem.
        out: a folder for compare.md, compare.json and compare.png, written anew after every run. Runs that are there
            already are not repeated, so that a comparison goes on where it was stopped, and takes more cells or seeds.

    Raises:
        ConfigError: an option is not as above.
        DataError: the data are missing or wrong.

    >>> found = compare("adding", ["gru", "lstm"], length=20, steps=2, seeds=1, parameters=500)
    >>> [row.runs[0].hidden_size for row in sorted(found.rows, key=lambda row: row.network)]
    [11, 10]
    """
    problem = task
    if isinstance(problem, str | Path):
        problem = problem_named(problem, data=data, length=length, batch_size=batch_size)
    if not cells:
        raise ConfigError("cells: none (got nothing to compare); names of cells; see carousel.cells.CELLS")
    if minutes is None and steps is None:
        minutes = 1.0
    budget = Budget(None if minutes is None else 60 * minutes, steps)
    wanted = parameters or problem.parameters
    sizes = {network: hidden_size(network, problem, wanted) for network in dict.fromkeys(cells)}
    settings, folder = _settings(problem, wanted, budget, optimiser, clip_norm), None if out is None else Path(out)
    found = Comparison(settings, problem.baselines(), _already(folder, settings))
    done = {(run.network, run.learning_rate, run.seed) for run in found.runs}
    plans = [(n, rate, seed) for seed in range(seeds) for n in sizes for rate in learning_rates]  # all, seed by seed
    with LiveProgress() as progress, progress.counting(f"{problem.name}, runs in %") as count:
        left, began = [plan for plan in plans if plan not in done], time.monotonic()
        if len(left) < len(plans):
            progress.tell(f"{len(plans) - len(left)} of {len(plans)} runs are in {folder} already")
        for k, (network, rate, seed) in enumerate(left):
            watch = _telling(count, k, len(left))
            run = _run(network, sizes[network], problem, budget, rate, seed, settings, watch)
            found.runs.append(run)
            progress.tell(_told(run, problem, len(left) - k - 1, (time.monotonic() - began) / (k + 1)))
            if folder is not None:
                _write(found, folder)
    if folder is not None:
        _write(found, folder)
    return found


def _settings(problem: Problem, parameters: int, budget: Budget, optimiser: str, clip_norm: float) -> dict[str, Any]:
    """What must be equal for runs to be compared."""
    return {
        "problem": problem.about,
        "metric": problem.metric,
        "higher_is_better": problem.higher_is_better,
        "parameters": parameters,
        **asdict(budget),
        "optimiser": nearest("optimiser", optimiser, OPTIMISERS),
        "clip_norm": clip_norm,
        "batch_size": getattr(problem, "batch_size", None),
        "threads": torch.get_num_threads(),
    }


def build(network: str, hidden_size: int, problem: Problem) -> SequenceModel:
    """The network of that hidden size, with a last layer for the problem."""
    name, *options = network.split()
    spec = RecurrentSpec.parse(" ".join([f"{name}:{hidden_size}", *options]))
    if dict(spec.options).get("bidirectional"):
        raise ConfigError(f"cells: reads the future (got {network!r}); one direction; leave it out")
    recurrent = Recurrent(spec.cells, problem.input_size, spec.hidden_sizes, **dict(spec.options))
    words = getattr(problem, "vocabulary", 0)
    return SequenceModel(recurrent, problem.output_size, every_step=problem.every_step, vocabulary=words)


def hidden_size(network: str, problem: Problem, parameters: int) -> int:
    """The size at which the network has about so many parameters, of those that it allows.

    >>> hidden_size("lstm", Adding(), 20_000)
    69
    """

    @cache
    @torch.random.fork_rng(devices=[])
    def count(size: int) -> int:
        """Parameters at that size; of one that the cell refuses, 0."""
        try:
            return sum(weight.numel() for weight in build(network, size, problem).parameters())
        except ConfigError as error:
            refused.append(error)
            return 0

    def count_from(size: int) -> int:
        """At that size, or at the next that is allowed."""
        return next(filter(None, map(count, range(size, size + 8))), 0)

    refused: list[ConfigError] = []
    low, high = 0, 1
    while count_from(high) < parameters and high < LARGEST:
        low, high = high, 2 * high
    if not count_from(high):
        raise refused[0]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_from(middle) < parameters else (low, middle)
    return min(range(max(1, low - 8), high + 9), key=lambda size: abs(count(size) - parameters))


def _run(
    network: str,
    size: int,
    problem: Problem,
    budget: Budget,
    rate: float,
    seed: int,
    settings: Mapping[str, Any],
    watch: Callable[[float], None],
) -> Run:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        model = build(network, size, problem)
    count = sum(weight.numel() for weight in model.parameters())

    def loss(step: int) -> torch.Tensor:
        examples = problem.batch(seed, step)
        return problem.loss(model(examples), examples)

    trial = run_trial(
        model,
        loss,
        partial(score, model, problem, "val"),
        budget,
        learning_rate=rate,
        optimiser=settings["optimiser"],
        clip_norm=settings["clip_norm"],
        higher_is_better=problem.higher_is_better,
        points=POINTS,
        seed=seed,
        watch=watch,
    )
    test = score(model, problem, "test")
    ended = (trial.steps, trial.seconds, trial.diverged, trial.curve)
    return Run(network, rate, seed, size, count, trial.best, test, *ended)


def _telling(count: Callable[[int, int], None], k: int, runs: int) -> Callable[[float], None]:
    return lambda share: count(round(UNITS * (k + share)), UNITS * runs)


def _told(run: Run, problem: Problem, left: int, each: float) -> str:
    rest = f"  {left} to go, about {duration(left * each)}" if left else ""
    how = "diverged after " if run.diverged else ""
    return (
        f"{run.network}  rate {run.learning_rate:g}  seed {run.seed}  {problem.metric} {run.test:.4g}  "
        f"{how}{run.steps:,} steps  {duration(run.seconds)}{rest}"
    )


def _already(folder: Path | None, settings: dict[str, Any]) -> list[Run]:
    """The runs of a comparison that was stopped, if the folder holds one."""
    if folder is None or not (folder / "compare.json").exists():
        return []
    before = Comparison.read(folder / "compare.json")
    for name, value in settings.items():
        if before.settings.get(name) != value:
            raise ConfigError(
                f"{folder}: holds another comparison ({name}: got {value!r}, then {before.settings.get(name)!r}); the "
                "same settings to go on; choose another --out"
            )
    return before.runs


def _write(found: Comparison, folder: Path) -> None:
    write_atomically(folder / "compare.json", found.json().encode())
    write_atomically(folder / "compare.md", f"{found.markdown()}\n![Learning curves](compare.png)\n".encode())
    by_time = found.settings["seconds"] is not None
    total = found.settings["seconds"] if by_time else found.settings["steps"]
    picture = curves_png(
        {row.network: [_curve(run, total) for run in row.runs] for row in found.rows},
        title=found.about,
        x="seconds of training" if by_time else "steps",
        y=f"{found.settings['metric']}, validation",
        levels=found.baselines,
        log=not found.settings["higher_is_better"],
    )
    write_atomically(folder / "compare.png", picture)


def _curve(run: Run, total: float) -> list[tuple[float, float]]:
    """At the same places for all runs, though the last step before one ends a little behind it."""
    return [(round(point.share * POINTS) / POINTS * total, point.score) for point in run.curve]
