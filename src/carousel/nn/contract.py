"""What holds for every cell: one function for each property, which passes, or raises `Broken` and says how it fails."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from carousel.cells import Cell
from carousel.compiler import Engine
from carousel.errors import ConfigError
from carousel.nn.recurrent import Recurrent
from carousel.nn.unroll import unroll

LENGTHS = (6, 2, 1, 4)
EXACT = 1e-10  # of float64, where the same operations come in another order
FLOAT32, FLOAT32_GRADIENT = 5e-6, 1e-5  # of the compiled loop, unless PyTorch's own float32 is as far away
HUGE = 1e4


class Broken(Exception):
    """What is wrong (got VALUE); what is allowed; what to do."""

    def __init__(self, what: str, got: Any, allowed: str, do: str) -> None:
        super().__init__(f"{what} (got {got}); {allowed}; {do}")


class NotApplicable(Exception):
    """Why a cell cannot be held to a property."""


@dataclass(frozen=True)
class Subject:
    """The cell to be checked, made anew for each check."""

    make: Callable[[int], Cell]  # with weights drawn from a seed
    formula: Callable[[int, int], int] | int | None = None  # of the number of parameters
    resize: Callable[[int, int], Cell] | None = None  # the cell in other sizes; a ready-made one has none

    def cell(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> Cell:
        return self.make(seed).to(device="cpu", dtype=dtype)


def shapes(subject: Subject) -> None:
    """Outputs are (T, B, output_size), and every field of the state keeps its shape and type."""
    cell = subject.cell()
    for batch in (1, 3):
        initial = cell.initial_state(batch)
        new = cell.step(_inputs(cell, 1, batch)[0], initial)
        if not isinstance(new, cell.State):
            raise Broken("step returns no state", type(new).__name__, "State", "end it with return self.State(...)")
        before, after = _described(initial), _described(new)
        if before != after:
            raise Broken("the state changes its form", after, str(before), "make initial_state give what step returns")
        wanted = (batch, cell.output_size)
        if new[0].shape != wanted:
            raise Broken(
                "the first field is not the output",
                tuple(new[0].shape),
                f"{wanted}",
                "put it first, or set output_size",
            )
        outputs, _ = unroll(cell, _inputs(cell, 5, batch), engine="eager")
        if outputs.shape != (5, *wanted):
            raise Broken("outputs have another shape", tuple(outputs.shape), f"{(5, *wanted)}", "see output_size")


def state(subject: Subject) -> None:
    """States have named fields, can be given back by name, and begin as initial_state says."""
    cell = subject.cell()
    one, three = cell.initial_state(1), cell.initial_state(3)
    if not (fields := getattr(three, "_fields", ())):
        raise Broken("the state has no names", type(three).__name__, "a NamedTuple", "class State(NamedTuple)")
    do = "let initial_state depend on nothing but the weights"
    for b in range(3):
        begins = {f"the initial {n}": f[b : b + 1] for n, f in three._asdict().items()}
        _equal(begins, {f"the initial {n}": f for n, f in one._asdict().items()}, "that of a batch of one", do)
    inputs = _inputs(cell, 3, 2)
    outputs, end = unroll(cell, inputs, engine="eager")
    given, same_end = unroll(cell, inputs, cell.initial_state(2), engine="eager")
    _equal(_named(given, same_end), _named(outputs, end), "that of no state", do)
    by_name = cell.State(**{name: getattr(end, name) for name in reversed(fields)})
    _equal(
        _named(*unroll(cell, inputs, by_name, engine="eager")),
        _named(*unroll(cell, inputs, end, engine="eager")),
        "that of the state given back",
        "read fields by their names",
    )
    for field in cell.initial_state(2, dtype=torch.float32):
        if field.is_floating_point() and field.dtype != torch.float32:
            raise Broken("initial_state has another type", field.dtype, "the dtype asked for", "pass dtype on")
    for field in cell.initial_state(2, device=torch.device("meta")):
        if field.device.type != "meta":
            raise Broken("initial_state is elsewhere", field.device, "the device asked for", "pass device on")


def pure(subject: Subject) -> None:
    """The same call gives the same bits, and nothing that step reads is changed by it."""
    cell = subject.cell()
    inputs, start = _inputs(cell, 1, 3), _reached(cell, 3)
    reads = {"x": inputs[0], **start._asdict(), **dict(chain(cell.named_parameters(), cell.named_buffers()))}
    before = {name: tensor.detach().clone() for name, tensor in reads.items()}
    with torch.no_grad():
        once, again = ({n: f.clone() for n, f in cell.step(inputs[0], start)._asdict().items()} for _ in range(2))
    for name, tensor in reads.items():
        if not torch.equal(tensor, before[name]):
            off = _off(tensor, before[name])
            raise Broken(
                f"step changes {name}", f"{off:.1e} off", "step changes nothing", "write no operation in place"
            )
    do = "keep nothing in the cell; what is random is for training: check eval()"
    _equal(again, once, "that of the call before", do)


def steps(subject: Subject) -> None:
    """Unrolled, the cell gives what the plain loop over step gives, in values and gradients."""
    cell = subject.cell()
    inputs = _inputs(cell, 6, 4)
    for start in (cell.initial_state(4), _reached(cell, 4)):
        of = _leaves(cell, inputs, start)
        got, wanted = (_measured(*run(cell, inputs, start), of) for run in (_eager, plain_loop))
        _same(got, wanted, "that of the plain loop", "compute by PyTorch from x, state and the cell's weights alone")


def shortest(subject: Subject) -> None:
    """One time step is step; none at all is refused in one line."""
    cell = subject.cell()
    inputs, start = _inputs(cell, 1, 3), _reached(cell, 3)
    of = _leaves(cell, inputs, start)
    new = cell.step(inputs[0], start)
    got, wanted = _measured(*_eager(cell, inputs, start), of), _measured(new[0][None], new, of)
    _same(got, wanted, "that of step", "let nothing depend on the number of steps")
    _refused(lambda: unroll(cell, inputs[:0]), "no time steps", "T and B at least 1")


def pieces(subject: Subject) -> None:
    """A sequence in pieces, the state carried over, is the whole sequence, in values and gradients."""
    cell = subject.cell()
    inputs = _inputs(cell, 7, 2)
    of = _leaves(cell, inputs)
    outputs, carried = [], None
    for piece in (inputs[:3], inputs[3:4], inputs[4:]):
        output, carried = unroll(cell, piece, carried, engine="eager")
        outputs.append(output)
    got, wanted = _measured(torch.cat(outputs), carried, of), _measured(*_eager(cell, inputs, None), of)
    _same(got, wanted, "that of the whole", "keep what is to be remembered in the state")


def gradients(subject: Subject) -> None:
    """Derivatives through two steps are those of finite differences, in float64."""
    cell = subject.cell()
    inputs = _inputs(cell, 2, 1)
    of = _leaves(cell, inputs)

    def flat(*_: Tensor) -> Tensor:
        outputs, end = plain_loop(cell, inputs, cell.initial_state(1))
        return torch.cat([result.flatten() for result in _named(outputs, end).values() if result.is_floating_point()])

    try:
        torch.autograd.gradcheck(flat, tuple(of.values()))
    except GradcheckError as error:
        index = re.search(r"with respect to input (\d+)", str(error))
        what = f"the gradient of {[*of][int(index[1])]}" if index else "a gradient"
        got = " ".join(str(error).split("\n")[0].split())
        raise Broken(
            f"{what} is wrong", got, "that of finite differences", "no detach, no .data, no no_grad in step"
        ) from None


def padding(subject: Subject) -> None:
    """What is past a sequence's length, even NaN, is not read: outputs, ends and gradients are those of it alone."""
    cell, lengths = subject.cell(), torch.tensor(LENGTHS)
    clean, start = _inputs(cell, 6, 4), _reached(cell, 4)
    past = torch.arange(6)[:, None] >= lengths
    dirty = clean.detach().masked_fill(past[..., None], torch.nan).requires_grad_()
    got = _measured(*unroll(cell, dirty, start, lengths, engine="eager"), _leaves(cell, dirty, start))
    wanted = _measured(*alone(cell, clean, start), _leaves(cell, clean, start))
    _same(got, wanted, "that of each sequence alone", "treat every row of x and state by itself: no mean over dim=0")


