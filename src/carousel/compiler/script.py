"""Compiled functions called one after the other over the pieces of a batch, without going back to Python in between.

A `Script` is written once for a program and a form of its operands: a list of calls, and of each word of their tables
what it is, an address plus multiples of what differs from piece to piece and from thread to thread:

    word = base + c_0 + c_1 · row + c_2 · rows + c_3 · step + ...

For a batch, all words of all pieces are one small product of integers. Then

    for section in script:
        for piece in section:
            for call in section:                    every thread does its part of each call,
                call(words of piece and thread)     and waits for the others where the next call needs their parts
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from carousel.compiler import objects, threads
from carousel.compiler.arithmetic import LONG, POINTER
from carousel.compiler.blocks import Loops, Target
from carousel.compiler.extent import Extent

Room = dict[Any, tuple[int, int, int]]
Words = np.ndarray[Any, np.dtype[np.int64]]
Memory = dict[Any, Tensor]

# What words are multiples of. Rows are those of the piece, `first` and `count` the thread's share of them; `lowest` and
# `highest` the thread's sequences; `padded` is the row in a padded batch where the piece begins; `again` is 1 but in
# the piece that is done first; `even`, `odd` are 1 in one thread.
OF_PIECE = ("one", "row", "rows", "step", "steps", "before", "again", "batch", "sizes", "padded")
OF_THREAD = ("first", "count", "lowest", "highest", "part", "even", "odd")


@dataclass(frozen=True)
class Word:
    """A sum of multiples, with the address of something if it has a base."""

    base: Any = None
    multiples: tuple[tuple[Any, int], ...] = ()

    def __add__(self, other: Word) -> Word:
        assert self.base is None or other.base is None, "one address is not added to another"
        return Word(other.base if self.base is None else self.base, self.multiples + other.multiples)


def word(number: int = 0, base: Any = None, **multiples: int) -> Word:
    """A number, plus an address, plus multiples of what OF_PIECE and OF_THREAD name.

    >>> word(3, rows=4).multiples
    (('one', 3), ('rows', 4))
    """
    return Word(base, (("one", number), *multiples.items()) if number else tuple(multiples.items()))


def share(total: int, first: int = 0, count: int = 0) -> Word:
    """Multiples of the first of a thread's share of so many, and of how many those are."""
    return Word(None, ((("first", total), first), (("count", total), count)))


@dataclass
class Section:
    """Calls to make for each piece, or once."""

    in_pieces: bool
    functions: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    waits: list[bool] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    at_start: list[tuple[int, Any]] = field(default_factory=list)  # words that are another address in the first piece

    def call(self, function: Any, *words: int | Word, wait: bool = False) -> None:
        """Add a call; with `wait`, no thread goes on before all have done it."""
        self.functions.append(threads.address(function))
        self.lengths.append(len(words))
        self.waits.append(wait)
        self.words += [one if isinstance(one, Word) else word(one) for one in words]

    @property
    def bases(self) -> list[Any]:
        return [one.base for one in self.words if one.base is not None] + [base for _, base in self.at_start]

    def extend(self, other: Section) -> None:
        """Add another's calls."""
        self.at_start += [(len(self.words) + place, base) for place, base in other.at_start]
        self.functions += other.functions
        self.lengths += other.lengths
        self.waits += other.waits
        self.words += other.words

    def from_start(self, place: int, base: Any) -> None:
        """Of the last call, a word that is another address in the piece that holds the first step."""
        self.at_start.append((len(self.words) - self.lengths[-1] + place, base))


