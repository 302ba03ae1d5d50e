"""Tell an operator's detector from a recogniser, and refuse models that can be neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from infra.models.external_data import external_data
from infra.models.registry import Role
from ironmask.errors import ModelError
from ironmask.params import MAX_N, MIN_N

_SIDE: Final = 112
_WITH_POINTS: Final = (9, 15)
_WITHOUT_POINTS: Final = (6, 10)
_SHOWN_FILES: Final = 3

Shape = list[int | None]


def load_graph(path: Path) -> Any:
    """Read a model's graph. Raises `ModelError` where the model keeps data in other files."""
    import onnx
    from google.protobuf.message import (  # type: ignore[import-untyped,unused-ignore]
        DecodeError,
    )

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX model ({type(error).__name__})") from error
    if files := external_data(model):
        more = ", ..." if len(files) > _SHOWN_FILES else ""
        raise ModelError(
            f"{path}: a part of it lies in another file ({', '.join(files[:_SHOWN_FILES])}{more}), "
            "which no digest pins; save the model as one file: `onnx.save_model(onnx.load(name), "
            "name, save_as_external_data=False)`"
        )
    return model.graph


def role_of(path: Path) -> Role:
    """The role of an operator's model: a recogniser has 1 output, a detector with points 9 or 15.

    Raises `ModelError` for a model that is neither, or that the pipeline cannot call.
    """
    graph = load_graph(path)
    outputs = len(graph.output)
    if outputs in _WITHOUT_POINTS:
        raise ModelError(
            f"{path}: a detector without facial points ({outputs} outputs), so faces cannot be "
            "aligned; export one with 5 points, which has 9 or 15 outputs"
        )
    if outputs != 1 and outputs not in _WITH_POINTS:
        raise ModelError(
            f"{path}: neither a recogniser (one output) nor a detector with 5 points (9 or 15 "
            f"outputs): it has {outputs}; take it out of the folder"
        )
    role: Role = "recogniser" if outputs == 1 else "detector"
    _check_input(path, role, graph)
    if role == "recogniser":
        declared_width(path, graph)
    return role


def declared_width(path: Path, graph: Any) -> int:
    """The width of a recogniser's embeddings, as its graph says. Raises `ModelError`."""
    shape = _shape(graph.output[0])
    width = shape[1] if len(shape) == 2 else None
    if width is None:
        raise ModelError(
            f"{path}: a recogniser's output is (N, width), with its width in the file, and this "
            f"one's is {_words(shape)}; export it with a flat output of a fixed width"
        )
    if not MIN_N <= width <= MAX_N:
        raise ModelError(
            f"{path}: its embeddings have {width} values, and {MIN_N} to {MAX_N} can be protected; "
            "use a recogniser of another width"
        )
    return width


def _check_input(path: Path, role: Role, graph: Any) -> None:
    """Raise `ModelError` for an input that does not take float32 pictures of the wanted size."""
    from onnx import TensorProto

    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f"{path}: a {role} takes one input, and this one takes {len(inputs)}")
    kind, shape = inputs[0].type.tensor_type.elem_type, _shape(inputs[0])
    if kind != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind).lower()
        raise ModelError(
            f"{path}: its input is {name}, and float32 is given; "
            "export it with float32 inputs (weights and inner values may be narrower)"
        )
    side = _SIDE if role == "recogniser" else None
    batch = shape[0] if len(shape) == 4 else None
    if len(shape) != 4 or shape[1:] != [3, side, side]:
        wanted = f"(N, 3, {side}, {side})" if side else "(N, 3, height, width), both sides free"
        raise ModelError(
            f"{path}: a {role}'s input is {wanted}, and this one's is {_words(shape)}; export it "
            "with such an input"
        )
    if batch not in (None, 1):
        raise ModelError(
            f"{path}: its batch size is fixed at {batch}, and pictures come one by one; export it "
            "with a free batch size, or with 1"
        )


def _shape(value: Any) -> Shape:
    """Sizes of a value's axes; None for a free one."""
    dims = value.type.tensor_type.shape.dim
    return [int(axis.dim_value) if axis.dim_value > 0 else None for axis in dims]


def _words(shape: Shape) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"({sizes})" if sizes else "not declared"
