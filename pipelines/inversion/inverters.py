"""Inverters by kind: how each learns from photos, and how a stored one is made ready again."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from infra.models.packs import ModelPack
from ironmask.attacks.inversion import Inverter, LinearInverter, PixelBasis, State
from ironmask.errors import ImageError, StorageError
from pipelines.inversion.frozen import Fit, Kind
from pipelines.inversion.work import Surroundings
from pipelines.ports import F32, U8

Ready = Inverter | Callable[[Any], Any]
"""What `ironmask.attacks.inversion.inverted` takes."""

Point = tuple[float, float, float, float]
"""Of the curve of a training: images seen, loss, loss of held-out people, cosine of their faces."""

# A training looks at held-out people, and writes a checkpoint, about so many times; and after so
# many images, at least and at most.
_CHECKS: Final = 20
_BETWEEN: Final = (64, 2048)
_BASIS: Final = ("mean", "components", "deviations")


class Crops:
    """The usable photos of a fit, decoded when they are asked for: (b, 112, 112, 3) uint8 RGB.

    held: keep what was decoded, 37 KiB each, for whoever asks for the same photos again and again.
    """

    def __init__(self, around: Surroundings, usable: NDArray[np.intp], *, held: bool) -> None:
        self._around, self._usable = around, usable
        self._held: dict[int, U8] | None = {} if held else None

    def __len__(self) -> int:
        return len(self._usable)

    def __getitem__(self, index: Any) -> U8:
        places = self._usable[index].tolist()
        known: dict[int, U8] = {} if self._held is None else self._held
        missing = [place for place in places if place not in known]
        known.update(zip(missing, map(_rgb, self._around.crops(missing)), strict=True))
        return np.stack([known[place] for place in places])


def _rgb(crop: U8 | ImageError) -> U8:
    if isinstance(crop, ImageError):
        raise StorageError(f"a photo that could be read before cannot any more: {crop}")
    return crop[..., ::-1]


def refuse_without_torch(kind: Kind) -> None:
    """Raise `ProviderError` where an inverter needs PyTorch, and it is not here."""
    if kind.needs_torch:
        from ironmask.attacks.inversion.library import torch_library

        torch_library()


def learnt(
    fit: Fit,
    pack: ModelPack,
    crops: Crops,
    rows: F32,
    people: NDArray[np.intp],
    checkpoint: State | None,
    on_check: Callable[[State], None],
) -> tuple[State, list[Point]]:
    """Let an inverter learn. Returns its state, and the curve of its training.

    rows: (k, n) embeddings of the crops. people: (k,), whose each is. checkpoint: of the same fit,
    to go on from; on_check: gets them.
    """
    kind = Kind(fit.inverter)
    if kind in (Kind.LINEAR, Kind.ASCENT):
        linear = LinearInverter()
        linear.fit(crops, rows, people)
        state = linear.state()
        return (state | _basis(PixelBasis.of(crops)) if kind is Kind.ASCENT else state), []
    from infra.models.differentiable import differentiable
    from ironmask.attacks.inversion import HybridInverter, NbNet, Training

    training = Training(
        images=fit.images, cpu_seconds=fit.cpu_seconds, seed=fit.seed,
        check_every=int(np.clip(fit.images // _CHECKS, *_BETWEEN)),
    )  # fmt: skip
    made = NbNet if kind is Kind.NBNET else HybridInverter
    inverter = made(differentiable(pack, fit.device), training, device=fit.device)
    inverter.fit(crops, rows, people, resume=checkpoint, on_check=on_check)
    curve = [(float(c.images), c.loss, c.held_out, c.cosine) for c in inverter.curve]
    return inverter.state(), curve


def ready(fit: Fit, state: State, pack: ModelPack) -> Ready:
    """The inverter of a stored state."""
    kind = Kind(fit.inverter)
    if kind is Kind.LINEAR:
        return LinearInverter.from_state(state)
    refuse_without_torch(kind)
    if kind is Kind.ASCENT:
        return _ascending(LinearInverter.from_state(state), _basis_of(state), pack)
    from ironmask.attacks.inversion import HybridInverter, NbNet

    return (NbNet if kind is Kind.NBNET else HybridInverter).from_state(state)


def _ascending(linear: LinearInverter, basis: PixelBasis, pack: ModelPack) -> Ready:
    from infra.models.differentiable import differentiable
    from ironmask.attacks.inversion import ascend

    network = differentiable(pack)
    return lambda templates: ascend(network, linear.invert(templates), templates, basis)


def _basis(basis: PixelBasis) -> State:
    parts = (basis.mean, basis.components, basis.deviations)
    return {f"basis/{name}": part for name, part in zip(_BASIS, parts, strict=True)}


def _basis_of(state: State) -> PixelBasis:
    return PixelBasis(*(state[f"basis/{name}"] for name in _BASIS))


def packed(state: State) -> bytes:
    """A state as the bytes of an `.npz` file, without pickle."""
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **state)
    return sink.getvalue()


def unpacked(address: str, data: bytes) -> State:
    """Undo `packed`. Raises `StorageError` for a damaged file."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (BadZipFile, OSError, ValueError, KeyError, EOFError) as error:
        raise StorageError(f"{address} is damaged ({type(error).__name__}): fit it anew") from None
