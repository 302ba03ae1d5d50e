"""ONNX operators in PyTorch, as far as face recognisers use them.

Each takes the values of a node's inputs, None where one is left out, and the node's attributes.
Integers, such as shapes and axes, are NumPy arrays; everything else is a tensor. ONNX operator
specification, https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from ironmask.attacks.inversion.library import torch_library
from ironmask.errors import ModelError

Operator = Callable[[Sequence[Any], dict[str, Any]], Any]


def _conv(x: Sequence[Any], a: dict[str, Any]) -> Any:
    torch = torch_library()
    values, weights, bias = x[0], x[1], x[2] if len(x) > 2 else None
    if values.dim() != 4 or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ModelError("Conv: only two dimensions and explicit padding are known")
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    padding = (top, left)
    if (top, left) != (bottom, right):
        values, padding = torch.nn.functional.pad(values, (left, right, top, bottom)), (0, 0)
    return torch.nn.functional.conv2d(
        values, weights, bias, tuple(a.get("strides", (1, 1))), padding,
        tuple(a.get("dilations", (1, 1))), a.get("group", 1),
    )  # fmt: skip


def _prelu(values: Any, slope: Any) -> Any:
    if slope.numel() in (1, values.shape[1]) and slope.numel() == slope.shape[0]:
        return _fixed_prelu().apply(values, slope.reshape(-1, *(1,) * (values.dim() - 2)))
    return torch_library().where(values < 0, slope * values, values)


@lru_cache(maxsize=1)
def _fixed_prelu() -> Any:
    """PReLU with slopes that are not trained.

    PyTorch's own always takes the slopes' gradient as well, which triples the time.
    """
    torch = torch_library()

    class FixedPrelu(torch.autograd.Function):  # type: ignore[name-defined,misc]
        @staticmethod
        def forward(ctx: Any, values: Any, slope: Any) -> Any:
            ctx.save_for_backward(values, slope)
            return torch.nn.functional.prelu(values, slope.reshape(-1))

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            values, slope = ctx.saved_tensors
            passed = torch.ops.aten.threshold_backward(gradient, values, 0.0)
            return torch.addcmul(passed, gradient - passed, slope), None

    return FixedPrelu


def _batch_normalisation(x: Sequence[Any], a: dict[str, Any]) -> Any:
    values, scale, bias, mean, variance = x
    return torch_library().nn.functional.batch_norm(
        values, mean, variance, scale, bias, training=False, eps=a.get("epsilon", 1e-5)
    )


def _flatten(x: Sequence[Any], a: dict[str, Any]) -> Any:
    return x[0].reshape(math.prod(x[0].shape[: a.get("axis", 1)]), -1)


def _gemm(x: Sequence[Any], a: dict[str, Any]) -> Any:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * x[2] if len(x) > 2 else product


def _axes(x: Sequence[Any], a: dict[str, Any]) -> list[int] | None:
    """From the second input, as newer versions have them, or from the attribute."""
    found = x[1] if len(x) > 1 and x[1] is not None else a.get("axes")
    return None if found is None else [int(axis) for axis in found]


def _reduced(name: str) -> Operator:
    def reduce(x: Sequence[Any], a: dict[str, Any]) -> Any:
        torch, axes = torch_library(), _axes(x, a)
        axes = list(range(x[0].dim())) if axes is None else axes
        keep = bool(a.get("keepdims", 1))
        if name == "mean":
            return x[0].mean(axes, keepdim=keep)
        return torch.linalg.vector_norm(x[0], dim=axes, keepdim=keep)

    return reduce


def _reshape(x: Sequence[Any], a: dict[str, Any]) -> Any:
    wanted = [int(size) for size in x[1]]
    if not a.get("allowzero"):
        wanted = [x[0].shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x[0].reshape(wanted)


def _slice(values: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    parts = [slice(None)] * values.dim()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise ModelError("Slice: only forward steps are known")
        parts[int(axis)] = slice(int(start), int(end), int(step))
    return values[tuple(parts)]


def _squeeze(x: Sequence[Any], a: dict[str, Any]) -> Any:
    axes = _axes(x, a)
    return x[0].squeeze() if axes is None else x[0].squeeze(axes)


def _unsqueeze(x: Sequence[Any], a: dict[str, Any]) -> Any:
    values, axes = x[0], _axes(x, a) or []
    whole = values.dim() + len(axes)
    for axis in sorted(axis % whole for axis in axes):
        values = values.unsqueeze(axis)
    return values


def _split(x: Sequence[Any], a: dict[str, Any]) -> Any:
    axis = a.get("axis", 0)
    sizes = x[1] if len(x) > 1 and x[1] is not None else a.get("split")
    if sizes is None:
        raise ModelError("Split: only stated sizes are known")
    return torch_library().split(x[0], [int(size) for size in sizes], axis)


def _clip(x: Sequence[Any], a: dict[str, Any]) -> Any:
    low = x[1] if len(x) > 1 else a.get("min")
    high = x[2] if len(x) > 2 else a.get("max")
    return x[0] if low is None and high is None else torch_library().clamp(x[0], low, high)


def _expand(values: Any, shape: Any) -> Any:
    wanted = tuple(int(size) for size in shape)
    return values.expand(torch_library().broadcast_shapes(values.shape, wanted))


def _pooled(values: Any) -> Any:
    return values.mean(list(range(2, values.dim())), keepdim=True)


def _softmax(x: Sequence[Any], a: dict[str, Any]) -> Any:
    # Before version 13 it flattened what lies behind its axis: the same for the last one.
    axis = a.get("axis", -1)
    if axis % x[0].dim() != x[0].dim() - 1:
        raise ModelError("Softmax: only the last axis is known")
    return x[0].softmax(-1)


def _plain(function: Callable[..., Any]) -> Operator:
    """Of inputs alone."""
    return lambda x, _: function(*x)


OPERATORS: Final[dict[str, Operator]] = {
    "Add": _plain(operator.add),
    "BatchNormalization": _batch_normalisation,
    "Clip": _clip,
    "Concat": lambda x, a: torch_library().cat(list(x), a["axis"]),
    "Conv": _conv,
    "Div": _plain(operator.truediv),
    "Erf": _plain(lambda values: values.erf()),
    "Expand": _plain(_expand),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(_pooled),
    "Identity": _plain(lambda values: values),
    "MatMul": _plain(operator.matmul),
    "Mul": _plain(operator.mul),
    "PRelu": _plain(_prelu),
    "Pow": _plain(operator.pow),
    "ReduceL2": _reduced("length"),
    "ReduceMean": _reduced("mean"),
    "Relu": _plain(lambda values: values.relu()),
    "Reshape": _reshape,
    "Sigmoid": _plain(lambda values: values.sigmoid()),
    "Slice": _plain(_slice),
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain(lambda values: values.sqrt()),
    "Squeeze": _squeeze,
    "Sub": _plain(operator.sub),
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}
