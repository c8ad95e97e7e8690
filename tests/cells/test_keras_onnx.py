"""Cells against Keras (with PyTorch beneath it) and ONNX Runtime with the same weights, where those are installed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from cell_registry import assert_same
from torch import Tensor

from carousel.cells import CELLS
from carousel.nn import unroll

# Our maps in the order in which each library has its blocks of weights.
KERAS = {
    "elman": ("SimpleRNN", ["candidate"], {}),
    "lstm": ("LSTM", ["input", "forget", "candidate", "output"], {}),
    "gru": ("GRU", ["update", "reset", "candidate"], {"reset_after": False}),
    "gru-reset-after": ("GRU", ["update", "reset", "candidate"], {"reset_after": True}),
}
ONNX = {
    "elman": ("RNN", ["candidate"], {}),
    "lstm": ("LSTM", ["input", "output", "forget", "candidate"], {}),
    "lstm-peephole": ("LSTM", ["input", "output", "forget", "candidate"], {}),
    "gru": ("GRU", ["update", "reset", "candidate"], {"linear_before_reset": 0}),
    "gru-reset-after": ("GRU", ["update", "reset", "candidate"], {"linear_before_reset": 1}),
}


def random_cell(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name](3, 4).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_()
    return cell


def blocks(cell: Any, maps: list[str]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W, U and b of the maps, one below the other, and the biases that stand with the products of the state."""
    with torch.no_grad():
        found = [getattr(cell, name) for name in maps]
        recurrent = torch.zeros_like(torch.cat([one.b for one in found]))
        if "recurrent_bias" in dict(cell.named_parameters()):
            recurrent[-len(found[-1].b) :] = cell.recurrent_bias
        W, U, b = (torch.cat([getattr(one, kind) for one in found]) for kind in "WUb")
    return W, U, b, recurrent


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, within Keras
@pytest.mark.parametrize("name", KERAS)
def test_the_same_as_keras(name: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    its_name, maps, options = KERAS[name]
    cell = random_cell(name, torch.float64)
    layer = getattr(keras.layers, its_name)(4, return_sequences=True, dtype="float64", **options)
    layer.build((5, 7, 3))
    W, U, b, recurrent = blocks(cell, maps)
    bias = torch.stack([b, recurrent]) if name == "gru-reset-after" else b
    layer.set_weights([W.T.numpy(), U.T.numpy(), bias.numpy()])
    x = torch.randn(7, 5, 3, dtype=torch.float64)
    wanted = torch.as_tensor(keras.ops.convert_to_numpy(layer(x.transpose(0, 1).numpy()))).transpose(0, 1)
    assert_same([unroll(cell, x)[0]], [wanted], 1e-6)  # Keras starts from a state in float32


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("name", ONNX)
def test_the_same_as_onnx_runtime(name: str, engine: Any) -> None:
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    operator, maps, options = ONNX[name]
    cell = random_cell(name, torch.float32)
    W, U, b, recurrent = blocks(cell, maps)
    constants = {"W": W, "R": U, "B": torch.cat([b, recurrent])}
    names = ["X", "W", "R", "B", "", "", "", "P"]
    if name == "lstm-peephole":
        constants["P"] = torch.cat([cell.p_i, cell.p_o, cell.p_f]).detach()
    node = onnx.helper.make_node(operator, names[: 8 if "P" in constants else 4], ["Y"], hidden_size=4, **options)
    graph = onnx.helper.make_graph(
        [node],
        name.replace("-", "_"),
        [onnx.helper.make_tensor_value_info("X", 1, [7, 5, 3])],
        [onnx.helper.make_tensor_value_info("Y", 1, [7, 1, 5, 4])],
        [onnx.numpy_helper.from_array(value[None].numpy(), key) for key, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(7, 5, 3)
    [wanted] = session.run(None, {"X": x.numpy()})
    with torch.no_grad():
        assert_same([unroll(cell, x, engine=engine)[0]], [torch.as_tensor(np.squeeze(wanted, 1))], 1e-6)
