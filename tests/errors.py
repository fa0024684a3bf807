"""Collect the errors that a user can meet: `python -m tests.errors` writes them to `tests/errors.txt`.

The first part is provoked: what a user sees. The second is read from the source: every message, with the names of what
is filled in. Read the file, and its differences, as a user would.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import distillkit
from distillkit import errors
from distillkit.testing.pytest_plugin import draw_photographs
from distillkit.training.setup.resolve import resolve

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "errors.txt"
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type)} | {"ValueError"}


def collect() -> str:
    """Return the text of the file."""
    with tempfile.TemporaryDirectory() as folder:
        provoked = {title: provoke(case, Path(folder)) for title, case in cases(Path(folder))}
    lines = ["# What a user sees\n", *(f"{title}\n    {text}\n" for title, text in provoked.items())]
    lines += ["# Every message in the source\n"]
    for file, messages in templates().items():
        lines += [file, *(f"    {message}" for message in messages), ""]
    return "\n".join(lines)


def provoke(case: Callable[[], object], folder: Path) -> str:
    """Return the message of the `DistillkitError` that a case ends with."""
    try:
        case()
    except errors.DistillkitError as error:
        text = f"{type(error).__name__}: {error}"
        text = text.replace(str(folder.resolve()), "").replace(str(folder), "")
        for pattern, name in ((r"\b[0-9a-f]{16}\b", "<fingerprint>"), (r"\b[0-9a-f]{8}\b", "<CRC>")):
            text = re.sub(pattern, name, text)
        text = re.sub(r"Error while deserializing.*?;", "<what safetensors says>;", text)
        return text.replace("\n", "\n    ")
    raise AssertionError("no error was raised")


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what a user may do wrong, and how."""
    (folder / "photos").mkdir()
    draw_photographs(folder / "photos")
    plugins = distillkit.load_plugins()

    def recipe(**changes: object) -> distillkit.Recipe:
        values = {
            "pair": {"name": "models.cheng2020"},
            "num_steps": 2,
            "data": {"train": folder / "photos", "crop": 64, "batch_size": 1},
            "device": "cpu",
        }
        return distillkit.Recipe.create(**(values | changes))

    def train(run: str, **changes: object) -> Path:
        return distillkit.train(recipe(**changes), folder / run, plugins=plugins)

    def load(text: str) -> distillkit.Recipe:
        (folder / "my.toml").write_text(text)
        return distillkit.Recipe.load(folder / "my.toml")

    base = 'num_steps = 2\npair = {name = "models.cheng2020"}\ndata = {train = "photos"}\n'
    yield "a recipe that is not there", lambda: distillkit.Recipe.load(folder / "nowhere.toml")
    yield "a recipe that is not TOML", lambda: load("num_steps = = 2")
    yield "a misspelt key", lambda: load(base.replace("num_steps", "num_stepz"))
    yield "a misspelt key of a table", lambda: load(base.replace('"photos"', '"photos", crops = 64'))
    yield "a value out of range", lambda: load(base + "lmbda = -1")
    yield "a value that is none of the choices", lambda: load(base + 'trains = "both"')
    yield "a loss without quotes", lambda: resolve(load(base + "[losses.feds.alignment]\nresize = true"), plugins)
    yield "an unknown loss", lambda: resolve(recipe(losses={"feds.alignement": {}}), plugins)
    yield "an unknown option", lambda: resolve(recipe(losses={"feds.alignment": {"tapz": []}}), plugins)
    yield "an unknown pair", lambda: resolve(recipe(pair={"name": "models.cheng"}), plugins)
    yield "losses without a teacher", lambda: resolve(recipe(losses={"feds.alignment": {}}), plugins)
    yield "a teacher with losses", lambda: resolve(recipe(trains="teacher", losses={"feds.alignment": {}}), plugins)
    yield "a crop that does not fit", lambda: train("a", data={"train": folder / "photos", "crop": 65})
    yield "no folder of pictures", lambda: train("b", data={"train": folder / "pictures"})
    (folder / "empty").mkdir()
    yield "no picture in the folder", lambda: train("c", data={"train": folder / "empty"})
    yield "pictures that are too small", lambda: train("d", data={"train": folder / "photos", "crop": 128})
    (folder / "bad").mkdir()
    Image.new("L", (80, 80)).save(folder / "bad" / "grey.png")
    Image.new("RGBA", (80, 80)).save(folder / "bad" / "alpha.png")
    (folder / "bad" / "junk.jpg").write_bytes(b"junk")
    Image.fromarray(np.zeros((80, 80), np.uint16)).save(folder / "bad" / "deep.png")
    yield "pictures that cannot be used", lambda: train("e", data={"train": folder / "bad", "crop": 64})
    teacher = train("teacher", trains="teacher", num_steps=1)
    taught = {"teacher": teacher, "losses": {"feds.alignment": {}}}
    ranked = {"teacher": teacher, "losses": {"feds.channel_entropy": {}}}
    yield "a teacher of another lambda", lambda: train("f", **ranked, lmbda=0.05)
    unnamed = {"losses": {"feds.alignment": {}}, "teachers": {"rate": teacher, "picture": teacher}}
    yield "a loss that does not say which teacher", lambda: train("k", **unnamed)
    yield "a teacher that no loss names", lambda: train("l", **taught, teachers={"rate": teacher})

    def phase(**changes: object) -> dict[str, object]:
        return {"schedule": {"name": "core.phases", "phases": [{"name": "only", "share": 1.0} | changes]}}

    yield "a weight below zero", lambda: train("m", **phase(rd_weight=-1))
    yield "a pattern that no parameter fits", lambda: train("n", **phase(trainable=["g_x.*"]))
    yield "a crop too small for the objective", lambda: train("o", **phase(objective={"name": "core.ms_ssim"}))
    yield (
        "two phases of one name",
        lambda: train("p", **{"schedule": {"name": "core.phases", "phases": [{"name": "a", "share": 0.5}] * 2}}),
    )
    misplaced = {"feds.alignment": {"taps": ["analysis.1/3"]}}
    yield "a tap that is not there", lambda: train("g", teacher=teacher, losses=misplaced)
    yield "a role that is not there", lambda: train("h", teacher=teacher, losses={"kd.hint": {"tap": "latents"}})
    yield (
        "a loss that the schedule has no place for",
        lambda: train("i", teacher=teacher, losses={"kd.output": {}}, schedule={"name": "feds.staged"}),
    )
    yield (
        "a weight for a loss that is not there",
        lambda: train("j", **taught, schedule={"name": "core.constant", "weights": {"feds.aligment": 1}}),
    )
    yield "a run folder of another recipe", lambda: train("teacher", trains="teacher", num_steps=1, seed=1)
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")
    yield "a run folder that is something else", lambda: train("full", trains="teacher")
    yield "a model that is not there", lambda: distillkit.load_model(folder / "nowhere")
    (folder / "cut.safetensors").write_bytes(teacher.read_bytes()[:-1000])
    yield "a model that is cut short", lambda: distillkit.load_model(folder / "cut.safetensors")
    damaged = bytearray(teacher.read_bytes())
    damaged[-1000] ^= 1
    (folder / "flipped.safetensors").write_bytes(damaged)
    yield "a model with one bit flipped", lambda: distillkit.load_model(folder / "flipped.safetensors")
    (checkpoint,) = (folder / "teacher" / "checkpoints").iterdir()
    yield "a checkpoint in place of a model", lambda: distillkit.load_model(checkpoint)
    model = distillkit.load_model(teacher)
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)
    data = codec.encode(distillkit.read_image(folder / "photos" / "0.png"))
    yield "a compressed file of something else", lambda: codec.decode(b"GIF89a" + data)
    yield "an empty compressed file", lambda: codec.decode(b"")
    yield "a compressed file that is cut short", lambda: codec.decode(data[:-1])
    other = distillkit.load_model(teacher).codec
    other.module.get_parameter("latent_codec.hyper.h_s.0.1.weight").data.add_(1)
    yield "a compressed file of another model", lambda: distillkit.ImageCodec(other, "0" * 32).decode(data)
    yield "no codec at all", lambda: distillkit.CompressAIAdapter(torch_module())
    yield "no pictures to measure on", lambda: distillkit.distil_recipes(teacher, recipe(**taught), folder / "k", [])
    picture = folder / "photos" / "0.png"
    yield "nothing to distil with", lambda: distillkit.distil_recipes(teacher, recipe(), folder / "l", [picture])
    misspelt = plugin("register_loss_term", "register")
    yield "a plugin with a misspelt hook", lambda: distillkit.load_plugins(mine=misspelt)
    yield "a hook with a misspelt parameter", lambda: distillkit.load_plugins(mine=plugin("run_started", "runs"))
    yield "a plugin of a name that is taken", lambda: distillkit.load_plugins(feds=plugin("run_started", "run"))
    yield "a plugin name that recipes cannot say", lambda: distillkit.load_plugins(**{"My-Plugin": object()})


