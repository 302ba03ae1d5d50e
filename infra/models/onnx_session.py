"""onnxruntime sessions with explicit providers and one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.models.files import file_digest
from infra.models.onnx_graph import for_cpu
from ironmask.errors import ModelDigestError, ModelError, ModelNotFoundError, ProviderError
from pipelines.spec.faces import Provider

_CPU: Final = "CPUExecutionProvider"
# Choose by a heuristic: an exhaustive search would run again for each new batch size.
_CUDA: Final = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"})
_PROVIDERS: Final[dict[Provider, list[Any]]] = {
    "cpu": [_CPU],
    "cuda": [_CUDA, _CPU],
    "tensorrt": [("TensorrtExecutionProvider", {}), _CUDA, _CPU],
}


def open_session(path: Path, sha256: str, provider: Provider) -> Any:
    """Load a model: one thread, sequential, on exactly the provider asked for.

    Raise `ProviderError` where that provider is not active, `ModelNotFoundError`,
    `ModelDigestError` where the file is not the pack's, `ModelError` where it is no usable model.
    """
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    check_file(path, sha256)
    onnxruntime.set_default_logger_severity(3)
    chosen = _PROVIDERS[provider]
    wanted = chosen[0] if provider == "cpu" else chosen[0][0]
    if wanted not in onnxruntime.get_available_providers():
        raise _inactive(provider, wanted, onnxruntime.get_available_providers())
    if provider != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        model = (for_cpu(path) if provider == "cpu" else None) or str(path)
        session = onnxruntime.InferenceSession(model, options, providers=chosen)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelError(f"{path}: onnxruntime cannot load it ({type(error).__name__})") from error
    if wanted not in session.get_providers():
        raise _inactive(provider, wanted, session.get_providers())
    return session


def outputs_or_none(session: Any, feed: dict[str, Any]) -> list[Any] | None:
    """What a model gives; None where it does not take inputs of this shape. It says nothing."""
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        found: list[Any] = session.run(None, feed, quiet)
    except (errors.Fail, errors.InvalidArgument, errors.RuntimeException, errors.EPFail):
        return None
    return found


def try_recogniser(path: Path, sha256: str, width: int) -> None:
    """Run a recogniser once. Raises `ModelError` where it fails, or gives another width."""
    session = open_session(path, sha256, "cpu")
    blank = np.zeros((1, 3, 112, 112), np.float32)
    try:
        (made,) = session.run(None, {session.get_inputs()[0].name: blank})
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelError(
            f"{path}: onnxruntime cannot run it on one face ({type(error).__name__}); export it "
            "anew, and try it there first"
        ) from error
    if made.shape != (1, width):
        raise ModelError(
            f"{path}: it declares embeddings of {width} values, and gives {made.shape} for one "
            "face; export it with the output that it has"
        )


def check_file(path: Path, sha256: str) -> None:
    """Raise `ModelNotFoundError` or `ModelDigestError` for a file that is not the pack's."""
    if not path.is_file():
        raise ModelNotFoundError(
            f"{path}: not on this machine; every worker needs the pack at the same path"
        )
    digest = file_digest(path)
    if digest != sha256:
        raise ModelDigestError(
            f"{path}: expected sha256 {sha256}, found {digest}; this machine holds another file "
            "than the one that the run was planned with"
        )


def _inactive(provider: Provider, wanted: str, active: list[str]) -> ProviderError:
    if provider == "cpu":
        return ProviderError(f"{wanted} is not active, only {', '.join(active)}")
    return ProviderError(
        f"provider {provider!r}: {wanted} is not active (active: {', '.join(active)}). Install "
        "`ironmask[gpu]` in place of the CPU extra and check the GPU driver, or use provider 'cpu'"
    )
