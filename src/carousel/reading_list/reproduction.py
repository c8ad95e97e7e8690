"""Run an experiment of the reading list over its seeds, and put what comes out beside what the paper says."""

from __future__ import annotations

import difflib
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from carousel import __version__
from carousel.errors import ConfigError, DataError
from carousel.reading_list import (
    bai_2018,
    chan_2016,
    chang_2017,
    chang_2019,
    feng_2024,
    gers_2000,
    gers_2001,
    gers_2002,
    greff_2016,
    hochreiter_1997,
    jozefowicz_2015,
    le_2015,
    pascanu_2013,
)
from carousel.reading_list.experiment import Condition, Experiment, Outcome, Points
from carousel.reports.curves import curves_png
from carousel.training.model_file import write_atomically
from carousel.training.progress import LiveProgress, duration

PAPERS = {
    module.__name__.rpartition(".")[2].replace("_", "-"): module
    for module in (
        hochreiter_1997,
        gers_2000,
        gers_2001,
        gers_2002,
        pascanu_2013,
        le_2015,
        jozefowicz_2015,
        chan_2016,
        greff_2016,
        chang_2017,
        bai_2018,
        chang_2019,
        feng_2024,
    )
}
EXPERIMENTS = {experiment.name: experiment for module in PAPERS.values() for experiment in module.EXPERIMENTS}
COLUMNS = ("condition", "the paper", "solved", "mean", "score", "seconds")


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found: the outcomes of each condition, by seed."""

    experiment: Experiment
    outcomes: dict[str, dict[int, Outcome]]
    limit: int | None = None

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The table, as `COLUMNS`."""
        for condition in self.experiment.conditions:
            found = list(self.outcomes.get(condition.name, {}).values())
            if found:
                yield (condition.name, condition.paper or "not checked", *_summary(found, self.experiment.digits))

    @property
    def conditions(self) -> str:
        """How to read the table."""
        counted, limited = self.experiment.sequences, f" Stopped at {self.limit:,}." if self.limit else ""
        return (
            f"Mean: of the {counted} until solved, over the trials that were. Score: {self.experiment.score}, the "
            f"median. Seconds: of one trial, the mean.{limited}"
        )

    def markdown(self) -> str:
        rows = [COLUMNS, ("---",) * len(COLUMNS), *self.lines()]
        about = f"# {self.experiment.name}: {self.experiment.paper}"
        table = ["| " + " | ".join(cells) + " |" for cells in rows]
        return "\n".join([about, "", self.experiment.about, "", *table, "", self.conditions, "", *self.remarks])

    @property
    def remarks(self) -> list[str]:
        """What the experiment says of its outcomes besides the table, if anything."""
        said = self.experiment.remarks(self.outcomes)
        return [said, ""] if said else []

    def json(self) -> str:
        outcomes = {
            name: {
                seed: {**asdict(outcome), "curve": _held(outcome.curve), "drawn": _held(outcome.drawn)}
                for seed, outcome in sorted(by_seed.items())
            }
            for name, by_seed in self.outcomes.items()
        }
        facts = {"carousel": __version__, "experiment": self.experiment.name, "limit": self.limit, "outcomes": outcomes}
        return json.dumps(_rounded(facts))

    def png(self) -> bytes:
        """The experiment's figure: how many trials were solved after how long, or what the experiment draws instead."""
        draw, curves = self.experiment.draw, dict[str, list[Points]]()
        for condition in self.experiment.conditions:
            found = list(self.outcomes.get(condition.name, {}).values())
            if found and condition.point is not None:
                name, at = condition.point
                share = sum(outcome.solved for outcome in found) / len(found)
                curves.setdefault(name, [[]])[0].append((at, share))
            elif found:
                curves[condition.name] = [_solved(found)] if draw is None else [outcome.drawn for outcome in found]
        x, y = draw or (self.experiment.sequences, "share of trials solved")
        title = f"{self.experiment.name}: {self.experiment.paper}"
        return curves_png(curves, title=title, x=x, y=y, log_x=self.experiment.log_x)


def experiments_named(name: str) -> list[Experiment]:
    """One experiment by its name, or all of a paper.

    Raises:
        ConfigError: there is none; the message names the nearest.

    >>> [experiment.name for experiment in experiments_named("gers-2000")]
    ['continual-reber']
    """
    if name in EXPERIMENTS:
        return [EXPERIMENTS[name]]
    if name in PAPERS:
        return list(PAPERS[name].EXPERIMENTS)
    known = [*EXPERIMENTS, *PAPERS]
    near = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"name: unknown (got {name!r}); {', '.join(known)}; "
        + (f"did you mean {near[0]}?" if near else "carousel reproduce without a name lists them")
    )


