"""A new key-encryption key: nothing inside changes, and no interruption leaves a third state."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from infra.keys import kek, keyset_file
from infra.keys import key_file as key_files
from infra.keys.kek import LOCAL
from infra.keys.key_file import KekRotation, KeyFile
from ironmask.errors import KeyFileError, KeyNotFoundError, KeyStoreError, WrongKeyError

TABLE = "7d0c6a3e-table"
ROW = b"row 1"
MODULES = {module.__file__ for module in (key_files, keyset_file)}
# What changes files, and what calls it.
STEPS = {"writing", "write", "_write_new", "settle", "__write", "__put"}
STEPS |= {"rotate_kek", "succeed", "destroy_generation"}


@pytest.fixture
def key_file(path: Path) -> KeyFile:
    """Generation 1 with two keysets, 2 with four, 3 destroyed."""
    made = KeyFile.create(path, TABLE)
    made.add_generation(1)
    made.succeed(2, 1, rekey=True, rotate_mac=True)
    made.add_generation(3)
    made.destroy_generation(3)
    return made


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def wrapped(content: dict[str, Any]) -> set[str]:
    entries = [e for e in content["generations"].values() if e["state"] == "live"]
    return {w for e in entries for w in [e["data"], *e["prf"], e["shuffle"]] if w is not None}


class Held:
    """What a generation's keys gave before, to be given again after."""

    def __init__(self, key_file: KeyFile, generation: int) -> None:
        keys = key_file.generation(generation)
        self.generation = generation
        self.sealed = keys.encrypt(b"helper", ROW)
        self.made = self._made(keys)

    @staticmethod
    def _made(keys: Any) -> tuple[object, ...]:
        rows = keys.row_key("a"), keys.shuffle_key("a"), keys.content_key(), keys.log_seal_key()
        return (keys.key_id, keys.sealed, *rows)

    def check(self, key_file: KeyFile) -> None:
        keys = key_file.generation(self.generation)
        assert keys.decrypt(self.sealed, ROW) == b"helper"
        assert self._made(keys) == self.made


def test_every_live_keyset_is_wrapped_anew_and_opens_as_before(
    key_file: KeyFile, path: Path
) -> None:
    held = [Held(key_file, g) for g in (1, 2)]
    opened = KeyFile.open(path, TABLE)
    still_open = opened.generation(1)
    before, records = load(path), key_file.generations()
    assert key_file.rotate_kek(LOCAL) == KekRotation(LOCAL, LOCAL, 7)
    after = load(path)
    assert after["kek"]["keyset"] != before["kek"]["keyset"]
    assert len(wrapped(after)) == 6
    assert not wrapped(after) & wrapped(before)
    assert after["generations"]["3"] == before["generations"]["3"]
    assert key_file.generations() == records
    assert path.stat().st_mode & 0o777 == 0o600
    for one in held:
        for file in (key_file, opened, KeyFile.open(path, TABLE)):
            one.check(file)
    assert still_open.decrypt(held[0].sealed, ROW) == b"helper"
    with pytest.raises(KeyNotFoundError, match="destroyed"):
        opened.generation(3)


def test_a_file_opened_before_goes_on_writing_after(key_file: KeyFile, path: Path) -> None:
    opened = KeyFile.open(path, TABLE)
    key_file.rotate_kek()
    opened.add_generation(4)
    opened.succeed(5, 2, rekey=False, rotate_mac=True)
    assert opened.rotate_kek(LOCAL).keysets == 14
    fresh = KeyFile.open(path, TABLE)
    assert len(fresh.generation(5).row_key("a")) == 96
    assert key_file.generation(4).key_id == fresh.generation(4).key_id


def test_nothing_live_is_nothing_to_wrap(path: Path) -> None:
    made = KeyFile.create(path, TABLE)
    # The keys of the table are always there.
    assert made.rotate_kek().keysets == 1
    made.add_generation(1)
    made.destroy_generation(1)
    # The keys of the table are always there.
    assert made.rotate_kek().keysets == 1
    assert KeyFile.open(path, TABLE).generations()[1].state == "destroyed"


