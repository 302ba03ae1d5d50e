"""Nothing is answered and nothing destroyed on the word of a log entry that no seal vouches for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import (
    PowerCutError,
    after_first,
    before_commit_of,
    broken_after,
    captures,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.forging import (
    BESIDE_THE_SEAL,
    FORGERIES,
    WITHOUT_KEYS,
    Place,
    add,
    commands,
    remove,
    wrong,
)
from support.marks import few
from support.table import (
    assert_sound,
    data_files,
    generation_keys,
    keys_of,
    open_tables,
    verified,
    verifier,
)

from infra.keys.key_file import KeyFile
from infra.store.delta import DeltaTableHandle
from infra.store.objects import FsspecStore
from ironmask.errors import CountError, TableError
from pipelines.setup import ports
from pipelines.setup.metrics import add_metrics
from pipelines.table import layout, log_seal_file
from pipelines.table.data_files import described
from pipelines.table.log_seal_file import State
from pipelines.table.schemas import TABLES
from pipelines.table.sealed import SealedTables

GOES_ON = "its log goes on after the sealed version"
UNANNOUNCED = "is not what the run that holds the seal was about to commit"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two finished runs with a vault."""
    folder = tmp_path_factory.mktemp("sealed")
    run(request(several(folder / "first.parquet", 4), folder / "dest", vault=True))
    run(request(several(folder / "e.parquet", 6), folder / "dest", vault=True))
    return folder


@pytest.fixture
def place(made, tmp_path) -> Place:
    shutil.copytree(made, tmp_path / "made")
    dest = tmp_path / "made" / "dest"
    return Place(str(dest), keys_of(dest), str(made / "e.parquet"), tmp_path)


@pytest.fixture(scope="module")
def bucket_place(s3, tmp_path_factory) -> Place:
    """The same in a versioned bucket; whoever changes it restores it."""
    folder = tmp_path_factory.mktemp("bucket")
    bucket = s3.new_bucket()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        s3.client().put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        source, dest = f"s3://{bucket}/in/e.parquet", f"s3://{bucket}/out"
        place = Place(dest, folder / "k.json", source, folder)
        place.store.write(source, several(folder / "e.parquet", 6).read_bytes())
        answer = enroll(source, dest, "--vault", "--shard-size=4", keys=place.keys)
        assert answer.code == 0, answer.err
    return place


@pytest.mark.parametrize("table", few(TABLES, "templates", "inputs"))
@pytest.mark.parametrize("forgery", FORGERIES)
class TestAfterAClosedSeal:
    def test_on_disk(self, place, forgery, table):
        FORGERIES[forgery](place, table)
        reason = f"{table}: {GOES_ON}"
        assert [text for one in commands(place) if (text := wrong(place, one, reason))] == []

    @pytest.mark.slow
    def test_in_a_versioned_bucket(self, bucket_place, s3, monkeypatch, forgery, table):
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        place, reason = bucket_place, f"{table}: {GOES_ON}"
        some = ("verify", "vacuum", "enroll", "inspect")
        before = place.state()
        FORGERIES[forgery](place, table)
        every = tuple(commands(place)) if (forgery, table) == ("remove", "templates") else some
        found = [text for one in every if (text := wrong(place, one, reason))]
        place.restore(before)
        assert found == []


def test_a_sound_table_is_refused_by_nothing(place):
    """The same commands do their work where nobody forged anything."""
    for name in ("enroll --dry-run", "check", "vacuum", "prove"):
        answer = ironmask(*commands(place)[name])
        assert GOES_ON not in answer.err + answer.out
    assert verified(Path(place.dest), "s000", captures(unit_vectors(6), 1)[:1]) == [True]


@pytest.mark.parametrize("command", WITHOUT_KEYS)
def test_commands_without_keys_say_so(place, command):
    answer = ironmask(*commands(place)[command])
    assert BESIDE_THE_SEAL in " ".join(answer.out.split())
    told = ironmask(*commands(place)[command], "--json").json()
    assert told["seal"] == BESIDE_THE_SEAL


