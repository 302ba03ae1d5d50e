"""Names of things inside a destination."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

_SHARD_FILE: Final = re.compile(
    r"part-(?P<run>[0-9a-f]{12})-(?P<shard>\d{6,})-(?P<attempt>[0-9a-f]{16})"
    r"-(?P<groups>g?)(?P<sha256>[0-9a-f]{64})\.parquet"
)
_WAVE_FILE: Final = re.compile(
    r"wave-(?P<run>[0-9a-f]{12})-(?P<shards>\d{6,})-(?P<attempts>[0-9a-f]{64})"
    r"-(?P<sha256>[0-9a-f]{64})\.parquet"
)
_ROWS_FILE: Final = re.compile(r"rows-[0-9a-f]{16}-(?P<sha256>[0-9a-f]{64})\.parquet")
_PROFILE: Final = re.compile(r"profile-(?P<sha256>[0-9a-f]{64})\.parquet")
_GENERATION: Final = re.compile(r"generation=(?P<number>\d+)/")
_PARTIAL: Final = re.compile(r"\.part-[0-9a-f]{16}")
_PLAN_FILE: Final = re.compile(r"(?P<run>[0-9a-f]{12})/(?:plan\.json|part-\d{5,}\.parquet)")
PRIVATE: Final = "_ironmask"
PSEUDONYM: Final = "erased-"
FIRST_GENERATION: Final = 1
TABLE_PROTOCOL: Final = "table"
"""Label of rates that were measured on a table's own templates."""


def join(base: str, *parts: str) -> str:
    """Join an address and path parts with single slashes."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


@dataclass(frozen=True, slots=True)
class ShardFile:
    """The parts of the name of a shard's data file. attempt: 16 hex digits, new for each writing.

    groups: whether the digest is that of the footer, which has the digests of the row groups
    (`grouped_files`); otherwise it is that of the whole content.
    """

    run_id: str
    shard: int
    attempt: str
    sha256: str
    groups: bool = False

    @property
    def name(self) -> str:
        digest = f"{'g' * self.groups}{self.sha256}"
        return f"part-{self.run_id}-{self.shard:06d}-{self.attempt}-{digest}.parquet"


def parse_shard_file(path: str) -> ShardFile | None:
    """Read the name of a shard's data file; None for other files."""
    found = _SHARD_FILE.fullmatch(_name(path))
    if found is None:
        return None
    return ShardFile(
        found["run"],
        int(found["shard"]),
        found["attempt"],
        found["sha256"],
        groups=bool(found["groups"]),
    )


Attempt = tuple[str, int, str]
"""A run, one of its shards, and the attempt that did it."""


def attempt_of(file: ShardFile) -> Attempt:
    return file.run_id, file.shard, file.attempt


@dataclass(frozen=True, slots=True)
class WaveFile:
    """The parts of the name of a file with the outcomes of many shards of a run.

    shards: how many. attempts: SHA-256 of the list of its shards and their attempts. sha256: of the
    whole content.
    """

    run_id: str
    shards: int
    attempts: str
    sha256: str

    @property
    def name(self) -> str:
        return f"wave-{self.run_id}-{self.shards:06d}-{self.attempts}-{self.sha256}.parquet"


def parse_wave_file(path: str) -> WaveFile | None:
    """Read the name of a file with the outcomes of many shards; None for other files."""
    found = _WAVE_FILE.fullmatch(_name(path))
    if found is None:
        return None
    return WaveFile(found["run"], int(found["shards"]), found["attempts"], found["sha256"])


def run_of(path: str) -> str | None:
    """The run that a data file is of; None where its name does not say one."""
    found = _SHARD_FILE.fullmatch(_name(path)) or _WAVE_FILE.fullmatch(_name(path))
    return found["run"] if found else None


def shards_in(path: str) -> int:
    """How many shards a data file is of, by its name."""
    wave = parse_wave_file(path)
    return wave.shards if wave else int(parse_shard_file(path) is not None)


def is_of(path: str, runs: Collection[str] | None) -> bool:
    """Whether a data file is of one of some runs. None: of any."""
    return runs is None or run_of(path) in runs


def rows_file(attempt: str, sha256: str) -> str:
    """Name of a data file with a few rows that belong to no shard. attempt: 16 hex digits."""
    return f"rows-{attempt}-{sha256}.parquet"


def digest_in(path: str) -> str | None:
    """The SHA-256 in a data file's name, of any kind; None for other files."""
    name = _name(path)
    kinds = (_SHARD_FILE, _WAVE_FILE, _ROWS_FILE)
    found = next((found for kind in kinds if (found := kind.fullmatch(name))), None)
    return found["sha256"] if found else None


def partial_file(token: str) -> str:
    """Name of a file that is being written to a local folder. token: 16 hex digits."""
    return f".part-{token}"


def is_ours(path: str) -> bool:
    """Tell whether a path is of a data file, finished or not. Nothing else may be destroyed."""
    return digest_in(path) is not None or is_partial(path)


def is_partial(path: str) -> bool:
    """Tell whether a path is of a file whose writing was interrupted."""
    return _PARTIAL.fullmatch(_name(path)) is not None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def in_partition(partition: Mapping[str, str], name: str) -> str:
    """Path of a file relative to its table, in Hive style."""
    return "/".join([*(f"{key}={value}" for key, value in partition.items()), name])


def seal_file(dest: str) -> str:
    """Address of the seal over a destination's logs."""
    return join(dest, PRIVATE, "seal.json")


def progress_file(dest: str) -> str:
    """Address of the unfinished run's last note about itself."""
    return join(dest, PRIVATE, "progress.json")


def profile_file(dest: str, digest: str) -> str:
    """Address of the profile of a model that made embeddings of a destination."""
    return join(dest, PRIVATE, f"profile-{digest}.parquet")


def profile_digest(path: str) -> str | None:
    """The SHA-256 of its content in a profile's name; None for other files."""
    found = _PROFILE.fullmatch(_name(path))
    return found["sha256"] if found else None


def generation_of(path: str) -> int | None:
    """The generation of a data file's path, relative to its table; None for other files."""
    found = _GENERATION.match(path)
    return int(found["number"]) if found else None


def vault_id(table_id: str) -> str:
    """The id that the keys of a table's vault are bound to."""
    return f"{table_id}/vault"


def erasure_file(dest: str) -> str:
    """Address of the note of an unfinished erasure."""
    return join(dest, PRIVATE, "erasing.json")


def destroyed_file(dest: str, generation: int) -> str:
    """Address of the list of the files of a destroyed generation."""
    return join(dest, PRIVATE, "destroyed", f"generation-{generation:06d}.txt")


def generation_folder(templates: str, generation: int) -> str:
    """Address of the folder of a generation's data files in the table of templates."""
    return join(templates, f"generation={generation}")


def plans_folder(dest: str) -> str:
    """Address of the folder that holds the frozen plans."""
    return join(dest, PRIVATE, "plans")


def plan_folder(dest: str, run_id: str) -> str:
    """Address of the folder of a run's frozen plan."""
    return join(plans_folder(dest), run_id)


def plan_file(folder: str) -> str:
    """Address of the file that makes a folder a plan."""
    return join(folder, "plan.json")


def plan_part(number: int) -> str:
    """Name of a part of a plan."""
    return f"part-{number:05d}.parquet"


def plan_run(path: str) -> str | None:
    """The run of a plan's file, by its path relative to the plans' folder; None for others."""
    found = _PLAN_FILE.fullmatch(path)
    return found["run"] if found else None
