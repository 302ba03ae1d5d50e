"""Aligned crops of all photos of LFW, and people to train on and to test."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ironmask.arrays import F32, U8
from support import lfw
from support.shared import SHARED

ARCHIVE = SHARED / "faces" / "lfw_crops_112.zip"


class Split(NamedTuple):
    """names: of photos, as `Name/Name_0001`. people: (k,), theirs. embeddings: (k, 512) float32, of
    w600k_mbf, raw.
    """

    names: list[str]
    people: np.ndarray
    embeddings: F32

    def where(self, chosen: np.ndarray) -> Split:
        at = np.flatnonzero(chosen)
        return Split([self.names[i] for i in at], self.people[at], self.embeddings[at])


def photos() -> Split:
    """All photos but those of wrong labels, in the order of their names."""
    content = np.load(lfw.EMBEDDINGS)
    names = np.array([path.removesuffix(".jpg") for path in content["path"].tolist()])
    owners = np.array([name.split("/")[0] for name in names])
    out = np.array(lfw.exclusions())
    stems = np.array([name.split("/")[1] for name in names])
    kept = np.flatnonzero(~(np.isin(stems, out) | np.isin(owners, out)))
    order = kept[np.argsort(names[kept], kind="stable")]
    return Split(names[order].tolist(), owners[order], content["emb"][order])


def split(test_people: int, seed: int = 0) -> tuple[Split, Split]:
    """Photos of people to train on, and of people to test."""
    everybody = photos()
    people = np.unique(everybody.people)
    tested = np.random.default_rng(seed).permutation(people)[:test_people]
    is_tested = np.isin(everybody.people, tested)
    return everybody.where(~is_tested), everybody.where(is_tested)


def crops(names: Sequence[str]) -> U8:
    """(k, 112, 112, 3) uint8 RGB."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        found = [archive.read(f"{name}.jpg") for name in names]
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in found])


def write_crops(path: Path, people: Sequence[str], each: int) -> Path:
    """The first crops of some people in a zip file of their own."""
    with zipfile.ZipFile(ARCHIVE) as archive, zipfile.ZipFile(path, "w") as copy:
        every = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for person in people:
            for name in [name for name in every if name.split("/")[0] == person][:each]:
                copy.writestr(name, archive.read(name))
    return path


def two_photos(people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first and the second photo of each person who has two or more."""
    first = np.flatnonzero(np.append(True, people[1:] != people[:-1]))
    more = first[np.append(np.diff(first), len(people) - first[-1]) > 1]
    return more, more + 1
