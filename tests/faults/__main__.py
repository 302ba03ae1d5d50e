"""Run the fault suites and write what they saw: `python -m faults`, or `make faults`."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.lines import Line, table

SUITES = (
    "corrupt",
    "faulty_store",
    "driver_kills",
    "renewal_kills",
    "repair_kills",
    "ray_kills",
    "interrupts",
    "several_nodes",
    "refusals",
    "tamper",
)


@dataclass(frozen=True)
class Report:
    """One suite's lines, its seed and how many seconds it took."""

    name: str
    seed: int
    seconds: float
    lines: list[Line]

    @property
    def holds(self) -> bool:
        return bool(self.lines) and all(line.holds for line in self.lines)

    def text(self) -> str:
        facts = f"seed {self.seed}, {self.seconds:,.0f} s"
        return table(f"{self.name} ({facts})", self.lines)


def missing(names: Sequence[str]) -> list[str]:
    """Suites that have no module here, or one that does not import."""
    found = []
    for name in names:
        try:
            importlib.import_module(f"faults.{name}")
        except ImportError as error:
            found.append(f"{name} ({error})")
    return found


def run(name: str, seed: int) -> Report:
    """Run one suite in a folder of its own; what it raises is a line that does not hold."""
    suite = importlib.import_module(f"faults.{name}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"faults-{name}-", ignore_cleanup_errors=True) as made:
        try:
            lines = list(suite.run(seed, Path(made)))
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            lines = [Line("the suite itself", _brief(error), "runs to its end", holds=False)]
    return Report(name, seed, time.monotonic() - begun, lines)


def _brief(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text[:300].replace("|", "\\|")


def reports(names: Sequence[str], seed: int) -> Iterator[Report]:
    """Run the suites one after another, and print each as it comes."""
    for name in names:
        report = run(name, seed)
        sys.stdout.write(f"{report.text()}\n")
        sys.stdout.flush()
        yield report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 where every line of every suite holds, 1 where one does not, 2 usage."""
    parser = argparse.ArgumentParser("python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="where all draws come from")
    parser.add_argument("--only", default=",".join(SUITES), help="suites, with commas between")
    parser.add_argument("--out", type=Path, default=Path("faults-out"), help="folder of faults.md")
    asked = parser.parse_args(arguments)
    names = [name for name in asked.only.split(",") if name]
    if unknown := sorted(set(names) - set(SUITES)):
        parser.error(f"no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}")
    if absent := missing(names):
        sys.stderr.write(f"error: suites that do not import: {'; '.join(absent)}\n")
        return 1
    asked.out.mkdir(parents=True, exist_ok=True)
    done: list[Report] = []
    for report in reports(names, asked.seed):
        done.append(report)
        text = "\n".join(["# Faults", "", *(report.text() for report in done)])
        (asked.out / "faults.md").write_text(text)
    return 0 if done and all(report.holds for report in done) else 1


if __name__ == "__main__":
    sys.exit(main())
