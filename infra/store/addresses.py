"""Addresses of local files and of objects in buckets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from ironmask.errors import StorageError
from pipelines.spec.addresses import S3, AddressError, check_bucket, resolved, without_secret

_NO_TABLE: Final = re.compile(r"%[0-9A-Fa-f]{2}|[][^|\\]")


def is_s3(uri: str) -> bool:
    """Tell whether an address is of an object store."""
    return uri.startswith(S3)


def bucket_of(uri: str) -> str:
    """The bucket of an address; empty for a local one."""
    return uri.removeprefix(S3).partition("/")[0] if is_s3(uri) else ""


def is_text(name: str) -> bool:
    """Tell whether a name can be written as UTF-8; a shell may pass on any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalise(uri: str) -> str:
    """A full address without a trailing slash, with `~` and relative local paths resolved.

    `file:` addresses are decoded. Raises `ParameterError` for an address with credentials,
    `StorageError` for an invalid one.
    """
    without_secret(uri)
    if is_s3(uri):
        bucket, _, key = uri.removeprefix(S3).partition("/")
        with _refused(uri):
            check_bucket(bucket)
        if {"", ".", ".."} & set(key.rstrip("/").split("/")) and key:
            raise StorageError(f"{uri!r}: a part of its key is empty or dots: write it without")
        return uri.rstrip("/")
    if not is_text(uri):
        raise StorageError(f"{uri!r} is no address: it is not UTF-8; rename it")
    if uri.lower().startswith("file:"):
        with _refused(uri):
            return resolved(uri, "/")
    if "://" in uri:
        raise StorageError(f"{uri}: only local paths, file: and s3:// addresses are known")
    return os.path.abspath(os.path.expanduser(uri))


@contextmanager
def _refused(uri: str) -> Iterator[None]:
    """Turn the error of an invalid address into a `StorageError` that quotes it."""
    try:
        yield
    except AddressError as error:
        raise StorageError(f"{uri!r}: {error}") from None


def table_address(uri: str) -> str:
    """`normalise` for the address of a table. Raises `StorageError` if no table can have it.

    Readers of Delta tables treat addresses as URLs and patterns.
    """
    full = normalise(uri)
    bad = {c for c in full if not c.isprintable()} | set(_NO_TABLE.findall(full))
    if bad and not is_s3(full):
        shown = " ".join(repr(text) for text in sorted(bad))
        raise StorageError(f"{full!r} cannot be a table's address for its {shown}: choose another")
    where = full
    while not is_s3(full) and not os.path.lexists(where):
        where = os.path.dirname(where)
    if not is_s3(full) and not os.path.isdir(where):
        raise StorageError(f"{full} holds no table: {where} is a file; enrol into a folder")
    return full


def allowed(roots: Iterable[str]) -> tuple[str, ...]:
    """Folders and prefixes that inputs may lie in: full addresses, in order, each once."""
    return tuple(sorted({normalise(root) for root in roots}))


def is_inside(inner: str, outer: str) -> bool:
    """Tell whether an address is another one or lies below it; links are followed."""
    if is_s3(inner) != is_s3(outer):
        return False
    if not is_s3(inner):
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")
