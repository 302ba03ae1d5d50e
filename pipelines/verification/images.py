"""Images to verify, as callers give them, and their contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infra.store.addresses import normalise
from pipelines.ports import Store


@dataclass(frozen=True)
class Resolved:
    """A full address that is read as it stands, as a row of a manifest resolves to it."""

    uri: str


Image = str | tuple[str, bytes] | Resolved
"""An address, or a name and the content itself, or an address that is resolved already."""


def name_of(image: Image) -> str:
    """What an answer calls an image."""
    if isinstance(image, Resolved):
        return image.uri
    return image if isinstance(image, str) else image[0]


def contents(images: Sequence[Image], store: Store, limit: int) -> Iterator[tuple[str, bytes]]:
    """The names and contents of images, in order.

    limit: bytes that a file may have. Raises `StorageError` for one that cannot be read.
    """
    for image in images:
        content = image[1] if isinstance(image, tuple) else store.read(_address(image), limit)
        yield name_of(image), content


def contents_or_faults(
    images: Sequence[Image], store: Store, limit: int, home: str
) -> Iterator[tuple[str, bytes | OSError]]:
    """The same, read side by side: one that is at fault comes as its error.

    home: see `Store.read_many`. Raises `StorageError` where the store is at fault.
    """
    addresses = [_address(image) for image in images if not isinstance(image, tuple)]
    read = store.read_many(addresses, limit, home)
    for image in images:
        yield name_of(image), image[1] if isinstance(image, tuple) else next(read)


def _address(image: str | Resolved) -> str:
    return image.uri if isinstance(image, Resolved) else normalise(image)
