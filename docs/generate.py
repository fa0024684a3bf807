"""Write the generated part of the reference: `python docs/generate.py`, or `make docs-generate`.

The tests fail while a page is not what this writes.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import distillkit
from distillkit.cli.app import app
from distillkit.family.record import read_record
from distillkit.family.results import results_markdown
from distillkit.hooks import hookspecs
from distillkit.hooks.kinds import KINDS
from distillkit.hooks.loader import load_plugins
from distillkit.hooks.options import Option, options_of
from distillkit.recipe.recipe import Recipe

FOLDER = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by docs/generate.py; change the source instead. -->\n"

#: Heading -> home modules of the public names below it.
API = {
    "Train and distil": (
        "experiment",
        "training.train",
        "recipe.recipe",
        "training.observers",
        "training.run_info",
        "family.plan",
        "family.run",
    ),
    "Use a trained codec": (
        "model.file",
        "codec.load",
        "codec.runtime",
        "codec.reading",
        "data.images",
        "export.export",
    ),
    "Measure": (
        *(
            "evaluation.side_by_side",
            "evaluation.evaluate",
            "evaluation.first_look",
            "evaluation.bd",
            "evaluation.curve",
        ),
        *("evaluation.rd_compare", "evaluation.results", "report.page"),
    ),
    "A loop of your own": ("training.own_loop", "training.objectives.objective"),
    "Write losses": ("training.losses",),
    "Write schedules": ("training.phases",),
    "Write optimisers, rates and step extensions": (
        *("training.pace.optimizers", "training.pace.rates", "training.extensions.base"),
        *("training.extensions.view", "training.preemption", "training.trackers.mlflow", "training.trackers.wandb"),
    ),
    "Write pairs and codecs": ("taps.pair", "model.sources", "model.adapters"),
    "Write providers of taps": ("taps.bank", "taps.points", "taps.sampled"),
    "Plugins": ("hooks.hookspecs", "hooks.loader", "hooks.components"),
    "Errors": ("errors",),
}


def pages() -> dict[str, str]:
    """Return every generated page: name -> text."""
    return {
        "cli.md": cli(),
        "recipe.md": recipe(),
        "components.md": components(),
        "hooks.md": hooks(),
        "api.md": api(),
        "results.md": results(),
    }


def results() -> str:
    """What the lite family measured, from its record."""
    tables = results_markdown(read_record(FOLDER.parents[1] / "benchmarks" / "lite.json"))
    what = "[Older results](../results-older.md) say what they mean."
    return f"# Results of the lite family: tables\n\n{NOTE}\n{what}\n\n{tables}"


def cli() -> str:
    """The commands with their options."""
    command: Any = typer.main.get_command(app)
    lines = ["# Command line\n", NOTE]
    lines += [
        "Bad input ends with a message and exit code 2. `--json`, where there is one, prints JSON for scripts. "
        "`-q`, before a command or behind it, shows no progress and no notes. `distillkit --version` prints "
        "the version, "
        "`distillkit --install-completion` has your shell complete commands and options.\n"
    ]
    for name, each in _commands(command, "distillkit"):
        arguments = [p for p in each.params if p.param_type_name == "argument"]
        options = [p for p in each.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join(p.name.upper() + ("..." if p.nargs == -1 else "") for p in arguments)
        usage = usage if all(p.required for p in arguments) else f"[{usage}]"
        lines.append(f"## {name}\n\n{each.help.strip()}\n")
        lines.append(f"```text\n{' '.join(filter(None, (name, usage, '[OPTIONS]' if options else '')))}\n```\n")
        rows = [(f"`{p.name.upper()}`", p) for p in arguments] + [(f"`{', '.join(p.opts)}`", p) for p in options]
        if rows:
            lines.append("| | default | |\n|---|---|---|")
            lines += [f"| {shown} | {_default(p)} | {_cell(p.help or '')} |" for shown, p in rows]
            lines.append("")
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for sub, each in getattr(command, "commands", {}).items():
        if each.hidden:
            continue
        yield f"{name} {sub}", each
        yield from _commands(each, f"{name} {sub}")


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    if parameter.required:
        return "required"
    default = getattr(parameter.default, "value", parameter.default)
    return "" if default in (None, False, []) or not isinstance(default, (str, int, float, Path)) else f"`{default}`"


def recipe() -> str:
    """The keys of a recipe."""
    about = "Unknown keys are refused with a suggestion; paths in a file start from the file's folder. See"
    lines = ["# Keys of a recipe\n", NOTE, f"{about} [Recipes](../recipes.md).\n", *_options(options_of(Recipe))]
    return "\n".join(lines)


def components() -> str:
    """What the shipped plugins register."""
    lines = ["# Components that ship\n", NOTE]
    about = "A recipe names a component and gives its options. `distillkit plugins` lists all that are installed."
    lines.append(about + "\n")
    registered = load_plugins()
    shipped = {plugin.name for plugin in registered.plugins if plugin.distribution == "distillkit-lic"}
    for kind in KINDS.values():
        lines.append(f"## {kind.title}\n")
        for name, component in sorted(registered.components[kind.name].items()):
            if name.partition(".")[0] in shipped:
                lines += [f"### {name}\n", _markdown(inspect.getdoc(component) or ""), ""]
                lines += _options(options_of(component.Config))
    return "\n".join(lines)


def hooks() -> str:
    """The hook points."""
    lines = ["# Hook points\n", NOTE, (inspect.getdoc(hookspecs) or "").partition("\n\n")[2] + "\n"]
    for node in ast.parse(inspect.getsource(hookspecs)).body:
        if isinstance(node, ast.FunctionDef):
            parameters = "".join(f"    {ast.unparse(each)},\n" for each in node.args.args)
            returned = ast.unparse(node.returns or ast.Constant(None))
            signature = f"def {node.name}(\n{parameters}) -> {returned}: ..."
            text = _markdown(inspect.getdoc(getattr(hookspecs, node.name)) or "")
            lines += [f"## {node.name}\n", f"```python\n@distillkit.hookimpl\n{signature}\n```\n", text, ""]
    return "\n".join(lines)


def api() -> str:
    """The public names."""
    lines = ["# Public API\n", NOTE, "`import distillkit` has these names and no others that are kept stable.\n"]
    rest = sorted(set(distillkit._HOME.values()) - {home for homes in API.values() for home in homes})
    for title, homes in {**API, "More": tuple(rest)}.items():
        names = [name for home in homes for name in distillkit.__all__ if distillkit._HOME[name] == home]
        if not names:
            continue
        lines.append(f"## {title}\n\n| name | |\n|---|---|")
        for name in names:
            doc = inspect.getdoc(getattr(distillkit, name)) or ""
            doc = "Marks a function as a hook implementation." if name == "hookimpl" else doc
            lines.append(f"| `{name}` | {_cell(' '.join(doc.partition(chr(10) * 2)[0].split()))} |")
        lines += ["", *(f"::: distillkit.{name}" for name in names if name != "hookimpl"), ""]
    return "\n".join(lines)


def _options(options: Iterator[Option]) -> list[str]:
    rows = [
        f"| `{o.name}` | {_cell(o.type)} | {'required' if o.required else f'`{o.default}`' if o.default else ''} "
        f"| {_cell(o.meaning)} |"
        for o in options
    ]
    return ["| option | type | default | meaning |\n|---|---|---|---|", *rows, ""] if rows else ["No options.\n"]


def _markdown(docstring: str) -> str:
    """Return a Google-style docstring as Markdown: formulas in blocks, sections as lists or bold words."""
    blocks = []
    for block in docstring.split("\n\n"):
        head, _, rest = block.partition("\n")
        if re.fullmatch(r"(Args|Returns|Raises|Attributes):", head):
            entries = re.sub(r"\n {8,}", " ", rest)
            entries = re.sub(r"^ {4}(\w+): ", r"- `\1`: ", entries, flags=re.MULTILINE)
            blocks.append(f"{head}\n\n{entries}")
        elif re.match(r"[A-Za-z_]+(\([\w, ]*\))? = ", block):
            blocks.append(f"```text\n{block}\n```")
        else:
            blocks.append(re.sub(r"^(Source|Departure): ", r"\n**\1:** ", block, flags=re.MULTILINE))
    return "\n\n".join(blocks).replace("\n\n\n", "\n\n")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(FOLDER / name)
