"""The stored embeddings of all of LFW, and which of its labels are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pipelines.preflight.profile import Photos
from support.shared import SHARED

EMBEDDINGS = SHARED / "faces" / "lfw_w600k_mbf_embeddings.npz"
_NOISE = SHARED / "faces" / "lfw_label_noise.txt"
# Twins look alike to everybody; John Gruden is Jon Gruden.
_TWINS = r"_(Moraes|Mowry|Hentzen)$|^(Ashley|Mary-Kate)_Olsen$|^John_Gruden$"


def photos() -> Photos:
    """All photos but those of wrong labels, in the order of their names."""
    names, vectors = _stored()
    owners = np.array([name.rpartition("_")[0] for name in names])
    left_out = np.array(exclusions())
    kept = ~(np.isin(names, left_out) | np.isin(owners, left_out))
    order = np.flatnonzero(kept)[np.argsort(names[kept], kind="stable")]
    return Photos(vectors[order], owners[order])


def exclusions() -> list[str]:
    """Images with a wrong label, twins, and of two names of one person the one with fewer photos:
    what `ironmask evaluate --exclude` takes.
    """
    wrong, _, double = _NOISE.read_text().partition("# and these label pairs")
    found = set(re.findall(r"[\w-]+_\d{4}", wrong))
    people, counts = np.unique(
        [name.rpartition("_")[0] for name in _stored()[0]], return_counts=True
    )
    number = dict(zip(people.tolist(), counts.tolist(), strict=True))
    for one, other in re.findall(r"([\w-]+)=([\w-]+)", double):
        found.add(min(one, other, key=lambda name: number.get(name, 1)))
    return sorted(found | {name for name in number if re.search(_TWINS, name)})


def _stored() -> tuple[np.ndarray, np.ndarray]:
    """Names of all photos and their embeddings, (k, 512) float32."""
    content = np.load(EMBEDDINGS)
    return np.array([Path(path).stem for path in content["path"].tolist()]), content["emb"]