def rows(subject: Subject) -> None:
    """A sequence of NaN leaves the others of its batch as they are, to the bit, and each is what it is alone."""
    cell = subject.cell()
    do = "treat every row of x and state by itself: no mean over dim=0, no length of the batch"
    inputs, start = _inputs(cell, 5, 4), _reached(cell, 4)
    of = _leaves(cell, inputs, start)
    got, wanted = _measured(*_eager(cell, inputs, start), of), _measured(*alone(cell, inputs, start, (5,) * 4), of)
    _same(got, wanted, "that of each sequence alone", do)
    for engine, dtype in (("eager", torch.float64), ("auto", torch.float32)):
        cell = subject.cell(dtype=dtype)
        if engine == "auto" and why_eager(cell):
            continue
        clean, start = _inputs(cell, 5, 4), _reached(cell, 4)
        dirty = clean.detach().clone()
        dirty[:, 1] = torch.nan
        results = []
        for inputs in (dirty.requires_grad_(), clean):
            outputs, end = unroll(cell, inputs, start, engine=engine)  # type: ignore[arg-type]
            others = type(end)(*(field[[0, 2, 3]] for field in end))
            found = _measured(outputs[:, [0, 2, 3]], others, {"inputs": inputs})
            found["the gradient of inputs"] = found["the gradient of inputs"][:, [0, 2, 3]]
            results.append(found)
        _equal(results[0], results[1], "that beside another sequence", do)


