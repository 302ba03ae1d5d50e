"""Places, keys, models and files that a run refuses rather than guesses about."""

from __future__ import annotations

import numpy as np
import pytest
from support.command import ironmask
from support.enrolling import (
    WIDTH,
    captures,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import data_files, generation_keys, keys_of, open_tables, rows

from ironmask.errors import TableError
from pipelines.table import read
from pipelines.verification import probe


class TestPlaces:
    """Nothing of the user's is taken for the software's."""

    def test_source_and_destination_apart(self, tmp_path):
        source = several(tmp_path / "e.parquet", 2)
        folder = tmp_path / "photos"
        (folder / "ann").mkdir(parents=True)
        for one, other in (
            (source.parent, tmp_path / "dest"),
            (folder, folder),
            (folder, tmp_path),
        ):
            answer = enroll(one, other, keys=tmp_path.parent / "k.json")
            assert answer.code == 2
            assert "lie in one another" in answer.errors[0]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "photos"]

    def test_through_a_link(self, tmp_path):
        folder = tmp_path / "photos"
        folder.mkdir()
        (tmp_path / "link").symlink_to(folder)
        answer = enroll(folder, tmp_path / "link" / "dest")
        assert (answer.code, "lie in one another" in answer.err) == (2, True)

    def test_foreign_files_in_a_table_survive(self, tmp_path):
        dest = tmp_path / "dest"
        foreign = [dest / "inputs" / "ann" / "a.jpg", dest / "templates" / "notes.parquet"]
        for path in foreign:
            path.parent.mkdir(parents=True)
            path.write_bytes(b"mine")
        source = several(tmp_path / "e.parquet", 4)
        run(request(source, dest))
        run(request(source, dest))
        assert [path.read_bytes() for path in foreign] == [b"mine"] * 2

    def test_keys_inside_the_table_through_a_link(self, tmp_path):
        source = several(tmp_path / "e.parquet", 2)
        real = tmp_path / "real"
        real.mkdir()
        (tmp_path / "link").symlink_to(real)
        answer = enroll(source, tmp_path / "link", keys=real / "keys.json")
        assert (answer.code, "inside the table" in answer.errors[0]) == (2, True)
        assert list(real.iterdir()) == []

    def test_names_that_look_like_markup(self, tmp_path):
        source = write_embeddings(tmp_path / "e.parquet", ["[/x] :smile:"], unit_vectors(1))
        dest = tmp_path / "dest"
        assert enroll(source, dest).code == 0
        (tmp_path / "br[" / "x]").mkdir(parents=True)
        photo = tmp_path / "br[" / "x]" / "a.jpg"
        photo.write_bytes(b"no picture")
        answer = ironmask("verify", dest, photo, "--subject=nobody[/x]", f"--keys={keys_of(dest)}")
        assert answer.code == 1
        assert "nobody[/x]" in answer.errors[0]


class TestKeys:
    @pytest.fixture
    def dest(self, tmp_path):
        dest = tmp_path / "dest"
        run(request(several(tmp_path / "e.parquet", 2), dest))
        return dest

    def test_a_file_without_the_generation_makes_no_new_keys(self, tmp_path, dest):
        import json

        path = keys_of(dest)
        content = json.loads(path.read_text())
        content["generations"] = {}
        path.write_text(json.dumps(content))
        answer = enroll(several(tmp_path / "more.parquet", 3), dest)
        assert answer.code == 1
        assert "holds no keys" in answer.errors[0]
        assert json.loads(path.read_text())["generations"] == {}

    def test_another_kek_is_not_silently_ignored(self, tmp_path, dest):
        answer = enroll(tmp_path / "e.parquet", dest, "--kek=aws-kms://arn:aws:kms:x:1:key/1")
        assert (answer.code, "leave --kek out" in answer.errors[0]) == (2, True)

    def test_a_code_so_wide_that_it_accepts_strangers(self, tmp_path):
        source = several(tmp_path / "e.parquet", 2)
        answer = enroll(source, tmp_path / "d", f"--code-width={4 * WIDTH + 4}")
        assert (answer.code, "at most 4 times as wide" in answer.errors[0]) == (2, True)
        assert enroll(source, tmp_path / "d", f"--code-width={4 * WIDTH}").code == 0

    def test_plaintext_rows_never_join_sealed_ones(self, tmp_path):
        dest, source = tmp_path / "square", several(tmp_path / "e.parquet", 2)
        run(request(source, dest, code_width=WIDTH))
        answer = enroll(source, dest, "--plaintext-helpers", "--accept-risk=stolen-rows")
        assert answer.code == 1
        assert "sealed is True there and False here" in answer.errors[0]

    def test_a_row_cannot_declare_itself_unsealed(self, dest):
        from support.table import rewrite

        from ironmask.errors import TamperedError

        def open_up(content):
            content[0]["sealed"] = False

        (path,) = data_files(dest, "templates")
        rewrite(path, open_up)
        row = read.find_row(open_tables(dest), "s000")
        with pytest.raises(TamperedError, match="says sealed = False"):
            probe.verify_embeddings(
                open_tables(dest).table_id, row, unit_vectors(1), generation_keys(dest)
            )