def torch_module() -> Any:
    """Return a network that is no codec."""
    from torch import nn

    return nn.Conv2d(3, 3, 1)


def plugin(hook: str, parameter: str) -> object:
    """Return a plugin that implements one hook with one parameter."""
    scope: dict[str, object] = {}
    exec(f"def {hook}({parameter}): ...", scope)
    return type("Plugin", (), {hook: staticmethod(distillkit.hookimpl(scope[hook]))})


def templates() -> dict[str, list[str]]:
    """Return the messages that the source can raise: file -> sorted messages."""
    found: dict[str, list[str]] = {}
    for path in sorted([*(ROOT / "distillkit").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
        messages = {
            f"{kind(call)}: {template(call.args[0], constants)}"
            for call in calls
            if kind(call) in CLASSES and isinstance(call.args[0], ast.JoinedStr | ast.Constant)
        }
        if messages:
            found[path.relative_to(ROOT).as_posix()] = sorted(messages)
    return found


def kind(call: ast.Call) -> str:
    """Return the name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def template(message: ast.expr, constants: dict[str, object]) -> str:
    """Return a message with the names of what is filled in."""
    if isinstance(message, ast.Constant):
        return str(message.value)
    assert isinstance(message, ast.JoinedStr)
    parts = []
    for part in message.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            name = ast.unparse(part.value)
            parts.append(str(constants.get(name, "<" + re.findall(r"\w+", name)[-1] + ">")))
    return "".join(parts)


if __name__ == "__main__":
    FILE.write_text(collect(), encoding="utf-8")
    print(FILE)