def test_an_erased_person_does_not_come_back(place):
    dest = Path(place.dest)
    kept = {path: path.read_bytes() for path in data_files(dest, "templates")}
    listed = place.listed("templates")
    assert ironmask("erase", "--yes", dest, "--subject=s001", f"--keys={place.keys}").code == 0
    probe = captures(unit_vectors(6), 1)[1:2]
    with pytest.raises(TableError, match="holds no template of subject 's001'"):
        verified(dest, "s001", probe)
    for path, content in kept.items():
        if not path.exists():
            path.write_bytes(content)
    back = [name for name in listed if name not in place.listed("templates")]
    table = place.delta("templates")
    from deltalake.transaction import AddAction

    actions = [AddAction(p, listed[p], {"generation": "1"}, 0, True, "{}") for p in back]
    table.create_write_transaction(actions, "append", table.schema(), ["generation"])
    with pytest.raises(TableError, match=f"templates: {GOES_ON}"):
        verified(dest, "s001", probe)
    answer = ironmask(*commands(replace(place))["verify"])
    assert f"templates: {GOES_ON}" in answer.err


class TestBeyondAnOpenSeal:
    @pytest.fixture
    def killed(self, tmp_path, monkeypatch) -> Place:
        """A run that was cut after two of its waves."""
        monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)
        dest, source = tmp_path / "dest", several(tmp_path / "e.parquet", 8)
        with pytest.raises(PowerCutError):
            run(request(source, dest), executor=broken_after(2))
        return Place(str(dest), keys_of(dest), str(source), tmp_path)

    @pytest.mark.parametrize("forgery", FORGERIES)
    @pytest.mark.parametrize(
        "table", few(["templates", "inputs", "runs", "generations"], "templates")
    )
    def test_readers_answer_and_the_resume_refuses(self, killed, forgery, table):
        dest = Path(killed.dest)
        FORGERIES[forgery](killed, table)
        before = killed.data()
        assert verified(dest, "s000", captures(unit_vectors(8), 1)[:1]) == [True]
        with pytest.raises(TableError, match=f"{table}: .*{UNANNOUNCED}"):
            run(request(Path(killed.source), dest))
        for command in ("vacuum", "erase", "reprotect"):
            ironmask(*commands(killed)[command])
        assert killed.data() >= before

    def test_two_forged_entries_are_refused_as_one(self, killed):
        remove(killed, "templates")
        add(killed, "templates")
        with pytest.raises(TableError, match=UNANNOUNCED):
            run(request(Path(killed.source), Path(killed.dest)))

    def test_what_was_announced_is_taken_in(self, killed):
        run(request(Path(killed.source), Path(killed.dest)))
        assert_sound(Path(killed.dest), 16)

    @pytest.mark.parametrize("name", ["templates", "inputs"])
    def test_also_by_readers(self, tmp_path, monkeypatch, name):
        """A wave whose commits came, though nobody sealed them any more."""
        dest, source = tmp_path / "dest", several(tmp_path / "e.parquet", 4)
        with monkeypatch.context() as broken:
            broken.setattr(DeltaTableHandle, "commit", after_commit_of(name))
            with pytest.raises(PowerCutError):
                run(request(source, dest))
        assert [table for table, _ in state(dest).announced] == ["templates", "inputs"]
        assert verified(dest, "s000", captures(unit_vectors(4), 1)[:1]) == [True]
        run(request(source, dest))
        assert_sound(dest, 8)

    def test_an_announced_entry_with_more_in_it(self, tmp_path, monkeypatch):
        """What came is not what was announced: another file, another fact, another action."""
        dest, source = tmp_path / "dest", several(tmp_path / "e.parquet", 4)
        with monkeypatch.context() as broken:
            broken.setattr(DeltaTableHandle, "commit", after_commit_of("templates"))
            with pytest.raises(PowerCutError):
                run(request(source, dest))
        path = max((dest / "templates" / "_delta_log").glob("*.json"))
        sound = path.read_text()
        for old, new in [
            ('\\"s000\\"', '\\"r000\\"'),
            ('"size":', '"size":1'),
            ('"add":', '"cdc":'),
            ('{"txn"', '{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}\n{"txn"'),
            ('"tags":null', '"tags":{"a":"b"}'),
            ("{", "["),
        ]:
            assert old in sound
            path.write_text(sound.replace(old, new, 1))
            with pytest.raises(TableError, match=UNANNOUNCED):
                run(request(source, dest))
        path.write_text(sound)
        run(request(source, dest))
        assert_sound(dest, 8)


