"""``python -m benchmarks``: every benchmark in turn, or the ones that are named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import end_to_end
from benchmarks.consent import bench as choices
from benchmarks.engine import table

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Print ratios.")


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """All tables, one after the other."""
    if context.invoked_subcommand is None:
        people()
        print()
        consent()
        print()
        engine()


@app.command("end-to-end")
def people() -> None:
    """From an accepted request to a completed one, on the embedded form."""
    print("One person, end to end (embedded)")
    end_to_end.main()


@app.command()
def consent(
    quick: Annotated[bool, typer.Option("--quick", help="Short looks: rough figures.")] = False,
) -> None:
    """A choice in the banner, stored before it is acknowledged."""
    print("Consent")
    choices.show(is_quick=quick)


@app.command()
def engine(
    only: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(table.BENCHMARKS)}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short looks: rough figures.")] = False,
    json: Annotated[Path | None, typer.Option(help="Append one JSON line per figure.")] = None,
) -> None:
    """The delivery engine against what it is measured by."""
    if unknown := set(only or ()) - set(table.BENCHMARKS):
        raise typer.BadParameter(f"There is no benchmark called {', '.join(sorted(unknown))}.")
    print("The delivery engine")
    table.show(only or table.BENCHMARKS, is_quick=quick, file=json)


app()
