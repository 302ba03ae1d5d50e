"""Settings from the environment and from a file.

Fields are read from `IRONMASK_<FIELD>`, those of the object store from `IRONMASK_S3_<FIELD>`. Both
are also read from a TOML file: `ironmask.toml` in the working folder, or the file that
`IRONMASK_CONFIG` names. Its `[s3]` table holds the object store's fields. The environment wins.
Missing credentials come from the usual AWS chain (environment, profile, instance role).
"""

from __future__ import annotations

import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ironmask.errors import ParameterError
from pipelines.spec.addresses import has_secret


class StorageSettings(BaseSettings):
    """How to reach an S3-compatible store. One object configures every client.

    endpoint: address of the service; None means Amazon's. ca_bundle: PEM file of the authorities
    that check its certificate; deltalake takes them from `SSL_CERT_FILE` instead. allow_http:
    permit an endpoint without TLS, where anyone on the network path can read the stored data.
    """

    model_config = SettingsConfigDict(
        env_prefix="IRONMASK_S3_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    endpoint: str | None = None
    region: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    path_style: bool = True
    ca_bundle: Path | None = None
    allow_http: bool = False

    @model_validator(mode="after")
    def _usable(self) -> StorageSettings:
        scheme, mark, host = (self.endpoint or "https://amazon").partition("://")
        if scheme not in ("http", "https") or not mark or not host:
            raise ValueError("endpoint: give an address such as https://host:port")
        if self.endpoint and has_secret(self.endpoint):
            raise ValueError(
                "endpoint: it carries credentials; give them as access_key and secret_key"
            )
        if scheme == "http" and not self.allow_http:
            raise ValueError(
                "endpoint: http:// is not encrypted; use https://, or set allow_http "
                "(IRONMASK_S3_ALLOW_HTTP=true) where the network is trusted"
            )
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key: give both, or neither")
        return self

    def public(self) -> tuple[tuple[str, Any], ...]:
        """The settings that may travel to workers; these find credentials in their environment."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return tuple((k, v) for k, v in values if v is not None and not isinstance(v, SecretStr))

    def export(self) -> None:
        """Put the secrets into the environment, where this machine's workers find them."""
        for name in ("access_key", "secret_key", "session_token"):
            value = _plain(getattr(self, name))
            if value is not None:
                os.environ[f"IRONMASK_S3_{name.upper()}"] = value

    def fsspec_options(self) -> dict[str, Any]:
        """Keyword arguments of `s3fs.S3FileSystem`."""
        client: dict[str, Any] = {"endpoint_url": self.endpoint, "region_name": self.region}
        if self.ca_bundle:
            client["verify"] = str(self.ca_bundle)
        style = "path" if self.path_style else "virtual"
        return {
            "key": _plain(self.access_key),
            "secret": _plain(self.secret_key),
            "token": _plain(self.session_token),
            "client_kwargs": {name: value for name, value in client.items() if value},
            "config_kwargs": {
                "s3": {"addressing_style": style},
                # Only `infra.store.s3_client` repeats requests.
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                "connect_timeout": 10,
                "read_timeout": 60,
            },
            "use_listings_cache": False,
        }

    def delta_options(self) -> dict[str, str]:
        """Storage options of `deltalake`."""
        values = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region or ("us-east-1" if self.endpoint else None),
            "AWS_ACCESS_KEY_ID": _plain(self.access_key),
            "AWS_SECRET_ACCESS_KEY": _plain(self.secret_key),
            "AWS_SESSION_TOKEN": _plain(self.session_token),
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false" if self.path_style else "true",
            "AWS_ALLOW_HTTP": "true" if self.allow_http else None,
            "conditional_put": "etag",
            "timeout": "20s",
            "connect_timeout": "10s",
            "backoff_config.init_backoff": "25ms",
            "backoff_config.max_backoff": "5s",
        }
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Settings that an operator sets once rather than on every command line.

    metrics_port: port, or ADDRESS:PORT, under which a run's figures can be scraped. notify_url:
    webhook that gets a JSON message at the end of each flow run.
    """

    model_config = SettingsConfigDict(
        env_prefix="IRONMASK_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    model: str | None = None
    keys: Path | None = None
    ray_address: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["text", "json"] = "text"
    metrics_port: int | str | None = None
    notify_url: str | None = None


T = TypeVar("T", bound=BaseSettings)

_FILE_NAME = "ironmask.toml"


def load() -> tuple[Settings, StorageSettings]:
    """Read settings. Raises `ParameterError` that names an unknown or malformed one."""
    path = Path(os.environ.get("IRONMASK_CONFIG", _FILE_NAME))
    environment = ((k, v) for k, v in os.environ.items() if k.upper().startswith("IRONMASK_"))
    return _built(path, _text(path), tuple(environment))


@lru_cache(maxsize=1)
def _built(
    path: Path, text: str, _environment: tuple[tuple[str, str], ...]
) -> tuple[Settings, StorageSettings]:
    """The settings of a file's text and of the environment, which is given to tell a change."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{path} is not TOML: {error}") from None
    storage = values.pop("s3", {})
    unknown = set(values) - set(Settings.model_fields)
    if unknown or not isinstance(storage, dict):
        raise ParameterError(f"{path}: unknown setting {', '.join(sorted(unknown)) or 's3'}")
    try:
        return _build(Settings, values), _build(StorageSettings, storage)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ParameterError(f"setting {name or 's3'}: {first['msg']}") from None


def _text(path: Path) -> str:
    if not path.exists():
        if "IRONMASK_CONFIG" in os.environ:
            raise ParameterError(f"IRONMASK_CONFIG names {path}, which does not exist")
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from None


def _build(kind: type[T], values: dict[str, Any]) -> T:
    """Build settings from the file's values; the environment's values win."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    return kind(**{k: v for k, v in values.items() if not os.environ.get(f"{prefix}{k}".upper())})


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