def bidirectional(subject: Subject) -> None:
    """Both ways is the cell forward and a second one over each sequence turned around, within its own length."""
    pair, lengths = [subject.cell(0), subject.cell(1)], torch.tensor(LENGTHS)
    inputs = _inputs(pair[0], 6, 4)
    outputs, (end,) = Recurrent(pair, bidirectional=True, engine="eager")(inputs, lengths=lengths)
    turned = torch.stack([torch.cat([s[:n].flip(0), s[n:]]) for n, s in zip(LENGTHS, inputs.unbind(1), strict=True)], 1)
    forward, first = unroll(pair[0], inputs, None, lengths, engine="eager")
    backward, second = unroll(pair[1], turned, None, lengths, engine="eager")
    backward = torch.stack(
        [torch.cat([s[:n].flip(0), s[n:]]) for n, s in zip(LENGTHS, backward.unbind(1), strict=True)], 1
    )
    of = _leaves(pair[0], inputs) | {f"backward {name}": weight for name, weight in _leaves(pair[1]).items()}
    do = "let initial_state depend on nothing, and step on x and state alone"
    got = _measured(outputs, [*end.forward, *end.backward], of)
    _same(got, _measured(torch.cat([forward, backward], 2), [*first, *second], of), "that of the reversed run", do)


def saving(subject: Subject) -> None:
    """Weights saved as safetensors and loaded into another cell make it the same, to the bit."""
    from safetensors.torch import load, save

    cell, other = subject.cell(0), subject.cell(1)
    inputs = _inputs(cell, 3, 2)
    wanted = _named(*_eager(cell, inputs, None))
    other.load_state_dict(load(save({name: t.contiguous() for name, t in cell.state_dict().items()})))
    _equal(_named(*_eager(other, inputs, None)), wanted, "that before saving", "nn.Parameter or register_buffer for it")