class TestDeclaredModels:
    def test_a_gallery_of_a_known_pack_takes_its_fingerprint(self, tmp_path, face_data):
        model = face_data / "models" / "buffalo_sc"
        vectors = captures(unit_vectors(2, width=512), 1)
        source = write_embeddings(tmp_path / "e.parquet", ["a", "b"], vectors)
        dest = tmp_path / "dest"
        run(request(source, dest, model=str(model)))
        (fingerprint,) = {row["model"] for row in rows(dest, "templates")}
        assert not fingerprint.startswith("declared:")
        photo = next((face_data / "faces" / "lfw_dev" / "Al_Gore").iterdir())
        answer = ironmask(
            "verify", dest, photo, "--subject=a", f"--model={model}", f"--keys={keys_of(dest)}"
        )
        assert (answer.code, "rejected" in answer.out) == (4, True)

    def test_a_pack_of_another_width_is_refused(self, tmp_path, face_data):
        source = several(tmp_path / "e.parquet", 2)
        model = face_data / "models" / "buffalo_sc"
        answer = enroll(source, tmp_path / "dest", f"--model={model}")
        assert (answer.code, "width 64" in answer.errors[0]) == (2, True)

    def test_only_the_declared_name_is_compared(self, tmp_path, face_data):
        source = write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1, width=512))
        dest = tmp_path / "dest"
        run(request(source, dest, model="our own"))
        photo = next((face_data / "faces" / "lfw_dev" / "Al_Gore").iterdir())
        model = face_data / "models" / "buffalo_sc"
        answer = ironmask(
            "verify", dest, photo, "--subject=a", f"--model={model}", f"--keys={keys_of(dest)}"
        )
        assert answer.code == 1
        assert "declared as 'our own', not 'buffalo_sc'" in answer.errors[0]


def test_a_missing_data_file_is_named(tmp_path):
    dest = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 2), dest))
    (path,) = data_files(dest, "templates")
    path.unlink()
    with pytest.raises(TableError, match="missing or damaged"):
        read.find_row(open_tables(dest), "s000")
    answer = ironmask("inspect", dest)
    assert (answer.code, len(answer.errors)) == (1, 1)


def test_damaged_pages_of_a_source_are_named(tmp_path):
    source = several(tmp_path / "e.parquet", 50)
    content = bytearray(source.read_bytes())
    content[200:3000] = np.random.default_rng(0).bytes(2800)
    source.write_bytes(content)
    answer = enroll(source, tmp_path / "dest")
    assert answer.code == 1
    assert "cannot be read as Parquet" in answer.errors[0]


def test_a_pack_that_arrives_later_joins_what_was_declared(tmp_path, face_data):
    import shutil

    vectors = captures(unit_vectors(3, width=512), 1)
    first = write_embeddings(tmp_path / "1.parquet", ["a", "b"], vectors[:2])
    dest = tmp_path / "dest"
    run(request(first, dest, model="buffalo_sc"))
    pack = tmp_path / "packs" / "buffalo_sc"
    shutil.copytree(face_data / "models" / "buffalo_sc", pack)
    second = write_embeddings(tmp_path / "2.parquet", ["c"], vectors[2:])
    run(request(second, dest, model=str(pack)))
    assert {row["model"] for row in rows(dest, "templates")} == {"declared:buffalo_sc"}
