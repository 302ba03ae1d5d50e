"""An evaluation's report: one HTML file that asks for nothing else, and files for machines."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from pipelines import layout
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.results import Results
from pipelines.ports import Store
from pipelines.records import as_parquet
from pipelines.report.plots import plots
from pipelines.report.sheets import sheets
from pipelines.report.tables import cost_table, tables


def html(found: Results, spent: Spent) -> str:
    """The page. Whatever comes from the source is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = files("pipelines.report").joinpath("page.html.jinja").read_text("utf-8")
    first = found.cases[0]
    best = [row for row in first.protected if not row.fmr.errors and row.params.bits >= 80]
    return environment.from_string(template).render(
        found=found,
        first=first,
        genuine=sum(case.genuine for case in found.cases),
        impostor=sum(case.impostor for case in found.cases),
        sheets=sheets(found, spent),
        plots=plots(found),
        best=max(best, key=lambda row: -row.fnmr.value, default=None),
    )


def write(found: Results, spent: Spent, store: Store) -> list[str]:
    """Write the page and the tables beside the blocks; return their addresses."""
    out = found.evaluation.out
    made = [layout.join(out, "report.html")]
    store.write(made[0], html(found, spent).encode())
    for name, table in {**tables(found), "cost": cost_table(spent)}.items():
        made.append(layout.join(out, f"{name}.parquet"))
        store.write(made[-1], as_parquet(table))
    return made
