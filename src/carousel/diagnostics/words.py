"""What the numbers of a diagnosis say, in a sentence or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch

from carousel.diagnostics.diagnosis import LayerDiagnosis
from carousel.diagnostics.gates import STUCK, Gate
from carousel.diagnostics.gradients import SHARE, Flow, GradientFlow
from carousel.reports.page import percent

LEVEL = 0.05  # of change between the last two quarters of the steps, within which a norm has levelled off
LONG = 10  # steps: a unit that remembers for longer is worth a word


def gradient_words(flow: GradientFlow) -> str:
    """How far back each layer's gradients reach, and what happens to them at each step."""
    said, several = [], len({one.layer for one in flow.flows}) > 1
    for layer, flows in groupby(flow.flows, key=lambda one: one.layer):
        told = [_reach(one) for one in sorted(flows, key=_order) if (one.norms > 0).any()]
        text = "; ".join(told) or "no gradient arrives"
        said.append(f"{_capital(f'{layer}: {text}' if several else text)}.")
    longest = max((one.last for one in flow.flows), key=lambda last: int(last.max()))
    at_end = int((longest == longest.max()).sum())
    counts = f"{_count(len(longest), 'sequence')} at lag 0, {at_end} at lag {int(longest.max())}"
    return " ".join([*said, f"Each lag is the mean over the sequences that are so long ({counts})."])


def _order(flow: Flow) -> tuple[float, float]:
    """The farthest first."""
    reach = flow.reach()
    return (-float("inf") if reach is None else -reach), -float(flow.shares()[-1])


def _reach(flow: Flow) -> str:
    shares, reach, name = flow.shares(), flow.reach(), f"‖∂L/∂{flow.field}‖"
    end, peak = len(shares) - 1, int(shares.argmax())
    if reach is not None:
        text = f"gradients of {flow.field} reach about {_count(reach, 'step')} back, where {name} falls below "
        text += f"{SHARE:.0%} of that at lag {flow.first}"
    elif end == flow.first:
        return f"{name} is there, but at one step alone"
    else:
        text = f"gradients of {flow.field} reach back all the way, {_count(end, 'step')}: {name} ends at "
        text += f"{percent(float(shares[-1]))} of that at lag {flow.first}"
    last = end if reach is None else reach
    if last > flow.first and float(shares[last]) > 0:
        text += f", {percent(float(shares[last]) ** (1 / (last - flow.first)))} of it left by each step on average"
    if shares[peak] > 2:
        text += f"; on its way it grows {_short(shares[peak])}-fold, at lag {peak}"
    return text


def gate_words(layer: LayerDiagnosis) -> str:
    """How open the gates are, and how many never move."""
    sigmoids = [gate for gate in layer.gates if gate.kind == "sigmoid"]
    if not sigmoids:
        return "This cell names no gate that comes from a sigmoid."
    return " ".join(_openness(gate) for gate in sigmoids)


def _openness(gate: Gate) -> str:
    means, units = gate.taken.mean(0), gate.values.shape[2]
    parts = [f"{gate.name} is {_plain(means.mean())} open on average"]
    if often := int((means > STUCK).sum()):
        parts[0] += f", above {STUCK:g} in {often} of {units} units"
    for stuck, where in ((gate.stuck_open, f"above {STUCK:g}"), (gate.stuck_closed, f"below {1 - STUCK:.2g}")):
        if stuck:
            parts.append(f"{_units(stuck, units)} stay{'s' * (len(stuck) == 1)} {where} at every step")
    return "; ".join(parts) + "."


def saturation_words(layer: LayerDiagnosis) -> str:
    """In which share of all values the gates are saturated, and which units always are."""
    said = []
    for gate in layer.gates:
        low, high, units = float(gate.low.mean()), float(gate.high.mean()), gate.values.shape[2]
        bounds = ("below .1", "above .9") if gate.kind == "sigmoid" else ("below -.9", "above .9")
        text = f"{gate.name}: {_share(low, 'never')} {bounds[0]}, {_share(high, 'never')} {bounds[1]}"
        always = int((gate.low == 1).sum() + (gate.high == 1).sum())
        said.append(text + (f", {always} of {units} units always on one side." if always else "."))
    return " ".join(said) or "This cell names no gate."


