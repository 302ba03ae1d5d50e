"""Who may own, write and read a keyset file, and that its keys reach no core dump."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import ironmask
from support.enrolling import several
from support.table import keys_of

from infra.keys.key_file import KeyFile
from ironmask.errors import KeyFileError, KeyStoreError

TABLE = "7d0c6a3e-table"
STRANGER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def wrapped(path: Path) -> Path:
    """The same file as a key service's: its keysets are not opened here."""
    content = json.loads(path.read_text())
    content["kek"] = {"uri": "aws-kms://arn:aws:kms:eu-west-1:1:key/1", "keyset": None}
    path.write_text(json.dumps(content))
    return path


def opens(path: Path) -> None:
    """It is read and found sound; what opens the keysets may not be installed here."""
    try:
        KeyFile.open(path, TABLE)
    except KeyStoreError as error:
        assert not isinstance(error, KeyFileError), error  # noqa: PT017 - the subclass alone


class TestOwner:
    @needs_root
    def test_a_file_of_somebody_else_is_refused(self, key_file: KeyFile, path: Path) -> None:
        os.chown(path, STRANGER, -1)
        with pytest.raises(KeyFileError, match=rf"belongs to user {STRANGER}.* runs as 0.*chown 0"):
            KeyFile.open(path, TABLE)
        with pytest.raises(KeyFileError, match="belongs to user"):
            key_file.generation(1)
        wrapped(path)
        with pytest.raises(KeyFileError, match="belongs to user"):
            KeyFile.open(path, TABLE)

    @needs_root
    def test_a_folder_of_somebody_else_is_refused(self, key_file: KeyFile, path: Path) -> None:
        os.chown(path.parent, STRANGER, -1)
        with pytest.raises(KeyFileError, match=f"folder of user {STRANGER}"):
            KeyFile.open(path, TABLE)
        with pytest.raises(KeyFileError, match=f"folder of user {STRANGER}"):
            KeyFile.create(path.with_name("other.json"), TABLE)

    @needs_root
    def test_root_may_own_what_a_key_service_wraps(self, key_file: KeyFile, path: Path) -> None:
        """As a cluster mounts it: root's, readable by others, behind links."""
        volume = path.parent
        (volume / "..now").mkdir(mode=0o755)
        moved = volume / "..now" / "table.json"
        path.rename(moved)
        (volume / "..data").symlink_to("..now")
        path.symlink_to("..data/table.json")
        for folder in [volume, *volume.parents]:
            if folder.stat().st_mode & 0o1 == 0 and str(folder).startswith("/tmp/"):
                folder.chmod(folder.stat().st_mode | 0o111)
        moved.chmod(0o444)
        as_stranger = _run_as(STRANGER, path)
        assert "belongs to user 0" in as_stranger
        assert "rotate-kek" in as_stranger
        wrapped(moved)
        assert "belongs to" not in _run_as(STRANGER, path)
        assert "KeyFileError" not in _run_as(STRANGER, path)


def _run_as(user: int, path: Path) -> str:
    """What opening a keyset file says to another user, in a process that becomes this user."""
    code = (
        "import os, sys\n"
        "from infra.keys.key_file import KeyFile\n"
        "from pathlib import Path\n"
        f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
        "try: KeyFile.open(Path(sys.argv[1]), sys.argv[2])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), TABLE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestMode:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_a_secret_is_for_its_owner_alone(
        self, key_file: KeyFile, path: Path, mode: int
    ) -> None:
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
            KeyFile.open(path, TABLE)

    @pytest.mark.parametrize("mode", [0o600, 0o440, 0o444, 0o644])
    def test_what_is_wrapped_may_be_read(self, key_file: KeyFile, path: Path, mode: int) -> None:
        wrapped(path).chmod(mode)
        opens(path)

    @pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
    def test_what_is_wrapped_may_not_be_written(
        self, key_file: KeyFile, path: Path, mode: int
    ) -> None:
        wrapped(path).chmod(mode)
        with pytest.raises(KeyFileError, match=f"written by others: run `chmod go-w {path}`"):
            KeyFile.open(path, TABLE)

    def test_an_address_of_a_service_does_not_make_a_cleartext_key_wrapped(
        self, key_file: KeyFile, path: Path
    ) -> None:
        content = json.loads(path.read_text())
        content["kek"]["uri"] = "aws-kms://arn:aws:kms:eu-west-1:1:key/1"
        path.write_text(json.dumps(content))
        path.chmod(0o644)
        with pytest.raises(KeyFileError, match="chmod 600"):
            KeyFile.open(path, TABLE)

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
    def test_a_folder_that_others_may_write(self, key_file: KeyFile, path: Path, mode: int) -> None:
        path.parent.chmod(mode)
        with pytest.raises(KeyFileError, match=f"replace it: run `chmod go-w {path.parent}`"):
            KeyFile.open(path, TABLE)
        before = sorted(path.parent.iterdir())
        with pytest.raises(KeyFileError, match="replace it"):
            KeyFile.create(path.with_name("other.json"), TABLE)
        assert sorted(path.parent.iterdir()) == before

    def test_a_folder_in_which_nobody_touches_others_files(
        self, key_file: KeyFile, path: Path
    ) -> None:
        path.parent.chmod(0o1777)
        assert 1 in KeyFile.open(path, TABLE).generations()

    def test_what_is_no_file_is_not_waited_for(self, path: Path) -> None:
        path.parent.mkdir()
        os.mkfifo(path, 0o600)
        with pytest.raises(KeyFileError, match="cannot be read"):
            KeyFile.open(path, TABLE)

    def test_a_mount_that_cannot_be_written_is_read(self, key_file: KeyFile, path: Path) -> None:
        """Opening needs no lock and no temporary file beside it."""
        path.with_name(f".{path.name}.lock").unlink()
        path.parent.chmod(0o500)
        KeyFile.open(path, TABLE).generation(1)
        assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_address_of_a_key_with_credentials_is_refused(path: Path) -> None:
    address = "hcvault://user:hunter2@vault:8200/transit/keys/k"
    source, dest = several(path.parent.parent / "e.parquet", 2), path.parent.parent / "d"
    answer = ironmask("enroll", source, dest, f"--keys={path}", f"--kek={address}")
    assert answer.code == 2
    assert "--kek carries credentials" in answer.errors[0]
    assert "hunter2" not in answer.err
    assert not path.exists()
    assert not dest.exists()


