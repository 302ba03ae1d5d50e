"""An ONNX recogniser as a PyTorch module, operator by operator, so that it has gradients.

Importing this module needs PyTorch; it raises `ProviderError` where that is absent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.models.external_data import external_data
from infra.models.onnx_session import check_file
from infra.models.packs import ModelPack
from infra.models.torch_operators import OPERATORS
from ironmask.attacks.inversion.library import device as find_device
from ironmask.attacks.inversion.library import torch_library
from ironmask.errors import ModelError

torch = torch_library()
_Module: Any = torch.nn.Module

_SIDE: Final = 112
_CONSTANT: Final = "Constant"


def differentiable(pack: ModelPack, device: str = "cpu") -> Any:
    """A pack's recogniser: (k, 3, 112, 112) RGB in -1..1 to embeddings, (k, n), not normalised.

    Its weights are fixed; gradients reach its input. Raises `ModelNotFoundError`,
    `ModelDigestError`, `ModelError` where an operator is not known, `ProviderError` for an absent
    device.
    """
    check_file(pack.recogniser, pack.recogniser_sha256)
    return OnnxModule.load(pack.recogniser).to(find_device(device))


class OnnxModule(_Module):  # type: ignore[misc]
    """A graph of one input and one output, whose first dimension counts faces.

    batch: None, or 1 where the graph takes one face only; faces then go through one by one.
    """

    def __init__(self, graph: Any, name: str = "the model") -> None:
        """From an ONNX graph. Raises `ModelError`, by name, for what is not known."""
        super().__init__()
        stored = {tensor.name for tensor in graph.initializer}
        given = [value.name for value in graph.input if value.name not in stored]
        if len(given) != 1 or len(graph.output) != 1:
            raise ModelError(f"{name}: a recogniser has one input and one output")
        unknown = {node.op_type for node in graph.node} - OPERATORS.keys() - {_CONSTANT}
        if unknown or any(node.domain not in ("", "ai.onnx") for node in graph.node):
            raise ModelError(
                f"{name}: no gradient is known for its operators {', '.join(sorted(unknown))}; "
                "attack a recogniser of known operators, or add these to torch_operators"
            )
        self._input, self._output = given[0], graph.output[0].name
        self._places: dict[str, str] = {}
        self._integers: dict[str, Any] = {}
        self._keep_constants(graph)
        nodes = [node for node in graph.node if node.op_type != _CONSTANT]
        self._nodes = [
            (node.op_type, list(node.input), list(node.output), _attributes(node)) for node in nodes
        ]
        self._dead = _last_uses(self._nodes, self._output)
        self.batch: int | None = None

    @classmethod
    def load(cls, path: Path) -> OnnxModule:
        """From a file with all of its data in it; tries whether it takes two faces at once."""
        import onnx

        try:
            model = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's errors share no base class
            raise ModelError(f"{path}: it is no ONNX model ({type(error).__name__})") from error
        if external_data(model):
            raise ModelError(f"{path}: a part of it lies in other files")
        made = cls(model.graph, str(path))
        made.to(memory_format=torch.channels_last)
        made.batch = None if made._takes_two() else 1
        return made

    def forward(self, faces: Any) -> Any:
        """See `differentiable`."""
        if self.batch == 1 and len(faces) > 1:
            return torch.cat([self._run(face[None]) for face in faces])
        if faces.dim() == 4:
            faces = faces.contiguous(memory_format=torch.channels_last)
        return self._run(faces)

    def _run(self, faces: Any) -> Any:
        values = dict(self._integers)
        values |= {name: getattr(self, place) for name, place in self._places.items()}
        values[self._input], values[""] = faces, None
        for (kind, inputs, outputs, attributes), dead in zip(self._nodes, self._dead, strict=True):
            made = OPERATORS[kind]([values[name] for name in inputs], attributes)
            for name, value in zip(outputs, made if len(outputs) > 1 else [made], strict=True):
                values[name] = value
            for name in dead:
                del values[name]
        return values[self._output]

    def _keep_constants(self, graph: Any) -> None:
        """Floats become buffers, which move with the module; integers stay NumPy arrays."""
        from onnx.numpy_helper import to_array

        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == _CONSTANT:
                (attribute,) = node.attribute
                tensors[node.output[0]] = attribute.t
        for number, (name, tensor) in enumerate(tensors.items()):
            array = to_array(tensor)
            if not np.issubdtype(array.dtype, np.floating):
                self._integers[name] = array
                continue
            self._places[name] = f"constant_{number}"
            self.register_buffer(self._places[name], torch.from_numpy(array.copy()))

    def _takes_two(self) -> bool:
        """Whether two faces at once give what they give one by one."""
        faces = torch.linspace(-1, 1, 2 * 3 * _SIDE**2).view(2, 3, _SIDE, _SIDE)
        with torch.no_grad():
            alone = torch.cat([self._run(face[None]) for face in faces])
            try:
                both = self._run(faces)
            except (RuntimeError, IndexError):
                return False
        return both.shape == alone.shape and bool(torch.allclose(both, alone, 1e-3, 1e-3))


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}


def _last_uses(nodes: list[Any], output: str) -> list[list[str]]:
    """For each node, what no later one needs: activations of a batch are large."""
    made = {name for _, _, outputs, _ in nodes for name in outputs} - {output}
    dead: list[list[str]] = []
    for _, inputs, outputs, _ in reversed(nodes):
        last = made & {*inputs, *outputs}
        made -= last
        dead.insert(0, sorted(last))
    return dead
