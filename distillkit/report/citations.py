"""References of the methods that a run uses, without a network: taken from the docstrings of components."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import final

from ..codec import coder
from ..evaluation.bd import bd_rate
from ..evaluation.quality import ms_ssim
from ..hooks.loader import Plugins
from ..model import initialise
from ..recipe.recipe import Recipe
from ..recipe.settings import full_name
from ..training.objectives.objective import rate_distortion

_LETTERS = {r"{\'e}": "é", r"{\o}": "ø", r"{\"a}": "ä"}
_FILE = Path(__file__).with_name("bibliography.bib")


@final
@dataclass(frozen=True)
class Reference:
    """A published source.

    Attributes:
        key: of its BibTeX entry.
        bibtex: the entry.
        used_by: names of the components, or of the parts of distillkit, that name it.
    """

    key: str
    bibtex: str
    used_by: tuple[str, ...]

    def field(self, name: str) -> str:
        """Return a field of the entry as plain text, or an empty string."""
        found = re.search(rf"^\s*{name}\s*=\s*[{{\"](.*)[}}\"],?\s*$", self.bibtex, re.MULTILINE | re.IGNORECASE)
        text = found.group(1) if found else ""
        for letter, written in _LETTERS.items():
            text = text.replace(letter, written)
        return re.sub(r"[{}]", "", text)


def references(plugins: Plugins, recipes: Iterable[Recipe] = ()) -> list[Reference]:
    """Return the sources of what these recipes use, or of everything that is registered if there are none.

    A component names its sources in its docstring, in the paragraph that begins with `Source:`, by arXiv number or by
    title; `bibtex` of a component adds entries that distillkit does not know. An arXiv number that distillkit does not
    know becomes an entry without title or authors.
    """
    texts, entries = _sources(plugins, list(recipes))
    used: dict[str, list[str]] = {}
    for name, text in texts.items():
        for key in _cited(text, entries):
            used.setdefault(key, []).append(name)
    found = [Reference(key, entries[key], tuple(dict.fromkeys(names))) for key, names in used.items()]
    return [_itself(), *found]


def _sources(plugins: Plugins, recipes: list[Recipe]) -> tuple[dict[str, str], dict[str, str]]:
    """Return component -> where it names its sources, and key -> every BibTeX entry that is known."""
    chosen: dict[str, object] = {}
    for recipe in recipes:
        names = [
            ("pair", recipe.pair.name),
            ("objective", recipe.objective.name),
            ("taps", recipe.taps.name),
            ("schedule", recipe.schedule.name),
        ]
        names += [("optimizer", full_name(recipe.optimizer.name)), ("rate", recipe.optimizer.rate.name)]
        names += [("extension", name) for name in recipe.extensions]
        losses = [("loss", str(options.get("name", label))) for label, options in recipe.losses.items()]
        for kind, name in [*losses, *names]:
            chosen[name] = plugins.get(kind, name, "recipe")
    if not recipes:
        chosen = {name: component for kind in plugins.components.values() for name, component in kind.items()}
    core: dict[str, object] = {}
    if not recipes or any(recipe.initial_weights != "random" for recipe in recipes):
        core["initial weights"] = initialise
    core |= {"rate-distortion loss": rate_distortion, "BD-rate": bd_rate, "MS-SSIM": ms_ssim, "entropy coder": coder}
    texts, entries = {}, dict(_known())
    for name, component in {**chosen, **core}.items():
        own = _entries(getattr(component, "bibtex", ""))
        entries |= own
        texts[name] = _source_paragraph(component.__doc__ or "") + "\n" + "\n".join(own)
    return texts, entries


def _source_paragraph(docstring: str) -> str:
    paragraphs = re.split(r"\n\s*\n", docstring)
    found = [re.split(r"\bDeparture:", text)[0] for text in paragraphs if text.lstrip().startswith("Source:")]
    return " ".join(" ".join(found).split())


def _cited(text: str, entries: dict[str, str]) -> list[str]:
    """Return the keys of the entries that a text names, in the text's order; unknown arXiv numbers become entries."""
    plain, places = text.lower(), dict[str, int]()
    for key, entry in entries.items():
        reference = Reference(key, entry, ())
        names = [reference.field("title").lower(), key.lower(), reference.field("number").lower()]
        if number := reference.field("eprint"):
            names.append(f"arxiv {number}")
        if found := [plain.index(name) for name in names if name and name in plain]:
            places[key] = min(found)
    for match in re.finditer(r"arxiv[ :]+(\d{4}\.\d{4,5})", plain):
        number = match.group(1)
        if all(number not in entries[key] for key in places):
            key = f"arxiv{number}"
            url = f"https://arxiv.org/abs/{number}"
            entries[key] = (
                f"@misc{{{key},\n  eprint = {{{number}}},\n  archiveprefix = {{arXiv}},\n  url = {{{url}}}\n}}"
            )
            places[key] = match.start()
    return sorted(places, key=lambda key: places[key])


@cache
def _known() -> Mapping[str, str]:
    return _entries(_FILE.read_text(encoding="utf-8"))


def _entries(bibtex: str) -> dict[str, str]:
    """Split BibTeX into entries by key; each begins with `@` at the start of a line."""
    parts = [part.strip() for part in re.split(r"^(?=@)", bibtex, flags=re.MULTILINE) if part.strip()]
    return {match.group(1): part for part in parts if (match := re.match(r"@\w+\{\s*([^,\s]+)", part))}


def _itself() -> Reference:
    version = metadata.version("distillkit-lic")
    entry = (
        f"@software{{distillkit,\n  title = {{distillkit}},\n  version = {{{version}}},\n  license = {{Apache-2.0}}\n}}"
    )
    return Reference("distillkit", entry, ("distillkit",))
