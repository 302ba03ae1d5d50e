"""Plain files as objects. A write goes to a temporary name first, so that it appears whole."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from infra.store.errors import NotRegularError
from ironmask.errors import StorageError
from pipelines.ports import Entry
from pipelines.table.layout import partial_file

_SCHEME: Final = "file://"
_PAGE: Final = mmap.PAGESIZE
_BLOCK: Final = 8 << 20
_PAGE_NAMES: Final = 1000
_LARGE: Final = 4 << 20
_KERNEL_SYSTEMS: Final = frozenset(
    {
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "efivarfs",
        "mqueue",
        "proc",
        "pstore",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    }
)


class LocalFiles:
    """The part of `infra.store.objects.FsspecStore` for local paths; raises `OSError`.

    Names are UTF-8. Raises `StorageError` where the process's locale reads them differently.
    """

    def __init__(self) -> None:
        if (coding := sys.getfilesystemencoding()) != "utf-8":
            raise StorageError(
                f"this process takes names of files for {coding}: start it with PYTHONUTF8=1"
            )

    def exists(self, uri: str) -> bool:
        return os.path.exists(_path(uri))

    def is_dir(self, uri: str) -> bool:
        return os.path.isdir(_path(uri))

    def size(self, uri: str) -> int:
        return os.path.getsize(_path(uri))

    def version(self, uri: str) -> str:
        found = os.stat(_path(uri))
        return f"{found.st_size} bytes, {found.st_mtime_ns} ns"

    def open(self, uri: str) -> BinaryIO:
        return open_regular(_path(uri))

    def resolve(self, uri: str) -> str:
        return os.path.realpath(_path(uri))

    def read(self, uri: str, limit: int | None) -> bytes:
        with self.open(uri) as handle:
            data = handle.read() if limit is None else handle.read(limit + 1)
        if limit is not None and len(data) > limit:
            raise OSError(errno.EFBIG, "too large")
        return data

    def part(self, uri: str, start: int, end: int) -> bytes:
        with self.open(uri) as handle:
            handle.seek(start)
            return handle.read(end - start)

    def after(self, uri: str, name: str) -> list[str]:
        first = os.fsencode(name)
        try:
            found = [item for item in os.listdir(_path(uri)) if os.fsencode(item) > first]
        except FileNotFoundError:
            return []
        return sorted(found, key=os.fsencode)[:_PAGE_NAMES]

    def children(self, uri: str) -> Iterator[str]:
        for item in _scan(_path(uri)):
            if _is_folder(item):
                yield item.path

    def entries(self, uri: str, recursive: bool) -> Iterator[Entry]:
        yield from _walk(_path(uri), recursive, frozenset())

    def items(self, uri: str, recursive: bool) -> Iterator[Entry]:
        yield from _items(_path(uri), recursive)

    def write(self, uri: str, data: bytes | memoryview) -> None:
        path = _path(uri)
        temporary = _temporary(path, data)
        try:
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        _sync_folder(path)

    def create(self, uri: str, data: bytes) -> bool:
        path = _path(uri)
        temporary = _temporary(path, data)
        try:
            # A link appears whole, and never replaces another file.
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        _sync_folder(path)
        return True

    def delete(self, uri: str) -> None:
        Path(_path(uri)).unlink(missing_ok=True)

    def remains(self, uri: str) -> Iterator[str]:
        yield from (entry.uri for entry in self.entries(uri, recursive=True))

    def abort_uploads(self, uri: str) -> int:  # noqa: ARG002 - a local write leaves no upload
        return 0


def why_unwritable(path: str) -> str:
    """Why this user cannot make a path or write into it: the place, in the system's words.

    Empty if the user can.
    """
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        return f"{there}: {os.strerror(errno.ENOTDIR)}"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there}: {os.strerror(errno.EROFS)}"
    may = os.access(there, os.W_OK | os.X_OK)
    return "" if may else f"{there}: {os.strerror(errno.EACCES)}"


def open_regular(path: str) -> BinaryIO:
    """Open a regular file to read it. Raises `NotRegularError` for anything else, without waiting.

    Opening a pipe would wait for a writer, and opening a device may start it; neither need ever
    end. A regular file may also be replaced by one of them before it is opened.
    """
    _refuse_irregular(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _refuse_irregular(os.fstat(descriptor))
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_irregular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise NotRegularError(errno.EISDIR, "it is a folder, no regular file")
    if not stat.S_ISREG(found.st_mode) or found.st_dev in _kernel_devices():
        raise NotRegularError(errno.ENXIO, "it is no regular file")


@lru_cache(maxsize=1)
def _kernel_devices() -> frozenset[int]:
    """Devices of file systems whose files the kernel makes when they are read, such as /proc."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:  # no Linux
        return frozenset()
    found = set()
    for line in lines:
        left, _, right = line.partition(" - ")
        if right.split(" ")[0] in _KERNEL_SYSTEMS:
            major, minor = left.split(" ")[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def _path(uri: str) -> str:
    if "\0" in uri:
        raise OSError(errno.EINVAL, "a NUL character is in the name")
    return os.path.abspath(uri.removeprefix(_SCHEME))


def _scan(path: str) -> Iterator[os.DirEntry[str]]:
    """A folder's items in the byte order of their addresses; a folder's address ends in a slash.

    Names that are not UTF-8 come as the system gives them, with surrogate escapes.
    """
    if not os.path.isdir(path):
        return iter([])
    with os.scandir(path) as items:
        return _emptied(sorted(items, key=_address, reverse=True))


def _address(item: os.DirEntry[str]) -> bytes:
    return os.fsencode(item.name + "/" * _is_folder(item))


def _emptied(items: list[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    """The items from the last one on. Each keeps what it was asked for, so none is held longer."""
    while items:
        yield items.pop()


def _walk(path: str, recursive: bool, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    """Walk a folder. above: the folders on the way here; a link to one of them ends the walk."""
    for item in _scan(path):
        if not _is_folder(item):
            # Pipes and devices are no objects. A dangling link is an object that cannot be read.
            if item.is_symlink() or item.is_file():
                yield _entry(item)
        elif recursive:
            found = item.stat()
            here = (found.st_dev, found.st_ino)
            if here not in above:
                yield from _walk(item.path, recursive, above | {here})


def _items(path: str, recursive: bool) -> Iterator[Entry]:
    try:
        found = _scan(path)
    except PermissionError:
        yield Entry(path, 0, unlisted=True)
        return
    for item in found:
        if not _is_folder(item):
            yield _entry(item)
        elif recursive and item.is_symlink():
            yield Entry(item.path, 0, is_link=True)
        elif recursive:
            yield from _items(item.path, recursive)


def _entry(item: os.DirEntry[str]) -> Entry:
    size = item.stat(follow_symlinks=not _dangles(item)).st_size
    return Entry(item.path, size, is_link=item.is_symlink())


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def _dangles(item: os.DirEntry[str]) -> bool:
    return item.is_symlink() and not os.path.exists(item.path)


def _temporary(path: str, data: bytes | memoryview) -> str:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, partial_file(secrets.token_hex(8)))
    try:
        if len(data) < _LARGE or not _write_directly(temporary, memoryview(data).cast("B")):
            with open(temporary, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return temporary


def _write_directly(path: str, data: memoryview) -> bool:
    """Write a new file without the page cache, whose pages cost more than all other work.

    Returns False where the file system does not allow this; then nothing was written.
    """
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o666)
        for part in _aligned(data):
            _write_all(descriptor, part)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def _aligned(data: memoryview) -> Iterator[memoryview]:
    """The data in whole, page-aligned pages, as the device needs them. The end is padded."""
    address = np.frombuffer(data, dtype=np.uint8).ctypes.data
    ready = 0 if address % _PAGE else len(data) - len(data) % _PAGE
    if ready:
        yield data[:ready]
    view = memoryview(mmap.mmap(-1, _BLOCK))
    for start in range(ready, len(data), _BLOCK):
        part = data[start : start + _BLOCK]
        end = -(-len(part) // _PAGE) * _PAGE
        view[: len(part)] = part
        view[len(part) : end] = bytes(end - len(part))
        yield view[:end]


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
