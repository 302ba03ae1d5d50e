"""What an operator's own model may be: one file, float32 in, one face at a time, a known width."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, SparseTensorProto, TensorProto, helper, numpy_helper
from support.command import ironmask
from support.graphs import detector, model, outside, recogniser
from support.table import keys_of

from infra.models.external_data import external_data
from infra.models.packs import embedding_width, find_pack
from ironmask.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "own"
    made.mkdir()
    recogniser(made / "rec.onnx")
    detector(made / "det.onnx")
    return made


def pin(folder: Path) -> Path:
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.onnx"))
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


def refused(folder: Path, *words: str) -> str:
    """One line for people, by every way to a pack."""
    with pytest.raises(ModelError) as caught:
        embedding_width(find_pack(str(pin(folder))))
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def test_a_sound_pack_runs(folder: Path) -> None:
    assert embedding_width(find_pack(str(pin(folder)))) == 512


# data in other files


def constant(tensor: Any) -> Any:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def with_node(made: Any, node: Any) -> Any:
    made.graph.node.insert(0, node)
    return made


def initialiser(made: Any) -> Any:
    made.graph.initializer.append(outside())
    return made


def sparse(made: Any) -> Any:
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    found = SparseTensorProto(values=outside(), indices=indices, dims=[4])
    made.graph.sparse_initializer.append(found)
    return made


def sparse_indices(made: Any) -> Any:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    made.graph.sparse_initializer.append(
        SparseTensorProto(values=values, indices=outside(), dims=[4])
    )
    return made


def in_a_constant(made: Any) -> Any:
    return with_node(made, constant(outside()))


def in_a_sparse_constant(made: Any) -> Any:
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    found = SparseTensorProto(values=outside(), indices=indices, dims=[4])
    return with_node(made, helper.make_node("Constant", [], ["c"], sparse_value=found))


def in_a_list_of_tensors(made: Any) -> Any:
    node = helper.make_node("Anything", [], ["c"], domain="elsewhere")
    node.attribute.append(
        AttributeProto(name="several", type=AttributeProto.TENSORS, tensors=[outside()])
    )
    return with_node(made, node)


def branch(tensor: Any) -> Any:
    value = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    return helper.make_graph([constant(tensor)], "branch", [], [value])


def in_a_branch(made: Any) -> Any:
    inner = branch(outside())
    node = helper.make_node("If", ["?"], ["z"], then_branch=inner, else_branch=inner)
    return with_node(made, node)


def in_a_branch_of_a_loop(made: Any) -> Any:
    inner = branch(numpy_helper.from_array(np.ones(1, np.float32), "c"))
    inner.node.append(
        helper.make_node(
            "If", ["?"], ["z"], then_branch=branch(outside()), else_branch=branch(outside())
        )
    )
    return with_node(made, helper.make_node("Loop", ["", "?"], ["z"], body=inner))


def in_a_scan(made: Any) -> Any:
    body = branch(outside())
    return with_node(made, helper.make_node("Scan", ["x"], ["z"], body=body, num_scan_inputs=1))


def in_an_initialiser_of_a_branch(made: Any) -> Any:
    inner = branch(numpy_helper.from_array(np.ones(1, np.float32), "c"))
    inner.initializer.append(outside())
    return with_node(
        made, helper.make_node("If", ["?"], ["z"], then_branch=inner, else_branch=inner)
    )


def in_a_function(made: Any) -> Any:
    opset = [helper.make_opsetid("", 13)]
    made.functions.append(helper.make_function("own", "f", [], ["c"], [constant(outside())], opset))
    return made


def as_the_default_of_a_function(made: Any) -> Any:
    opset = [helper.make_opsetid("", 13)]
    function = helper.make_function("own", "f", [], [], [], opset)
    function.attribute_proto.append(helper.make_attribute("w", outside()))
    made.functions.append(function)
    return made


def in_training_information(made: Any) -> Any:
    made.training_info.add().algorithm.initializer.append(outside())
    return made


def without_a_location_flag(made: Any) -> Any:
    """The place of the data is named, and the flag that says so is not set."""
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    made.graph.initializer.append(tensor)
    return made


def compiled(made: Any) -> Any:
    node = helper.make_node(
        "EPContext", ["x"], ["z"], domain="com.microsoft", embed_mode=0,
        ep_cache_context="data.bin",
    )  # fmt: skip
    return with_node(made, node)


HIDDEN = [
    initialiser,
    sparse,
    sparse_indices,
    in_a_constant,
    in_a_sparse_constant,
    in_a_list_of_tensors,
    in_a_branch,
    in_a_branch_of_a_loop,
    in_a_scan,
    in_an_initialiser_of_a_branch,
    in_a_function,
    as_the_default_of_a_function,
    in_training_information,
    without_a_location_flag,
    compiled,
]


@pytest.mark.parametrize("hide", HIDDEN)
def test_data_in_another_file_is_refused_wherever_it_is_named(
    folder: Path, hide: Callable[[Any], Any]
) -> None:
    np.ones(1, np.float32).tofile(folder / "data.bin")
    path = folder / "rec.onnx"
    path.write_bytes(hide(onnx.load(str(path))).SerializeToString())
    refused(folder, str(path), "another file (data.bin)", "save the model as one file")


@pytest.mark.parametrize("hide", HIDDEN)
def test_data_in_another_file_of_a_detector(folder: Path, hide: Callable[[Any], Any]) -> None:
    path = folder / "det.onnx"
    path.write_bytes(hide(onnx.load(str(path))).SerializeToString())
    refused(folder, str(path), "another file (data.bin)")


def test_data_of_its_own_is_none_elsewhere(tmp_path: Path) -> None:
    assert external_data(recogniser(tmp_path / "r.onnx")) == []
    held = constant(numpy_helper.from_array(np.ones(3, np.float32), "c"))
    assert external_data(with_node(detector(tmp_path / "d.onnx"), held)) == []


def test_every_place_is_named_once(tmp_path: Path) -> None:
    made = recogniser(tmp_path / "r.onnx")
    for name in ("b", "a", "a"):
        made.graph.initializer.append(outside(name, f"../{name}.bin"))
    nameless = outside("c")
    del nameless.external_data[:]
    made.graph.initializer.append(nameless)
    assert external_data(made) == ["../a.bin", "../b.bin", "?"]


# what the pipeline can call


@pytest.mark.parametrize("make", [recogniser, detector])
def test_half_precision_inputs(folder: Path, make: Callable[..., Any]) -> None:
    path = folder / ("rec.onnx" if make is recogniser else "det.onnx")
    make(path, kind=TensorProto.FLOAT16)
    refused(folder, str(path), "input is float16", "float32", "export it")


@pytest.mark.parametrize(
    ("name", "make", "shape"),
    [
        ("rec.onnx", recogniser, [8, 3, 112, 112]),
        ("det.onnx", detector, [4, 3, "h", "w"]),
    ],
)
def test_a_fixed_batch_size(folder: Path, name: str, make: Any, shape: list[Any]) -> None:
    make(folder / name, shape)
    refused(folder, name, f"batch size is fixed at {shape[0]}", "free batch size, or with 1")


def test_one_face_at_a_time_is_a_batch_size_that_serves(folder: Path) -> None:
    recogniser(folder / "rec.onnx", [1, 3, 112, 112], declared=[1, 512])
    assert embedding_width(find_pack(str(pin(folder)))) == 512


@pytest.mark.parametrize(
    "shape", [["n", 3, 96, 96], ["n", 3, 160, 160], ["n", 112, 112, 3], ["n", 1, 112, 112]]
)
def test_another_size_of_a_recognisers_input(folder: Path, shape: list[Any]) -> None:
    recogniser(folder / "rec.onnx", shape)
    refused(folder, "rec.onnx", "(N, 3, 112, 112)", "this one's is", "export it")


def test_a_detector_of_one_size(folder: Path) -> None:
    detector(folder / "det.onnx", [1, 3, 640, 640])
    refused(folder, "det.onnx", "both sides free", "(1, 3, 640, 640)")


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (["n", "d"], ["with its width in the file", "(?, ?)"]),
        (["n", 512, 1, 1], ["(?, 512, 1, 1)", "flat output"]),
        (["n", 32], ["32 values", "another width"]),
    ],
)
def test_another_shape_of_a_recognisers_output(
    folder: Path, declared: list[Any], words: list[str]
) -> None:
    width = declared[1] if isinstance(declared[1], int) else 512
    recogniser(folder / "rec.onnx", width=width, declared=declared)
    refused(folder, "rec.onnx", *words)


def test_a_width_that_is_not_the_declared_one(folder: Path) -> None:
    """The loader of the runtime may say so itself; either way nothing is written."""
    made = recogniser(folder / "rec.onnx", width=128, declared=["n", 512])
    assert made.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 512
    refused(folder, "rec.onnx")


def test_a_model_that_cannot_run(folder: Path) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 512])
    shape = numpy_helper.from_array(np.array([1, 512], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    onnx.save_model(model([node], given, [gives], [shape]), str(folder / "rec.onnx"))
    refused(folder, "rec.onnx", "onnxruntime cannot")


@pytest.mark.parametrize(("outputs", "words"), [(6, "without facial points"), (3, "neither")])
def test_another_number_of_outputs(folder: Path, outputs: int, words: str) -> None:
    detector(folder / "det.onnx", outputs=outputs)
    refused(folder, "det.onnx", words)


def test_one_of_each(folder: Path) -> None:
    recogniser(folder / "rec2.onnx", width=256)
    refused(folder, "two recognisers, rec.onnx and rec2.onnx", "leave one")
    (folder / "rec2.onnx").unlink()
    detector(folder / "det2.onnx", outputs=15)
    refused(folder, "two detectors, det.onnx and det2.onnx", "leave one")
    for name in ("det.onnx", "det2.onnx"):
        (folder / name).unlink()
    refused(folder, "no detector", "put a detector beside")
    detector(folder / "det.onnx")
    (folder / "rec.onnx").unlink()
    refused(folder, "no recogniser", "put a recogniser beside")


def test_nothing_is_written_for_a_pack_that_cannot_serve(folder: Path, tmp_path: Path) -> None:
    recogniser(folder / "rec.onnx", [8, 3, 112, 112])
    pin(folder)
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    (tmp_path / "faces" / "ann" / "1.jpg").write_bytes(b"x")
    dest = tmp_path / "dest"
    answer = ironmask(
        "enroll", tmp_path / "faces", dest, "--model", folder, "--keys", keys_of(dest)
    )
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert "batch size is fixed at 8" in answer.errors[0]
    assert not dest.exists()
    assert not keys_of(dest).exists()
