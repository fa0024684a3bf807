"""The command that examines the installation."""

from __future__ import annotations

import json

import typer

from .app import AsJson, app, show


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is wrong with this installation or machine, and what to do; exit code 1 if something must be mended."""
    from rich.markup import escape
    from rich.table import Table

    from ..doctor import diagnose

    findings = diagnose()
    table = Table.grid(padding=(0, 2))
    colours = {"ok": "green", "note": "yellow", "problem": "bold red"}
    for each in findings:
        text = escape(each.found) + (f"\n[bold]-> {escape(each.advice)}[/]" if each.advice else "")
        table.add_row(f"[{colours[each.state]}]{each.state}[/]", each.topic, text)
    show(table, json.dumps([vars(each) for each in findings], indent=2), as_json)
    if any(each.state == "problem" for each in findings):
        raise typer.Exit(1)
