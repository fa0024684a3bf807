"""A real installation: a virtual environment with a wheel of this source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Environment:
    """A virtual environment that sees the libraries of this one, and has distillkit from a wheel of this source."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv")
        self.python = folder / "venv" / "bin" / "python"
        (self.site,) = (folder / "venv").glob("lib/python*/site-packages")
        libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (self.site / "libraries.pth").write_text("".join(path + "\n" for path in libraries))
        # What is installed must never land in the environment that runs the tests, so that one is not on the path.
        (self.python.parent / "pip").write_text(f'#!/bin/sh\nexec "{self.python}" -m pip "$@"\n')
        (self.python.parent / "pip").chmod(0o755)
        source = folder / "source"  # pip builds in the source folder
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for name in ("distillkit", "plugins"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.install(source)

    def install(self, source: Path) -> None:
        offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
        self.run("-m", "pip", "install", *offline, source)

    def run(self, *arguments: str | Path, code: int = 0, cwd: Path | None = None) -> str:
        return self.call([self.python, *arguments], cwd or self.site, code)

    def call(self, command: list[str | Path], cwd: Path, code: int = 0) -> str:
        """Run a command as if the environment were activated, without network; return what it prints, or its error."""
        outer = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
        quiet = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
        path = {"PATH": f"{self.python.parent}{os.pathsep}{os.defpath}", "VIRTUAL_ENV": str(self.python.parents[1])}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=outer | offline | quiet | path,
            capture_output=True,
            text=True,
            timeout=1000,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr
