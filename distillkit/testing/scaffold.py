"""A new plugin package, ready to install and test."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template

from ..errors import PluginError

#: Template -> the file that it becomes.
_FILES = {
    "plugin_pyproject.txt": "pyproject.toml",
    "plugin_module.txt": "distillkit_$name.py",
    "plugin_test.txt": "test_$name.py",
    "plugin_readme.txt": "README.md",
}


def new_plugin(name: str, folder: Path) -> list[Path]:
    """Write a package with one loss term and its tests, and return its files.

    Args:
        name: the plugin's name, as in `name.component`: lower-case letters, digits and underscores.
        folder: where it goes; must be new or empty.

    Raises:
        PluginError: the name cannot be a plugin's, or the folder holds something.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        suggestion = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")
        hint = f" Try '{suggestion}'." if suggestion else ""
        raise PluginError(
            f"new plugin {name!r}: expected a name of lower-case letters, digits and underscores that starts with a "
            f"letter.{hint}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PluginError(f"new plugin {name}: expected a new or empty folder, got {folder}. Name another with --out.")
    words = {"name": name, "dashed": name.replace("_", "-"), "camel": name.title().replace("_", "")}
    templates = resources.files("distillkit.testing") / "templates"
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for template, target in _FILES.items():
            path = folder / Template(target).substitute(words)
            text = (templates / template).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(words), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise PluginError(
            f"new plugin {name}: {folder} cannot be written: {error.strerror}; choose another place."
        ) from None
    return written
