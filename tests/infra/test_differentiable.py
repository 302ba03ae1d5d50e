"""ONNX graphs as PyTorch modules: the same values as onnxruntime's, and true gradients."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import graphs
from support.shared import SHARED

from infra.models.files import file_digest
from infra.models.packs import find_pack
from ironmask.errors import ModelDigestError, ModelError, ModelNotFoundError, ProviderError

torch = pytest.importorskip("torch")

from infra.models.differentiable import OnnxModule, differentiable  # noqa: E402
from infra.models.torch_operators import OPERATORS  # noqa: E402

SHAPE = (2, 6, 5, 4)


def values(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, dtype=np.int64)


def graph_of(nodes, stored, shape=SHAPE, opset=11):
    """A model of one input `x` and one output `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def expected(model, given):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def made(model, given):
    with torch.no_grad():
        return OnnxModule(model.graph)(torch.from_numpy(given)).numpy()


# Operator, the input it takes after x and its attributes; then the version of the operators.
CASES = [
    ("Add", {"b": values(6, 1, 1)}, {}, 11),
    ("Add", {"b": values(1)}, {}, 11),
    ("Sub", {"b": values(4)}, {}, 11),
    ("Mul", {"b": values(2, 1, 5, 1)}, {}, 11),
    ("Div", {"b": values(6, 1, 1) + 5}, {}, 11),
    ("Pow", {"b": np.float32(2)}, {}, 11),
    ("Erf", {}, {}, 11),
    ("Relu", {}, {}, 11),
    ("Sigmoid", {}, {}, 11),
    ("Identity", {}, {}, 11),
    ("MatMul", {"b": values(4, 3)}, {}, 11),
    ("PRelu", {"b": values(6, 1, 1)}, {}, 11),
    ("PRelu", {"b": values(1, 1, 1)}, {}, 11),
    ("PRelu", {"b": values(5, 4)}, {}, 11),
    ("PRelu", {"b": values(4)}, {}, 11),
    ("Conv", {"w": values(8, 6, 3, 3), "b": values(8)}, {"pads": [1, 1, 1, 1]}, 11),
    ("Conv", {"w": values(8, 6, 2, 3)}, {"pads": [0, 1, 1, 2], "strides": [2, 1]}, 11),
    ("Conv", {"w": values(6, 1, 2, 2)}, {"group": 6, "dilations": [2, 1]}, 11),
    ("Conv", {"w": values(4, 3, 1, 1)}, {"group": 2}, 11),
    (
        "BatchNormalization",
        {"s": values(6), "b": values(6), "m": values(6), "v": values(6) ** 2},
        {"epsilon": 0.01},
        11,
    ),
    ("Flatten", {}, {}, 11),
    ("Flatten", {}, {"axis": 2}, 11),
    ("Flatten", {}, {"axis": 0}, 11),
    ("GlobalAveragePool", {}, {}, 11),
    ("ReduceMean", {}, {"axes": [-1]}, 11),
    ("ReduceMean", {}, {"axes": [2, 3], "keepdims": 0}, 11),
    ("ReduceMean", {}, {}, 11),
    ("ReduceMean", {"a": ints(1, 2)}, {"keepdims": 0}, 18),
    ("ReduceL2", {}, {"axes": [1]}, 11),
    ("Transpose", {}, {"perm": [0, 2, 3, 1]}, 11),
    ("Reshape", {"s": ints(0, -1, 2)}, {}, 11),
    ("Slice", {"s": ints(1, 0), "e": ints(-1, 1 << 40), "a": ints(1, 3)}, {}, 11),
    ("Slice", {"s": ints(0), "e": ints(5), "a": ints(2), "t": ints(2)}, {}, 11),
    ("Squeeze", {}, {"axes": [0]}, 11),
    ("Squeeze", {"a": ints(0)}, {}, 13),
    ("Unsqueeze", {}, {"axes": [0, -1]}, 11),
    ("Unsqueeze", {"a": ints(2)}, {}, 13),
    ("Clip", {"l": np.float32(-0.5), "h": np.float32(0.5)}, {}, 11),
    ("Clip", {"l": np.float32(-0.5)}, {}, 11),
    ("Clip", {}, {"min": -0.1, "max": 0.2}, 6),
    ("Expand", {"s": ints(3, 1, 6, 5, 4)}, {}, 11),
    ("Concat", {"b": values(2, 3, 5, 4)}, {"axis": 1}, 11),
    ("Softmax", {}, {"axis": 3}, 11),
    ("Softmax", {}, {"axis": -1}, 13),
]


@pytest.mark.parametrize(
    ("kind", "stored", "attributes", "opset"),
    CASES,
    ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)],
)
def test_an_operator_gives_what_onnxruntime_gives(kind, stored, attributes, opset):
    shape = (1, 6, 5, 4) if kind in ("Squeeze", "Expand") else SHAPE
    model = graph_of(
        [helper.make_node(kind, ["x", *stored], ["y"], **attributes)], stored, shape, opset
    )
    given = values(*shape, seed=2)
    wanted = expected(model, given)
    found = made(model, given)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-5)


@pytest.mark.parametrize(
    "attributes", [{}, {"transA": 1, "alpha": 0.5}, {"transB": 1, "beta": 2.0}]
)
def test_gemm(attributes):
    shape = (6, 4)
    inner = 6 if attributes.get("transA") else 4
    other = (3, inner) if attributes.get("transB") else (inner, 3)
    stored = {"b": values(*other), "c": values(3)}
    model = graph_of(
        [helper.make_node("Gemm", ["x", "b", "c"], ["y"], **attributes)], stored, shape
    )
    given = values(*shape, seed=3)
    np.testing.assert_allclose(made(model, given), expected(model, given), 1e-5, 1e-5)


def test_roots_splits_and_constants_inside_the_graph():
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Sqrt", ["square"], ["size"]),
        helper.make_node("Split", ["size"], ["a", "b"], axis=1, split=[2, 4]),
        helper.make_node("Concat", ["b", "a"], ["turned"], axis=1),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(values(4))),
        helper.make_node("Mul", ["turned", "c"], ["y"]),
    ]
    model = graph_of(nodes, {})
    given = values(*SHAPE, seed=4)
    np.testing.assert_allclose(made(model, given), expected(model, given), 1e-5, 1e-5)


def test_every_operator_is_tried():
    assert {kind for kind, *_ in CASES} | {"Gemm", "Sqrt", "Split"} == set(OPERATORS)


def small_recogniser():
    """One of each operator of an ArcFace MobileFaceNet."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("PRelu", ["c", "slope"], ["p"]),
        helper.make_node("Conv", ["p", "depth"], ["d"], pads=[1, 1, 1, 1], group=4),
        helper.make_node("Add", ["p", "d"], ["sum"]),
        helper.make_node("Flatten", ["sum"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "fc", "fb"], ["e"], transB=1),
        helper.make_node("BatchNormalization", ["e", "s", "o", "m", "v"], ["y"]),
    ]
    stored = {
        "w": values(4, 3, 3, 3), "b": values(4), "slope": values(4, 1, 1),
        "depth": values(4, 1, 3, 3), "fc": values(5, 36), "fb": values(5), "s": values(5),
        "o": values(5), "m": values(5), "v": values(5) ** 2 + 1,
    }  # fmt: skip
    return graph_of(nodes, stored, (2, 3, 6, 6))


def test_gradients_are_those_of_finite_differences():
    model = small_recogniser()
    given = values(2, 3, 6, 6, seed=7)
    np.testing.assert_allclose(made(model, given), expected(model, given), 1e-5, 1e-5)
    net = OnnxModule(model.graph).double()
    x = torch.from_numpy(given).double().requires_grad_()
    assert torch.autograd.gradcheck(net, (x,), eps=1e-6, atol=1e-6)
    assert not list(net.parameters()), "its weights are not trained"


def test_an_unknown_operator_is_named():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Elu", ["r"], ["e"]),
        helper.make_node("HardSigmoid", ["e"], ["y"]),
    ]
    with pytest.raises(ModelError, match="Elu, HardSigmoid"):
        OnnxModule(graph_of(nodes, {}).graph)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Softmax", ["x"], ["y"], axis=1), "Softmax"),
        (helper.make_node("Split", ["x"], ["y", "z"], axis=1), "Split"),
        (helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"]), "Slice"),
        (helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER"), "Conv"),
    ],
)
def test_what_an_operator_cannot_do_is_refused(node, said):
    stored = {
        "s": ints(4), "e": ints(0), "a": ints(1), "t": ints(-1), "w": values(8, 6, 3, 3),
    }  # fmt: skip
    net = OnnxModule(graph_of([node], stored).graph)
    with pytest.raises(ModelError, match=said):
        net(torch.zeros(SHAPE))


def test_a_graph_of_two_outputs_is_no_recogniser():
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {})
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE))
    with pytest.raises(ModelError, match="one output"):
        OnnxModule(model.graph)


@pytest.fixture
def pack(tmp_path: Path):
    folder = tmp_path / "pack"
    folder.mkdir()
    graphs.recogniser(folder / "a.onnx")
    graphs.detector(folder / "b.onnx")
    pins = [f"{file_digest(path)}  {path.name}\n" for path in folder.glob("*.onnx")]
    (folder / "SHA256SUMS").write_text("".join(pins))
    return find_pack(str(folder))


def test_a_pack(pack):
    net = differentiable(pack)
    faces = values(3, 3, 112, 112)
    model = onnx.load(str(pack.recogniser))
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(faces)), expected(model, faces), 1e-4, 1e-4)
    assert net.batch is None
    with pytest.raises(ProviderError, match="unknown device"):
        differentiable(pack, "gpu")


def test_a_file_that_is_not_the_packs_is_refused(pack):
    with pack.recogniser.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ModelDigestError):
        differentiable(pack)
    pack.recogniser.unlink()
    with pytest.raises(ModelNotFoundError):
        differentiable(pack)


def test_data_in_other_files_and_no_model_at_all_are_refused(tmp_path):
    model = graph_of([helper.make_node("Add", ["x", "outside"], ["y"])], {})
    model.graph.initializer.append(graphs.outside())
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="other files"):
        OnnxModule.load(path)
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="no ONNX model"):
        OnnxModule.load(path)


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="shared models are not here")
@pytest.mark.parametrize(
    ("name", "batch"), [("buffalo_sc/w600k_mbf", None), ("edgeface_s/edgeface_s_gamma_05", 1)]
)
def test_real_recognisers(name, batch, tmp_path):
    """On noise and on a face, one by one and three at once; and a step along the gradient helps."""
    path = tmp_path / "m.onnx"
    shutil.copyfile(SHARED / "models" / f"{name}.onnx", path)
    net = OnnxModule.load(path)
    assert net.batch == batch
    model = onnx.load(str(path))
    faces = np.concatenate([np.clip(values(2, 3, 112, 112), -1, 1), real_face()])
    with torch.no_grad():
        found = net(torch.from_numpy(faces)).numpy()
    wanted = np.concatenate([expected(model, face[None]) for face in faces])
    length = np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs((found - wanted) / length).max() < 1e-5
    x = torch.from_numpy(faces).requires_grad_()
    target = torch.from_numpy(wanted[::-1].copy())
    torch.cosine_similarity(net(x), target).sum().backward()
    moved = (faces + 0.002 * np.sign(x.grad.numpy()))[:1]
    before, after = (
        float(torch.cosine_similarity(torch.from_numpy(e), target[:1]))
        for e in (wanted[:1], expected(model, moved))
    )
    assert after > before + 0.01


def real_face() -> np.ndarray:
    import cv2

    path = sorted((SHARED / "faces" / "lfw_dev").glob("*/*.jpg"))[0]
    crop = cv2.resize(cv2.imread(str(path))[60:190, 60:190], (112, 112))[..., ::-1]
    return ((crop.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None].copy()