def copying(subject: Subject) -> None:
    """A deep copy computes the same, with weights of its own."""
    cell = subject.cell()
    inputs = _inputs(cell, 3, 2)
    before = _named(*_eager(cell, inputs, None))
    twin = copy.deepcopy(cell)
    do = "hold maps and modules, not functions bound to this cell"
    _equal(_named(*_eager(twin, inputs, None)), before, "that of the copied cell", do)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(3)
    _equal(_named(*_eager(cell, inputs, None)), before, "that before its copy was changed", do)
    results = _measured(*_eager(twin, inputs, None), _leaves(twin))
    if all(map(torch.equal, before.values(), results.values())) and any(True for _ in twin.parameters()):
        raise Broken("a copy does not read its weights", "the same numbers", "others", do)


def compiled(subject: Subject) -> str:
    """The compiled loop is as near to the plain loop in float64 as float32 can be, ragged, in values and gradients."""
    cell, lengths = subject.cell(dtype=torch.float32), torch.tensor(LENGTHS)
    if reason := why_eager(cell):
        raise NotApplicable(f"runs eagerly: {reason}")
    exact = copy.deepcopy(cell).double()
    inputs, start = _inputs(cell, 6, 4), _reached(cell, 4)
    precise = inputs.detach().double().requires_grad_()
    precise_start = type(start)(*(_wanting(f.double() if f.is_floating_point() else f) for f in start))
    wanted = _measured(*alone(exact, precise, precise_start), _leaves(exact, precise, precise_start))
    engines: tuple[Engine, Engine] = ("compiled", "eager")
    of = _leaves(cell, inputs, start)
    got, own = (_measured(*unroll(cell, inputs, start, lengths, engine=engine), of) for engine in engines)
    worst = {False: 0.0, True: 0.0}
    for name, value in wanted.items():
        of_gradient = name.startswith("the gradient")
        off, floor = _off(got[name], value), FLOAT32_GRADIENT if of_gradient else FLOAT32
        allowed = max(4 * _off(own[name], value), floor)
        if not off <= allowed:
            do = "run with engine='eager', and report it with carousel.explain(cell)"
            raise Broken(f"{name} is not that of the plain loop", f"{off:.1e} off", f"{allowed:.1e}", do)
        worst[of_gradient] = max(worst[of_gradient], off)
    return f"values within {worst[False]:.0e}, gradients within {worst[True]:.0e}"


def parameters(subject: Subject) -> str:
    """There are as many parameters as the formula says, for several sizes."""
    cell = subject.make(0)
    count = _count(cell)
    if subject.formula is None:
        raise NotApplicable(f"{count:,}; no formula given")
    sizes = [(cell.input_size, cell.hidden_size)]
    if subject.resize is not None:
        sizes += [(cell.input_size + 1, cell.hidden_size), (cell.input_size, 2 * cell.hidden_size)]
    for size in sizes:
        wanted = subject.formula(*size) if callable(subject.formula) else subject.formula
        found = count if size == sizes[0] or subject.resize is None else _count(subject.resize(*size))
        if found != wanted:
            raise Broken(f"another number of parameters at {size}", found, str(wanted), "see named_parameters()")
        if not callable(subject.formula):
            break
    return f"{count:,}"


def saturation(subject: Subject) -> None:
    """Inputs of 1e4, of either sign, leave outputs, states and gradients finite."""
    engines: tuple[Engine, Engine] = ("eager", "auto")
    for engine in engines:
        cell = subject.cell(dtype=torch.float32)
        if engine == "auto" and why_eager(cell):
            continue
        inputs = (HUGE * _inputs(cell, 6, 4).detach().sign()).requires_grad_()
        found = _measured(*unroll(cell, inputs, engine=engine), _leaves(cell, inputs))
        for name, value in found.items():
            if not value.isfinite().all():
                bad = value[~value.isfinite()][0].item()
                do = "bound what goes into exp, log and divisions"
                raise Broken(f"{name} is not finite for inputs of {HUGE:g}", bad, "finite numbers", do)


