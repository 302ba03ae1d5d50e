"""Settings: where values come from, what is refused, and that secrets stay hidden."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.settings import StorageSettings, load
from ironmask.errors import ParameterError


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("IRONMASK_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ironmask.toml"


def test_defaults() -> None:
    settings, storage = load()
    assert settings.model is None
    assert (settings.log_level, settings.log_format) == ("warning", "text")
    assert storage.endpoint is None
    assert "AWS_ACCESS_KEY_ID" not in storage.delta_options()
    assert storage.fsspec_options()["key"] is None


def test_the_file_gives_way_to_the_environment(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean.write_text('model = "a"\nlog_format = "json"\n[s3]\nregion = "r1"\npath_style = false\n')
    monkeypatch.setenv("IRONMASK_MODEL", "b")
    monkeypatch.setenv("IRONMASK_S3_REGION", "r2")
    settings, storage = load()
    assert (settings.model, settings.log_format) == ("b", "json")
    assert (storage.region, storage.path_style) == ("r2", False)


def test_a_named_file(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.toml"
    other.write_text('keys = "/k.json"\nray_address = "auto"')
    monkeypatch.setenv("IRONMASK_CONFIG", str(other))
    settings, _ = load()
    assert (settings.keys, settings.ray_address) == (Path("/k.json"), "auto")
    other.unlink()
    with pytest.raises(ParameterError, match="does not exist"):
        load()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("modle = 1", "modle"),
        ("[s3]\nregoin = 1", "regoin"),
        ("s3 = 3", "s3"),
        ("[other]\na = 1", "other"),
        ("model = ", "not TOML"),
        ('log_level = "loud"', "log_level"),
        ('[s3]\nendpoint = "minio:9000"', "https://host:port"),
        ('[s3]\nendpoint = "http://minio:9000"', "IRONMASK_S3_ALLOW_HTTP"),
        ('[s3]\naccess_key = "a"', "give both"),
    ],
)
def test_what_cannot_be_used_is_named(clean: Path, text: str, named: str) -> None:
    clean.write_text(text)
    with pytest.raises(ParameterError, match=named):
        load()


def test_no_secret_in_texts_errors_or_what_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = StorageSettings(access_key="open", secret_key="sesame", session_token="sesame-t")
    assert "sesame" not in repr(storage) + str(storage) + repr(storage.public())
    assert b"sesame" not in pickle.dumps(storage.public())
    assert storage.fsspec_options()["secret"] == "sesame"
    assert storage.delta_options()["AWS_SECRET_ACCESS_KEY"] == "sesame"
    with pytest.raises(ValidationError) as caught:
        StorageSettings(secret_key="sesame")
    assert "sesame" not in str(caught.value)


def test_what_travels_makes_the_same_settings() -> None:
    storage = StorageSettings(endpoint="http://h:1", allow_http=True, ca_bundle=Path("/ca.pem"))
    again = StorageSettings(**dict(storage.public()))
    assert again == storage
    assert hash(storage.public()) == hash(again.public())


def test_both_clients_get_the_same(clean: Path) -> None:
    storage = StorageSettings(
        endpoint="http://h:1", region="r", allow_http=True, access_key="a", secret_key="b"
    )
    s3fs, delta = storage.fsspec_options(), storage.delta_options()
    assert s3fs["client_kwargs"] == {"endpoint_url": "http://h:1", "region_name": "r"}
    assert s3fs["config_kwargs"]["s3"] == {"addressing_style": "path"}
    assert s3fs["use_listings_cache"] is False
    assert delta["AWS_ENDPOINT_URL"] == "http://h:1"
    assert (delta["AWS_ALLOW_HTTP"], delta["conditional_put"]) == ("true", "etag")
    assert delta["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] == "false"
