"""Keys that a process keeps: for how long, through which failures, and what still ends them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import tink
from support.key_services import Denied, Remote, registered

from infra.keys.kept_keys import FRESH_S, KEPT_S, KeptKeys
from infra.keys.key_file import KeyFile
from infra.keys.keysets import TinkGenerationKeys
from ironmask.errors import KeyNotFoundError, KeyStoreError, WrongKeyError

TABLE = "7d0c6a3e-table"
URI = "fake-kms://a"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> KeptKeys[TinkGenerationKeys]:
    return KeptKeys(clock)


@pytest.fixture
def remote(path: Path) -> Iterator[Remote]:
    with registered() as service:
        KeyFile.create(path, TABLE, URI).add_generation(1)
        yield service.keys[URI]


def opened(path: Path, kept: KeptKeys[TinkGenerationKeys]) -> TinkGenerationKeys:
    return KeyFile.open(path, TABLE).generation(1, kept)


def calls(remote: Remote, path: Path, kept: KeptKeys[TinkGenerationKeys]) -> int:
    before = remote.calls
    opened(path, kept)
    return remote.calls - before


def test_the_service_is_asked_once_while_keys_are_fresh(path, remote, kept, clock) -> None:
    assert calls(remote, path, kept) == 3
    clock.now += FRESH_S - 1
    assert calls(remote, path, kept) == 0
    clock.now += 2
    assert calls(remote, path, kept) == 3


def test_kept_keys_are_the_same_keys(path, remote, kept) -> None:
    sealed = opened(path, kept).encrypt(b"x", b"y")
    assert opened(path, kept).decrypt(sealed, b"y") == b"x"
    assert KeyFile.open(path, TABLE).generation(1).decrypt(sealed, b"y") == b"x"


def test_a_service_that_is_away_for_a_while_stops_nothing(path, remote, kept, clock) -> None:
    opened(path, kept)
    remote.failure = ConnectionError("refused")
    clock.now += FRESH_S + 1
    assert calls(remote, path, kept) == 1
    # It is not asked by every shard meanwhile.
    assert calls(remote, path, kept) == 0
    remote.failure = None
    clock.now += 60
    assert calls(remote, path, kept) == 3


@pytest.mark.parametrize("failure", [ConnectionError("refused"), tink.TinkError(Denied())])
def test_revoked_keys_are_gone_after_their_time(path, remote, kept, clock, failure) -> None:
    opened(path, kept)
    remote.failure = failure
    clock.now += KEPT_S - 1
    opened(path, kept)
    clock.now += 2
    with pytest.raises(KeyStoreError, match="did not serve"):
        opened(path, kept)


def test_keys_destroyed_in_the_file_are_gone_at_once(path, remote, kept) -> None:
    opened(path, kept)
    KeyFile.open(path, TABLE).destroy_generation(1)
    with pytest.raises(KeyNotFoundError):
        opened(path, kept)


def test_a_file_that_was_changed_is_not_believed(path, remote, kept) -> None:
    opened(path, kept)
    path.write_text(path.read_text().replace("fake-kms://a", "fake-kms://b"))
    with pytest.raises(WrongKeyError):
        opened(path, kept)


def test_keys_of_another_service_key_are_asked_for(path, remote, kept) -> None:
    opened(path, kept)
    KeyFile.open(path, TABLE).rotate_kek(URI)
    assert calls(remote, path, kept) == 3


def test_a_local_key_is_opened_each_time(path, kept) -> None:
    KeyFile.create(path, TABLE).add_generation(1)
    assert opened(path, kept) is not opened(path, kept)


def test_they_stay_in_their_process(path, remote, kept) -> None:
    opened(path, kept)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds keys"):
            copied(kept)
    assert repr(kept) == "KeptKeys(1)"
    kept.forget()
    assert calls(remote, path, kept) == 3
