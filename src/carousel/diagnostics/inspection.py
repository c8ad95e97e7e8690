"""A look into a trained network: a page with pictures, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carousel.diagnostics import pictures, words
from carousel.diagnostics.diagnosis import Diagnosis, LayerDiagnosis, diagnose
from carousel.diagnostics.units import Unit, chosen_units, telling_units
from carousel.errors import ConfigError
from carousel.reports.inspection import Reading, UnitReading, write_inspection_report
from carousel.reports.page import write_whole
from carousel.reports.section import Section
from carousel.tasks.inspection import Lines
from carousel.tasks.task import TASKS, task_named
from carousel.training import RunFolder, model_task

READ = 24  # sequences whose tokens are shown
UNITS = 8  # to colour them by


def inspect(
    run: str | Path,
    data: str | Path,
    *,
    images: str | Path | None = None,
    sequences: int = 64,
    units: Sequence[int] = (),
    out: str | Path | None = None,
) -> Path:
    """Look at a run's network while it reads some data, and write what is seen; the page's path is returned.

    Args:
        run: a run folder, or a model file.
        data: what the run's task reads, such as a file of captions.
        images: the folder of its photos; by default the one where the file is.
        sequences: how many to look at.
        units: by whose states to colour the tokens, in each layer, before those that are picked.
        out: the folder for inspection.html and the pictures; by default `inspection` in the run folder.

    Raises:
        ConfigError: the folder holds no model, there is no place to write, or nothing to show of that task.
        DataError, PhotoError, ModelFileError: what is wrong with the input.
    """
    folder = Path(run)
    if folder.is_dir():
        file, log, target = RunFolder(folder).model, RunFolder(folder).log, Path(out or folder / "inspection")
        if not file.exists():
            raise ConfigError(f"{folder}: no run (got no {file.name}); the folder of a run, or a model file; check it")
    elif out is None:
        raise ConfigError(f"out: nowhere to write (got the model file {folder.name}); a folder; give --out")
    else:
        file, log, target = folder, None, Path(out)
    task = model_task(file)
    look = task_named(task).inspection if task in TASKS else None
    if look is None:
        known = ", ".join(name for name in TASKS if task_named(name).inspection)
        raise ConfigError(f"{file}: nothing to look at (got task {task}); {known}; choose another run")
    shown = look(file, data, images=images or Path(data).parent, sequences=sequences)
    found = diagnose(shown.model, shown.batch, shown.loss)
    return write_inspection(
        found,
        target,
        title=f"Inside {folder.name}",
        about=shown.about,
        tokens=shown.tokens,
        running=shown.running,
        units=units,
        log=_records(log),
    )


def _records(log: Path | None) -> list[dict[str, Any]]:
    """The epochs of a log that say how often clipping acted."""
    if log is None or not log.exists():
        return []
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if "clipped" in record and "epoch" in record]


def write_inspection(
    found: Diagnosis,
    folder: str | Path,
    *,
    title: str,
    about: str = "",
    tokens: Lines | Mapping[str, Lines] | None = None,
    running: str | None = None,
    units: Sequence[int] = (),
    log: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write a diagnosis as inspection.html, and each picture as a PNG beside it; the page's path is returned.

    Args:
        tokens: what each step of each sequence reads; by the name of each recurrence where there are several.
        running: where the sequences are one text, what stands between two tokens.
        units: by whose states to colour the tokens, in each layer, before those that are picked.
        log: for each epoch "epoch" and "clipped", the share of its steps in which the gradient was clipped.

    Raises:
        ConfigError: the folder cannot be written, or there is no such unit.
    """
    networks, chosen = found.networks(), chosen_units(found.layers, units)
    lines = tokens if isinstance(tokens, Mapping) else dict.fromkeys(networks, tokens or [])
    readings = [
        Reading(name, lines[name][:READ], _readings(one.layers, lines[name], chosen), running)
        for name, one in networks.items()
        if lines[name]
    ]
    named = _sections(found, lines, log)
    target = Path(folder)
    for name, section in named.items():
        if section.picture is not None:
            write_whole(target / f"{name}.png", section.picture, "picture")
    facts = [fact for name, one in networks.items() for fact in _facts(one, f" of the {name}" if name else "")]
    facts += [(f"{found.flow.loss / len(found.layers[-1].lengths):.4g}", "loss of each, on average")]
    return write_inspection_report(
        target / "inspection.html",
        title=title,
        about=about,
        facts=facts,
        sections=list(named.values()),
        readings=readings,
    )