def errors(subject: Subject) -> None:
    """Sizes, inputs and states that do not fit are refused in one line, which says what does."""
    cell = subject.cell()
    inputs, start = _inputs(cell, 3, 2), cell.initial_state(2)
    wider = torch.cat([inputs, inputs[..., :1]], dim=2)
    width = f"{cell.input_size})"
    _refused(lambda: unroll(cell, wider), "inputs one too wide", width)
    _refused(lambda: Recurrent(cell).step(wider[0]), "an input one too wide", width)
    _refused(lambda: unroll(cell, inputs, start[:-1]), "a state without its last field", start._fields[-1])
    _refused(lambda: unroll(cell, inputs, cell.initial_state(3)), "a state of another batch", start._fields[0])
    if (resize := subject.resize) is not None:
        _refused(lambda: resize(0, cell.hidden_size), "an input size of 0", "1 or more")
        _refused(lambda: resize(cell.input_size, 0), "a hidden size of 0", "1 or more")


def scan(subject: Subject) -> None:
    """The scan gives what the loop gives, ragged too: every field of every step, and the gradients."""
    cell, lengths = subject.cell(), torch.tensor(LENGTHS)
    if not cell.has_scan:
        raise NotApplicable(f"{type(cell).__name__} has no scan")
    than, do = "that of the loop", "scan is step at every t, from the state before the first"
    for T in (1, 6):
        inputs, start = _inputs(cell, T, 4), _reached(cell, 4)
        of = _leaves(cell, inputs, start)
        got = _measured(*unroll(cell, inputs, start, engine="scan"), of)
        _same(got, _measured(*plain_loop(cell, inputs, start), of), than, do)
    every, now = cell.scan(inputs, start), start
    for t, x in enumerate(inputs):
        now = cell.step(x, now)
        found, wanted = ({f"{n} of step {t}": f for n, f in s.items()} for s in (_at(every, t), now._asdict()))
        _same(found, wanted, than, do)
    past = torch.arange(6)[:, None] >= lengths
    dirty = inputs.detach().masked_fill(past[..., None], torch.nan).requires_grad_()
    got = _measured(*unroll(cell, dirty, start, lengths, engine="scan"), _leaves(cell, dirty, start))
    _same(got, _measured(*alone(cell, inputs, start), of), "that of each sequence alone", do)


CONTRACT: tuple[Callable[[Subject], str | None], ...] = (
    shapes, state, pure, steps, shortest, pieces, gradients, padding, rows, bidirectional, saving, copying, compiled,
    scan, parameters, saturation, errors,
)  # fmt: skip