class Script:
    """Sections of calls, ready to be run for batches.

    Args:
        room: for each base that is memory for the time of the run, the numbers it takes: so many, so many for each row
            of the largest piece, and so many for each sequence.
        parts: how many threads there are.
        rows: of a piece, about.
        about: what the calls are about: how well threads serve them is learnt for each.
    """

    def __init__(self, sections: Sequence[Section], room: Room, parts: int, rows: int, about: Any) -> None:
        self.room, self.parts, self.rows, self.about = room, parts, rows, about
        self._sections = [section for section in sections if section.functions]
        named = [base for section in self._sections for base in section.bases]
        self.given = [base for base in dict.fromkeys(named) if base not in room]
        places = {base: place for place, base in enumerate((None, HERE, *room, *self.given))}
        self.written = [_Written(section, places, parts) for section in self._sections]
        self._laid_out: dict[Extent, _LaidOut] = {}

    def ready(self, memory: Memory, extent: Extent, *, backward: bool = False, turn: int = 0) -> Ready:
        """What `player` plays: the tables of all calls, and where they are. To be given back afterwards.

        Args:
            memory: the tensor of each base that is not room.
            turn: which of the scripts played at the same time it is: each has room of its own.
        """
        laid = self._laid_out.get(extent)
        if laid is None:
            if len(self._laid_out) >= FORMS:
                self._laid_out.clear()
            laid = self._laid_out[extent] = _LaidOut(self, extent, backward)
        ready = laid.ready()
        room, given = _arena(laid.total, turn), [memory[base].data_ptr() for base in self.given]
        bases = np.array([0, ready.head, *[room + offset for offset in laid.offsets], *given], np.int64)
        bases.take(laid.bases, out=ready.words, mode="clip")  # which is quicker than to look for mistakes
        np.add(ready.words, laid.words, out=ready.words)
        return ready


class Ready(NamedTuple):
    """A script with all that it needs, in memory that is used again and again."""

    words: Words
    head: int  # their address
    owner: _LaidOut

    def give_back(self) -> None:
        self.owner.spare.append(self)


class Run(NamedTuple):
    """A script with what it reads and writes."""

    script: Script
    memory: Memory
    extent: Extent
    result: Callable[[], Any]  # afterwards
    backward: bool = False


def play(runs: Sequence[Run]) -> list[Any]:
    """Do a run, or several at the same time, each in a thread; their results."""
    ready = [
        run.script.ready(run.memory, run.extent, backward=run.backward, turn=turn) for turn, run in enumerate(runs)
    ]
    about = tuple((run.script.about, run.extent.batch, run.extent.steps) for run in runs)
    if len(runs) == 1:
        threads.share(player(), ready[0].head, runs[0].script.parts, about)
    else:
        heads = np.array([len(ready), *(one.head for one in ready)], np.int64)
        threads.share(player("play_each"), _address(heads), len(ready), about)
    for one in ready:
        one.give_back()
    return [run.result() for run in runs]


FORMS = 32  # of batches that a script is kept ready for: ragged ones may have no end of them
HERE = "here"  # the base of addresses within the words themselves
_KEPT = threading.local()


def _arena(numbers: int, turn: int) -> int:
    """Memory of this thread for the time of a run: the address of so many numbers, at the start of a cache line."""
    arenas = _KEPT.__dict__.setdefault("arenas", {})
    kept = arenas.get(turn)
    if kept is None or kept.numel() < numbers:
        kept = arenas[turn] = torch.empty(numbers)
    address: int = kept.data_ptr()
    return address + -address % LINE


def _address(words: Words) -> int:
    address: int = words.__array_interface__["data"][0]
    return address


LINE = 64  # bytes


