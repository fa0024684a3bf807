"""Decode files in a process of its own, which knows the model's file and nothing of the encoder.

What encoding leaves in memory (tables, caches, the picture itself) cannot help a decoder that starts from nothing. One
process serves a whole set of pictures; it times its work itself, so that starting it is no part of the figures.

This module is both sides: `python -m distillkit.evaluation.decode` is the process that `fresh_decoder` starts.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from ..codec.runtime import ImageCodec
from ..errors import BitstreamError, DistillkitError
from ..model_file import TrainedModel, load_model
from ..plugins import Plugins, load_plugins

#: From (compressed file, picture to write) of each picture to the seconds that each took, in order.
Decoder = Callable[[Sequence[tuple[Path, Path]]], Iterator[float]]


def decoder_of(codec: ImageCodec) -> Decoder:
    """Return a decoder that works in this process; the first file is decoded once more beforehand, to warm up."""

    def decode(files: Sequence[tuple[Path, Path]]) -> Iterator[float]:
        for index, (file, picture) in enumerate(files):
            if index == 0:
                codec.decode(file.read_bytes())
            start = perf_counter()
            decoded = codec.decode(file.read_bytes())
            seconds = perf_counter() - start
            Image.fromarray(decoded).save(picture)
            yield seconds

    return decode


def fresh_decoder(path: Path, model: TrainedModel, plugins: Plugins) -> Decoder | None:
    """Return a decoder that starts a process for each set of files, or None where one could not build the model.

    That is so where its pair was handed to `load_plugins` as an object that no module holds.

    Args:
        path: the model's file, or its run folder.
        model: what is in it.
        plugins: where its pair is registered.
    """
    modules = {}
    for info in plugins.plugins:
        if info.distribution is None:
            plugin = plugins.manager.get_plugin(info.name)
            if inspect.ismodule(plugin) and plugin.__name__ != "__main__":
                modules[info.name] = plugin.__name__
            elif model.pair.startswith(f"{info.name}."):
                return None

    def decode(files: Sequence[tuple[Path, Path]]) -> Iterator[float]:
        job = {
            "model": str(path.resolve()),
            "plugins": modules,
            "num_threads": torch.get_num_threads(),  # the same entropy parameters need the same number of threads
            "files": [[str(each.resolve()) for each in pair] for pair in files],
        }
        # -P: what lies in the working folder is not imported unless it was here
        command = [sys.executable, "-P", "-m", "distillkit.evaluation.decode"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, env=environment, stderr=errors, **pipes) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with suppress(BrokenPipeError):  # it ended at once: its code is looked at below
                    process.stdin.write(json.dumps(job))
                    process.stdin.close()
                for line in process.stdout:
                    answer = json.loads(line)
                    if isinstance(answer, dict):
                        raise BitstreamError(answer["error"])
                    yield answer
                code = process.wait()
            finally:
                process.kill()  # nothing, where it has ended
            if code != 0:
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
                raise BitstreamError(
                    f"decoding in a fresh process, model {path}: expected it to end with code 0, got {code} ({last}). "
                    "Decode one of the files with `distillkit.load_model` and `ImageCodec.decode` to see why."
                )

    return decode


def main() -> None:
    """Do the job that standard input describes; answer with one line a picture, or with an error."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a plugin prints is no answer
    job = json.load(sys.stdin)
    torch.set_num_threads(job["num_threads"])
    try:
        plugins = load_plugins(**{name: import_module(module) for name, module in job["plugins"].items()})
        model = load_model(job["model"], plugins)
        decode = decoder_of(ImageCodec(model.codec, model.fingerprint))
        for seconds in decode([(Path(file), Path(picture)) for file, picture in job["files"]]):
            print(json.dumps(seconds), file=answers, flush=True)
    except DistillkitError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
