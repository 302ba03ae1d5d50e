"""The pack of a table's model: found by its fingerprint among those on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.graphs import detector, recogniser

from infra.models.installed import find_fingerprint, find_installed, label_of
from infra.models.packs import find_pack, list_packs, usual_fingerprint
from infra.models.registry import KNOWN_PACKS
from ironmask.errors import ModelNotFoundError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("IRONMASK_MODELS", str(path))
    return path


def own_pack(folder: Path) -> Path:
    folder.mkdir(parents=True)
    recogniser(folder / "a.onnx")
    detector(folder / "b.onnx")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in folder.glob("*.onnx")
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def test_by_its_fingerprint(home: Path) -> None:
    pack = find_pack(str(own_pack(home / "mine")))
    assert find_fingerprint(pack.fingerprint) == pack
    assert pack.label == f"mine ({pack.fingerprint[:12]})"
    (info,) = [info for info in list_packs() if info.installed]
    assert info.fingerprint == pack.fingerprint


def test_a_damaged_pack_is_passed_over(home: Path) -> None:
    pack = find_pack(str(own_pack(home / "mine")))
    damaged = own_pack(home / "a-first")
    (damaged / "a.onnx").write_bytes(b"no model")
    (home / "empty").mkdir()
    assert find_fingerprint(pack.fingerprint) == pack
    (home / "mine" / "b.onnx").write_bytes(b"no model")
    with pytest.raises(ModelNotFoundError, match=pack.fingerprint[:12]) as found:
        find_fingerprint(pack.fingerprint)
    assert pack.fingerprint not in str(found.value)


def test_what_no_pack_has(home: Path) -> None:
    """The error names the first digits, the folder, and what to do."""
    known = KNOWN_PACKS["buffalo_sc"]
    for fingerprint, advice in (
        (usual_fingerprint(known), "run `ironmask models pull buffalo_sc`"),
        ("ab" * 32, "pull it, or name the folder"),
    ):
        with pytest.raises(ModelNotFoundError) as found:
            find_fingerprint(fingerprint)
        said = str(found.value)
        assert f"the fingerprint {fingerprint[:12]}: " in said
        assert advice in said
        assert "--model" in said
        assert str(home) in said


def test_a_name_is_looked_for_in_the_models_folder_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table says the name, and must not choose a folder by it."""
    monkeypatch.chdir(tmp_path)
    own_pack(tmp_path / "near")
    for name in ("near", str(tmp_path / "near"), "../near", "."):
        with pytest.raises(ModelNotFoundError):
            find_installed(name)
    own_pack(home / "near")
    assert find_installed("near").folder == home / "near"


def test_what_people_see_of_a_model() -> None:
    fingerprint = usual_fingerprint(KNOWN_PACKS["edgeface_s"])
    assert label_of(fingerprint) == f"edgeface_s ({fingerprint[:12]})"
    assert label_of("ab" * 32) == "abababababab"
    assert label_of("declared:our own") == "declared:our own"
