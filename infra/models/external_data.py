"""Find the data that an ONNX model keeps in other files, wherever its graph names them.

A pack's digests pin only its model files. So a model must hold all of its data itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

# A compiled part of a graph; its execution provider may read it from another file.
_COMPILED: Final = "EPContext"


def external_data(model: Any) -> list[str]:
    """Names of the files that hold a model's data, sorted; `?` for a file without a name.

    It looks at every message inside the model: dense and sparse initialisers, tensors in the
    attributes of any node, of subgraphs and of the model's own functions, training information.
    """
    import onnx

    found: set[str] = set()
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and _is_external(message):
            found.add(_location(message))
        elif isinstance(message, onnx.NodeProto) and message.op_type == _COMPILED:
            found.add(_context_file(message))
    return sorted(found)


def _messages(top: Any) -> Iterator[Any]:
    """A protobuf message and all messages inside it, at any depth."""
    waiting = [top]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            waiting.extend([value] if hasattr(value, "ListFields") else value)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL or tensor.external_data)


def _location(tensor: Any) -> str:
    return next((e.value for e in tensor.external_data if e.key == "location"), "") or "?"


def _context_file(node: Any) -> str:
    """The file of a compiled part. `?` if it holds its data itself: code of unknown origin."""
    named = {attribute.name: attribute for attribute in node.attribute}
    context = named.get("ep_cache_context")
    embedded = named.get("embed_mode")
    is_file = context is not None and embedded is not None and embedded.i == 0
    return context.s.decode("utf-8", "replace") if is_file and context else "?"