class _Written:
    """A section as arrays: what its words are multiples of, and which addresses they begin from."""

    def __init__(self, section: Section, places: dict[Any, int], parts: int) -> None:
        self.in_pieces, self.parts, self.calls = section.in_pieces, parts, len(section.functions)
        names = [of for one in section.words for of, _ in one.multiples]
        self.splits = list(dict.fromkeys(of[1] for of in names if isinstance(of, tuple)))
        columns: list[Any] = [*OF_PIECE, *OF_THREAD]
        for total in self.splits:
            columns += [("first", total), ("count", total)]
        self.multiples = np.zeros((len(columns), len(section.words)), np.int64)
        for place, one in enumerate(section.words):
            for of, by in one.multiples:
                self.multiples[columns.index(of), place] += by
        self.bases = np.array([places[one.base] for one in section.words])
        self.at_start = [(place, places[base]) for place, base in section.at_start]
        offsets, waits = np.cumsum([0, *section.lengths[:-1]]) * 8, [*section.waits[:-1], True]
        self._fixed = np.array([section.functions, offsets, waits], np.int64)
        self.fixed = _address(self._fixed)

    def words(self, pieces: Words, extent: Extent) -> tuple[Words, Words]:
        """(parts, pieces, words), without their bases, and which those are."""
        values = np.zeros((self.parts, len(pieces), len(self.multiples)), np.int64)
        own = len(OF_PIECE)
        values[:, :, :own] = pieces
        rows, loops = pieces[:, 2], threads.loops(self.parts, extent.batch)
        values[:loops, :, own + 2 : own + 4] = extent.shares(loops, pieces)
        for part, here in enumerate(values):
            here[:, own] = first = rows * part // self.parts
            here[:, own + 1] = rows * (part + 1) // self.parts - first
            here[:, own + 4 : own + 7] = part, part == 0, part == min(1, self.parts - 1)
            for place, total in enumerate(self.splits):
                start, at = total * part // self.parts, own + len(OF_THREAD) + 2 * place
                here[:, at : at + 2] = start, total * (part + 1) // self.parts - start
        bases = np.tile(self.bases, (self.parts, len(pieces), 1))
        for place, base in self.at_start:
            bases[:, pieces[:, 3] == 0, place] = base
        return values @ self.multiples, bases


class _LaidOut:
    """A script for batches of one form: all of its words in one array, but for the bases of addresses."""

    def __init__(self, script: Script, extent: Extent, backward: bool) -> None:
        pieces = extent.pieces(script.rows, backward)
        most = int(pieces[:, 2].max())
        self.offsets, total = [], 0
        for fixed, by_row, by_sequence in script.room.values():
            self.offsets.append(total)
            size = 4 * (fixed + by_row * most + by_sequence * extent.batch)
            total += size + -size % LINE + LINE
        self.total = total // 4 + LINE
        head, head_bases = [0, _yield(), len(script.written)], [0, 0, 0]
        words, bases = [], []
        at = len(head) + OF_SECTION * len(script.written)
        for section in script.written:
            own, from_ = section.words(pieces if section.in_pieces else pieces[:1], extent)
            by_part, by_piece, _ = own.strides
            head += [own.shape[1], section.calls, script.parts, by_part, by_piece, 8 * at, section.fixed]
            head_bases += [0, 0, 0, 0, 0, 1, 0]
            words.append(own.ravel())
            bases.append(from_.ravel())
            at += own.size
        self.words = np.concatenate([np.array(head, np.int64), *words])
        self.bases = np.concatenate([head_bases, *bases])
        self.spare: list[Ready] = []

    def ready(self) -> Ready:
        try:
            return self.spare.pop()
        except IndexError:  # the first time, or another thread has it
            words = np.empty_like(self.words)
            return Ready(words, _address(words), self)


@cache
def _yield() -> int:
    """The address of the system's `sched_yield`, 0 where there is none."""
    try:
        return threads.address(ctypes.CDLL(None).sched_yield)
    except (AttributeError, OSError, TypeError):
        return 0


OF_SECTION = 7  # words of the head for each section


