"""Compiled loops for 64-bit ARM, run by an emulator over this process's own memory, against the eager loops.

    python tests/compiler/arm_emulator.py [CELL ...]        # wants `pip install unicorn`; all cells take a few minutes

The emulator sees this process's memory at its own addresses, so that tables and tensors are where the code looks.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import torch

from carousel.cells import CELLS
from carousel.compiler import objects, threads
from carousel.compiler.blocks import Target
from carousel.errors import ConfigError
from carousel.nn import unroll

NEON = objects.Processor("generic", "+neon", Target(lanes=4, registers=24), has_bfloat16=False)
CHUNK, STACK, ROOM = 1 << 16, 1 << 20, 1 << 22
COPY = """
define void @{head} {{
  {before}
  br label %test
test:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %more = icmp ult i64 %i, %size
  br i1 %more, label %body, label %end
body:
  {byte}
  %place = getelementptr i8, ptr %to, i64 %i
  store volatile i8 %byte, ptr %place
  %next = add i64 %i, 1
  br label %test
end:
  ret void
}}
"""
COPIES = COPY.format(
    head="memset(ptr %to, i32 %value, i64 %size)", before="%byte = trunc i32 %value to i8", byte=""
) + COPY.format(
    head="memcpy(ptr %to, ptr %from, i64 %size)",
    before="",
    byte="%source = getelementptr i8, ptr %from, i64 %i\n  %byte = load volatile i8, ptr %source",
)


class Part(NamedTuple):
    """A section of an object file."""

    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


def parts_of(code: bytes) -> list[Part]:
    start, size, count = (*struct.unpack_from("<Q", code, 40), *struct.unpack_from("<HH", code, 58))
    found = []
    for k in range(count):
        fields = struct.unpack_from("<IIQQQQIIQQ", code, start + k * size)
        _, kind, flags, _, offset, length, link, info, align, _ = fields
        found.append(Part(kind, flags, offset, length, link, info, max(1, align)))
    return found


class Memory:
    """Room for code, at addresses that branches from one module to another can reach."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, ROOM)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.end = self.base

    def put(self, content: bytes, align: int) -> int:
        at = self.end + -self.end % align
        self.map[at - self.base : at - self.base + len(content)] = content
        self.end = at + len(content)
        return at


MEMORY = Memory()


def load(ir: str, known: dict[str, int]) -> dict[str, int]:
    """Compile a module and put it into memory; where its functions are."""
    machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(
        cpu=NEON.name, features=NEON.features, opt=2, reloc="static", codemodel="small"
    )
    module = llvm.parse_assembly(ir)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    code = machine.emit_object(module)
    parts = parts_of(code)
    at = {}
    for k, part in enumerate(parts):
        if part.flags & 2:  # is in memory
            content = bytes(part.size) if part.kind == 8 else code[part.offset : part.offset + part.size]
            at[k] = MEMORY.put(content, max(16, part.align))
    table = next(part for part in parts if part.kind == 2)
    names = parts[table.link].offset
    symbols, functions = [], {}
    for place in range(table.offset, table.offset + table.size, 24):
        name, kind, _, section, value, _ = struct.unpack_from("<IBBHQQ", code, place)
        text = code[names + name : code.index(b"\0", names + name)].decode()
        address = at[section] + value if section in at else known.get(text, 0)
        symbols.append((text, address))
        if kind & 15 == 2:
            functions[text] = address
    for part in parts:
        if part.kind == 4 and part.info in at and parts[part.info].flags & 2:
            for place in range(part.offset, part.offset + part.size, 24):
                offset, what, addend = struct.unpack_from("<QQq", code, place)
                name, value = symbols[what >> 32]
                relocate(what & 0xFFFFFFFF, at[part.info] + offset, value + addend, name)
    return functions


def relocate(kind: int, place: int, value: int, name: str) -> None:
    """Write the address of something into an instruction: ELF for the Arm 64-bit architecture, section 5.7."""
    if kind == 261:  # of unwinding tables, 32 bits relative
        return
    assert value > 0x1000, f"no {name!r}"
    word = ctypes.c_uint32.from_address(place)
    scale = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
    if kind == 257:
        ctypes.c_uint64.from_address(place).value = value
    elif kind in (282, 283):  # a branch
        word.value = word.value & ~0x3FFFFFF | (value - place) >> 2 & 0x3FFFFFF
    elif kind == 275:  # the page
        pages = (value >> 12) - (place >> 12)
        word.value = word.value & ~0x60FFFFE0 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind in scale:  # within the page
        word.value = word.value & ~0x3FFC00 | (value & 0xFFF) >> scale[kind] << 10
    else:
        raise NotImplementedError(f"relocation {kind}")


