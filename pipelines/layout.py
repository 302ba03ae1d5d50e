"""Names of things inside a destination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_DATA_FILE: Final = re.compile(
    r"part-(?P<run>[0-9a-f]{12})-(?P<shard>\d{6,})-(?P<attempt>[0-9a-f]+)\.parquet$"
)
_PARTIAL: Final = re.compile(r"\.part-[0-9a-f]{16}$")
PRIVATE: Final = "_ironmask"


def join(base: str, *parts: str) -> str:
    """Join an address and path parts with single slashes."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def data_file(run_id: str, shard: int, attempt: str) -> str:
    """Name of a shard's data file, unique to the attempt that wrote it."""
    return f"part-{run_id}-{shard:06d}-{attempt}.parquet"


def parse_data_file(path: str) -> tuple[str, int, str] | None:
    """Run, shard and attempt of a data file's path; None for other files."""
    found = _DATA_FILE.search(path)
    return (found["run"], int(found["shard"]), found["attempt"]) if found else None


def partial_file(token: str) -> str:
    """Name of a file that is being written to a local folder. token: 16 hex digits."""
    return f".part-{token}"


def is_ours(path: str) -> bool:
    """Tell whether a path is of a data file, finished or not: nothing else may be destroyed."""
    name = path.rpartition("/")[2]
    return bool(_DATA_FILE.fullmatch(name) or _PARTIAL.fullmatch(name))


def in_partition(partition: Mapping[str, str], name: str) -> str:
    """Path of a file relative to its table, in Hive style."""
    return "/".join([*(f"{key}={value}" for key, value in partition.items()), name])


def plan_file(dest: str, run_id: str) -> str:
    """Address of a run's frozen plan."""
    return join(dest, PRIVATE, "plans", f"{run_id}.parquet")
