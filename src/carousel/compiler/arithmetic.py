"""Vectors of float32 in LLVM IR: the arithmetic that kernels are written with.

The functions have float32 accuracy over the whole range, and pass NaN on:

    exp       2^n p(r), x = n ln 2 + r, |r| ≤ ln 2 / 2; polynomial of degree 6
    sigmoid   1 / (1 + exp(-x))
    tanh      x p(x²) / q(x²), degree 13 over 6, on |x| ≤ 7.9, where float32 has reached 1
    log       n ln 2 + log(m), √½ ≤ m < √2; polynomial of degree 9 in m - 1
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any

from llvmlite import ir

FLOAT, INT, LONG, BIT, POINTER = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1), ir.PointerType()


class _Splat(ir.Constant):  # type: ignore[misc]
    """A vector of equal lanes, written once instead of lane by lane."""

    def __init__(self, type_: Any, text: str) -> None:
        self.type, self.text = type_, text

    def get_reference(self) -> str:
        return self.text


class Vectors:
    """Arithmetic on vectors of `lanes` float32 at the place where `builder` stands."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.b, self.lanes = builder, lanes
        self.type = ir.VectorType(FLOAT, lanes)
        self.ints = ir.VectorType(INT, lanes)

    # Constants, and moves between one number and a vector of it.

    def constant(self, number: float) -> Any:
        return _Splat(self.type, f"splat (float {_float32(number)})")

    def integer(self, number: int) -> Any:
        return _Splat(self.ints, f"splat (i32 {number})")

    def splat(self, number: Any) -> Any:
        undefined = ir.Constant(ir.VectorType(number.type, self.lanes), ir.Undefined)
        first = self.b.insert_element(undefined, number, INT(0))
        return self.b.shuffle_vector(first, undefined, ir.Constant(self.ints, [0] * self.lanes))

    def intrinsic(self, name: str, *args: Any) -> Any:
        module, full = self.b.module, f"llvm.{name}.v{self.lanes}f32"
        if full not in module.globals:
            ir.Function(module, ir.FunctionType(self.type, [arg.type for arg in args]), full)
        return self.b.call(module.globals[full], args)

    # Operations of the graph, by name.

    def add(self, a: Any, b: Any) -> Any:
        return self.b.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.b.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.b.fmul(a, b)

    def div(self, a: Any, b: Any) -> Any:
        return self.b.fdiv(a, b)

    def detach(self, a: Any) -> Any:
        return a

    def neg(self, a: Any) -> Any:
        return self.b.fneg(a)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.intrinsic("fma", a, b, c)

    def abs(self, a: Any) -> Any:
        return self.intrinsic("fabs", a)

    def sqrt(self, a: Any) -> Any:
        return self.intrinsic("sqrt", a)

    def number(self, condition: Any) -> Any:
        """1 where the condition holds, else 0."""
        return self.b.select(condition, self.constant(1), self.constant(0))

    def gt(self, a: Any, b: Any) -> Any:
        return self.number(self.b.fcmp_ordered(">", a, b))

    def ge(self, a: Any, b: Any) -> Any:
        return self.number(self.b.fcmp_ordered(">=", a, b))

    def eq(self, a: Any, b: Any) -> Any:
        return self.number(self.b.fcmp_ordered("==", a, b))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.b.select(self.b.fcmp_unordered("!=", condition, self.constant(0)), a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        smaller = self.b.select(self.b.fcmp_ordered("<", a, b), a, b)
        return self.b.select(self.b.fcmp_unordered("uno", a, a), a, smaller)

    def maximum(self, a: Any, b: Any) -> Any:
        larger = self.b.select(self.b.fcmp_ordered(">", a, b), a, b)
        return self.b.select(self.b.fcmp_unordered("uno", a, a), a, larger)

    def relu(self, a: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered("<", a, self.constant(0)), self.constant(0), a)

    def sign(self, a: Any) -> Any:
        return self.sub(self.gt(a, self.constant(0)), self.gt(self.constant(0), a))

    def clamp(self, a: Any, low: float, high: float) -> Any:
        """`a` within bounds; NaN stays NaN, as the comparison is false and the second value is chosen."""
        lower, upper = self.constant(low), self.constant(high)
        a = self.b.select(self.b.fcmp_ordered("<", upper, a), upper, a)
        return self.b.select(self.b.fcmp_ordered(">", lower, a), lower, a)

    def polynomial(self, x: Any, coefficients: list[float]) -> Any:
        """Horner's scheme, highest power first."""
        result = self.constant(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.fma(result, x, self.constant(coefficient))
        return result

    def bounded_exp(self, x: Any) -> Any:
        """exp for -87.3 ≤ x ≤ 88.3, and the value at the bound beyond."""
        p, n = self.exp_parts(self.clamp(x, -87.3, 88.3))
        return self.mul(p, self.power_of_two(n))

    def exp(self, x: Any) -> Any:
        p, n = self.exp_parts(self.clamp(x, -105, 89))
        half = self.b.ashr(n, self.integer(1))  # 2^n itself may be too large or subnormal
        return self.mul(self.mul(p, self.power_of_two(half)), self.power_of_two(self.b.sub(n, half)))

    def exp_parts(self, x: Any) -> tuple[Any, Any]:
        """p, n with exp(x) = p 2^n and p about 1."""
        shift = self.constant(12582912.0)  # 1.5 · 2^23: adding it rounds to an integer, in the lowest bits
        shifted = self.fma(x, self.constant(math.log2(math.e)), shift)
        n = self.sub(shifted, shift)
        r = self.fma(n, self.constant(-0.693145751953125), x)
        r = self.fma(n, self.constant(-1.42860682030941723212e-6), r)
        p = self.polynomial(r, [1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1])
        return p, self.b.sub(self.b.bitcast(shifted, self.ints), self.integer(0x4B400000))

    def power_of_two(self, n: Any) -> Any:
        """2^n for -126 ≤ n ≤ 127."""
        return self.b.bitcast(self.b.shl(self.b.add(n, self.integer(127)), self.integer(23)), self.type)

    def sigmoid(self, x: Any) -> Any:
        return self.div(self.constant(1), self.add(self.constant(1), self.bounded_exp(self.neg(x))))

    def tanh(self, x: Any) -> Any:
        x = self.clamp(x, -7.90531110763549805, 7.90531110763549805)
        square = self.mul(x, x)
        p = self.polynomial(square, _TANH_NUMERATOR)
        return self.div(self.mul(x, p), self.polynomial(square, _TANH_DENOMINATOR))

    def log(self, x: Any) -> Any:
        tiny = self.b.fcmp_ordered("<", x, self.constant(1.17549435e-38))
        scaled = self.b.select(tiny, self.mul(x, self.constant(2.0**23)), x)
        bits = self.b.sub(self.b.bitcast(scaled, self.ints), self.integer(0x3F3504F3))  # √½
        exponent = self.b.sitofp(self.b.ashr(bits, self.integer(23)), self.type)
        exponent = self.sub(exponent, self.b.select(tiny, self.constant(23), self.constant(0)))
        mantissa = self.b.add(self.b.and_(bits, self.integer(0x007FFFFF)), self.integer(0x3F3504F3))
        m = self.sub(self.b.bitcast(mantissa, self.type), self.constant(1))
        square = self.mul(m, m)
        tail = self.mul(self.mul(m, square), self.polynomial(m, _LOG))
        tail = self.fma(exponent, self.constant(-2.12194440e-4), tail)
        tail = self.fma(square, self.constant(-0.5), tail)
        result = self.fma(exponent, self.constant(0.693359375), self.add(m, tail))
        zero, infinite = self.constant(0), self.constant(math.inf)
        result = self.b.select(self.b.fcmp_ordered("==", x, zero), self.constant(-math.inf), result)
        result = self.b.select(self.b.fcmp_ordered("==", x, infinite), infinite, result)
        return self.b.select(self.b.fcmp_ordered(">=", x, zero), result, self.constant(math.nan))

    def softplus(self, x: Any) -> Any:
        """max(x, 0) + log(1 + u), u = exp(-|x|); log(1 + u) = log(v) u / (v - 1) for v = 1 + u as rounded."""
        u = self.exp(self.neg(self.abs(x)))
        v = self.add(self.constant(1), u)
        away = self.sub(v, self.constant(1))
        small = self.b.fcmp_ordered("==", away, self.constant(0))
        exact = self.div(self.mul(self.log(v), u), self.b.select(small, self.constant(1), away))
        return self.add(self.relu(x), self.b.select(small, u, exact))

    def elu(self, x: Any, alpha: float) -> Any:
        """alpha (exp(x) - 1) below 0, as 2 t / (1 - t) with t = tanh(x / 2), which does not cancel near 0."""
        t = self.tanh(self.mul(self.constant(0.5), x))
        below = self.div(self.mul(self.constant(2 * alpha), t), self.sub(self.constant(1), t))
        return self.b.select(self.b.fcmp_ordered(">", x, self.constant(0)), x, below)

    def transpose(self, rows: list[Any]) -> list[Any]:
        """The columns of a square of vectors: log2(lanes) times, the first half interleaved with the second."""
        half, lanes = self.lanes // 2, self.lanes
        order = [place for k in range(lanes) for place in (k, k + lanes)]
        low, high = (ir.Constant(self.ints, order[start : start + lanes]) for start in (0, lanes))
        for _ in range(lanes.bit_length() - 1):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [self.b.shuffle_vector(a, b, mask) for a, b in pairs for mask in (low, high)]
        return rows

    def pow(self, x: Any, exponent: float) -> Any:
        """x to a power that is no whole number: NaN below 0."""
        return self.exp(self.mul(self.constant(exponent), self.log(x)))

    def across(self, op: str, a: Any) -> Any:
        """The sum or the maximum of the lanes, by halves."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            undefined = ir.Constant(a.type, ir.Undefined)
            halves = [
                self.b.shuffle_vector(a, undefined, ir.Constant(ir.VectorType(INT, lanes), list(range(k, k + lanes))))
                for k in (0, lanes)
            ]
            narrow = Vectors(self.b, lanes)
            a = narrow.add(*halves) if op == "sum" else narrow.maximum(*halves)
        return self.b.extract_element(a, INT(0))


@cache
def _float32(number: float) -> str:
    """The nearest float32 as LLVM writes it: the bits of that number as a float64."""
    (nearest,) = struct.unpack("f", struct.pack("f", number))
    (bits,) = struct.unpack("Q", struct.pack("d", nearest))
    return f"0x{bits:016X}"


_TANH_NUMERATOR = [
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
]
_TANH_DENOMINATOR = [1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03]
_LOG = [
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
]
