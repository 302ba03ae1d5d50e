"""A report: one HTML file without links to other files, and files for machines.

An evaluation and an audit in the same folder share the page: the last one to end writes both. That
of template inversion is a page of its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import pyarrow as pa
from jinja2 import Environment, StrictUndefined

from pipelines.auditing.results import AuditResults
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.results import Results
from pipelines.inversion.fitting import FitResult
from pipelines.inversion.frozen import INVERTER_FILE
from pipelines.inversion.results import InversionResults
from pipelines.ports import Store
from pipelines.report.audit_sheets import audit_sheets
from pipelines.report.audit_tables import audit_tables
from pipelines.report.headline import headline
from pipelines.report.inversion_sheets import inversion_sheets
from pipelines.report.inversion_tables import failures_table, inversion_tables
from pipelines.report.plots import Plot, audit_plots, inversion_plots, plots
from pipelines.report.sheets import Sheet, left_out, sheets
from pipelines.report.tables import cost_table, tables
from pipelines.table import layout
from pipelines.table.schemas import as_parquet

_AUDIT = "audit.json"


@dataclass(frozen=True)
class AuditPart:
    """The part of a page about an audit."""

    headline: str
    of: str
    sheets: list[Sheet]
    plots: list[Plot]


def html(found: Results | None, spent: Spent | None, audit: AuditPart | None) -> str:
    """The page. All text from the source is escaped."""
    parts = {} if found is None or spent is None else _evaluated(found, spent)
    both = "Evaluation and audit" if audit else "Evaluation"
    return _rendered(
        kind="evaluation" if found else "audit",
        title=f"{both if found else 'Audit'} of protected face templates",
        found=found,
        audit=audit,
        sheets=[*parts.pop("sheets", []), *(audit.sheets if audit else [])],
        plots=[*parts.pop("plots", []), *(audit.plots if audit else [])],
        **parts,
    )


def _rendered(**parts: Any) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = files("pipelines.report").joinpath("page.html.jinja").read_text("utf-8")
    return environment.from_string(template).render(parts)


def _evaluated(found: Results, spent: Spent) -> dict[str, Any]:
    return {
        "genuine": sum(case.genuine for case in found.cases),
        "impostor": sum(case.impostor for case in found.cases),
        "left_out": list(left_out(found)),
        "sheets": sheets(found, spent),
        "plots": plots(found),
        "headline": headline(found),
    }


def write(found: Results, spent: Spent, store: Store) -> list[str]:
    """Write the tables and the page beside the blocks. Returns the addresses, the page's first."""
    out = found.evaluation.out
    written = _written(out, {**tables(found), "cost": cost_table(spent)}, store)
    return [_page(out, html(found, spent, _audited(out, store)), store), *written]


def write_audit(
    audit: AuditResults, out: str, evaluated: tuple[Results, Spent] | None, store: Store
) -> list[str]:
    """Write the page with an audit, and with the evaluation in the same folder; see `write`."""
    written = _written(out, audit_tables(audit), store)
    targets = audit.audit.targets
    names = dict.fromkeys(f"{target.dest}, generation {target.generation}" for target in targets)
    part = AuditPart(audit.headline, "; ".join(names), audit_sheets(audit), audit_plots(audit))
    plain = asdict(part)
    for sheet in plain["sheets"]:
        sheet["strong"] = sorted(sheet["strong"])
    store.write(layout.join(out, _AUDIT), json.dumps(plain).encode())
    found, spent = evaluated or (None, None)
    return [_page(out, html(found, spent, part), store), *written]


def write_inversion(found: InversionResults, store: Store) -> list[str]:
    """Write the page and the tables of template inversion. Returns the addresses, the page's
    first.
    """
    out = found.inversion.out
    written = _written(out, inversion_tables(found), store)
    text = _rendered(
        kind="inversion",
        title="Inversion of face templates",
        found=None,
        audit=None,
        headline=found.headline,
        sheets=inversion_sheets(found),
        plots=inversion_plots(found),
    )
    return [_page(out, text, store), *written]


def write_fit(found: FitResult, store: Store) -> list[str]:
    """Write which photos a fit could not use. Returns the addresses, its inverter's first."""
    written = _written(found.folder, {"failures": failures_table(found.failures)}, store)
    return [layout.join(found.folder, INVERTER_FILE), *written]


def _audited(out: str, store: Store) -> AuditPart | None:
    """The audit in a folder."""
    address = layout.join(out, _AUDIT)
    if not store.exists(address):
        return None
    plain = json.loads(store.read(address))
    made = [Sheet(**{**sheet, "strong": frozenset(sheet["strong"])}) for sheet in plain["sheets"]]
    drawn = [(title, caption, svg) for title, caption, svg in plain["plots"]]
    return AuditPart(plain["headline"], plain["of"], made, drawn)


def _written(out: str, made: dict[str, pa.Table], store: Store) -> list[str]:
    """Write the tables before anything is drawn."""
    addresses = [layout.join(out, f"{name}.parquet") for name in made]
    for address, table in zip(addresses, made.values(), strict=True):
        store.write(address, as_parquet(table))
    return addresses


def _page(out: str, text: str, store: Store) -> str:
    address = layout.join(out, "report.html")
    store.write(address, text.encode())
    return address
