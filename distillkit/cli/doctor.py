"""The command that examines the installation."""

from __future__ import annotations

import json

import typer

from .app import AsJson, app, show


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this installation and machine, and report what to do; exit code 1 if something must be fixed."""
    from rich.text import Text

    from ..doctor import diagnose
    from ..evaluation.fitted import FittedTable

    findings = diagnose()
    table = FittedTable.grid(padding=(0, 2))
    colours = {"ok": "green", "note": "yellow", "problem": "bold red"}
    for each in findings:
        advice = [Text(f"\n-> {each.advice}", "bold")] if each.advice else []
        table.add_row(Text(each.state, colours[each.state]), each.topic, Text.assemble(each.found, *advice))
    show(table, json.dumps([vars(each) for each in findings], indent=2), as_json)
    if any(each.state == "problem" for each in findings):
        raise typer.Exit(1)
