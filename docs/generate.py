"""Write the generated part of the reference: `python docs/generate.py`, or `make docs-generate`.

The tests fail while a page is not what this writes.
"""

from __future__ import annotations

import ast
import importlib
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

#: Page and heading -> packages and modules whose public names it has, those aside that another names more closely.
API = {
    ("train", "Train and distil"): ("experiment", "training", "recipe", "family"),
    ("use", "Use a trained codec"): ("model.file", "codec", "data", "export"),
    ("measure", "Measure"): ("evaluation", "report"),
    ("loop", "A loop of your own"): ("training.own_loop", "training.objectives"),
    ("losses", "Write losses"): ("training.losses", "training.distributed"),
    ("schedules", "Write schedules"): ("training.phases",),
    ("steps", "Write optimisers, rates and step extensions"): (
        *("training.pace", "training.extensions", "training.preemption", "training.trackers"),
    ),
    ("pairs", "Write pairs and codecs"): ("taps.pair", "taps.orders", "model"),
    ("taps", "Write providers of taps"): ("taps",),
    ("plugins", "Plugins"): ("hooks",),
    ("errors", "Errors"): ("errors",),
}

#: Modules whose names are kept stable beside those of `distillkit` itself: what their `__all__` has.
SUBMODULES = ("distillkit.testing", "distillkit.family", "distillkit.demo", "distillkit.codec.bitstream")


def pages() -> dict[str, str]:
    """Return every generated page: name -> text."""
    return {
        "cli.md": cli(),
        "recipe.md": recipe(),
        "components.md": components(),
        "hooks.md": hooks(),
        "results.md": results(),
        **api(),
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
        "`-q`, before a command or after it, shows no progress and no notes. `distillkit --version` prints "
        "the version, "
        "`distillkit --install-completion` makes your shell complete commands and options.\n"
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


def api() -> dict[str, str]:
    """The public names: a page that lists all, and one for each purpose."""
    found, lines = dict[str, str](), ["# Public API\n", NOTE]
    lines += ["`import distillkit` has these names. They are kept stable, as are those of the modules at the end.\n"]
    closest = {name: _closest(distillkit._HOME[name]) for name in distillkit.__all__}
    for (slug, title), places in API.items():
        names = [name for place in places for name in distillkit.__all__ if closest[name] == place]
        page = f"api-{slug}.md"
        lines.append(f"## [{title}]({page})\n\n| name | |\n|---|---|")
        for name in names:
            doc = inspect.getdoc(getattr(distillkit, name)) or ""
            doc = "Marks a function as a hook implementation." if name == "hookimpl" else doc
            doc = _comment(name) if isinstance(getattr(distillkit, name), float) else doc
            shown = name if name == "hookimpl" else f"[`{name}`]({page}#distillkit.{name})"
            lines.append(f"| {shown} | {_cell(' '.join(doc.partition(chr(10) * 2)[0].split()))} |")
        lines.append("")
        contents = [f"::: distillkit.{name}\n" for name in names if name != "hookimpl"]
        found[page] = "\n".join([f"# {title}\n", NOTE, "[All public names](api.md)\n", *contents])
    lines += ["## Modules with further public names\n", "| module | what it has | names |\n|---|---|---|"]
    for name in SUBMODULES:
        module = importlib.import_module(name)
        about = (inspect.getdoc(module) or "").partition("\n\n")[0]
        lines.append(f"| `{name}` | {_cell(about)} | {', '.join(f'`{each}`' for each in module.__all__)} |")
    return {"api.md": "\n".join(lines), **found}


def _comment(name: str) -> str:
    """Return the `#:` comment of a public number, which has no docstring."""
    source = inspect.getsource(importlib.import_module(f"distillkit.{distillkit._HOME[name]}"))
    return re.findall(rf"^{name} = .*  #: (.+)", source, re.MULTILINE)[0].capitalize() + "."


def _closest(home: str) -> str:
    """Return the longest of the packages and modules in `API` that a module is in."""
    return max((place for places in API.values() for place in places if f"{home}.".startswith(f"{place}.")), key=len)


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
