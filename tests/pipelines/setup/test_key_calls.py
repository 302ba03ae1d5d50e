"""How often a run asks a key service: for each process, whatever the number of shards."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.enrolling import request, run, several
from support.key_services import Moto, moto_environment, registered
from support.table import assert_sound

from ironmask.errors import KeyNotFoundError

WORKERS = 2
# Of a generation: its data, its digests, and what lives as long as the table.
KEYSETS = 3


def calls_of_a_run(folder: Path, subjects: int) -> int:
    """Stored embeddings in shards of two people, in this process."""
    folder.mkdir()
    source, dest = several(folder / "e.parquet", subjects), folder / "dest"
    with registered() as service:
        run(request(source, dest, kek="fake-kms://a"))
        made = service.keys["fake-kms://a"].calls
    assert_sound(dest, 2 * subjects)
    return made


def test_shards_of_a_process_share_a_call(tmp_path: Path) -> None:
    few, many = (calls_of_a_run(tmp_path / str(count), count) for count in (4, 24))
    assert 0 < few == many


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moto]:
    for name in ("boto3", "moto", "flask", "flask_cors"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: ironmask[dev]")
    made = moto_environment(Moto(tmp_path), monkeypatch)
    yield made
    made.kill()


@pytest.mark.slow
def test_nodes_pay_for_their_processes_alone(service: Moto, tmp_path: Path) -> None:
    """On Ray, with keys in a server of a key service: 12 shards and 60."""
    uri, seen = service.new_key(), []
    for subjects in (24, 120):
        source, dest = several(tmp_path / f"{subjects}.parquet", subjects), tmp_path / str(subjects)
        before = service.calls()
        run(request(source, dest, kek=uri, executor="ray", workers=WORKERS))
        seen.append(service.calls() - before)
        assert_sound(dest, 2 * subjects)
    # Ray may begin a process more than there are cores, and the driver's own calls are the same.
    assert abs(seen[1] - seen[0]) <= 2 * WORKERS * KEYSETS


@pytest.mark.slow
def test_keys_that_are_destroyed_meanwhile_stop_a_run(service: Moto, tmp_path: Path) -> None:
    """Within one shard, though the processes keep what the service gave."""
    from support.enrolling import after_first
    from support.table import keys_of, table_id_of

    from infra.keys.key_file import KeyFile

    source, dest = several(tmp_path / "e.parquet", 200), tmp_path / "dest"

    def destroy() -> None:
        KeyFile.open(keys_of(dest), table_id_of(dest)).destroy_generation(1)

    with pytest.raises(KeyNotFoundError):
        run(
            request(source, dest, kek=service.new_key(), executor="ray", workers=WORKERS),
            after_first(destroy),
        )
