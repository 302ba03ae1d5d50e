"""Addresses as people write them: what one means, and whether it carries a secret."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from ironmask.errors import ParameterError

S3: Final = "s3://"
REMOVED: Final = "<removed>"
_BUCKET: Final = re.compile("[A-Za-z0-9._-]{1,255}")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):(?=//)|(data|file):", re.IGNORECASE)
# Of a path or a key, `?` may be a part; these are what presigned addresses call their secrets.
_SECRET: Final = re.compile(
    r"(?<![a-z0-9])(x-(?:amz|goog|oss|obs)-[a-z-]+|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|[a-z_-]*(?:signature|token|secret|password|passwd|api_?key|access_?key)|expires|sig|pwd)=",
    re.IGNORECASE,
)
_ROW: Final = re.compile("(.*?#row=[0-9]+)&image=(.*)", re.DOTALL)
_IN_TEXT: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_VALUE: Final = re.compile(rf"{_SECRET.pattern}[^\s&;'\"<>]*", re.IGNORECASE)


class AddressError(ValueError):
    """An address that no input can have. Its text says why, and quotes no secret."""


def has_secret(address: str) -> bool:
    """Tell whether an address carries credentials: a signed query, or a user before the host.

    A path and an `s3://` key may hold any sign, so there a query is one by its names; elsewhere any
    query is.
    """
    return _scheme(address).lower() != "data:" and shown(address) != address


def shown(address: str) -> str:
    """An address that may be stored, logged and printed: without a user, a query or data."""
    scheme = _scheme(address)
    rest = address[len(scheme) :]
    if scheme.lower() == "data:":
        return scheme + REMOVED
    if scheme.endswith("://"):
        rest = _without_user(rest)
    start = _query(scheme, rest)
    return scheme + rest if start is None else f"{scheme}{rest[:start]}{REMOVED}"


def row_address(source: str, row: int, image: str = "") -> str:
    """The address of a row of stored embeddings, `SRC#row=17`, with the name of its image after it
    where there is one, `SRC#row=17&image=Ann/1.jpg`.
    """
    return f"{source}#row={row}" + (f"&image={shown(image)}" if image else "")


def row_and_image(address: str) -> tuple[str, str]:
    """The address of a row without the name of its image, and the name; of other addresses none."""
    found = _ROW.fullmatch(address)
    return (found[1], found[2]) if found else (address, "")


def without_secret(address: str, what: str = "the address") -> str:
    """The address itself. Raises `ParameterError` for one that carries credentials."""
    if not has_secret(address):
        return address
    raise ParameterError(
        f"{shown(address)}: {what} carries credentials, which would be stored and shown: leave "
        "them out, and give them in the environment"
    )


def scrubbed(text: str) -> str:
    """A text, such as a library's error, without the secrets of the addresses in it."""
    text = _IN_TEXT.sub(lambda found: shown(found[0]), text)
    return _VALUE.sub(lambda found: f"{found[1]}={REMOVED}", text)


def resolved(address: str, base: str) -> str:
    """What a manifest's row names: a path, or `s3://bucket/key`, without `.` and `..`.

    base: folder of the manifest, where relative addresses start, in a bucket as on a disk. `file:`
    addresses are decoded, paths and keys are taken as they are. Raises `AddressError`.
    """
    if "\0" in address:
        raise AddressError("a NUL character is in the address")
    scheme = _scheme(address).lower()
    if scheme in ("file:", "file://"):
        return _local(_of_file(address[len(scheme) :], scheme))
    if scheme == S3:
        return _key(address[len(S3) :])
    if scheme:
        raise AddressError(f"only local paths, file: and s3:// addresses are read, not {scheme}")
    if address.startswith("/"):
        return _local(address)
    if base.startswith(S3):
        parts = [base.removeprefix(S3), *(part for part in address.split("/") if part)]
        return _key("/".join(parts))
    return _local(f"{base}/{address}")


def check_bucket(name: str) -> None:
    """Raise `AddressError` for a name that no bucket can have."""
    if not name:
        raise AddressError("it names no bucket: s3://bucket/key")
    if not _BUCKET.fullmatch(name):
        raise AddressError(
            "no bucket has such a name: letters, digits, dots, hyphens and underscores"
        )


def _scheme(address: str) -> str:
    """`s3://`, `file:` and the like at the start of an address; empty for a path."""
    found = _SCHEME.match(address)
    if not found:
        return ""
    return f"{found[0]}//" if found[1] else found[0]


def _without_user(rest: str) -> str:
    """What follows `scheme://`, without `user:password@`, whose password may hold a slash."""
    host, slash, path = rest.partition("/")
    if "@" in host:
        return host.rpartition("@")[2] + slash + path
    _, colon, port = host.partition(":")
    _, at, after = path.rpartition("@")
    if colon and at and not re.fullmatch("[0-9]*", port):
        return after
    return rest


def _query(scheme: str, rest: str) -> int | None:
    """Where the part of an address begins that must not be shown."""
    if scheme.endswith("://") and scheme.lower() not in (S3, "file://"):
        found = re.search(r"[?#;]", rest)
        return found.end() if found and rest[found.end() :] != REMOVED else None
    for found in re.finditer(r"[?#&;]|%3f|%26", rest, re.IGNORECASE):
        if _SECRET.search(unquote(rest[found.end() :])):
            return found.end()
    return None


def _of_file(rest: str, scheme: str) -> str:
    """The path of a `file:` address, RFC 8089: of this machine, percent-decoded."""
    if scheme == "file://":
        host, slash, path = rest.partition("/")
        if host.lower() not in ("", "localhost"):
            raise AddressError(f"a file: address of another machine, {host}")
        rest = slash + path
    try:
        path = unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        raise AddressError("what its % signs stand for is not UTF-8") from None
    if "\0" in path or not path.startswith("/"):
        raise AddressError("a file: address is file:///folder/name")
    return path


def _local(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _key(rest: str) -> str:
    """The address of `bucket/key`: dots mean what they do in a path, empty parts are parts."""
    bucket, _, key = rest.partition("/")
    check_bucket(bucket)
    parts: list[str] = []
    for part in key.split("/"):
        if part == ".." and not parts:
            raise AddressError("its .. lead out of the bucket")
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    if not any(parts):
        raise AddressError("it names a bucket and no key in it")
    return f"{S3}{bucket}/{'/'.join(parts)}"
