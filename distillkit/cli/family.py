"""The command that carries out a family of runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import AsJson, Quiet, app, goes_on_later, messages, show
from .devices import RunDevice
from .names import existing, named, run_folder

if TYPE_CHECKING:
    from ..family.record import Record


class Scheduler(StrEnum):
    """Who starts the jobs."""

    slurm = "slurm"
    local = "local"


@app.command()
def family(
    file: Annotated[
        Path, typer.Argument(help="A family (TOML): teacher, student, variants, lambdas, seeds. Or a record (JSON).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the runs. A relative path starts from the file's folder.",
            show_default="runs/NAME, from the file's name",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these jobs; a name or a pattern such as 'control-*'. May be given several times.",
            show_default="all",
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Stop cleanly after this many hours.", min=0, show_default="no limit")
    ] = None,
    device: RunDevice = None,
    jobs: Annotated[
        int, typer.Option(help="Jobs at once, each in its own process with its share of the cores.", min=1)
    ] = 1,
    submit: Annotated[
        Scheduler | None,
        typer.Option(
            help="Pass each job to a scheduler (extra `submitit`), `--jobs` of them at once, and wait; local starts "
            "them here.",
            show_default="jobs run here",
        ),
    ] = None,
    submit_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What the scheduler gives each job, by submitit's names, as in `timeout_min=600`, "
            "`gpus_per_node=1`, `slurm_partition=gpu`; may be given several times.",
            show_default="the scheduler's own",
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only show the status of the jobs.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Write the measurements to this JSON file; it keeps those of runs on other machines.",
            show_default="none",
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Write the tables of results to this markdown file.", show_default="none")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train and measure a teacher and variants of its student at several lambdas and seeds, or the jobs that remain."""
    from ..errors import RecipeError
    from ..family import plan, run, tables
    from ..family.record import read_record, record_of
    from ..recipe.changes import parse_changes
    from ..training.display.progress import ProgressDisplay

    console = messages(quiet)
    if submit_set and submit is None:
        raise RecipeError("family --submit-set: expected a scheduler to pass it to, got none; add --submit slurm.")
    record = record and named(record, ".json", "family --record")
    results = results and named(results, ".md", "family --results")
    file = existing(file, ".toml")
    if file.suffix == ".json":
        measured = read_record(file)
        as_text = measured.to_json()
    else:
        loaded, folder = plan.Family.load(file), run_folder(file, out)
        if status:
            rows = run.status(loaded, folder)
        else:
            with goes_on_later():
                rows = run.run_family(
                    loaded,
                    folder,
                    only=only or [],
                    budget_hours=budget,
                    observers=lambda: [ProgressDisplay(console)],
                    device=device,
                    jobs=jobs,
                    submit=None if submit is None else submit.value,
                    submit_options=parse_changes(submit_set or [], "--submit-set"),
                    on_job=lambda line: console.print(f"family: {line}", highlight=False, soft_wrap=True),
                )
        measured = record_of(rows, read_record(record) if record is not None and record.exists() else None)
        as_text = run.status_json(rows)
        if not as_json:
            show(tables.status_table(rows), "", False)
    if as_json:
        print(as_text.rstrip())
    elif measured.jobs:
        _show_results(measured)
    if record is not None:
        _write(record, measured.to_json())
    if results is not None:
        from ..family.results import results_markdown

        _write(results, results_markdown(measured))


def _show_results(measured: Record) -> None:
    from ..evaluation.rd_tables import bd_table, figure_notes
    from ..family.gains import gains
    from ..family.tables import results_table

    show(results_table(measured.jobs), "", False)
    found = gains(measured.jobs)
    for anchor in dict.fromkeys(result.anchor for result in found.results):
        show(bd_table([result for result in found.results if result.anchor == anchor]), "", False)
    for (anchor, variant), spread in found.spreads.items():
        print(
            f"{variant} against {anchor}: standard deviation of the BD-rate over {spread.num_seeds} seeds "
            f"{spread.percent:.2f} percentage points."
        )
    for note in figure_notes(found.results):
        print(note)
    for why in found.notes:
        print(f"No BD-rate. {why}")


def _write(path: Path, text: str) -> None:
    from ..errors import DataError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"results {path}: cannot be written: {error.strerror}; choose another place.") from None