@cache
def player(name: str = "play") -> Any:
    """`void play(int64 *head, int64 first, int64 team)`, compiled: what a script does, for a thread of a team.

    Parts of a call are done by threads in turn. A thread waits for the others by counting arrivals, in `head[0]`.
    `play_each`, of how many heads there are and their addresses, plays whole scripts in turn.
    """
    library = objects.library(objects.text("play", _write_player))
    return library.function(name, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def _write_player() -> str:
    module = ir.Module("play")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, LONG, LONG]), "play")
    w = Loops(function, Target(1, 1))
    b, (head, first, team) = w.b, function.args
    act, pause = ir.FunctionType(ir.VoidType(), [POINTER]), ir.FunctionType(ir.IntType(32), [])

    def load(pointer: Any, place: Any) -> Any:
        return b.load(b.gep(pointer, [place], source_etype=LONG), typ=LONG)

    yields = load(head, LONG(1))
    with w.loop(load(head, LONG(2))) as s:
        section = b.gep(head, [b.add(LONG(3), b.mul(s, LONG(OF_SECTION)))], source_etype=LONG)
        pieces, calls, parts, by_part, by_piece, words, fixed = (load(section, LONG(k)) for k in range(OF_SECTION))
        fixed = b.inttoptr(fixed, POINTER)
        mine = b.sdiv(b.sub(b.add(parts, b.sub(team, LONG(1))), first), team)
        with w.loop(pieces) as piece, w.loop(calls) as call:
            target = b.inttoptr(load(fixed, call), act.as_pointer())
            here = b.add(b.add(words, b.mul(piece, by_piece)), load(fixed, b.add(calls, call)))
            with w.loop(mine) as turn:
                part = b.add(first, b.mul(turn, team))
                b.call(target, [b.inttoptr(b.add(here, b.mul(part, by_part)), POINTER)])
            waits = b.icmp_signed("!=", load(fixed, b.add(calls, b.add(calls, call))), LONG(0))
            with b.if_then(b.and_(waits, b.icmp_signed(">", team, LONG(1)))):
                _write_wait(w, head, team, yields, pause)
    b.ret_void()
    _write_play_each(module, function)
    return str(module)


def _write_play_each(module: ir.Module, play: ir.Function) -> None:
    w = Loops(ir.Function(module, play.function_type, "play_each"), Target(1, 1))
    b, (heads, first, team) = w.b, w.function.args
    count = b.load(heads, typ=LONG)
    with w.loop(b.sdiv(b.sub(b.add(count, b.sub(team, LONG(1))), first), team)) as turn:
        place = b.add(LONG(1), b.add(first, b.mul(turn, team)))
        head = b.inttoptr(b.load(b.gep(heads, [place], source_etype=LONG), typ=LONG), POINTER)
        b.call(play, [head, LONG(0), LONG(1)])
    b.ret_void()


def _write_wait(w: Loops, head: Any, team: Any, yields: Any, pause: Any) -> None:
    """Go on when all of the team have arrived here as often; let others use the core if that takes long."""
    b = w.b
    arrived = b.atomic_rmw("add", head, LONG(1), "seq_cst")
    goal = b.mul(b.add(b.sdiv(arrived, team), LONG(1)), team)
    spin, after = w.function.append_basic_block("spin"), w.function.append_basic_block("together")
    before = b.block
    b.branch(spin)
    b.position_at_end(spin)
    turns = b.phi(LONG)
    turns.add_incoming(LONG(0), before)
    long = b.icmp_signed("==", b.and_(turns, LONG(1023)), LONG(1023))
    with b.if_then(b.and_(long, b.icmp_signed("!=", yields, LONG(0)))):
        b.call(b.inttoptr(yields, pause.as_pointer()), [])
    turns.add_incoming(b.add(turns, LONG(1)), b.block)
    now = b.load_atomic(head, "seq_cst", 8, typ=LONG)
    b.cbranch(b.icmp_signed("<", now, goal), spin, after)
    b.position_at_end(after)


def timed(script: Script, memory: Memory, extent: Extent) -> float:
    """The seconds that it takes with all of its threads."""
    ready = script.ready(memory, extent)
    seconds = threads.timed(player(), ready.head, script.parts)
    ready.give_back()
    return seconds