class TestOutOfTheirOrder:
    """An announced wave is taken in from its first commit on, or not at all."""

    @pytest.fixture
    def killed(self, tmp_path, monkeypatch) -> Place:
        """A run that was cut between its first announcement and the commit, its inputs put in."""
        dest, source = tmp_path / "dest", several(tmp_path / "e.parquet", 4)
        with monkeypatch.context() as broken:
            broken.setattr(DeltaTableHandle, "commit", before_commit_of("templates"))
            with pytest.raises(PowerCutError):
                run(request(source, dest))
        place = Place(str(dest), keys_of(dest), str(source), tmp_path)
        put_in(place, "inputs")
        return place

    @pytest.mark.parametrize("command", ["enroll", "vacuum", "erase"])
    def test_nothing_is_destroyed(self, killed, command):
        assert len(data_files(Path(killed.dest), "templates")) == 2
        reason = f"inputs: what its log says from version 1 on {UNANNOUNCED}"
        assert wrong(killed, command, reason) == ""
        assert len(data_files(Path(killed.dest), "templates")) == 2

    def test_readers_do_not_see_it(self, killed):
        found = sealed_tables(Path(killed.dest))
        assert found.table("inputs").files() == {}
        assert killed.listed("inputs")

    def test_check_says_so(self, killed):
        assert UNANNOUNCED in " ".join(ironmask(*commands(killed)["check"]).out.split())

    def test_without_it_the_run_goes_on(self, killed):
        Path(killed.log("inputs", f"{1:020d}.json")).unlink()
        run(request(Path(killed.source), Path(killed.dest)))
        assert_sound(Path(killed.dest), 8)


def put_in(place: Place, name: str) -> None:
    """Write the entry that a killed run announced for a table, as it would have."""
    paths = data_files(Path(place.dest), name)
    rows_in = {p: pq.read_table(p, columns=["subject_id", "uri"]).to_pydict() for p in paths}
    files = [described(p.name, p.stat().st_size, found, {}) for p, found in rows_in.items()]
    run_id = paths[0].name.split("-")[1]
    open_tables(Path(place.dest)).table(name).commit(files, f"{run_id}/{name}", 1)


def sealed_tables(dest: Path) -> SealedTables:
    tables = open_tables(dest)
    return ports.sealed(tables, FsspecStore(), KeyFile.open(keys_of(dest), tables.table_id))


def test_a_run_that_lost_people_does_not_end_well(place, monkeypatch):
    """Whatever took its templates away: their people count as used and have none."""
    dest = Path(place.dest)
    monkeypatch.setattr("pipelines.run.summary.rows_of_run", lambda *_: 3)
    with pytest.raises(CountError, match="4 people of whom inputs were used and 3 templates"):
        run(request(several(Path(place.out) / "more.parquet", 10), dest, vault=True))


def after_commit_of(name):
    commit = DeltaTableHandle.commit

    def cut(self, *arguments, **named):
        commit(self, *arguments, **named)
        if self.uri.endswith(f"/{name}"):
            raise PowerCutError

    return cut


class TestDuringARun:
    @pytest.fixture(autouse=True)
    def _small_waves(self, monkeypatch):
        monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)

    @pytest.mark.parametrize("forgery", FORGERIES)
    def test_its_next_step_refuses(self, place, forgery):
        more = several(Path(place.out) / "more.parquet", 12)
        seen: list[set[str]] = []

        def attack() -> None:
            FORGERIES[forgery](place, "templates")
            seen.append(place.data())

        asked = request(more, Path(place.dest))
        with pytest.raises(TableError, match=UNANNOUNCED):
            run(asked, executor=after_first(attack))
        assert seen[0] <= place.data()


def state(dest: Path) -> State:
    key = generation_keys(dest).log_seal_key()
    found = log_seal_file.read(str(dest), FsspecStore(), lambda _: key)
    assert found
    return found


class TestTheRightVersion:
    """Within what the seal names, the list that a log shows must be the one that was sealed."""

    def test_a_checkpoint_below_it(self, place):
        dest, name = Path(place.dest), "templates"
        FORGERIES["checkpoint"](place, name)
        folder = dest / name / "_delta_log"
        forged = max(folder.glob("*.checkpoint.parquet"))
        version = max(int(p.name[:20]) for p in folder.glob("*.json"))
        forged.rename(folder / f"{version:020d}.checkpoint.parquet")
        hint = json.loads((folder / "_last_checkpoint").read_text())
        (folder / "_last_checkpoint").write_text(json.dumps({**hint, "version": version}))
        reason = f"{name}: its log shows other files at version {version} than were sealed"
        for command in ("verify", "vacuum", "enroll"):
            assert wrong(place, command, reason) == ""


def forget_seals(keys: Path) -> None:
    """Make a keyset file one of a release that did not note that seals were written."""
    content = json.loads(keys.read_text())
    content["table"].pop("seals", None)
    keys.write_text(json.dumps(content))


class TestAnOlderSealThatIsPutBack:
    """Once a seal with lists was written, none of before is believed, whatever follows it."""

    REASON = "an older seal was put back"

    @pytest.fixture
    def old(self, place) -> Place:
        """An open seal without lists in the place of the newest, and a forged entry."""
        dest = Path(place.dest)
        found = replace(state(dest), lists={}, announced=(), open=True)
        log_seal_file.write(found, str(dest), FsspecStore(), generation_keys(dest).log_seal_key())
        remove(place, "templates")
        return place

    def test_every_command_refuses_it(self, old):
        assert [text for one in commands(old) if (text := wrong(old, one, self.REASON))] == []

    def test_without_the_note_it_is_believed_once(self, old):
        forget_seals(old.keys)
        assert ironmask(*commands(old)["vacuum"]).code == 0
        assert json.loads(old.keys.read_text())["table"]["seals"] is True

    def test_metrics_are_not_added_under_it(self, old):
        """An audit or an evaluation that looked at the table before it was put back."""
        dest = Path(old.dest)
        tables, file = open_tables(dest), KeyFile.open(old.keys, open_tables(dest).table_id)
        with pytest.raises(TableError, match=self.REASON):
            add_metrics(tables, FsspecStore(), file, 1, [], "0" * 12)

    def test_a_keyset_file_that_cannot_be_written(self, place, monkeypatch, caplog):
        def refuse(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        forget_seals(place.keys)
        monkeypatch.setattr("infra.keys.keyset_file.write", refuse)
        with caplog.at_level("WARNING"):
            assert ironmask(*commands(place)["vacuum"]).code == 0
        assert "it is not noted in the keyset file" in caplog.text
        assert "seals" not in json.loads(place.keys.read_text())["table"]


class TestWithoutASeal:
    """The first seal precedes every data file: where one lies, there was a seal."""

    @pytest.fixture(params=["noted", "not noted", "without keys"])
    def cut(self, place, request) -> Place:
        """No seal, and logs that say no more than that the tables were created."""
        Path(layout.seal_file(place.dest)).unlink()
        for path in Path(place.dest).glob("*/_delta_log/*"):
            if path.is_file() and path.name != f"{0:020d}.json":
                path.unlink()
        if request.param != "noted":
            forget_seals(place.keys)
        if request.param == "without keys":
            place.keys.unlink()
        return place

    @pytest.mark.parametrize("command", ["enroll", "vacuum", "check"])
    def test_nothing_is_destroyed(self, cut, command):
        before = cut.data()
        answer = ironmask(*commands(cut)[command])
        assert answer.code != 0
        assert cut.data() == before
        if cut.keys.exists():
            assert "its seal is missing" in " ".join((answer.err + answer.out).split())

    def test_emptied_tables_whose_seals_were_noted(self, cut):
        for uri in cut.data():
            Path(uri).unlink()
        noted = cut.keys.exists() and "seals" in json.loads(cut.keys.read_text())["table"]
        answer = ironmask(*commands(cut)["enroll"])
        assert ("its seal is missing" in " ".join(answer.err.split())) == noted


class TestSealsOfBefore:
    def old(self, dest: Path, *, is_open: bool) -> None:
        """Write the seal as a release did that knew no lists."""
        found = replace(state(dest), lists={}, announced=(), open=is_open)
        log_seal_file.write(found, str(dest), FsspecStore(), generation_keys(dest).log_seal_key())
        forget_seals(keys_of(dest))

    @pytest.mark.parametrize("is_open", [False, True])
    def test_they_are_read_and_made_new(self, place, is_open):
        dest = Path(place.dest)
        self.old(dest, is_open=is_open)
        assert b"lists" not in FsspecStore().read(layout.seal_file(place.dest))
        assert verified(dest, "s000", captures(unit_vectors(6), 1)[:1]) == [True]
        assert ironmask(*commands(place)["check"]).code == 0
        run(request(several(Path(place.out) / "more.parquet", 8), dest))
        assert set(state(dest).lists) == set(TABLES)
        assert ironmask(*commands(place)["check"]).code == 0

    def test_what_follows_an_open_one_is_accepted_once(self, place):
        dest = Path(place.dest)
        self.old(dest, is_open=True)
        open_tables(dest).table("metrics").commit([], "old", 1, list(place.listed("metrics"))[:1])
        run(request(several(Path(place.out) / "more.parquet", 8), dest))
        assert not state(dest).open

    def test_a_closed_one_is_as_strict(self, place):
        self.old(Path(place.dest), is_open=False)
        remove(place, "templates")
        reason = f"templates: {GOES_ON}"
        assert [t for one in commands(place) if (t := wrong(place, one, reason))] == []

    def test_readers_read_the_chain(self, place):
        dest = Path(place.dest)
        self.old(dest, is_open=True)
        path = min((dest / "templates" / "_delta_log").glob("*.json"))
        path.write_text(path.read_text() + "\n")
        with pytest.raises(TableError, match="templates: its log up to version"):
            verified(dest, "s000", captures(unit_vectors(6), 1)[:1])


def test_a_held_verifier_goes_on_from_seal_to_seal(place, monkeypatch):
    dest = Path(place.dest)
    held = verifier(dest)
    probe = captures(unit_vectors(6), 1)[:1]
    assert held.verify_embeddings("s000", probe) == [True]
    assert not held.refresh()
    assert ironmask("erase", "--yes", dest, "--subject=s000", f"--keys={place.keys}").code == 0
    assert held.refresh()
    with pytest.raises(TableError, match="holds no template"):
        held.verify_embeddings("s000", probe)
    answer = ironmask("rekey", dest, f"--keys={place.keys}", "--executor=local")
    assert answer.code == 0, answer.err
    # Without being told: what it knew is gone.
    other = captures(unit_vectors(6), 1)[2:3]
    assert held.verify_embeddings("s002", other) == [True]
    assert held.generation("s002") == 2


def test_a_table_that_was_only_made_has_nothing_to_answer(tmp_path):
    dest, source = tmp_path / "dest", write_embeddings(tmp_path / "e.parquet", ["a"], [[1.0] * 64])
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(DeltaTableHandle, "commit", before_commit_of("generations"))
        with pytest.raises(PowerCutError):
            run(request(source, dest))
    with pytest.raises(TableError, match="holds no template"):
        verified(dest, "a", unit_vectors(1))
    run(request(source, dest))
    assert_sound(dest, 1)
