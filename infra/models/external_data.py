"""What an ONNX model keeps in other files, wherever its graph names it.

A pack's digests pin its model files. So a model must hold all of its data itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

# A compiled part of a graph, which its execution provider may read from a file of its own.
_COMPILED: Final = "EPContext"


def external_data(model: Any) -> list[str]:
    """Names of the files that a model's data lies in, sorted; of a file without a name, `?`.

    Every message inside the model is looked at: initialisers, dense and sparse, tensors in the
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
    """A protobuf message and all messages in it, at any depth."""
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
    """The file of a compiled part; even one that holds it itself is code of unknown origin."""
    named = {attribute.name: attribute for attribute in node.attribute}
    context = named.get("ep_cache_context")
    embedded = named.get("embed_mode")
    is_file = context is not None and embedded is not None and embedded.i == 0
    return context.s.decode("utf-8", "replace") if is_file and context else "?"