DUMPS = """
import os, resource, sys
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
"""

CRASH = f"""{DUMPS}
from pathlib import Path
from infra.keys.key_file import KeyFile
if sys.argv[2] == "open":
    KeyFile.open(Path(sys.argv[1]), sys.argv[4]).generation(1)
os.kill(os.getpid(), int(sys.argv[3]))
"""


def crashed(path: Path, what: str, sign: int) -> int:
    """The wait status of a process that was ended by a signal, in a folder of its own."""
    child = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(path), what, str(sign), TABLE],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == sign
    return status


@pytest.mark.parametrize("sign", [signal.SIGABRT, signal.SIGSEGV])
def test_who_opened_keys_leaves_no_core_dump(key_file: KeyFile, path: Path, sign: int) -> None:
    control = crashed(path, "nothing", sign)
    if not os.WCOREDUMP(control):
        pytest.skip("the system makes no dumps")
    assert not os.WCOREDUMP(crashed(path, "open", sign))


STATE = f"""{DUMPS}
import ctypes
from pathlib import Path
from infra.keys.key_file import KeyFile
flag = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
before = flag()
KeyFile.open(Path(sys.argv[1]), sys.argv[2])
print(before, flag(), resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_opening_a_keyset_file_ends_dumps_also_to_a_program(key_file: KeyFile, path: Path) -> None:
    """A limit of zero does not reach a dump that the system pipes; the flag does."""
    command = [sys.executable, "-c", STATE, str(path), TABLE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", "0"]


def _limits(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return ""
    found = [line for line in text.splitlines() if line.startswith("Max core file size")]
    return found[0].split()[4] if found else ""


def _processes() -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes()
            except OSError:
                continue


def _below(pid: int) -> set[int]:
    parents = {}
    for child, _ in _processes():
        try:
            stat = Path(f"/proc/{child}/stat").read_text()
        except OSError:
            continue
        parents[child] = int(stat.rpartition(")")[2].split()[1])
    found, size = {pid}, 0
    while len(found) != size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_workers_on_ray_and_their_driver_leave_none(tmp_path: Path) -> None:
    """Each process that opens keys has its limit at zero, however it was before."""
    source, dest = several(tmp_path / "e.parquet", 600), tmp_path / "dest"
    command = [sys.executable, "-c", DRIVER, "enroll", str(source), str(dest), "--alpha=12"]
    command += ["--tolerance=1", f"--keys={keys_of(dest)}", "--shard-size=4", "--workers=1"]
    said = tmp_path / "said.txt"
    with said.open("wb") as file:
        child = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file)
    dumped: set[str] = set()
    try:
        while child.poll() is None:
            family = _below(child.pid)
            if _limits(child.pid) == "0":
                dumped.add("driver")
            for pid, line in _processes():
                if pid in family and line.startswith(b"ray::") and _limits(pid) == "0":
                    dumped.add("worker")
            if dumped == {"driver", "worker"}:
                break
            time.sleep(0.02)
        assert child.wait(120) == 0, said.read_text()
    finally:
        child.kill()
        child.wait()
    assert dumped == {"driver", "worker"}


DRIVER = f"""{DUMPS}
from pipelines import cli
cli.main()
"""
