"""The sides of benchmarks/recurrent_cpu.py: Carousel's cells, and what else runs the same recurrence.

Every side starts from the same weights and inputs, and gives the outputs (T, B, H) or, in training, the gradients of
the inputs and of every weight, given the gradient of the outputs. `agree` checks that they do compute the same.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from interleave import Run
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from carousel.cells import GRU, LSTM, Cell, Elman, PeepholeLSTM, ResetAfterGRU, to_torch
from carousel.compiler import Engine
from carousel.nn import Recurrent, unroll

T = 100
MODES = ("forward", "training")


@dataclass(frozen=True)
class Kind:
    """A cell of the benchmark: its class, its gates G, and who else can run it."""

    title: str
    cell: type[Cell]
    gates: int
    rivals: tuple[str, ...]


CELLS = {
    "lstm": Kind("LSTM", LSTM, 4, ("torch.nn", "onnxruntime")),
    "gru-reset-after": Kind("GRU", ResetAfterGRU, 3, ("torch.nn",)),
    "elman": Kind("tanh RNN", Elman, 1, ("torch.nn",)),
    "peephole": Kind("peephole LSTM", PeepholeLSTM, 4, ("eager loop", "jax")),
    "gru": Kind("reset-before GRU", GRU, 3, ("eager loop", "jax")),
}


class Shape(NamedTuple):
    H: int
    B: int

    def __str__(self) -> str:
        return f"H={self.H} B={self.B}"


def flops(kind: Kind, mode: str, shape: Shape) -> float:
    """Of the products alone: input and recurrent, and in training the two gradients of each."""
    H, B = shape
    return (3 if mode == "training" else 1) * 2.0 * T * B * kind.gates * H * (H + H)


def installed(rival: str, mode: str) -> bool:
    """Whether that side can run here; ONNX Runtime has no training."""
    if rival == "onnxruntime":
        names = ["onnx", "onnxruntime"]
        return mode == "forward" and all(importlib.util.find_spec(name) for name in names)
    return rival != "jax" or importlib.util.find_spec("jax") is not None


def sides(kind: Kind, mode: str, shape: Shape, engine: Engine) -> dict[str, Run]:
    """Carousel and every rival that is installed, on one problem."""
    H, B = shape
    cell = kind.cell(H, H)
    inputs, weighting = torch.randn(T, B, H), torch.randn(T, B, H)
    runs = {"carousel": torch_run(outputs_of(cell, engine), cell, mode, inputs, weighting)}
    for rival in kind.rivals:
        if not installed(rival, mode):
            continue
        if rival == "torch.nn":
            layer = to_torch([cell])
            runs[rival] = torch_run(lambda x, layer=layer: layer(x)[0], layer, mode, inputs, weighting)
        elif rival == "eager loop":
            runs[rival] = torch_run(lambda x: plain_loop(cell, x), cell, mode, inputs, weighting)
        elif rival == "jax":
            runs[rival] = jax_run(cell, mode, inputs, weighting)
        else:
            runs[rival] = onnx_run(cell, inputs)
    return runs


def agree(runs: dict[str, Run], tolerance: float = 2e-3) -> None:
    """Raise unless all sides give the same outputs or, in training, the same gradient of the inputs."""
    results = {name: _first(run()) for name, run in runs.items()}
    ours = results["carousel"]
    for name, theirs in results.items():
        error = float(np.abs(theirs.reshape(ours.shape) - ours).max() / np.abs(ours).max())
        if not error <= tolerance:
            raise RuntimeError(f"{name} computes something else: relative error {error:.1e}")


def _first(result: Any) -> np.ndarray:
    """Outputs, or the inputs' gradient, which comes first."""
    if isinstance(result, tuple | list):
        result = result[0]
    return result.numpy() if isinstance(result, Tensor) else np.asarray(result)


