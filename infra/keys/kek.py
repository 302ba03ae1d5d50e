"""Key-encryption keys (KEK): in the keyset file, or in a key service through Tink's clients.

A service's key wraps by envelope: it encrypts a fresh AES-256-GCM key, which encrypts the keyset.
So one call to the service is enough. The keyset is bound to its associated data even if the service
takes none (Vault's does not).
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import tink
from tink import (
    KeysetHandle,
    TinkError,
    aead,
    json_proto_keyset_format,
    new_keyset_handle,
    proto_keyset_format,
    secret_key_access,
)

from ironmask.errors import KeyFileError, KeyStoreError, WrongKeyError
from pipelines.spec.addresses import shown

LOCAL: Final = "local:"
# Errors with which the services say that another key made a ciphertext.
_FOREIGN: Final = frozenset(
    {
        "DecodeError",
        "IncorrectKeyException",
        "InvalidArgument",
        "InvalidCiphertextException",
        "InvalidRequest",
        "PythonTinkException",
    }
)

aead.register()


class ProcessBound:
    """Base of objects that hold keys: they cannot be pickled, copied or printed."""

    __slots__ = ()

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds keys and cannot be copied or pickled")

    def __reduce__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__reduce_ex__(2)


class Kek(ProcessBound):
    """Encrypts keysets, bound to associated data."""

    __slots__ = ("__aead", "uri")

    def __init__(self, uri: str, primitive: aead.Aead) -> None:
        self.uri = uri
        self.__aead = primitive

    def __repr__(self) -> str:
        return f"Kek(uri={shown(self.uri)!r})"

    def wrap(self, keyset: KeysetHandle, bound: bytes) -> str:
        """Encrypt a keyset to base64 text. Raises `KeyStoreError` where the service refuses."""
        try:
            data: bytes = proto_keyset_format.serialize_encrypted(keyset, self.__aead, bound)
        except Exception as error:  # noqa: BLE001
            raise _unavailable(self.uri, error) from None
        return base64.b64encode(data).decode("ascii")

    def try_out(self) -> None:
        """Raise `KeyStoreError` where it cannot wrap a keyset, or cannot unwrap its own result."""
        bound = b"ironmask tries a key-encryption key"
        self.unwrap(self.wrap(new_keyset_handle(aead.aead_key_templates.AES256_GCM), bound), bound)

    def unwrap(self, text: str, bound: bytes) -> KeysetHandle:
        """Decrypt a keyset.

        Raises `WrongKeyError` where it was changed, is bound to something else or was wrapped by
        another KEK; `KeyStoreError` where the service does not answer or refuses.
        """
        foreign = WrongKeyError(
            f"a wrapped keyset does not open with {shown(self.uri)}: it was changed, it belongs to "
            "another table or generation, or its key-encryption key is another one"
        )
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            raise foreign from None
        try:
            return proto_keyset_format.parse_encrypted(data, self.__aead, bound)
        except Exception as error:  # noqa: BLE001
            if _is_foreign(error):
                raise foreign from None
            raise _unavailable(self.uri, error) from None


def local_keyset() -> str:
    """A fresh AES-256-GCM keyset as cleartext JSON, for a file that only its owner can read."""
    handle = new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    text: str = json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    return text


def resolve(uri: str, keyset: str | None) -> Kek:
    """Find the KEK of an address: the local keyset, or a key service's key.

    A client registered with `tink.register_kms_client` comes before the built-in ones. Raises
    `KeyFileError` for a damaged local keyset, `KeyStoreError` where a service cannot serve.
    """
    if uri == LOCAL:
        return Kek(uri, _local(keyset))
    try:
        remote = _remote(uri)
        return Kek(uri, aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, remote))
    except KeyStoreError:
        raise
    except Exception as error:  # noqa: BLE001
        raise _unavailable(uri, error) from None


def _local(keyset: str | None) -> aead.Aead:
    try:
        handle = json_proto_keyset_format.parse(keyset or "", secret_key_access.TOKEN)
        return handle.primitive(aead.Aead)
    except (TinkError, ValueError):
        raise KeyFileError(
            "the keyset file's key-encryption key is damaged: restore the file from a backup"
        ) from None


def _remote(uri: str) -> aead.Aead:
    try:
        client = tink.kms_client_from_uri(uri)
    except TinkError:
        client = None
    if client is not None:
        return client.get_aead(uri)
    for prefix, (connect, extra) in _SERVICES.items():
        if uri.startswith(prefix):
            try:
                return connect(uri)
            except ImportError:
                raise KeyStoreError(
                    f"{shown(uri)} needs the client of its service: install ironmask[{extra}]"
                ) from None
    known = ", ".join([LOCAL, *_SERVICES])
    raise KeyStoreError(f"unknown key-encryption key {shown(uri)}: addresses start with {known}")


def _aws(uri: str) -> aead.Aead:
    module = importlib.import_module("tink.integration.awskms")
    return module.AwsKmsClient(uri, None).get_aead(uri)


def _gcp(uri: str) -> aead.Aead:
    module = importlib.import_module("tink.integration.gcpkms")
    return module.GcpKmsClient(uri, None).get_aead(uri)


def _vault(uri: str) -> aead.Aead:
    """`hcvault://host:port/transit/keys/name`. No host: `VAULT_ADDR`. Token: the usual sources."""
    module = importlib.import_module("tink.integration.hcvault")
    address = urlsplit(uri)
    hvac = importlib.import_module("hvac")
    client = hvac.Client(url=f"https://{address.netloc}" if address.netloc else None)
    return module.new_aead(address.path, client)


# Prefix of a KEK's address: the function that connects, and the extra that installs its client.
_SERVICES: Final[dict[str, tuple[Callable[[str], aead.Aead], str]]] = {
    "aws-kms://": (_aws, "aws"),
    "gcp-kms://": (_gcp, "gcp"),
    "hcvault://": (_vault, "vault"),
}


def _is_foreign(error: Exception) -> bool:
    """Tell a ciphertext of another key from a service that did not answer."""
    if not isinstance(error, TinkError):
        return False
    cause = error.args[0] if error.args else None
    if not isinstance(cause, Exception):
        return True
    answer = getattr(cause, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return bool(_FOREIGN & {str(code), type(cause).__name__})


def _unavailable(uri: str, error: Exception) -> KeyStoreError:
    # Name the error's kind only: its text may quote a request.
    cause = error.args[0] if isinstance(error, TinkError) and error.args else error
    kind = type(cause).__name__ if isinstance(cause, Exception) else "TinkError"
    return KeyStoreError(
        f"the key service of {shown(uri)} did not serve ({kind}): check that it can be reached, "
        "and that the credentials of this process may encrypt and decrypt with the key"
    )
