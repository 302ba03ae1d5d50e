"""Train a network that reconstructs faces, so that a killed training goes on as it would have.

Importing this module needs PyTorch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import F32
from ironmask.attacks.inversion.inverter import Pictures, State
from ironmask.attacks.inversion.library import to_array, to_tensor, torch_library
from ironmask.attacks.inversion.losses import (
    Recogniser,
    cosines,
    pixel_loss,
    seen,
    total_variation,
)
from ironmask.attacks.inversion.settings import Check, Training
from ironmask.errors import MismatchError, ParameterError

torch = torch_library()

# Held-out images that a check looks at.
_MOST_CHECKED: Final = 256
_LEAST_RATE: Final = 0.02


@dataclass
class _Progress:
    """Where a training stands. order: the generator's state as this pass over the images began."""

    seen: int = 0
    cpu_seconds: float = 0.0
    position: int = 0
    best: float = math.inf
    waited: int = 0
    order: Any = None


class Trainer:
    """Trains `net`, templates (k, n) to images (k, 3, side, side) in -1..1, in place.

    embeddings: (k, n) float32 unit rows. people: (k,), numbers from 0. Without a recogniser there
    is no angular loss.
    """

    def __init__(
        self,
        net: Any,
        recogniser: Recogniser | None,
        images: Pictures,
        embeddings: F32,
        people: NDArray[np.intp],
        settings: Training,
        on: Any,
    ) -> None:
        self.net = net.to(on).to(memory_format=torch.channels_last)
        self.curve: list[Check] = []
        self._recogniser, self._images, self._rows = recogniser, images, embeddings
        self._settings, self._on, self._now = settings, on, _Progress()
        weights = [p for p in net.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(weights, lr=settings.rate)
        self._order = torch.Generator().manual_seed(settings.seed)
        self._used, self._held = _split(people, settings.held_out, self._order)
        self._now.order = self._order.get_state()
        self._best = self._weights()

    def run(self, on_check: Callable[[State], None] | None = None) -> None:
        """Train until the budget ends or held-out people gain nothing more.

        The net keeps the weights that were best for held-out people. on_check: gets `state` after
        every check.
        """
        self.net.train()
        losses: list[float] = []
        due = self._now.seen + self._settings.check_every
        began = time.process_time() - self._now.cpu_seconds
        for batch in self._batches():
            losses.append(self._step(batch))
            self._now.cpu_seconds = time.process_time() - began
            if self._now.seen < due and not self._is_over():
                continue
            self._check(float(np.mean(losses)))
            losses, due = [], self._now.seen + self._settings.check_every
            if on_check is not None:
                on_check(self.state())
            if self._is_over():
                break
        self.net.load_state_dict(self._best)
        self.net.eval()

    def _is_over(self) -> bool:
        now, settings = self._now, self._settings
        spent = now.seen >= settings.images or now.cpu_seconds >= settings.cpu_seconds
        return spent or now.waited >= settings.patience

    def _batches(self) -> Iterator[NDArray[np.intp]]:
        """Indices of images, without end unless training is over; each pass in an order of its own.

        The rest of a pass that fills no batch is left out: a batch's statistics need its images.
        """
        size = min(self._settings.batch, len(self._used))
        while not self._is_over():
            self._order.set_state(self._now.order)
            order = torch.randperm(len(self._used), generator=self._order).numpy()
            while self._now.position + size <= len(order):
                part = order[self._now.position : self._now.position + size]
                self._now.position += size
                yield self._used[part]
            self._now.position, self._now.order = 0, self._order.get_state()

    def _step(self, batch: NDArray[np.intp]) -> float:
        for group in self._adam.param_groups:
            group["lr"] = self._settings.rate * self._falling()
        self._adam.zero_grad(set_to_none=True)
        loss, _ = self._loss(batch)
        loss.backward()
        self._adam.step()
        self._now.seen += len(batch)
        return float(loss.detach())

    def _falling(self) -> float:
        now, settings = self._now, self._settings
        done = min(max(now.seen / settings.images, now.cpu_seconds / settings.cpu_seconds), 1.0)
        return max((1 + math.cos(math.pi * done)) / 2, _LEAST_RATE)

    def _loss(self, batch: NDArray[np.intp]) -> tuple[Any, Any | None]:
        """The weighted loss, and cosines where the angular loss is a part of it."""
        settings = self._settings
        templates = torch.from_numpy(self._rows[batch]).to(self._on)
        images = to_tensor(self._images[batch], self._on)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._on.type == "cuda"):
            made = self.net(templates)
            loss = settings.pixel * pixel_loss(made, images)
            if settings.smoothness:
                loss = loss + settings.smoothness * total_variation(made.float())
            if self._recogniser is None or self._now.seen < self._joins_at:
                return loss, None
            found = cosines(self._recogniser(seen(made)), templates)
        return loss + settings.angular * (1 - found).mean(), found

    @property
    def _joins_at(self) -> int:
        """Images after which the angular loss joins; 0 where it does not."""
        never = self._recogniser is None or not self._settings.angular
        return 0 if never else self._settings.pixel_images

    def _check(self, loss: float) -> None:
        held, cosine = self._held_out()
        self.curve.append(Check(self._now.seen, loss, held, cosine))
        # Losses before the angular one joined are no measure of those after it.
        is_other_loss = self._now.seen - self._settings.check_every < self._joins_at
        if math.isnan(held) or held < self._now.best or is_other_loss:
            self._now.best, self._now.waited = held, 0
            self._best = self._weights()
        else:
            self._now.waited += 1

    def _held_out(self) -> tuple[float, float]:
        if not len(self._held):
            return math.nan, math.nan
        self.net.eval()
        losses: list[float] = []
        found: list[float] = []
        with torch.no_grad():
            for at in range(0, len(self._held), self._settings.batch):
                batch = self._held[at : at + self._settings.batch]
                loss, cosine = self._loss(batch)
                losses.append(float(loss) * len(batch))
                found += [math.nan] if cosine is None else cosine.tolist()
        self.net.train()
        return sum(losses) / len(self._held), float(np.mean(found))

    def _weights(self) -> dict[str, Any]:
        return {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def state(self) -> State:
        """A checkpoint: weights, the best ones, the optimiser, the order of images, the curve."""
        now = self._now
        found = {f"net/{name}": to_array(value) for name, value in self.net.state_dict().items()}
        found |= {f"best/{name}": to_array(value) for name, value in self._best.items()}
        for place, kept in self._adam.state_dict()["state"].items():
            found |= {f"adam/{place}/{name}": to_array(value) for name, value in kept.items()}
        found["counts"] = np.array([now.seen, now.position, now.waited])
        found["sums"] = np.array([now.cpu_seconds, now.best])
        found["order"] = to_array(now.order)
        points = [(c.images, c.loss, c.held_out, c.cosine) for c in self.curve]
        found["curve"] = np.array(points, dtype=np.float64).reshape(-1, 4)
        return found

    def resume(self, state: State) -> None:
        """Go on from a checkpoint of the same net, images and settings.

        Raises `MismatchError` for one of another net.
        """
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        try:
            self.net.load_state_dict(_below(tensors, "net/"))
            self._best = {k: v.to(self._on) for k, v in _below(tensors, "best/").items()}
            kept: dict[int, dict[str, Any]] = {}
            for name, value in _below(tensors, "adam/").items():
                place, _, what = name.partition("/")
                kept.setdefault(int(place), {})[what] = value
            groups = self._adam.state_dict()["param_groups"]
            self._adam.load_state_dict({"state": kept, "param_groups": groups})
            seen_, position, waited = (int(v) for v in state["counts"])
            spent, best = (float(v) for v in state["sums"])
            order = tensors["order"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise MismatchError("a checkpoint of another network: begin anew") from error
        self._now = _Progress(seen_, spent, position, best, waited, order)
        self.curve = [Check(int(row[0]), *map(float, row[1:])) for row in state["curve"]]


def _below(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not found:
        raise KeyError(prefix)
    return found


def _split(
    people: NDArray[np.intp], share: float, order: Any
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of images to train on, and of some images of people held out, drawn by people."""
    count = int(people.max()) + 1 if len(people) else 0
    held = torch.randperm(count, generator=order).numpy()[: round(share * count)]
    is_held = np.isin(people, held)
    used = np.flatnonzero(~is_held)
    if len(used) < 2:
        raise ParameterError(f"{len(used)} images to train on: at least two are needed")
    rest = np.flatnonzero(is_held)
    step = max(1, -(-len(rest) // _MOST_CHECKED))
    return used, rest[::step]