def outputs_of(cell: Cell, engine: Engine, lengths: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Inputs to outputs through `carousel.nn.unroll`."""
    return lambda inputs: unroll(cell, inputs, lengths=lengths, engine=engine)[0]


def plain_loop(cell: Cell, inputs: Tensor) -> Tensor:
    """What one writes in PyTorch without a library."""
    state, outputs = cell.initial_state(inputs.shape[1]), []
    for x in inputs:
        state = cell.step(x, state)
        outputs.append(state[0])
    return torch.stack(outputs)


def packed_run(layer: nn.Module, lengths: Tensor, mode: str, inputs: Tensor, weighting: Tensor) -> Run:
    """A torch.nn layer over a ragged batch; packing and unpacking are part of it, as they are for its user."""

    def outputs(padded: Tensor) -> Tensor:
        packed = pack_padded_sequence(padded, lengths, enforce_sorted=False)
        return pad_packed_sequence(layer(packed)[0], total_length=len(padded))[0]

    return torch_run(outputs, layer, mode, inputs, weighting)


def torch_run(
    outputs: Callable[[Tensor], Tensor], module: nn.Module, mode: str, inputs: Tensor, weighting: Tensor
) -> Run:
    """A function from inputs to outputs, forward alone or with every gradient."""
    if mode == "forward":
        return torch.inference_mode()(lambda: outputs(inputs))
    leaf = inputs.clone().requires_grad_()
    wanted = [leaf, *module.parameters()]
    return lambda: torch.autograd.grad(outputs(leaf), wanted, weighting)


def jax_run(cell: Cell, mode: str, inputs: Tensor, weighting: Tensor) -> Run:
    """`lax.scan` under jit, the input product hoisted out of it, weights stored as (I, G·H) and (H, G·H)."""
    import jax
    import jax.numpy as jnp

    scan = {PeepholeLSTM: jax_peephole, GRU: jax_gru}[type(cell)]
    packed: Any = cell.packed
    matrices = [jnp.asarray(W.detach().T.contiguous().numpy()) for W in (packed.weight_input, packed.weight_hidden)]
    peepholes = [jnp.asarray(p.detach().numpy()) for name, p in cell.named_parameters() if name.startswith("p_")]
    weights = (*matrices, jnp.asarray(packed.bias.detach().numpy()), *peepholes)
    x, dy = jnp.asarray(inputs.numpy()), jnp.asarray(weighting.numpy())

    @jax.jit
    def training(x: Any, weights: Any, dy: Any) -> Any:
        return jax.vjp(scan, x, weights)[1](dy)

    forward = jax.jit(scan)
    if mode == "forward":
        return lambda: jax.block_until_ready(forward(x, weights))
    return lambda: jax.block_until_ready(training(x, weights, dy))


def jax_peephole(x: Any, weights: Any) -> Any:
    import jax.numpy as jnp
    from jax import lax, nn

    W, U, b, p_i, p_f, p_o = weights

    def step(state: Any, projected: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(projected + h @ U, 4, axis=-1)
        c = nn.sigmoid(f + p_f * c) * c + nn.sigmoid(i + p_i * c) * jnp.tanh(g)
        h = nn.sigmoid(o + p_o * c) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((x.shape[1], len(U)), x.dtype)
    return lax.scan(step, (zeros, zeros), x @ W + b)[1]


def jax_gru(x: Any, weights: Any) -> Any:
    import jax.numpy as jnp
    from jax import lax, nn

    W, U, b = weights
    H = len(U)
    U_gates, U_a = U[:, : 2 * H], U[:, 2 * H :]

    def step(h: Any, projected: Any) -> Any:
        r, z = jnp.split(nn.sigmoid(projected[:, : 2 * H] + h @ U_gates), 2, axis=-1)
        a = jnp.tanh(projected[:, 2 * H :] + (r * h) @ U_a)
        h = z * h + (1 - z) * a
        return h, h

    return lax.scan(step, jnp.zeros((x.shape[1], H), x.dtype), x @ W + b)[1]


def onnx_run(cell: Cell, inputs: Tensor) -> Run:
    """ONNX Runtime's own LSTM operator, forward."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else its workers go on into others' turns
    session = onnxruntime.InferenceSession(onnx_lstm(cell), options, providers=["CPUExecutionProvider"])
    x = inputs.numpy()
    return lambda: session.run(["y"], {"x": x})


def onnx_lstm(cell: Any) -> bytes:
    """A model of one LSTM node; ONNX orders the gates i, o, f, g."""
    from onnx import TensorProto, helper, numpy_helper

    H, I = cell.hidden_size, cell.input_size  # noqa: E741
    order = torch.cat([torch.arange(k * H, (k + 1) * H) for k in (0, 3, 1, 2)])
    W, U, b = (p.detach()[order] for p in (cell.packed.weight_input, cell.packed.weight_hidden, cell.packed.bias))
    weights = {"W": W[None], "R": U[None], "B": torch.cat([b, torch.zeros_like(b)])[None]}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=H)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", H])],
        [numpy_helper.from_array(value.contiguous().numpy(), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def stream(cell: Cell, x: Tensor, steps: int) -> Run:
    """Steps of a stream from Python, the state fed back."""
    layer = Recurrent(cell).stream(len(x))

    @torch.inference_mode()
    def run() -> Tensor:
        layer.reset()
        for _ in range(steps):
            output = layer(x)
        return output

    return run


def torch_stream(cell: Any, x: Tensor, steps: int) -> Run:
    """The same through `nn.LSTMCell`."""
    theirs, source = nn.LSTMCell(cell.input_size, cell.hidden_size), to_torch([cell])
    theirs.load_state_dict({name.removesuffix("_l0"): value for name, value in source.state_dict().items()})

    @torch.inference_mode()
    def run() -> Tensor:
        h = c = torch.zeros(len(x), cell.hidden_size)
        for _ in range(steps):
            h, c = theirs(x, (h, c))
        return h

    return run


@dataclass(frozen=True)
class Product:
    """One torch.mm: the rate that recurrent cells are held to."""

    run: Run
    flops: float

    @classmethod
    def of(cls, rows: int, inner: int, columns: int) -> Product:
        a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
        return cls(lambda: torch.mm(a, b, out=out), 2.0 * rows * inner * columns)


def at_precision(precision: str, run: Run) -> Run:
    """The run with torch's precision of products in recurrent layers set before it: "none" or "bf16"."""

    def pinned() -> Any:
        torch.backends.mkldnn.rnn.fp32_precision = precision
        return run()

    return pinned


def at_threads(threads: int, run: Run) -> Run:
    """The run with torch's number of threads set before it."""

    def pinned() -> Any:
        torch.set_num_threads(threads)
        return run()

    return pinned