def reproduce(
    name: str,
    *,
    seeds: int | None = None,
    sequences: int | None = None,
    only: str | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
) -> list[Reproduction]:
    """Try every condition of an experiment with each seed, and set the results beside the paper's.

    Args:
        name: of an experiment or a paper, see `EXPERIMENTS` and `PAPERS`.
        seeds: how many trials, those with seeds 0, 1, ...; by default as many as are due to the paper.
        sequences: of one trial at most; by default what the experiment takes to be hopeless.
        only: the condition of this name, or all whose names contain it.
        data: where the data are, for experiments that read some.
        out: a folder for NAME.md, NAME.json and NAME.png, written after every trial. Trials that are there already are
            not repeated, so that the same command goes on where it was stopped, and takes more seeds.

    Raises:
        ConfigError: an option is not as above.

    >>> [found] = reproduce("embedded-reber", seeds=1, sequences=40)
    >>> next(found.lines())[2]
    '0 of 1'
    """
    for what, value in (("seeds", seeds), ("sequences", sequences)):
        if value is not None and value < 1:
            raise ConfigError(f"{what}: none (got {value}); 1 or more; leave it out for the paper's")
    chosen = experiments_named(name)
    _check_data(chosen, data)
    plans = {one.name: _chosen(one, only) for one in chosen}
    if not any(plans.values()):
        names = ", ".join(condition.name for one in chosen for condition in one.conditions)
        raise ConfigError(f"only: no such condition (got {only!r}); part of {names}; leave it out for all")
    return [_run(one, plans[one.name], seeds, sequences, data, out) for one in chosen if plans[one.name]]


def _check_data(experiments: Sequence[Experiment], data: str | Path | None) -> None:
    """A path is given if, and only if, there is something to read."""
    for one in experiments:
        if one.data is not None and data is None:
            raise ConfigError(
                f"data: {one.name} needs a path (got none); {one.data}; nothing is downloaded; give --data PATH"
            )
    if data is not None and all(one.data is None for one in experiments):
        raise ConfigError(f"data: not for {experiments[0].name} (got {data}); it makes its own; leave it out")


def _chosen(experiment: Experiment, only: str | None) -> list[Condition]:
    """The condition of that name, or all those that have it in theirs."""
    exact = [condition for condition in experiment.conditions if condition.name == only]
    return exact or [condition for condition in experiment.conditions if only is None or only in condition.name]


def _run(
    experiment: Experiment,
    conditions: Sequence[Condition],
    seeds: int | None,
    limit: int | None,
    data: str | Path | None,
    out: str | Path | None,
) -> Reproduction:
    reads = {} if experiment.data is None else {"data": data}
    folder = None if out is None else Path(out)
    found = Reproduction(experiment, _already(folder, experiment, limit), limit)
    with LiveProgress() as progress:
        for condition in conditions:
            done = found.outcomes.setdefault(condition.name, {})
            for seed in range(condition.trials if seeds is None else seeds):
                if seed in done:
                    continue
                began = time.monotonic()
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    done[seed] = condition.trial(seed, limit, **reads)
                progress.tell(_told(experiment, condition, seed, done[seed], time.monotonic() - began))
                if folder is not None:
                    _write(found, folder)
    if folder is not None:
        _write(found, folder)
    return found


def _told(experiment: Experiment, condition: Condition, seed: int, outcome: Outcome, seconds: float) -> str:
    how = "solved" if outcome.solved else "not solved"
    return (
        f"{experiment.name}, {condition.name}, seed {seed}: {how} after {outcome.sequences:,} {experiment.sequences}, "
        f"score {outcome.score:.{experiment.digits}g}, in {duration(seconds)}"
    )


def _summary(found: Sequence[Outcome], digits: int) -> tuple[str, ...]:
    solved = [outcome.sequences for outcome in found if outcome.solved]
    return (
        f"{len(solved)} of {len(found)}",
        f"{statistics.fmean(solved):,.0f}" if solved else "",
        f"{statistics.median(outcome.score for outcome in found):.{digits}g}",
        f"{statistics.fmean(outcome.seconds for outcome in found):.3g}",
    )


def _solved(found: Sequence[Outcome]) -> Points:
    """The share of trials that were solved, by sequences: a staircase."""
    share, line = 0.0, [(0.0, 0.0)]
    for sequences, trials in sorted(Counter(outcome.sequences for outcome in found if outcome.solved).items()):
        line += [(sequences - 0.5, share), (float(sequences), share := share + trials / len(found))]
    return [*line, (max(outcome.sequences for outcome in found) + 1.0, share)]


def _held(points: Sequence[tuple[float, float]]) -> Points:
    """At most 60 of them, the last among them."""
    every = -(-len(points) // 60)
    return [*points[::every], *([points[-1]] if (len(points) - 1) % every else [])] if points else []


def _already(folder: Path | None, experiment: Experiment, limit: int | None) -> dict[str, dict[int, Outcome]]:
    """The outcomes that an earlier run of the same experiment and limit has written."""
    path = None if folder is None else folder / f"{experiment.name}.json"
    if path is None or not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["limit"] != limit:
            raise ConfigError(
                f"{path}: run with another limit (got {limit}, there {facts['limit']}); the same; choose another --out"
            )
        known = {condition.name for condition in experiment.conditions}
        return {
            name: {int(seed): _outcome(kept) for seed, kept in by_seed.items()}
            for name, by_seed in facts["outcomes"].items()
            if name in known
        }
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: not a reproduction (got {error!r}); what carousel reproduce writes; choose another --out"
        ) from None


def _outcome(kept: dict[str, object]) -> Outcome:
    return Outcome(**kept)  # type: ignore[arg-type]


def _rounded(value: object) -> object:
    """Four digits are enough to draw, and keep the file small."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1e4 else round(value)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _write(found: Reproduction, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = found.experiment.name
    write_atomically(folder / f"{name}.md", found.markdown().encode())
    write_atomically(folder / f"{name}.json", found.json().encode())
    write_atomically(folder / f"{name}.png", found.png())
