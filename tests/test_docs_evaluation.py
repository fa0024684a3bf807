"""What docs/evaluation.md shows runs, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from distillkit.cli.app import app

TEXT = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(code, "evaluation.md", "exec"), {})
    assert capsys.readouterr().out == "-10.0 % (overlap 100%, Akima -10.0 %)\n"


def test_the_commands_and_options_exist():
    (block,) = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    commands = {command.name or command.callback.__name__: command.callback for command in app.registered_commands}
    for line in block.splitlines():
        _, name, *words = line.partition("#")[0].split()
        options = [word.removeprefix("--") for word in words if word.startswith("--")]
        assert options
        assert set(options) <= set(commands[name].__annotations__)


def test_every_figure_is_explained():
    from distillkit.evaluation.results import AVERAGED

    assert all(f"`{name}`" in TEXT for name in (*AVERAGED, "ms_ssim_db"))