def plain_loop(cell: Cell, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    """What `unroll` equals."""
    outputs = []
    for x in inputs:
        state = cell.step(x, state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def alone(cell: Cell, inputs: Tensor, state: Any, lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Any]:
    """Each sequence by itself through the plain loop, outputs padded with zeros."""
    outputs, ends = [], []
    for b, length in enumerate(lengths):
        output, end = plain_loop(cell, inputs[:length, b : b + 1], cell.State(*(f[b : b + 1] for f in state)))
        outputs.append(torch.cat([output, output.new_zeros(len(inputs) - length, 1, output.shape[2])]))
        ends.append(end)
    return torch.cat(outputs, dim=1), cell.State(*(torch.cat(field) for field in zip(*ends, strict=True)))


def why_eager(cell: Cell) -> str | None:
    """Why the cell is not compiled, if so."""
    try:
        with torch.no_grad():
            unroll(cell, torch.zeros(1, 1, cell.input_size), engine="compiled")
    except ConfigError as error:
        reason = re.search(r"\(got (.*)\);", str(error))
        return reason[1] if reason else str(error)
    return None


def _eager(cell: Cell, inputs: Tensor, start: Any) -> tuple[Tensor, Any]:
    return unroll(cell, inputs, start, engine="eager")


def _inputs(cell: Cell, steps: int, batch: int) -> Tensor:
    like = next(chain(cell.parameters(), cell.buffers()), torch.zeros(()))
    return torch.randn(steps, batch, cell.input_size, dtype=like.dtype, requires_grad=True)


def _reached(cell: Cell, batch: int) -> Any:
    """A state that sequences come to: not zero, and not impossible as a random one might be."""
    with torch.no_grad():
        _, end = plain_loop(cell, _inputs(cell, 2, batch), cell.initial_state(batch))
    return cell.State(*(_wanting(field.clone()) for field in end))


def _wanting(field: Tensor) -> Tensor:
    """The field as a leaf that wants a gradient, where that is possible."""
    return field.detach().requires_grad_(field.is_floating_point())


def _leaves(cell: Cell, inputs: Tensor | None = None, start: Any = ()) -> dict[str, Tensor]:
    """What a gradient is asked for, by name."""
    named: dict[str, Tensor] = {} if inputs is None else {"inputs": inputs}
    named |= {f"the first {name}": field for name, field in zip(getattr(start, "_fields", ()), start, strict=True)}
    return {name: t for name, t in (named | dict(cell.named_parameters())).items() if t.requires_grad and t.is_leaf}


def _named(outputs: Tensor, end: Any) -> dict[str, Tensor]:
    names = getattr(end, "_fields", range(len(end)))
    return {"the output": outputs, **{f"the final {name}": field for name, field in zip(names, end, strict=True)}}


def _measured(outputs: Tensor, end: Any, of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs and the final state, and the gradients of a fixed random weighting of them."""
    results, generator = _named(outputs, end), torch.Generator().manual_seed(7)
    drawn = [torch.randn(r.shape, generator=generator, dtype=torch.float64) for r in results.values()]
    pairs = zip(results.values(), drawn, strict=True)
    loss = sum((r * w.to(r.dtype)).sum() for r, w in pairs if r.requires_grad)
    found: Any = [None] * len(of)
    if isinstance(loss, Tensor) and of:
        found = torch.autograd.grad(loss, [*of.values()], retain_graph=True, allow_unused=True)
    zeros = (torch.zeros_like(t) if g is None else g for g, t in zip(found, of.values(), strict=True))
    return results | {f"the gradient of {name}": g for name, g in zip(of, zeros, strict=True)}


def _off(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value if that is more than 1."""
    if got.numel() == 0:
        return 0.0
    scale = max(1.0, float(wanted.detach().abs().max()))
    return float((got.detach().to(wanted.dtype) - wanted.detach()).abs().max()) / scale


def _same(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], than: str, do: str, within: float = EXACT) -> None:
    for name, value in wanted.items():
        if got[name].shape != value.shape:
            raise Broken(f"{name} is not {than}", tuple(got[name].shape), f"{tuple(value.shape)}", do)
        if not (off := _off(got[name], value)) <= within:
            raise Broken(f"{name} is not {than}", f"{off:.1e} off", f"{within:.0e}" if within else "the same bits", do)


def _equal(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], than: str, do: str) -> None:
    _same(got, wanted, than, do, within=0.0)


def _at(states: Any, t: int) -> dict[str, Tensor]:
    return {name: field[t] for name, field in states._asdict().items()}


def _described(state: Any) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(field.shape), field.dtype) for name, field in state._asdict().items()}


def _count(cell: Cell) -> int:
    return sum(weight.numel() for weight in cell.parameters())


def _refused(call: Callable[[], Any], what: str, says: str) -> None:
    """Raise Broken unless the call raises a ConfigError of one line that says what is allowed."""
    allowed = f"a ConfigError of one line with {says!r}"
    try:
        call()
    except ConfigError as error:
        if "\n" in str(error) or says not in str(error):
            raise Broken(f"{what}: an error that does not help", str(error), allowed, "keep to Cell's sizes") from None
    except Exception as error:
        got = f"{type(error).__name__}: {error}".split("\n")[0]
        raise Broken(
            f"{what}: another error", got, allowed, "call super().__init__(input_size, hidden_size)"
        ) from error
    else:
        raise Broken(f"{what}: no error", "a result", allowed, "call super().__init__(input_size, hidden_size)")
