"""Rewrite what onnxruntime's CPU kernels do slowly into the same function of faster operators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_PRELU: Final = "PRelu"


def for_cpu(path: Path) -> bytes | None:
    """The model with each PRelu written as s x + (1 - s) Relu(x); None where it has none.

    onnxruntime computes PRelu entry by entry and out of its blocked layout; these operators stay
    in the layout, next to the convolutions. Outputs differ by rounding alone.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    slopes = {tensor.name: tensor for tensor in graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        return None
    nodes = list(graph.node)
    fast = {place for place, node in enumerate(nodes) if _is_fast(node, slopes)}
    if not fast:
        return None
    del graph.node[:]
    for place, node in enumerate(nodes):
        if place not in fast:
            graph.node.append(node)
            continue
        slope = onnx.numpy_helper.to_array(slopes[node.input[1]])
        rest = onnx.numpy_helper.from_array(1 - slope, f"prelu_{place}_rest")
        graph.initializer.append(rest)
        graph.node.extend(_replaced(node, rest.name, f"prelu_{place}"))
    serialized: bytes = model.SerializeToString()
    return serialized


def _is_fast(node: Any, slopes: dict[str, Any]) -> bool:
    """Whether it is a PRelu with constant float32 slopes, one for each channel or one for all."""
    from onnx import TensorProto

    tensor = slopes.get(node.input[1]) if node.op_type == _PRELU else None
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return False
    return all(size == 1 for size in tensor.dims[-2:])


def _replaced(node: Any, rest: str, name: str) -> Iterator[Any]:
    from onnx.helper import make_node

    (x, slope), (y,) = node.input, node.output
    yield make_node("Relu", [x], [f"{name}_relu"])
    yield make_node("Mul", [f"{name}_relu", rest], [f"{name}_positive"])
    yield make_node("Mul", [x, slope], [f"{name}_sloped"])
    yield make_node("Add", [f"{name}_sloped", f"{name}_positive"], [y])
