"""Rewrite slow operators of onnxruntime's CPU kernels into faster ones of the same function."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infra.models.external_data import external_data

_PRELU: Final = "PRelu"
# Dividing by less than this would cost digits.
_LEAST_FACTOR: Final = 0.1


def for_cpu(path: Path) -> bytes | None:
    """The model with each PRelu as (1 - s) (Relu(x) + q x), q = s / (1 - s); None if it has none.

    onnxruntime computes PRelu entry by entry, outside its blocked layout. The new operators stay in
    the layout, next to the convolutions. The factor 1 - s goes into the weights of the next
    convolution, if only that convolution takes the value. Outputs differ by rounding only.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    slopes = {tensor.name: tensor for tensor in graph.initializer}
    if external_data(model):
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
        follower = _follower(node.output[0], nodes, graph)
        graph.node.extend(_replaced(node, slope, follower, graph.initializer, f"prelu_{place}"))
    serialized: bytes = model.SerializeToString()
    return serialized


def _is_fast(node: Any, slopes: dict[str, Any]) -> bool:
    """Whether it is a PRelu with constant float32 slopes, one for each channel or one for all."""
    from onnx import TensorProto

    tensor = slopes.get(node.input[1]) if node.op_type == _PRELU else None
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return False
    return all(size == 1 for size in tensor.dims[-2:])


def _follower(name: str, nodes: list[Any], graph: Any) -> Any:
    """The convolution that is the only user of a value, if it has weights of its own."""
    users = [node for node in nodes if name in node.input]
    if len(users) != 1 or users[0].op_type != "Conv" or name in {o.name for o in graph.output}:
        return None
    weights = users[0].input[1]
    shared = sum(weights in node.input for node in nodes) > 1
    known = any(t.name == weights and t.data_type == t.FLOAT for t in graph.initializer)
    return users[0] if known and not shared else None


def _replaced(
    node: Any, slope: NDArray[np.float32], follower: Any, tensors: Any, name: str
) -> Iterator[Any]:
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    (x, _), (y,) = node.input, node.output
    rest = 1 - slope
    folded = follower is not None and bool((np.abs(rest) > _LEAST_FACTOR).all())
    tensors.append(from_array(slope / rest if folded else slope, f"{name}_slope"))
    positive = f"{name}_relu"
    yield make_node("Relu", [x], [positive])
    yield make_node("Mul", [x, f"{name}_slope"], [f"{name}_sloped"])
    if folded:
        _scale(follower, rest, tensors)
    else:
        tensors.append(from_array(rest, f"{name}_rest"))
        positive = f"{name}_positive"
        yield make_node("Mul", [f"{name}_relu", f"{name}_rest"], [positive])
    yield make_node("Add", [f"{name}_sloped", positive], [y])


def _scale(conv: Any, factors: NDArray[np.float32], tensors: Any) -> None:
    """Multiply the weights of a convolution, (out, in / groups, ...), by its inputs' factors."""
    from onnx.numpy_helper import from_array, to_array

    tensor = next(tensor for tensor in tensors if tensor.name == conv.input[1])
    weights = to_array(tensor)
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    inputs = np.broadcast_to(factors.reshape(-1), (groups * weights.shape[1],))
    per_output = np.repeat(inputs.reshape(groups, -1), len(weights) // groups, axis=0)
    spread = per_output.reshape(*per_output.shape, *[1] * (weights.ndim - 2))
    tensor.CopyFrom(from_array(weights * spread, tensor.name))
