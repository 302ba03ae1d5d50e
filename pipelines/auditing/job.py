"""An audit from request to results: run unit by unit, added up, recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from infra.keys.key_file import KeyFile
from ironmask.attacks import Foretold, foretell_by_width
from ironmask.comparisons import Setting
from ironmask.helper import encoding as encoding_of
from ironmask.params import SCHEME_VERSION, Params
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from pipelines.auditing.frozen import Audit, Finding, width_label
from pipelines.auditing.rates import metrics, run_id
from pipelines.auditing.request import AuditRequest, CheckedAudit
from pipelines.auditing.results import AuditResults, results
from pipelines.auditing.units import Surroundings
from pipelines.auditing.work import surroundings, unit_work
from pipelines.preflight import judge, profile
from pipelines.preflight.profile import Calibration
from pipelines.run.course import Counting, uncounted
from pipelines.run.work import Engine
from pipelines.setup import ports, workplace
from pipelines.setup.metrics import add_metrics
from pipelines.table.layout import TABLE_PROTOCOL


def run(prepared: CheckedAudit, engine: Engine, progress: Counting = uncounted) -> AuditResults:
    """Run all units, and add their findings up. progress: units done and all."""
    audit = prepared.audit
    findings: list[Finding] = []
    progress(0, len(audit.units))
    for finding in engine.run(unit_work(prepared.storage.public(), audit), range(len(audit.units))):
        findings.append(finding)
        progress(len(findings), len(audit.units))
    around = surroundings(prepared.storage.public(), audit)
    return results(
        audit, findings, around.space, _foretold(around), _evaluated_fmr(around), _widths(audit)
    )


def _evaluated_fmr(around: Surroundings) -> tuple[int, int, float] | None:
    """Errors, trials and the upper end of the interval, of the largest evaluation that the first
    table knows of its templates.
    """
    target = around.audit.targets[0]
    rows = around.tables[0].table("metrics").rows().to_pylist()
    rates = [
        (row["numerator"], row["denominator"], row["high"])
        for row in rows
        if row["name"] == "FMR" and is_of_templates(row["label"], target.params, target.encoding)
    ]
    return max(rates, key=lambda rate: rate[1], default=None)


def is_of_templates(label: str, params: Params, encoding: str) -> bool:
    """Whether the label of a rate says that it is of a table's templates, and of such ones."""
    case, _, named = label.rpartition(": ")
    if case.split(", ")[0] != TABLE_PROTOCOL:
        return False
    setting = Setting.named(named, params.n)
    # Both versions of the scheme accept the same probes.
    return setting is not None and setting == Setting(
        replace(params, version=SCHEME_VERSION), encoding_of(encoding).name
    )


def _foretold(around: Surroundings) -> judge.Preflight:
    """What the search of a row takes, foretold by fresh issues of the source's own faces."""
    target, templates = around.audit.targets[0], around.templates
    held = profile.held_out(len(templates))
    rest = Spectrum.of(np.delete(templates, held, axis=0), target.params.n)
    measured = profile.Profile("", around.audit.source, rest, len(around.unknown))
    return judge.assess(
        Calibration(measured, templates[held]),
        target.params,
        target.encoding,
        target.filling,
        "the model",
    )


def _widths(audit: Audit) -> dict[str, Foretold]:
    """What the search of wide rows by their width takes, foretold by fresh issues."""
    wide = {width_label(one.params): one for one in audit.targets if one.params.is_wide}
    return {
        label: foretell_by_width(one.params, secure_generator(), encoding=one.encoding)
        for label, one in wide.items()
    }


def write_rates(prepared: CheckedAudit, found: AuditResults) -> None:
    """Write what each attack takes into the `metrics` of each table.

    Raises `BusyError` while an enrolment works on one.
    """
    store = ports.shared_store(prepared.storage.public())
    for target in {target.dest: target for target in found.audit.targets}.values():
        tables = ports.open_tables(target.dest, prepared.storage)
        file = KeyFile.open(Path(target.keys), target.table_id)
        add_metrics(tables, store, file, target.generation, list(metrics(found)), run_id(found))


@contextmanager
def opened(request: AuditRequest, prepared: CheckedAudit) -> Iterator[Engine]:
    """What runs the units: this process, or Ray."""
    with workplace.engine(request.workplace, prepared.settings) as engine:
        yield engine
