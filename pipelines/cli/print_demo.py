"""What the demo shows."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipelines.cli.demonstration import Demo
from pipelines.report.terminal import print_summary, size


def print_demo(demo: Demo, console: Console) -> None:
    """Show how the demonstration ended, and how to read its table elsewhere."""
    print_summary(demo.summary, console)
    console.print("(On so few photos, most of the time is the start of the workers.)\n")
    table = Table(title="The other photos against each template", title_justify="left")
    for heading in ("template of", "photos enrolled", "own photos accepted", "others' accepted"):
        table.add_column(heading, justify="left" if heading == "template of" else "right")
    for person in demo.people:
        table.add_row(
            person.name,
            str(person.enrolled_photos),
            f"{person.genuine_accepted} of {person.genuine}",
            f"{person.impostors_accepted} of {person.impostors}",
        )
    console.print(table)
    (generation,) = demo.inventory.generations
    console.print(f"One template takes {size(generation.row_bytes)}, its digests included.")
    console.print("The Parquet files, their helpers encrypted:")
    console.print(f"{demo.summary.dest}/templates/", soft_wrap=True, highlight=False)
    console.print("\nAny engine reads them; in DuckDB:")
    console.print(demo.query, markup=False, highlight=False, soft_wrap=True)
    _print_query(demo.query, console)
    console.print("\nWhat protection costs on these few photos, with plots:")
    console.print(demo.report, soft_wrap=True, highlight=False)


def _print_query(query: str, console: Console) -> None:
    """Run a query where DuckDB is installed."""
    try:
        import duckdb
    except ImportError:
        return
    cursor = duckdb.execute(query)
    table = Table(*(column[0] for column in cursor.description or ()))
    for row in cursor.fetchall():
        table.add_row(*map(str, row))
    console.print(table)
