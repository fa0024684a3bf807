"""What `--help` shows, as it is displayed; the options that every command has; completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from distillkit.cli.app import app

PROGRAM = typer.main.get_command(app)


def commands(group=PROGRAM, path=()):
    yield path, group
    for name, each in getattr(group, "commands", {}).items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands())


def shown(*arguments: str, width: int = 80) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.output
    return done.output


def packed(text: str) -> str:
    """A text without what a table adds: spaces, line breaks, borders."""
    return re.sub(r"[\s│]", "", text)


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("path", COMMANDS, ids="-".join)
def test_help_shows_every_text_and_every_default(path, width):
    text = shown(*path, "--help", width=width)
    assert max(map(len, text.splitlines())) == width
    page = packed(text)
    for parameter in COMMANDS[path].params:
        assert packed(parameter.help) in page or parameter.name == "help", f"{parameter.name}: its help is cut"
        others = ("help", "version", "install_completion", "show_completion")
        switch = parameter.name in others or getattr(parameter, "is_flag", False)
        if switch or parameter.required:
            continue
        default = parameter.show_default if isinstance(parameter.show_default, str) else None
        value = getattr(parameter.default, "value", parameter.default)
        expected = f"[default:({default})]" if default else f"[default:{value}]"
        assert packed(expected) in page, f"{parameter.name}: expected {expected} in its help"


@pytest.mark.parametrize("path", COMMANDS, ids="-".join)
def test_h_is_help(path):
    assert shown(*path, "-h") == shown(*path, "--help")


def test_version():
    assert shown("--version") == f"distillkit {version('distillkit-lic')}\n"


def test_completion():
    """As bash asks for it."""
    environment = os.environ | {"_DISTILLKIT_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'distillkit'; from distillkit.cli import main; main()"]
    for words, number, expected in (
        ("distillkit rep", "1", "report"),
        ("distillkit train --tens", "2", "--tensorboard"),
        ("distillkit recipes lowres-p", "2", "lowres-paper"),
    ):
        asked = environment | {"COMP_WORDS": words, "COMP_CWORD": number}
        done = subprocess.run(command, env=asked, capture_output=True, text=True, timeout=100)
        assert done.stdout.split() == [expected], done.stderr
    script = subprocess.run(
        command, env=os.environ | {"_DISTILLKIT_COMPLETE": "source_bash"}, capture_output=True, text=True, timeout=100
    )
    assert "complete -o default -F" in script.stdout