def another_kek(content: dict[str, Any]) -> None:
    content["kek"]["keyset"] = kek.local_keyset()


def damaged_kek(content: dict[str, Any]) -> None:
    content["kek"]["keyset"] = content["kek"]["keyset"][:-9]


def dropped_layer(content: dict[str, Any]) -> None:
    content["generations"]["2"]["prf"].pop()


def changed_last(content: dict[str, Any]) -> None:
    content["generations"]["2"]["shuffle"] = content["generations"]["2"]["data"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (another_kek, WrongKeyError),
        (damaged_kek, KeyFileError),
        (dropped_layer, WrongKeyError),
        (changed_last, WrongKeyError),
    ],
)
def test_what_does_not_open_is_refused_and_left(
    key_file: KeyFile, path: Path, change: Callable[[dict[str, Any]], None], error: type[Exception]
) -> None:
    opened = KeyFile.open(path, TABLE)
    content = load(path)
    change(content)
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    for file in (lambda: key_file, lambda: opened, lambda: KeyFile.open(path, TABLE)):
        with pytest.raises(error):
            file().rotate_kek(LOCAL)
    assert path.read_bytes() == before


def test_an_unknown_address_changes_nothing(key_file: KeyFile, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(KeyStoreError, match="unknown key-encryption key"):
        key_file.rotate_kek("other-kms://a")
    assert path.read_bytes() == before


def rotate(key_file: KeyFile) -> None:
    key_file.rotate_kek(LOCAL)


def succeed(key_file: KeyFile) -> None:
    key_file.succeed(4, 2, rekey=True, rotate_mac=True)


def destroy(key_file: KeyFile) -> None:
    key_file.destroy_generation(2)


def rotated(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before["kek"] != after["kek"] and not wrapped(before) & wrapped(after)


def succeeded(before: dict[str, Any], after: dict[str, Any]) -> bool:
    new = after["generations"].pop("4", None)
    return before == after and len(new["prf"]) == 3


def destroyed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    gone = after["generations"]["2"]
    nothing = {"state": "destroyed", "data": None, "prf": [], "shuffle": None}
    before["generations"]["2"] |= nothing | {"destroyed_at": gone["destroyed_at"]}
    return before == after and gone["destroyed_at"] is not None


CHANGES = [(rotate, rotated), (succeed, succeeded), (destroy, destroyed)]


def is_new(old: bytes, path: Path, done: Callable[..., bool]) -> bool:
    """Whether the file is the new one; if not, it must be the old one to the byte."""
    now = path.read_bytes()
    if now == old:
        return False
    assert done(json.loads(old), json.loads(now))
    return True


def killed_at(place: int, change: Callable[[KeyFile], None], key_file: KeyFile) -> bool:
    """Run a change in a process that kills itself before some line; False once it ends first."""
    child = os.fork()
    if child == 0:
        lines = 0

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lines
            code = frame.f_code
            if code.co_filename not in MODULES or code.co_name not in STEPS:
                return None
            if event == "line":
                lines += 1
                if lines > place:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            change(key_file)
            sys.settrace(None)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.slow
@pytest.mark.parametrize(("change", "done"), CHANGES)
def test_killed_at_any_line_the_file_is_the_old_or_the_new(
    key_file: KeyFile, path: Path, change: Callable[[KeyFile], None], done: Callable[..., bool]
) -> None:
    held, old = Held(key_file, 1), path.read_bytes()
    seen, leftovers, place = set(), 0, 0
    while killed_at(place, change, key_file):
        new = is_new(old, path, done)
        seen.add(new)
        held.check(KeyFile.open(path, TABLE))
        if len(list(path.parent.iterdir())) > 2:
            leftovers += 1
            KeyFile.open(path, TABLE).add_generation(9)
            assert len(list(path.parent.iterdir())) == 2
        path.write_bytes(old)
        place += 1
    assert seen == {False, True}
    assert place > 25
    assert leftovers > 0
    assert is_new(old, path, done)


@pytest.mark.parametrize(("change", "done"), CHANGES)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (os, "open"),
        (os, "fdopen"),
        (os, "fsync"),
        (os, "replace"),
        (os, "fstat"),
        (fcntl, "flock"),
        (Path, "mkdir"),
        (os, "stat"),
        (Path, "unlink"),
    ],
)
def test_whatever_call_fails_the_file_is_the_old_or_the_new(
    key_file: KeyFile,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    change: Callable[[KeyFile], None],
    done: Callable[..., bool],
) -> None:
    held, old, original = Held(key_file, 1), path.read_bytes(), getattr(owner, name)
    failing = calls = 0

    def full(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > failing:
            raise OSError(28, "No space left on device")
        return original(*arguments, **named)

    while True:
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            error = failure_of(change, KeyFile(path, json.loads(old), local_kek(old)))
        if error is None:
            break
        assert error.__cause__ is None
        # Only making the new file durable may fail once it is in its place.
        late = owner is os and name in {"open", "fsync"} and calls > 1
        assert not is_new(old, path, done) or late
        held.check(KeyFile.open(path, TABLE))
        path.write_bytes(old)
        failing += 1
    assert failing > 0 or name == "unlink"
    assert is_new(old, path, done)


def failure_of(change: Callable[[KeyFile], None], file: KeyFile) -> KeyFileError | None:
    try:
        change(file)
    except KeyFileError as error:
        return error
    return None


@pytest.mark.parametrize("change", [change for change, _ in CHANGES])
def test_a_change_that_returned_is_durable(
    key_file: KeyFile,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[KeyFile], None],
) -> None:
    """The content before the name, then the folder."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        steps.append(f"{old.name} to {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    change(key_file)
    new = steps[0]
    assert steps == [new, f"{new} to {path.name}", path.parent.name]


def local_kek(content: bytes) -> kek.Kek:
    return kek.resolve(LOCAL, json.loads(content)["kek"]["keyset"])


def test_a_full_disk_leaves_the_old_file(key_file: KeyFile, path: Path) -> None:
    """A real one, as far as a limit on the size of files is one."""
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))
    try:
        with pytest.raises(KeyFileError, match="cannot be written"):
            key_file.rotate_kek(LOCAL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert len(list(path.parent.iterdir())) == 2
    assert key_file.rotate_kek(LOCAL).keysets == 7


def test_readers_and_writers_go_on_meanwhile(key_file: KeyFile, path: Path) -> None:
    """Threads read and add generations through files of their own while the KEK changes."""
    held = [Held(key_file, g) for g in (1, 2)]
    readers = [KeyFile.open(path, TABLE) for _ in range(2)]
    stop = threading.Event()

    def read(file: KeyFile) -> None:
        while not stop.is_set():
            for one in held:
                one.check(file)

    def add(number: int) -> None:
        KeyFile.open(path, TABLE).succeed(number, 2, rekey=True, rotate_mac=False)

    with ThreadPoolExecutor(5) as pool:
        # Two threads share the first reader.
        reading = [pool.submit(read, file) for file in (readers[0], *readers)]
        adding = [pool.submit(add, number) for number in range(10, 20)]
        try:
            for _ in range(15):
                key_file.rotate_kek(LOCAL)
            wait(adding)
        finally:
            stop.set()
    for task in reading + adding:
        task.result()
    fresh = KeyFile.open(path, TABLE)
    for number in range(10, 20):
        assert fresh.generation(number).row_key("a") == held[1].made[2]


def test_two_processes_rotate_one_after_the_other(key_file: KeyFile, path: Path) -> None:
    held = Held(key_file, 2)
    code = (
        "import sys; from pathlib import Path; from infra.keys.key_file import KeyFile\n"
        f"print([KeyFile.open(Path(sys.argv[1]), {TABLE!r}).rotate_kek().keysets for _ in '12345'])"
    )
    command = [sys.executable, "-c", code, str(path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [p.communicate(timeout=60)[0] for p in started] == [b"[7, 7, 7, 7, 7]\n"] * 2
    held.check(key_file)
