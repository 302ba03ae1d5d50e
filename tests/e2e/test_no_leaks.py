"""A run on a cluster leaves no template, codeword or key in any file, nor in shared memory."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from support.command import Answer, clean_environment, command
from support.enrolling import write_manifest, write_vectors
from support.faces import photographs
from support.leaks import Needles, codewords, contents, decimals, files, search, spellings, windows
from support.opened import open_template
from support.table import generation_keys, keys_of, listed_files, rows, table_id_of, templates
from tink import KeysetHandle, json_proto_keyset_format, proto_keyset_format, secret_key_access

from infra.faces.detector import fitted
from infra.faces.images import decode
from infra.keys.kek import Kek
from ironmask.arrays import F32
from ironmask.centring import centre
from ironmask.params import DEFAULT_PRESET, preset
from pipelines.enrolment import request
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan import plans
from pipelines.ports import U8
from pipelines.setup import worker
from pipelines.setup.worker import WorkerSpec
from pipelines.shard import photos
from pipelines.spec.faces import FaceSettings
from pipelines.spec.options import assembled
from pipelines.table import layout
from pipelines.table.details import decrypted

pytestmark = pytest.mark.slow

SUBJECTS, EACH, SHARD = 40, 6, 60
CANARIES, WIDTH = 40, 512
CODE_WIDTH = preset(DEFAULT_PRESET, WIDTH).code_width
# About the least that Ray takes, so that what waits may be spilled. Hosts answer so soon that
# mostly nothing is; what would be is what the store's memory holds, which is searched as well.
STORE = 78_643_200
SPILL_EARLY = {"RAY_object_spilling_threshold": "0.01", "RAY_min_spilling_size": "1"}
QUIET = {"RAY_AUTH_MODE": "disabled"}
BIN = Path(sys.executable).parent


@dataclass
class Head:
    """A running Ray head: where it writes, and where its spilled objects are kept."""

    address: str
    temp: Path
    kept: Path

    def memory(self) -> bytes:
        """The raylet's shared memory, whole."""
        for link in self._raylet().glob("fd/*"):
            with suppress(OSError):
                if "/plasma" in os.readlink(link):
                    return link.read_bytes()
        raise AssertionError("the object store was not found")

    def _raylet(self) -> Path:
        return next(p for p in self.processes() if _argv(p)[0].endswith("/raylet"))

    def processes(self) -> list[Path]:
        """Everything that this cluster started, by /proc."""
        mine = str(self.temp)
        return [p for p in Path("/proc").glob("[0-9]*") if mine in " ".join(_argv(p))]


def _argv(process: Path) -> list[str]:
    with suppress(OSError):
        return [os.fsdecode(part) for part in (process / "cmdline").read_bytes().split(b"\0")]
    return [""]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def ray_head(folder: Path) -> Iterator[Head]:
    """A head of its own process group, which ends with the block."""
    # Ray's sockets need a short path.
    temp = Path(tempfile.mkdtemp(prefix="im-", dir="/tmp"))
    head = Head(f"127.0.0.1:{_free_port()}", temp, folder / "spilled")
    said = folder / "ray.out"
    process = _start(head, folder, said)
    try:
        # A busy machine may need longer than the half minute that Ray gives itself.
        for _ in range(4):
            if _is_up(process, said):
                break
            _end(process, head)
            process = _start(head, folder, said)
        else:
            raise AssertionError(said.read_text())
        with _keeping_spilled(head):
            yield head
    finally:
        _end(process, head)
        shutil.rmtree(temp, ignore_errors=True)


