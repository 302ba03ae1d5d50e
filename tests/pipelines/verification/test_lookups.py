"""What a look-up opens, and what a verifier learns from a commit: files, reads, forged entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.enrolling import captures, request, run, unit_vectors, write_embeddings
from support.table import data_files, verifier

from infra.store.objects import FsspecStore
from ironmask.errors import SubjectError, TableError
from pipelines.setup import ports
from pipelines.verification.verifier import Verifier

PEOPLE = 24
PROBES = unit_vectors(PEOPLE)
ORDERS = {"in order": list(range(PEOPLE)), "mixed": [7 * n % PEOPLE for n in range(PEOPLE)]}
_LOG = "templates/_delta_log"


class Noting(FsspecStore):
    """A store that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def read(self, uri: str, limit: int | None = None) -> bytes:
        self.asked.append(uri)
        return super().read(uri, limit)

    def part(self, uri: str, start: int, end: int) -> bytes:
        self.asked.append(uri)
        return super().part(uri, start, end)

    def read_many(self, uris, limit=None, home=""):
        self.asked += uris
        return super().read_many(uris, limit, home)

    def of(self, folder: str) -> list[str]:
        """What lies directly in a folder of the table, of what was asked for."""
        return [uri for uri in self.asked if uri.rpartition("/")[0].endswith(folder)]


def enrolled(folder: Path, order: list[int], shard_size: int = 3) -> Path:
    names = [f"s{number:03d}" for number in order]
    source = write_embeddings(folder / "e.parquet", names, list(PROBES[order]))
    run(request(source, folder / "dest", shard_size=shard_size))
    return folder / "dest"


def later(dest: Path, name: str, probe) -> None:
    """Enrol one more person."""
    source = write_embeddings(dest.parent / f"{name}.parquet", [name], [probe])
    run(request(source, dest, shard_size=3))


def noting(dest: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Verifier, Noting]:
    store = Noting()
    with monkeypatch.context() as patched:
        patched.setattr(ports, "open_store", lambda _: store)
        return verifier(dest), store


@pytest.mark.parametrize("order", ORDERS)
def test_a_look_up_opens_the_one_file_that_can_hold_the_subject(tmp_path, monkeypatch, order):
    dest = enrolled(tmp_path, ORDERS[order])
    files = {str(path) for path in data_files(dest, "templates")}
    assert len(files) == PEOPLE // 3
    held, store = noting(dest, monkeypatch)
    opened = set()
    for number in range(PEOPLE):
        store.asked.clear()
        assert held.verify_embeddings(f"s{number:03d}", PROBES[[number]]) == [True]
        (file,) = set(store.of("generation=1"))
        assert len(store.asked) <= 2 + 2 * (number == 0)
        opened.add(file)
    assert opened == files
    store.asked.clear()
    with pytest.raises(SubjectError):
        held.verify_embeddings("z", PROBES[:1])
    assert not store.of("generation=1")


class TestRefresh:
    def test_it_reads_the_entries_since_then(self, tmp_path, monkeypatch):
        dest = enrolled(tmp_path, ORDERS["mixed"])
        held, store = noting(dest, monkeypatch)
        held.verify_embeddings("s000", PROBES[:1])
        before = {path.name for path in (dest / _LOG).glob("*.json")}
        (ann,) = captures(unit_vectors(1, seed=9), 1)
        later(dest, "ann", ann)
        new = {path.name for path in (dest / _LOG).glob("*.json")} - before
        # An old checkpoint or entry is not needed, so nobody reads it.
        for path in (dest / _LOG).iterdir():
            if path.name not in new:
                path.unlink()
        store.asked.clear()
        assert held.refresh()
        assert held.verify_embeddings("ann", ann[None]) == [True]
        assert {uri.rpartition("/")[2] for uri in store.of(_LOG)} == new
        assert len(set(store.of("generation=1"))) == 1
        assert held.verify_embeddings("s000", PROBES[:1]) == [True]

    def test_keys_stay_while_no_generation_comes(self, tmp_path, monkeypatch):
        dest = enrolled(tmp_path, ORDERS["mixed"])
        held, _ = noting(dest, monkeypatch)
        held.verify_embeddings("s000", PROBES[:1])
        keys = held._current().generation(1)
        (ann,) = captures(unit_vectors(1, seed=9), 1)
        later(dest, "ann", ann)
        assert held.refresh()
        assert held.verify_embeddings("ann", ann[None]) == [True]
        assert held._current().generation(1) is keys


class TestForged:
    @pytest.fixture
    def dest(self, tmp_path) -> Path:
        return enrolled(tmp_path, ORDERS["mixed"])

    def changed(self, dest: Path, change) -> None:
        """Let the last entry that adds files say something else."""
        path = max(p for p in (dest / _LOG).glob("*.json") if '"add"' in p.read_text())
        actions = [json.loads(text) for text in path.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                change(action["add"])
        path.write_text("\n".join(map(json.dumps, actions)))

    @staticmethod
    def narrower(add) -> None:
        stats = json.loads(add["stats"])
        stats["maxValues"]["subject_id"] = stats["minValues"]["subject_id"]
        add["stats"] = json.dumps(stats)

    def test_ranges_are_believed_by_nobody_who_opens(self, dest):
        """A range that leaves somebody out would hide their template from an enrolment."""
        self.changed(dest, self.narrower)
        with pytest.raises(TableError, match="was changed by other hands"):
            verifier(dest)

    @pytest.mark.parametrize("forged", ["a range", "an entry more"])
    def test_nor_by_who_refreshes(self, dest, monkeypatch, forged):
        held, _ = noting(dest, monkeypatch)
        held.verify_embeddings("s000", PROBES[:1])
        (ann,) = captures(unit_vectors(1, seed=9), 1)
        later(dest, "ann", ann)
        if forged == "a range":
            self.changed(dest, lambda add: add.update(size=add["size"] + 1))
            assert held.refresh()
        else:
            last = max((dest / _LOG).glob("*.json"))
            last.with_name(f"{int(last.stem) + 1:020d}.json").write_bytes(last.read_bytes())

        def asked() -> None:
            held.refresh()
            held.verify_embeddings("ann", ann[None])

        with pytest.raises(TableError, match="was changed by other hands"):
            asked()
