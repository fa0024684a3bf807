"""Commands about plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import AsJson, app

if TYPE_CHECKING:
    from rich.tree import Tree

group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="plugins")


@group.callback()
def plugins(context: typer.Context, as_json: AsJson = False) -> None:
    """List the installed plugins, and everything that they register with its options; or write a new one."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from ..hooks.loader import load_plugins

    content = _content(load_plugins())
    if as_json:
        print(json.dumps(content, indent=2))
        return
    for plugin in content["plugins"]:
        Console().print(_tree(plugin, content["components"]), highlight=False)
    for reason in content["left_out"].values():
        Console(markup=False, highlight=False).print(f"left out: {reason}", soft_wrap=True)


@group.command()
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name: lower-case letters, digits and underscores.")],
    out: Annotated[Path | None, typer.Option(help="Its folder.", show_default="distillkit-NAME")] = None,
) -> None:
    """Write a new plugin: a package with a loss term and tests that pass, for you to change."""
    from ..testing.scaffold import new_plugin

    folder = out or Path(f"distillkit-{name.replace('_', '-')}")
    for path in new_plugin(name, folder):
        print(path)
    print(f"\nNext: cd {folder} && pip install --quiet --editable '.[test]' && python -m pytest")


def _content(loaded: Any) -> dict[str, Any]:
    from ..hooks.options import options_of

    origins = [
        {"name": p.name, "module": p.module, "distribution": p.distribution, "version": p.version}
        for p in loaded.plugins
    ]
    rows = [
        {
            "name": name,
            "kind": kind,
            "plugin": name.partition(".")[0],
            "summary": (component.__doc__ or "").strip().partition("\n")[0],
            "options": [vars(option) | {"text": str(option)} for option in options_of(component.Config)],
        }
        for kind, components in loaded.components.items()
        for name, component in sorted(components.items())
    ]
    return {"plugins": origins, "components": rows, "left_out": dict(loaded.left_out)}


def _tree(plugin: dict[str, Any], components: list[dict[str, Any]]) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    origin = f"{plugin['distribution']} {plugin['version']}, module {plugin['module']}"
    tree = Tree(f"[bold]{plugin['name']}[/]  ({origin})")
    for row in (row for row in components if row["plugin"] == plugin["name"]):
        branch = tree.add(f"{row['kind']} [bold]{row['name']}[/]  {escape(row['summary'])}")
        for option in row["options"]:
            branch.add(f"[dim]{escape(option['text'])}[/]")
    if not tree.children:
        tree.add("observes runs only")
    return tree