def _start(head: Head, folder: Path, said: Path) -> subprocess.Popen[bytes]:
    with said.open("wb") as out:
        return subprocess.Popen(
            [
                *(BIN / "ray", "start", "--head", "--block", "--num-cpus=2"),
                *(f"--temp-dir={head.temp}", "--node-ip-address=127.0.0.1"),
                *(f"--port={head.address.partition(':')[2]}", "--include-dashboard=false"),
                *(f"--object-store-memory={STORE}", "--disable-usage-stats"),
                *(f"--ray-client-server-port={_free_port()}", "--min-worker-port=0"),
                "--max-worker-port=0",
            ],
            env=clean_environment(folder, TMPDIR=str(folder / "tmp"), **QUIET, **SPILL_EARLY),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _is_up(process: subprocess.Popen[bytes], said: Path) -> bool:
    """Wait until the head answers; False where it gave up."""
    while process.poll() is None:
        if b"runtime started" in said.read_bytes():
            return True
        time.sleep(0.2)
    return False


def _end(process: subprocess.Popen[bytes], head: Head) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for left in head.processes():
        with suppress(ProcessLookupError):
            os.kill(int(left.name), signal.SIGKILL)


@contextmanager
def _keeping_spilled(head: Head) -> Iterator[None]:
    """Link spilled objects elsewhere as they appear: Ray deletes them when they are read back."""
    head.kept.mkdir()
    done = threading.Event()

    def keep() -> None:
        while not done.wait(0.02):
            for path in head.temp.glob("session_2*/ray_spilled_objects*/*"):
                with suppress(OSError):
                    os.link(path, head.kept / path.name)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Secrets:
    """What must be found nowhere: vectors, codewords and keys, as the owner knows them."""

    embeddings: list[F32] = field(default_factory=list, repr=False)
    pixels: list[bytes] = field(default_factory=list, repr=False)
    templates: list[Any] = field(default_factory=list, repr=False)
    codes: list[Any] = field(default_factory=list, repr=False)
    keys: list[bytes] = field(default_factory=list, repr=False)
    row_keys: list[bytes] = field(default_factory=list, repr=False)

    def needles(self) -> Needles:
        printed = [*self.embeddings[::40], *self.templates[::40]]
        return Needles(
            {
                "embedding": [w for v in self.embeddings for w in windows(v)],
                "face": [w for some in self.pixels for w in spellings(some)],
                "template": [w for v in self.templates for w in windows(v)],
                "decimal text": [t for v in printed for t in decimals(v)],
                "codeword": [w for c in self.codes for w in codewords(c, CODE_WIDTH)],
                "key": [w for k in self.keys for w in spellings(k)],
                "row key": [w for k in self.row_keys for w in spellings(k)],
            }
        )

    def sample(self) -> bytes:
        """One of each, as careless code would write it."""
        printed = json.dumps([float(value) for value in self.embeddings[0]])
        return b"\n".join(
            [
                self.embeddings[-1].tobytes(),
                self.pixels[-1],
                self.templates[-1].tobytes(),
                printed.encode(),
                repr(self.codes[-1].tolist()).encode(),
                base64.b64encode(self.keys[-1]),
                self.row_keys[-1].hex().encode(),
            ]
        )

    def add_table(self, dest: Path, near: dict[str, Any]) -> None:
        """What the owner of a table can open. near: the centred template of each subject."""
        table_id, keys = table_id_of(dest), generation_keys(dest)
        for subject, row in templates(dest).items():
            opened = open_template(table_id, row, keys, near[subject])
            self.templates += [near[subject], opened.template]
            self.codes.append(opened.code)
            self.row_keys.append(keys.row_key(row["template_id"]))
        self.keys += _raw_keys(dest)


def _raw_keys(dest: Path) -> list[bytes]:
    """Every key of a keyset file: the key-encryption key and what it wraps."""
    found = _key_bytes(json.loads(keys_of(dest).read_text())["kek"]["keyset"])
    for handle in _unwrapped(dest):
        found += _key_bytes(json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
        whole = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
        found.append(whole[-48:])
    assert len(found) == 7
    return found


def _unwrapped(dest: Path) -> list[KeysetHandle]:
    """The keysets of the first generation, caught as they are opened."""
    caught = []

    def unwrap(kek: Kek, text: str, bound: bytes) -> KeysetHandle:
        caught.append(original(kek, text, bound))
        return caught[-1]

    original = Kek.unwrap
    with patch.object(Kek, "unwrap", unwrap):
        generation_keys(dest)
    return caught


def _key_bytes(keyset: str) -> list[bytes]:
    """The 32 bytes that end each key's message."""
    return [base64.b64decode(key["keyData"]["value"])[-32:] for key in json.loads(keyset)["key"]]


@dataclass
class Run:
    """Two enrolments on one cluster: of images, and of stored embeddings."""

    folder: Path
    head: Head
    answers: list[Answer]
    secrets: Secrets

    def places(self) -> dict[str, Path]:
        names = ("tmp", "prefect", "said", "images", "stored", "state", "spilled")
        return {"ray": self.head.temp, **{name: self.folder / name for name in names}}


@pytest.fixture(scope="module")
def run(faces, model, tmp_path_factory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("leaks")
    for name in ("tmp", "prefect", "said", "state"):
        (folder / name).mkdir()
    people = list(photographs(faces).items())[:SUBJECTS]
    entries = [(name, path) for name, paths in people for path in paths[:EACH]]
    source = write_manifest(folder / "m.csv", entries)
    canaries = np.random.default_rng(7).standard_normal((CANARIES, WIDTH)).astype(np.float32)
    # Two of a person must be alike.
    canaries[1::2] += 2 * canaries[::2]
    names = [f"c{number // 2:02d}" for number in range(CANARIES)]
    vectors = write_vectors(folder / "e.parquet", names, canaries)
    images, stored = folder / "images", folder / "stored"
    with ray_head(folder) as head:
        answers = [
            _enrol(
                folder,
                head,
                source,
                images,
                f"--shard-size={SHARD}",
                "--model",
                model,
                "--embedders=1",
                f"--allow-root={faces}",
            ),
            _enrol(folder, head, vectors, stored, "--shard-size=10"),
        ]
        secrets = Secrets(embeddings=list(canaries))
        secrets.add_table(stored, _centred(names, canaries))
        owners, found, secrets.pixels = _embeddings_again(source, images, model, faces)
        secrets.embeddings += list(found)
        secrets.add_table(images, _centred(owners, found))
        yield Run(folder, head, answers, secrets)


def _enrol(folder: Path, head: Head, source: Path, dest: Path, *more: object) -> Answer:
    answer = command(
        folder,
        *("enroll", source, dest, "--prefect", "--ray-address", head.address),
        *("--keys", keys_of(dest), "--json", *more),
        PREFECT_HOME=str(folder / "prefect"),
        TMPDIR=str(folder / "tmp"),
        IRONMASK_LOG_LEVEL="debug",
        **QUIET,
    )
    (folder / "said" / f"{dest.name}.out").write_text(answer.out)
    (folder / "said" / f"{dest.name}.err").write_text(answer.err)
    return answer


def _centred(owners: list[str], vectors: Any) -> dict[str, Any]:
    by_owner: dict[str, list[Any]] = {}
    for owner, vector in zip(owners, vectors, strict=True):
        by_owner.setdefault(owner, []).append(vector)
    return {owner: centre(np.stack(found), WIDTH) for owner, found in by_owner.items()}


def _embeddings_again(
    source: Path, dest: Path, model: Path, faces: Path
) -> tuple[list[str], F32, list[bytes]]:
    """The very embeddings of a run, by doing its first stages over: (owners, (k, n)).

    With them, a line of pixels of each aligned face and of each picture as the detector sees it.
    """
    flat = {"source": str(source), "dest": str(dest), "model": str(model)}
    flat |= {"shard_size": SHARD, "allow_roots": (str(faces),), "keys": str(keys_of(dest))}
    asked = assembled(EnrolRequest, flat)
    prepared = request.prepare(asked)
    used = {row["uri"]: row for row in rows(dest, "inputs") if row["outcome"] == "used"}
    run_id = next(iter(used.values()))["run_id"]
    frozen, _ = plans.load(layout.plan_folder(str(dest), run_id), prepared.store)
    spec = WorkerSpec((), keys_of(dest), table_id_of(dest), prepared.pack)
    context = worker.context(spec, prepared.job, frozen)
    owners, vectors, pixels = [], [], []
    for shard in range(frozen.shards):
        done = photos.prepare(context, shard, worker.aligner(spec, prepared.job))
        found = photos.embed(done, worker.recogniser(spec, prepared.job))
        for place, vector in zip(done.indices, found, strict=True):
            row = used.get(done.rows[place].uri)
            if row is None:  # another's face
                continue
            # Same length to the last bit: the same embedding.
            facts = decrypted(table_id_of(dest), row, context.keys.table)
            length = np.linalg.norm(vector.astype(np.float64))
            assert np.float32(length) == np.float32(facts["quality"])
            owners.append(row["subject_id"])
            vectors.append(vector)
        pixels += [_line(crop) for crop in done.crops]
        pixels += [_line(_seen(row.address, prepared.job.faces)) for row in done.rows]
    return owners, np.stack(vectors), pixels


def _seen(address: str, faces: FaceSettings) -> U8:
    """A picture as it goes to a detector."""
    return fitted(decode(Path(address).read_bytes(), faces), faces.det_sizes[0]).pixels


def _line(picture: U8) -> bytes:
    """Pixels from the middle of a picture, where there is much to see."""
    middle = len(picture) // 2
    lines = (picture[row, middle - 8 : middle + 8] for row in range(middle - 20, middle + 20))
    return max(lines, key=lambda line: len(np.unique(line))).tobytes()


@pytest.fixture(scope="module")
def needles(run: Run) -> Needles:
    return run.secrets.needles()


def test_the_runs_did_their_work(run):
    images, stored = (answer.json() for answer in run.answers)
    assert images["subjects_enrolled"] == SUBJECTS
    assert images["used"] > 0.95 * images["inputs"]
    assert (stored["subjects_enrolled"], stored["used"]) == (CANARIES // 2, CANARIES)
    assert list((run.folder / "prefect").glob("*.db")), "no Prefect server ran"
    assert len(run.secrets.codes) == SUBJECTS + CANARIES // 2


def test_the_search_finds_what_is_there(needles, run):
    assert needles.find(run.secrets.sample()) == needles.kinds
    assert needles.find(os.urandom(1 << 20)) == set()
    compressed = run.folder / "z.parquet"
    write_vectors(compressed, ["c"], run.secrets.embeddings[:1])
    assert needles.find(contents(compressed)) >= {"embedding"}


def test_no_file_holds_a_secret(needles, run):
    """A sample of every secret lies in every place, so a place that is not searched fails too."""
    assert len(files(run.head.temp)) > 20
    expected = {}
    for place in run.places().values():
        planted = place / "planted.bin"
        planted.write_bytes(bytes(1001) + run.secrets.sample())
        expected[planted] = needles.kinds
    try:
        found = {k: v for place in run.places().values() for k, v in search(place, needles).items()}
    finally:
        for planted in expected:
            planted.unlink()
    assert found == expected


def test_the_tables_are_among_what_is_searched(run):
    for name in ("images", "stored"):
        searched = set(files(run.folder / name))
        for table in ("templates", "inputs", "runs", "metrics"):
            assert set(listed_files(run.folder / name, table)) <= searched
        assert any("plans" in path.parts for path in searched)


def test_shared_memory_holds_no_secret(needles, run):
    memory = run.head.memory()
    assert len(memory) >= STORE / 2
    # Pictures went through it: zeros alone would prove nothing.
    assert np.count_nonzero(np.frombuffer(memory, np.uint8)) > 1_000_000
    assert needles.find(memory) == set()
    with _planted_object(run):
        assert needles.find(run.head.memory()) == needles.kinds


@contextmanager
def _planted_object(run: Run) -> Iterator[None]:
    """A process of the cluster holds a sample of every secret in the object store meanwhile."""
    sample = run.folder / "sample"
    sample.write_bytes(run.secrets.sample())
    program = (
        "import ray, sys; ray.init(sys.argv[1], log_to_driver=False);"
        "held = ray.put(open(sys.argv[2], 'rb').read() + bytes(1 << 18));"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, run.head.address, sample],
        env=clean_environment(run.folder, **QUIET),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("held" in line for line in process.stdout)
        yield
        process.communicate()
