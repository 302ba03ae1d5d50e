"""Models rewritten for the CPU give what the originals give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.shared import SHARED

from infra.models.onnx_graph import for_cpu

MODELS = SHARED / "models"


def model_of(path: Path, slope: np.ndarray, shape: tuple[int, ...], *, constant: bool = True):
    """PRelu of a sum, whose output is used twice."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    given = helper.make_tensor_value_info("slope", TensorProto.FLOAT, slope.shape)
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("PRelu", ["twice", "slope"], ["active"]),
        helper.make_node("Mul", ["active", "active"], ["square"]),
        helper.make_node("Add", ["square", "active"], ["y"]),
    ]
    stored = [numpy_helper.from_array(slope, "slope")] if constant else []
    graph = helper.make_graph(nodes, "g", [x] if constant else [x, given], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def run(model: str | bytes, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


@pytest.mark.parametrize("slopes", [(3, 1, 1), (1, 1, 1), (1,)])
def test_the_same_function(slopes, tmp_path):
    """Slopes below zero, at zero and one, and above; values of either sign and zero."""
    rng = np.random.default_rng(1)
    slope = rng.permutation([-0.7, 0.0, 1.0, 1.8])[: slopes[0]].astype(np.float32).reshape(slopes)
    path = model_of(tmp_path / "m.onnx", slope, (2, 3, 5, 4))
    values = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    values[0, :, 0] = 0
    rewritten = for_cpu(path)
    assert rewritten is not None
    assert "PRelu" not in operators(rewritten)
    onnx.checker.check_model(onnx.load_from_string(rewritten))
    np.testing.assert_allclose(run(rewritten, values), run(str(path), values), 1e-6, 1e-6)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("slopes", [[-0.7, 0.0, 0.5, 0.25, 0.1, 2.0], [0.2]])
def test_the_factor_goes_into_the_next_convolution(groups, slopes, tmp_path):
    path = convolved(tmp_path / "m.onnx", slopes, groups)
    values = np.random.default_rng(3).standard_normal((2, 6, 5, 4)).astype(np.float32)
    rewritten = for_cpu(path)
    assert operators(rewritten) == {"Relu": 1, "Mul": 1, "Add": 1, "Conv": 1}
    np.testing.assert_allclose(run(rewritten, values), run(str(path), values), 1e-5, 1e-5)


@pytest.mark.parametrize("case", ["slope one", "two convolutions", "an output"])
def test_the_factor_stays_where_it_cannot_go(case, tmp_path):
    slopes = [0.5] * 5 + [1.0 if case == "slope one" else 0.5]
    path = convolved(tmp_path / "m.onnx", slopes, 2, case)
    values = np.random.default_rng(4).standard_normal((2, 6, 5, 4)).astype(np.float32)
    rewritten = for_cpu(path)
    assert operators(rewritten)["Mul"] == 2
    np.testing.assert_allclose(run(rewritten, values), run(str(path), values), 1e-5, 1e-5)


def convolved(path: Path, slopes: list[float], groups: int, case: str = "") -> Path:
    """PRelu of six channels, then a convolution of the PRelu alone; or as the case says."""
    slope = np.array(slopes, dtype=np.float32).reshape(-1, 1, 1)
    weights = np.random.default_rng(5).standard_normal((6, 6 // groups, 3, 3)).astype(np.float32)
    conv = {"group": groups, "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("PRelu", ["x", "slope"], ["active"]),
        helper.make_node("Conv", ["active", "weights"], ["y"], **conv),
    ]
    outputs = ["y"]
    if case == "two convolutions":
        nodes[1].output[0] = "once"
        nodes.append(helper.make_node("Conv", ["once", "weights"], ["y"], **conv))
    if case == "an output":
        outputs.append("active")
    shape = (2, 6, 5, 4)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ["x", *outputs]]
    stored = [numpy_helper.from_array(a, n) for a, n in ((slope, "slope"), (weights, "weights"))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_slopes_that_are_not_constant_stay(tmp_path):
    slope = np.ones((3, 1, 1), dtype=np.float32)
    assert for_cpu(model_of(tmp_path / "m.onnx", slope, (2, 3, 5, 4), constant=False)) is None


def test_slopes_for_each_entry_stay(tmp_path):
    assert for_cpu(model_of(tmp_path / "m.onnx", np.ones((3, 5, 4), "f4"), (2, 3, 5, 4))) is None


def test_a_model_without_is_left_alone(tmp_path):
    path = model_of(tmp_path / "m.onnx", np.ones((3, 1, 1), dtype=np.float32), (2, 3, 5, 4))
    assert for_cpu(path) is not None
    model = onnx.load(str(path))
    model.graph.node[1].op_type = "Add"
    onnx.save(model, str(path))
    assert for_cpu(path) is None


@pytest.mark.skipif(not MODELS.is_dir(), reason="shared models are not here")
@pytest.mark.parametrize("name", ["buffalo_sc/w600k_mbf", "edgeface_s/edgeface_s_gamma_05"])
def test_real_recognisers(name):
    path = MODELS / f"{name}.onnx"
    rewritten = for_cpu(path)
    if rewritten is None:
        assert "PRelu" not in operators(path.read_bytes())
        return
    faces = np.random.default_rng(2).standard_normal((4, 3, 112, 112)).astype(np.float32)
    before, after = run(str(path), faces), run(rewritten, faces)
    cosine = (
        (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    )
    assert cosine.min() > 1 - 1e-6
