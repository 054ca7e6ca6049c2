"""Sixteen float32 lanes as a value inside numba functions.

numba has no vector type of its own and does not vectorise a loop that calls ``exp``; here ``<16 x float>`` of LLVM becomes a numba type
with the few operations the kernels of :mod:`scfound_atac.nn.cpu.encoder` need. One register on AVX-512, two on AVX2, four on NEON: LLVM
splits it, the results are the same up to rounding.

Arrays are addressed by a flat offset from their first element (C-contiguous float32, no bounds check).
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, njit, types
from numba.core import cgutils
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_VEC = ir.VectorType(_F32, LANES)
_IVEC = ir.VectorType(_I32, LANES)


class Float32x16(types.Type):
    """The numba type of sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="Float32x16")


float32x16 = Float32x16()


@register_model(Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VEC)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Address of element `offset`, counted from the first element of the array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VEC, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(_VEC, ir.Undefined), ir.Constant(_IVEC, [0] * LANES))


def _load(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VEC.as_pointer()), align=4)


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, _VEC.as_pointer()), align=4)


def _load_splat(builder: Any, pointer: Any) -> Any:
    return _splat(builder, builder.load(pointer, align=4))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VEC, [_VEC] * 3), "llvm.fma.v16f32")
    return builder.call(function, [a, b, c])


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """Sixteen consecutive elements from `offset` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, _pointer(context, builder, signature.args[0], args[0], args[1]))

    return float32x16(array, types.intp), codegen


@intrinsic
def load_splat(typingctx: Any, array: Any, offset: Any) -> Any:
    """The element at `offset` in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load_splat(builder, _pointer(context, builder, signature.args[0], args[0], args[1]))

    return float32x16(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write sixteen consecutive elements from `offset` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, args[2], _pointer(context, builder, signature.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), codegen


@intrinsic
def splat(typingctx: Any, scalar: Any) -> Any:
    """The same number in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return float32x16(types.float32), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` with one rounding."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fma(builder, *args)

    return float32x16(float32x16, float32x16, float32x16), codegen


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of each pair of lanes; a NaN in `a` is passed on, so that invalid input stays visible."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # "not (b > a)" keeps a where either is NaN: one instruction on x86, which llvm.maxnum is not
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    return float32x16(float32x16, float32x16), codegen


@intrinsic
def minimum(typingctx: Any, a: Any, b: Any) -> Any:
    """The smaller of each pair of lanes; a NaN in `a` is passed on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[1], args[0]), args[1], args[0])

    return float32x16(float32x16, float32x16), codegen


@intrinsic
def absolute(typingctx: Any, a: Any) -> Any:
    """Absolute value of each lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VEC, [_VEC]), "llvm.fabs.v16f32")
        return builder.call(function, [args[0]])

    return float32x16(float32x16), codegen


@intrinsic
def lane_sum(typingctx: Any, a: Any) -> Any:
    """Sum of the lanes, added as a tree."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            index = ir.VectorType(_I32, width)
            low = builder.shuffle_vector(value, value, ir.Constant(index, list(range(width))))
            high = builder.shuffle_vector(value, value, ir.Constant(index, list(range(width, 2 * width))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return types.float32(float32x16), codegen


@intrinsic
def scale_by_power_of_two(typingctx: Any, a: Any, exponent_bits: Any) -> Any:
    """Multiply `a` by ``2**k``, where k is the integer in the low mantissa bits of `exponent_bits` (see :func:`exp2`)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shifted = builder.shl(builder.bitcast(args[1], _IVEC), ir.Constant(_IVEC, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(args[0], _IVEC), shifted), _VEC)

    return float32x16(float32x16, float32x16), codegen


@intrinsic
def transpose(typingctx: Any, a: Any, a0: Any, a_row: Any, b: Any, b0: Any, b_row: Any) -> Any:
    """Transpose 16 x 16 elements from `a` to `b`: (array, first element, row stride) of each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a0, a_row, b, b0, b_row = args

        def row(array_type: Any, array: Any, first: Any, stride: Any, i: int) -> Any:
            offset = builder.add(first, builder.mul(stride, ir.Constant(stride.type, i)))
            return _pointer(context, builder, array_type, array, offset)

        rows = [_load(builder, row(signature.args[0], a, a0, a_row, i)) for i in range(LANES)]
        # swap the off-diagonal blocks of every 2 d x 2 d block, for d = 8, 4, 2, 1
        distance = LANES // 2
        while distance:
            first = [j if not j & distance else LANES + (j ^ distance) for j in range(LANES)]
            second = [j ^ distance if not j & distance else LANES + j for j in range(LANES)]
            for i in range(LANES):
                if not i & distance:
                    x, y = rows[i], rows[i + distance]
                    rows[i] = builder.shuffle_vector(x, y, ir.Constant(_IVEC, first))
                    rows[i + distance] = builder.shuffle_vector(x, y, ir.Constant(_IVEC, second))
            distance //= 2
        for i, value in enumerate(rows):
            _store(builder, value, row(signature.args[3], b, b0, b_row, i))
        return context.get_dummy_value()

    n = types.intp
    return types.void(a, n, n, b, n, n), codegen


def _operator(python_operator: Any, instruction: str) -> None:
    """Give the type one arithmetic operator, one LLVM instruction."""

    @lower_builtin(python_operator, float32x16, float32x16)
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    @infer_global(python_operator)
    class Template(ConcreteTemplate):
        cases = [signature(float32x16, float32x16, float32x16)]  # noqa: RUF012


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _tile(n_rows: int, n_vectors: int) -> Any:
    @intrinsic
    def tile(
        typingctx: Any,
        a: Any,
        a0: Any,
        a_row: Any,
        a_col: Any,
        b: Any,
        b0: Any,
        ldb: Any,
        bias: Any,
        bias0: Any,
        c: Any,
        c0: Any,
        ldc: Any,
        k: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, a0, a_row, a_col, b, b0, ldb, bias, bias0, c, c0, ldc, k = args
            a_type, b_type, bias_type, c_type = (signature.args[i] for i in (0, 4, 7, 9))

            def at(array_type: Any, array: Any, offset: Any) -> Any:
                return _pointer(context, builder, array_type, array, offset)

            def step(offset: Any, stride: Any, times: int) -> Any:
                return builder.add(offset, builder.mul(stride, ir.Constant(stride.type, times)))

            # one stack slot per accumulator: LLVM keeps all of them in registers, as every index is known here
            slots = {}
            for v in range(n_vectors):
                first = _load(builder, at(bias_type, bias, builder.add(bias0, ir.Constant(bias0.type, v * LANES))))
                for m in range(n_rows):
                    slots[m, v] = cgutils.alloca_once_value(builder, first)
            a_rows = [at(a_type, a, step(a0, a_row, m)) for m in range(n_rows)]
            with cgutils.for_range(builder, k) as loop:
                row = builder.add(b0, builder.mul(loop.index, ldb))
                column = builder.mul(loop.index, a_col)
                b_vectors = [
                    _load(builder, at(b_type, b, builder.add(row, ir.Constant(row.type, v * LANES))))
                    for v in range(n_vectors)
                ]
                for m in range(n_rows):
                    value = _load_splat(builder, builder.gep(a_rows[m], [column]))
                    for v in range(n_vectors):
                        slot = slots[m, v]
                        builder.store(_fma(builder, value, b_vectors[v], builder.load(slot)), slot)
            for m in range(n_rows):
                row = step(c0, ldc, m)
                for v in range(n_vectors):
                    pointer = at(c_type, c, builder.add(row, ir.Constant(row.type, v * LANES)))
                    _store(builder, builder.load(slots[m, v]), pointer)
            return context.get_dummy_value()

        n = types.intp
        return types.void(a, n, n, n, b, n, n, bias, n, c, n, n, n), codegen

    return tile


def _has_wide_registers() -> bool:
    """Whether code is compiled for 32 registers of 16 lanes (AVX-512)."""
    if config.CPU_NAME or config.CPU_FEATURES is not None:  # numba is configured to compile for another processor
        return "+avx512f" in (config.CPU_FEATURES or "")
    return bool(get_host_cpu_features().get("avx512f"))


TILE_ROWS = 8 if _has_wide_registers() else 2
matmul_tile_32 = _tile(TILE_ROWS, 2)
matmul_tile_48 = _tile(TILE_ROWS, 3)
"""``c[R rows, 16 * v columns] = bias + a[R rows, k] @ b[k, 16 * v columns]``, R = ``TILE_ROWS``.

Arguments: (a, first element, row stride, column stride), (b, first element, row stride), (bias, first element), (c, first element, row
stride), k. The accumulators of a tile fill the processor's registers (8 x 3 vectors at most on AVX-512).
"""


# near-minimax coefficients of (2**f - 1) / f on [-0.5, 0.5], and of log(1 + t) / t on [0, 1]
_EXP2 = tuple(
    np.float32(c)
    for c in (0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149)
)
_LOG1P = tuple(
    np.float32(c)
    for c in (
        0.9999999403953552,
        -0.4999949336051941,
        0.3331909775733948,
        -0.2484298199415207,
        0.19106008112430573,
        -0.13663247227668762,
        0.07822596281766891,
        -0.02950523979961872,
        0.005232693627476692,
    )
)
_LOG2E = np.float32(1.4426950408889634)
_ONE = np.float32(1.0)
_LOWEST = np.float32(-126.0)
_ROUND = np.float32(12582912.0)  # 1.5 * 2**23


@njit
def exp2(x: Any) -> Any:
    """``2**x`` per lane, relative error below 2e-7, exactly 1 at 0; below -126 it gives 2**-126 (1e-38), above 127 nonsense."""
    x = maximum(x, splat(_LOWEST))
    shifted = x + splat(_ROUND)  # rounds to the nearest integer, which is left in the low mantissa bits
    f = x - (shifted - splat(_ROUND))
    p = fma(f, splat(_EXP2[4]), splat(_EXP2[3]))
    p = fma(f, p, splat(_EXP2[2]))
    p = fma(f, p, splat(_EXP2[1]))
    p = fma(f, p, splat(_EXP2[0]))
    p = fma(f, p, splat(_ONE))
    return scale_by_power_of_two(p, shifted)


@njit
def silu(x: Any) -> Any:
    """``x / (1 + exp(-x))`` per lane."""
    minus = splat(np.float32(0.0)) - maximum(x * splat(_LOG2E), splat(_LOWEST))
    return x / (splat(_ONE) + exp2(minus))


@njit
def softplus(x: Any) -> Any:
    """``log(1 + exp(x))`` per lane."""
    t = exp2(absolute(x) * splat(-_LOG2E))
    p = splat(_LOG1P[8])
    p = fma(t, p, splat(_LOG1P[7]))
    p = fma(t, p, splat(_LOG1P[6]))
    p = fma(t, p, splat(_LOG1P[5]))
    p = fma(t, p, splat(_LOG1P[4]))
    p = fma(t, p, splat(_LOG1P[3]))
    p = fma(t, p, splat(_LOG1P[2]))
    p = fma(t, p, splat(_LOG1P[1]))
    p = fma(t, p, splat(_LOG1P[0]))
    return fma(t, p, maximum(x, splat(np.float32(0.0))))


# erf(x) = 1 - t (a1 + t (a2 + ...)) exp(-x^2), t = 1 / (1 + p x), x >= 0: Abramowitz and Stegun 7.1.26, error below 1.5e-7
_ERF = tuple(np.float32(c) for c in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
_ERF_P = np.float32(0.3275911)
_SQRT_HALF = np.float32(0.7071067811865476)
_HALF = np.float32(0.5)


@njit
def gelu(x: Any) -> Any:
    """Exact GELU, ``x * normal_cdf(x)``, per lane; absolute error below 1e-6 for |x| < 10."""
    a = absolute(x) * splat(_SQRT_HALF)
    t = splat(_ONE) / fma(a, splat(_ERF_P), splat(_ONE))
    p = fma(t, splat(_ERF[4]), splat(_ERF[3]))
    p = fma(t, p, splat(_ERF[2]))
    p = fma(t, p, splat(_ERF[1]))
    p = fma(t, p, splat(_ERF[0]))
    tail = splat(_HALF) * absolute(x) * (t * p * exp2(splat(-_LOG2E) * a * a))  # |x| * (1 - cdf(|x|))
    return maximum(x, splat(np.float32(0.0))) - tail
