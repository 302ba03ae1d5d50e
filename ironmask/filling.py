"""Filling: fresh noise in the directions that a model's embeddings leave empty.

It protects against the search of one stolen row (`ironmask.attacks.subspace`). A filled template
uses the whole space, so the equations that its codeword had to satisfy are gone. Probes stay as
they are: a genuine one only comes further away, by the factor sqrt(1 - r) in its cosine. The noise
is drawn at enrolment and forgotten. Two issues with independent noise can still be broken together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ironmask.arrays import F64
from ironmask.errors import ParameterError, TemplateError
from ironmask.spectrum import Spectrum


@dataclass(frozen=True)
class Filling:
    """Where noise goes, and how much.

    directions: (n, d) float64, orthonormal columns: the directions that embeddings use least.
    share: r, the noise's part of the energy, in (0, 1).
    """

    directions: F64 = field(repr=False)
    share: float

    def __post_init__(self) -> None:
        n, d = self.directions.shape
        if not 0 < d < n:
            raise ParameterError(f"noise in {d} of {n} directions: at least one, and not in all")
        if not 0 < self.share < 1:
            raise ParameterError(f"a share of {self.share} of noise: it must lie between 0 and 1")

    @classmethod
    def of(cls, space: Spectrum, share: float, count: int | None = None) -> Filling:
        """Noise in the weakest `count` directions of embeddings; see `Spectrum.weakest`."""
        first = space.n - (count or space.weakest())
        return cls(np.ascontiguousarray(space.directions[:, first:]), share)

    def filled(self, templates: F64, rng: np.random.Generator) -> F64:
        """Return sqrt(1 - r) s + sqrt(r) g for each template, (k, n) unit rows: (k, n) unit rows.

        s: the part of the template outside the filled directions, at unit length. g: uniform on the
        unit sphere of these directions. Raises `TemplateError` with reason `zero_norm` for a
        template that lies in these directions alone.
        """
        inside = templates @ self.directions
        strong = templates - inside @ self.directions.T
        length = np.linalg.norm(strong, axis=1, keepdims=True)
        if (length < np.finfo(np.float32).eps).any():
            raise TemplateError("zero_norm", "a template lies in the directions that are filled")
        noise = rng.standard_normal(inside.shape)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        mixed: F64 = np.sqrt(1 - self.share) * strong / length
        mixed += np.sqrt(self.share) * (noise @ self.directions.T)
        return mixed

    def spectrum(self, space: Spectrum) -> Spectrum:
        """The spectrum of a model's embeddings after they were filled."""
        w = self.directions
        outside = np.eye(space.n) - w @ w.T
        strong = outside @ space.moments @ outside
        moments = (1 - self.share) * space.count * strong / np.trace(strong)
        moments += self.share * space.count * (w @ w.T) / w.shape[1]
        return Spectrum(space.count, moments)