class Emulated:
    """A function that is run by the emulator."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __call__(self, *arguments: Any) -> None:
        here = [ctypes.addressof(one) if isinstance(one, ctypes.Array) else int(one) for one in arguments]
        emulator().call(self.address, here)


class Emulator:
    """A processor that sees this process's memory, and has a stack of its own there."""

    def __init__(self) -> None:
        import unicorn
        from unicorn import arm64_const as names

        self.names, self.stack = names, mmap.mmap(-1, STACK)
        self.end = ctypes.addressof(ctypes.c_char.from_buffer(self.stack)) + STACK - 4096
        self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.engine.reg_write(names.UC_ARM64_REG_CPACR_EL1, 0x300000)  # vectors are allowed
        everything = unicorn.UC_PROT_ALL

        def reach(engine: Any, access: int, address: int, size: int, value: int, user: Any) -> bool:
            known = list(engine.mem_regions())
            for chunk in {address & -CHUNK, address + max(size, 1) - 1 & -CHUNK}:
                if not any(first <= chunk <= last for first, last, _ in known):
                    engine.mem_map_ptr(chunk, CHUNK, everything, chunk)
            return True

        self.engine.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, reach)

    def call(self, address: int, arguments: list[int]) -> None:
        self.engine.reg_write(self.names.UC_ARM64_REG_SP, self.end - 64)
        self.engine.reg_write(self.names.UC_ARM64_REG_LR, self.end)  # where it stops
        for k, argument in enumerate(arguments):
            self.engine.reg_write(self.names.UC_ARM64_REG_X0 + k, argument)
        self.engine.emu_start(address, self.end)


@cache
def emulator() -> Emulator:
    return Emulator()


class Library:
    """As `objects.Library`."""

    def __init__(self, ir: str) -> None:
        self.functions = load(ir, copies())

    def function(self, name: str, *arguments: Any) -> Emulated:
        return Emulated(self.functions[name])


@cache
def copies() -> dict[str, int]:
    return load(COPIES, {})


@cache
def library(ir: str) -> Library:
    return Library(ir)


def emulate() -> None:
    """From now on, loops are compiled for ARM and run by the emulator."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    objects.processor = lambda: NEON  # type: ignore[assignment]
    objects.library = library  # type: ignore[assignment]
    native = threads.address
    threads.address = lambda function: function.address if isinstance(function, Emulated) else native(function)


def errors(name: str, hidden: int, batch: int, lengths: list[int]) -> Iterator[tuple[str, float]]:
    """How far the emulated loops are from the eager ones, forward, backward and a step at a time."""
    torch.manual_seed(0)
    cell = CELLS[name](hidden if name.startswith("mut") else 3, hidden)
    inputs = torch.randn(max(lengths), batch, cell.input_size, requires_grad=True)
    wanted = [inputs, *cell.parameters()]
    weighting = torch.randn(max(lengths), batch, hidden)
    results = []
    for engine in ("compiled", "eager"):
        outputs, _ = unroll(cell, inputs, lengths=torch.tensor(lengths), engine=engine)  # type: ignore[arg-type]
        weighed = weighting[..., : outputs.shape[2]]
        grads = torch.autograd.grad((outputs * weighed).sum(), wanted, allow_unused=True)
        with torch.no_grad():
            alone, _ = unroll(cell, inputs, engine=engine)  # type: ignore[arg-type]
        results.append([outputs.detach(), alone, *(torch.zeros(1) if g is None else g for g in grads)])
    for what, one, other in zip(("outputs", "inference", *["gradient"] * len(wanted)), *results, strict=True):
        yield what, float((one - other).abs().max() / other.abs().max().clamp(min=1e-3))


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    emulate()
    for name in names or list(CELLS):
        found = dict.fromkeys(("outputs", "inference", "gradient"), 0.0)
        try:
            for hidden, batch, lengths in ((8, 3, [4, 4, 4]), (21, 7, [5, 1, 2, 3, 4, 5, 2])):
                for what, error in errors(name, hidden, batch, lengths):
                    found[what] = max(found[what], error)
        except ConfigError as error:
            print(f"{name} {str(error).splitlines()[0]}", flush=True)
            continue
        print(name, *(f"{what} {error:.1e}" for what, error in found.items()), flush=True)
        assert max(found["outputs"], found["inference"]) < 2e-6 and found["gradient"] < 1e-5, name


if __name__ == "__main__":
    main(sys.argv[1:])