def _facts(found: Diagnosis, of: str) -> list[tuple[str, str]]:
    """How much a recurrence read, and how far back the gradients reach in it."""
    lengths, reach = found.layers[0].lengths, found.flow.reach()
    farthest = max(int(flow.last.max()) for flow in found.flow.flows)
    return [
        (str(len(lengths)), "sequence" + "s" * (len(lengths) > 1) + of),
        (str(int(lengths.sum())), "steps" + of),
        (f"all {farthest}" if reach is None else str(reach), "steps back gradients" + of + " reach"),
    ]


def _sections(found: Diagnosis, lines: Mapping[str, Lines], log: Sequence[Mapping[str, Any]]) -> dict[str, Section]:
    """By the name of the picture's file."""
    layers = found.layers
    sections = {
        "gradients": Section(
            "How far back learning reaches",
            words.gradient_words(found.flow),
            "Mean over sequences of the norm of the loss's gradient with respect to the state so many steps before the "
            "loss, relative to that at lag 0; the bands hold four fifths of the sequences.",
            pictures.gradient_picture(found.flow),
        )
    }
    for k, layer in enumerate(layers, start=1):
        of, end = (f", {layer.name}", f"-{k}") if len(layers) > 1 else ("", "")
        sequence, read = int(layer.lengths.argmax()), lines[layer.network]
        picture = pictures.gate_picture(layer, sequence, layer.in_order(read[sequence]) if read else None)
        how = "A row for a unit, a column for a step of the longest sequence. The words are of all sequences."
        sections[f"gates{end}"] = Section(f"How open the gates are{of}", words.gate_words(layer), how, picture)
        how = "A point is a unit. On the diagonal it is always saturated; in the lower left corner it never is."
        sections[f"saturation{end}"] = Section(
            f"Saturation{of}", words.saturation_words(layer), how, pictures.saturation_picture(layer)
        )
    sections["memory"] = Section(
        "How long units remember",
        _each(layers, words.memory_words),
        "-1 / mean log of the share of its own state that a unit keeps at a step (an LSTM's forget gate).",
        pictures.memory_picture(layers),
    )
    sections["states"] = Section(
        "How large the states are",
        _each(layers, words.norm_words),
        "Median over sequences; the bands hold four fifths of them. The words are of means.",
        pictures.norm_picture(layers),
    )
    sections["singular-values"] = Section(
        "What the recurrent weights stretch",
        _each(layers, words.singular_words),
        "The singular values of each recurrent weight U. A rotation has all of them at the dashed line.",
        pictures.singular_picture(layers),
    )
    sections["spectrum"] = Section(
        "What one step does to a state",
        _each(layers, words.spectrum_words),
        "The eigenvalues of the Jacobian ∂Sₜ/∂Sₜ₋₁ at states of these sequences, one colour for each; S is all that "
        "the cell carries over. The circle is that of modulus 1.",
        pictures.spectrum_picture(layers),
    )
    if log:
        sections["clipping"] = Section(
            "How often clipping acted", words.clipping_words(log), "From the run's log.", pictures.clipping_picture(log)
        )
    return sections


def _each(layers: Sequence[LayerDiagnosis], said: Callable[[LayerDiagnosis], str]) -> str:
    if len(layers) == 1:
        return said(layers[0])
    return " ".join(f"{layer.name.capitalize()}. {said(layer)}" for layer in layers)


def _readings(layers: Sequence[LayerDiagnosis], tokens: Lines, chosen: Sequence[Unit] = ()) -> list[UnitReading]:
    """Of the layers of one recurrence."""
    found = []
    units = {unit.number for unit in chosen}
    for layer in layers:
        telling = telling_units(layer, [layer.in_order(line) for line in tokens])[: -(-UNITS // len(layers))]
        own = [unit for unit in chosen if unit.layer is layer]
        for unit in [*own, *(unit for unit in telling if unit.number not in units)]:
            of = f" of {layer.name}" if len(layers) > 1 else ""
            shown = zip(unit.values.T[:READ].tolist(), layer.lengths[:READ].tolist(), strict=True)
            name = f"unit {unit.number} of {layer.memory_field}{of}"
            found.append(UnitReading(name, unit.why, [layer.in_order(values[:length]) for values, length in shown]))
    return found
