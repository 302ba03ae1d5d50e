"""Small ONNX models that run: what an operator may put into a pack, sound or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = list[int | str]


def recogniser(
    path: Path,
    shape: Shape | None = None,
    width: int = 512,
    kind: int = TensorProto.FLOAT,
    declared: Shape | None = None,
) -> Any:
    """The mean of each channel through one matrix; `declared` may say another output."""
    weights = np.random.default_rng(1).standard_normal((3, width))
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "w"], ["y"]),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    made = model(
        nodes,
        helper.make_tensor_value_info("x", kind, shape or ["n", 3, 112, 112]),
        [helper.make_tensor_value_info("y", kind, declared or ["n", width])],
        [numpy_helper.from_array(weights.astype(dtype), "w")],
    )
    onnx.save_model(made, str(path))
    return made


def detector(
    path: Path, shape: Shape | None = None, outputs: int = 9, kind: int = TensorProto.FLOAT
) -> Any:
    """It has the outside of a detector."""
    sizes = shape or [1, 3, "h", "w"]
    names = [f"y{number}" for number in range(outputs)]
    made = model(
        [helper.make_node("Identity", ["x"], [name]) for name in names],
        helper.make_tensor_value_info("x", kind, sizes),
        [helper.make_tensor_value_info(name, kind, sizes) for name in names],
    )
    onnx.save_model(made, str(path))
    return made


def model(
    nodes: list[Any], given: Any, made: list[Any], weights: list[Any] | None = None
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [given], made, weights or [])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def outside(name: str = "outside", location: str = "data.bin") -> TensorProto:
    """A tensor whose data lies in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor
