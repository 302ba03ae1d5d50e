"""What of a table is lost, and whose: told by digests and sealed logs, and by nothing else."""

from __future__ import annotations

import pytest
from support.destinations import (
    DEST,
    OTHER_RUN,
    Place,
    commit,
    context,
    enrolled,
    failed,
    row,
    written,
)

from ironmask.errors import StorageError, TableError
from pipelines.repairing.damage import Damage, examined, find
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table import waves
from pipelines.table.layout import join

MANY = [f"s{number:02d}" for number in range(20)]


@pytest.fixture
def dest():
    return Place().held()


def uri(name: str, path: str) -> str:
    return join(DEST, name, path)


def break_at(dest, name: str, path: str, share: float) -> None:
    """Change a byte of a data file, at a share of its length."""
    content = bytearray(dest.store.read(uri(name, path)))
    content[int(share * (len(content) - 1))] ^= 1
    dest.store.write(uri(name, path), bytes(content))


def look(dest, path: str):
    return examined(dest.tables, dest.store, path, waves.by_attempt(dest.tables, dest.store))


class TestFind:
    def test_nothing_in_a_new_table(self, dest):
        assert not find(dest.tables, dest.store)

    def test_nothing_where_all_is_as_it_was_written(self, dest):
        enrolled(dest, MANY)
        assert find(dest.tables, dest.store) == Damage()

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99, 1])
    @pytest.mark.parametrize("name", ["templates", "inputs"])
    def test_any_byte_that_was_changed(self, dest, name, share):
        path = enrolled(dest, ["ann", "bob"]).files[name].path
        break_at(dest, name, path, share)
        found = find(dest.tables, dest.store)
        assert found
        assert found.templates == ([path] if name == "templates" else [])
        assert found.others == ([uri(name, path)] if name == "inputs" else [])

    def test_a_file_that_is_gone(self, dest):
        path = enrolled(dest, ["ann"]).files["templates"].path
        dest.store.delete([uri("templates", path)])
        assert find(dest.tables, dest.store) == Damage(templates=[path])

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100])
    def test_another_file_in_its_place(self, dest, content):
        path = enrolled(dest, ["ann"]).files["templates"].path
        dest.store.write(uri("templates", path), content)
        assert find(dest.tables, dest.store).templates == [path]

    def test_what_lies_beside_the_listed_files_says_nothing(self, dest):
        enrolled(dest, ["ann"])
        written(context(dest, OTHER_RUN), ["bob"])
        dest.store.write(uri("templates", "stray.parquet"), b"junk")
        assert find(dest.tables, dest.store) == Damage()

    def test_a_transfer_that_went_wrong_once_is_no_loss(self, dest, monkeypatch):
        path = enrolled(dest, ["ann"]).files["templates"].path
        read, cut = dest.store.read, []

        def once(address: str, limit: int | None = None) -> bytes:
            content = read(address, limit)
            if address == uri("templates", path) and not cut:
                cut.append(address)
                return content[:-1]
            return content

        monkeypatch.setattr(dest.store, "read", once)
        assert find(dest.tables, dest.store) == Damage()
        assert cut

    def test_a_store_that_refuses_says_nothing_of_files(self, dest, monkeypatch):
        enrolled(dest, ["ann"])

        def refuse(address: str, limit: int | None = None) -> bytes:
            raise StorageError(f"{address}: access denied")

        dest.tables.table("templates").files()
        monkeypatch.setattr(dest.store, "read", refuse)
        with pytest.raises(StorageError, match="access denied"):
            find(dest.tables, dest.store)


class TestWhoseTheyWere:
    def test_of_a_file_that_is_gone_the_inputs_tell(self, dest):
        result = enrolled(dest, ["ann", "bob", failed("cid")])
        path = result.files["templates"].path
        dest.store.delete([uri("templates", path)])
        found = look(dest, path)
        assert found.people == {"ann", "bob"}
        assert (found.sound, found.inputs) == (None, result.files["inputs"].path)

    def test_row_groups_that_are_whole_are_kept(self, dest):
        """Twenty people lie in row groups of eight: only those of one group are lost."""
        path = enrolled(dest, MANY).files["templates"].path
        break_at(dest, "templates", path, 0.5)
        found = look(dest, path)
        assert found.people == set(MANY[8:16])
        assert found.sound["subject_id"].to_pylist() == MANY[:8] + MANY[16:]

    def test_without_a_footer_everybody_is_lost(self, dest):
        path = enrolled(dest, MANY).files["templates"].path
        break_at(dest, "templates", path, 1)
        found = look(dest, path)
        assert (found.people, found.sound) == (set(MANY), None)

    def test_of_a_sound_file_nobody_is(self, dest):
        path = enrolled(dest, ["ann"]).files["templates"].path
        found = look(dest, path)
        assert found.people == set()
        assert found.sound["subject_id"].to_pylist() == ["ann"]

    def test_a_repair_that_was_broken_off_counts_its_people_again(self, dest):
        """Its inputs say already that their template was lost."""
        gone = row("ann")
        gone.settle(Outcome.USED, Reason.LOST)
        result = written(context(dest), ["bob", "ann"])
        marked = written(context(dest), ["bob", gone])
        commit(dest, result, 1, ["templates"])
        own = marked.files["inputs"].path
        dest.store.delete([uri("templates", result.files["templates"].path)])
        by_attempt = {(context(dest).plan.run_id, 0, result.attempt): own}
        path = result.files["templates"].path
        found = examined(dest.tables, dest.store, path, by_attempt)
        assert found.people == {"ann", "bob"}

    def test_where_nothing_tells_it_is_said(self, dest):
        result = written(context(dest), ["ann"])
        commit(dest, result, 1, ["templates"])
        path = result.files["templates"].path
        dest.store.delete([uri("templates", path)])
        with pytest.raises(TableError, match="nothing that is sealed says whose its 1 templates"):
            look(dest, path)

    def test_inputs_that_name_another_number_of_people_are_not_believed(self, dest):
        result = enrolled(dest, ["ann", "bob"])
        path, inputs = (result.files[name].path for name in ("templates", "inputs"))
        other = enrolled(dest, ["cid"], OTHER_RUN).files["inputs"].path
        dest.store.delete([uri("templates", path)])
        by_attempt = waves.by_attempt(dest.tables, dest.store)
        key = next(key for key, found in by_attempt.items() if found == inputs)
        with pytest.raises(TableError, match="whose its 2 templates were"):
            examined(dest.tables, dest.store, path, {key: other})
