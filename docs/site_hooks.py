"""How the Markdown of this repository becomes a site: the navigation, and links to files outside `docs/`.

The pages link to sources and examples as a reader of the raw files needs it (`../examples/x.py`). For the site those
files are copied to `source/`, and the links turned there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

#: Section -> its pages in order; every page has a place here.
NAVIGATION = {
    "Start here": ["index.md"],
    "Your aim": ["aim-smaller.md", "aim-loss.md", "aim-old-files.md", "aim-rates.md", "aim-device.md", "choose.md"],
    "Tutorials": ["tutorial-codec.md", "tutorial-loss.md"],
    "How to": [
        "distil.md",
        "how-to.md",
        "recipes.md",
        "losses.md",
        "own-loop.md",
        "ms-ssim.md",
        "rates.md",
        "step-extension.md",
        "pairs.md",
        "samples.md",
        "families.md",
        "scale.md",
        "evaluation.md",
        "report.md",
        "coding.md",
        "light-decoders.md",
        "deploy.md",
    ],
    "Explanation": ["feds.md", "results.md", "results-older.md", "reference/results.md", "design.md", "security.md"],
    "Reference": [
        "reference/cli.md",
        "reference/recipe.md",
        "reference/components.md",
        "reference/hooks.md",
        "file-format.md",
    ],
    "API": [
        "reference/api.md",
        *("reference/api-train.md", "reference/api-use.md", "reference/api-measure.md", "reference/api-loop.md"),
        *("reference/api-losses.md", "reference/api-schedules.md", "reference/api-steps.md", "reference/api-pairs.md"),
        *("reference/api-taps.md", "reference/api-plugins.md", "reference/api-errors.md"),
    ],
}
_ROW = re.compile(r"^\|.*", re.MULTILINE)  #: of a table
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    """Set the navigation, in which every page has a place."""
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    listed = [page for section in NAVIGATION.values() for page in section]
    if pages != sorted(listed):
        strange = ", ".join(sorted(set(pages) ^ set(listed)))
        raise PluginError(f"docs/site_hooks.py: NAVIGATION and the pages under docs/ differ in {strange}; correct it.")
    config.nav = [{title: names if len(names) > 1 else names[0]} for title, names in NAVIGATION.items()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Copy what the pages link to outside `docs/`."""
    for page in list(files.documentation_pages()):
        for _, link, _ in _LINK.findall(page.content_string):
            if (outside := _outside(page.src_uri, link)) and f"source/{_site_name(outside)}" not in files.src_uris:
                content = (ROOT / outside).read_bytes()
                files.append(File.generated(config, f"source/{_site_name(outside)}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files outside `docs/` to their copies, and keep figures in tables together with their `%`."""

    def turn(found: re.Match[str]) -> str:
        outside = _outside(page.file.src_uri, found[2])
        if outside is None:
            return found[0]
        return f"{found[1]}{os.path.relpath(f'source/{_site_name(outside)}', Path(page.file.src_uri).parent)})"

    markdown = _LINK.sub(turn, markdown)
    return _ROW.sub(lambda row: re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", row[0]), markdown)


def _outside(page: str, link: str) -> str | None:
    """Return the path of a linked file, from the root, if it lies outside `docs/`; for a folder, of its README."""
    target = (ROOT / "docs" / page).parent / link
    if "://" in link or not target.exists() or target.resolve().is_relative_to(ROOT / "docs"):
        return None
    target = target.resolve()
    target = target / "README.md" if target.is_dir() else target
    return target.relative_to(ROOT).as_posix() if target.is_file() else None


def _site_name(path: str) -> str:
    """Return the name under `source/`: text is shown as it is by any browser if it is called so."""
    return path if path.endswith((".png", ".jpg", ".html", ".json", ".svg")) else f"{path}.txt"
