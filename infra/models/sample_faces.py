"""Real photographs to try the software on: five people, eleven photos each.

They lie among the examples of dlib's source archive, which any package index has. Only the photos
are taken out; dlib itself is not installed.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

from infra.models.pip_download import pip_download
from ironmask.errors import ModelDownloadError, SourceError

_REQUIREMENT: Final = "dlib==19.5.0"
_SHA256: Final = "b5896c7a51992441eac605395e07f2b31548376cadc1f392d93f69c821e6552e"
_FOLDER: Final = PurePosixPath("dlib-19.5.0/docs/docs/cache/examples/johns")


def fetch_sample_faces(folder: Path) -> dict[str, list[Path]]:
    """Put the photos into `folder/<person>/` unless they are there; return them by person, sorted.

    Raise `SourceError` where the archive cannot be fetched.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ironmask-faces-", dir=folder.parent) as work:
            try:
                archive = pip_download(_REQUIREMENT, _SHA256, Path(work), "source")
            except ModelDownloadError as error:
                raise SourceError(f"no sample faces: {error}") from None
            photos = Path(work) / "photos"
            _extract(archive, photos)
            photos.rename(folder)
    people = sorted(path for path in folder.iterdir() if path.is_dir())
    return {person.name: sorted(person.glob("*.jpg")) for person in people}


def _extract(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as content:
        for member in content:
            path = PurePosixPath(member.name)
            if member.isfile() and path.parent.parent == _FOLDER and path.suffix == ".jpg":
                source = content.extractfile(member)
                if source is None:
                    continue
                target = into / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