def memory_words(layer: LayerDiagnosis) -> str:
    """How long the units remember by themselves."""
    said = []
    for name, lengths in layer.memory.items():
        finite, for_ever = lengths[lengths.isfinite()], int(lengths.isinf().sum())
        parts = [f"{for_ever} of {len(lengths)} units of {name} keep all that they have"] if for_ever else []
        if len(finite):
            best = int(torch.where(lengths.isfinite(), lengths, -1).argmax())
            long = int((finite > LONG).sum())
            parts.append(
                f"half of the units of {name} keep 1/e of their state for {_short(finite.median())} steps or less"
            )
            parts.append(f"{long} of {len(lengths)} for more than {LONG}")
            parts.append(f"the longest, unit {best}, for {_short(lengths[best])}")
        said.append(_capital("; ".join(parts)) + ".")
    return " ".join(said) or "No unit keeps a part of its own state but by the recurrent weights."


def norm_words(layer: LayerDiagnosis) -> str:
    """Where the states' norms go."""
    said, typical = [], max(1, int(layer.lengths.median()))
    for name in layer.states:
        means = layer.norms(name)[:typical].nanmean(1)
        first, last = float(means[0]), float(means[-1])
        text = f"‖{name}‖ goes from {_short(first)} after the first step to {_short(last)} after step {typical}"
        last_part = typical // 4
        if last_part and (earlier := float(means[-2 * last_part : -last_part].mean())):
            change = float(means[-last_part:].mean()) / earlier
            if abs(change - 1) < LEVEL:
                text += ", where it levels off"
            else:
                by_step = abs(change ** (1 / last_part) - 1)
                text += f", where it still {'grows' if change > 1 else 'falls'} by {percent(by_step)} a step"
        said.append(text + ".")
    return " ".join(said)


def singular_words(layer: LayerDiagnosis) -> str:
    """The largest and the smallest singular value of each recurrent weight."""
    if not layer.singular:
        return "The state is multiplied by no weights."
    parts = [f"{name} from {_plain(values[0])} to {_plain(values[-1])}" for name, values in layer.singular.items()]
    return f"The singular values go: {'; '.join(parts)}."


def spectrum_words(layer: LayerDiagnosis) -> str:
    """The spectral radius, and how much of the spectrum is outside the unit circle or near it."""
    if layer.eigenvalues is None:
        return "The state is too large for a spectrum."
    modulus = layer.eigenvalues.abs()
    radius = modulus.amax(1)
    outside, near = float((modulus > 1).float().mean()), float((modulus > 0.9).float().mean())
    ends = sorted({_plain(radius.min()), _plain(radius.max())})
    text = f"The largest of {modulus.shape[1]} eigenvalues has modulus {' to '.join(ends)}, "
    text += f"at {_count(len(radius), 'state')}. "
    if outside:
        text += f"{percent(outside)} lie outside the unit circle: repeated, these steps would let a change grow. "
    else:
        text += "None lies outside the unit circle. "
    return text + (f"{percent(near)} are above .9." if near else "None is above .9.")


def clipping_words(records: Sequence[Mapping[str, float]]) -> str:
    """How often clipping acted, at first, at most and at last."""
    shares = [(record["epoch"], record["clipped"]) for record in records]
    (first, begun), (last, ended) = shares[0], shares[-1]
    most, at = max((share, epoch) for epoch, share in shares)
    if not most:
        return f"The gradient was never clipped in {_count(len(shares), 'epoch')}."
    if len(shares) == 1:
        return f"The gradient was clipped in {percent(begun)} of the steps."
    text = f"The gradient was clipped in {_share(begun)} of the steps of epoch {first:g} "
    text += f"and {_share(ended)} of epoch {last:g}"
    return text + ("." if most in (begun, ended) else f", most often in epoch {at:g}, {percent(most)}.")


def _share(value: float, nothing: str = "none") -> str:
    return percent(value) if value else nothing


def _units(numbers: Sequence[int], of: int) -> str:
    """Few units by their numbers, many by how many they are."""
    if len(numbers) > 6:
        return f"{len(numbers)} of {of} units"
    listed = ", ".join(map(str, numbers))
    return f"unit{'s' * (len(numbers) > 1)} {listed}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _plain(value: object) -> str:
    """Two digits behind the point, three where it is small.

    >>> _plain(0.734), _plain(0.0123), _plain(12.3)
    ('0.73', '0.012', '12.30')
    """
    amount = float(value)  # type: ignore[arg-type]
    return f"{amount:.2f}" if abs(amount) >= 0.095 or amount == 0 else f"{amount:.2g}"


def _short(value: object) -> str:
    """Three digits.

    >>> _short(44.731), _short(0.5), _short(123456.0)
    ('44.7', '0.5', '123,456')
    """
    amount = float(value)  # type: ignore[arg-type]
    return f"{amount:,.0f}" if abs(amount) >= 1000 else f"{amount:.3g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
