"""Decode files in a separate process, which has the model's file and nothing from the encoder.

What encoding leaves in memory (tables, caches, the picture itself) cannot help a decoder that starts from nothing. One
process decodes a whole set of pictures; it times its work itself, so that its start does not count.

This module is both sides: `python -m distillkit.evaluation.decode` is the process that `DecodingProcess` starts.
"""

from __future__ import annotations

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
from typing import IO, Any, final

import torch

from ..codec.reading import read_compressed
from ..codec.runtime import ImageCodec
from ..data.stored import write_picture
from ..errors import BitstreamError, DistillkitError
from ..hooks.loader import Plugins, load_plugins
from ..hooks.modules import modules_of
from ..model.file import TrainedModel, load_model
from ..model.zoo import located

#: From (compressed file, picture to write) of each picture to the seconds that each took, in order.
Decoder = Callable[[Sequence[tuple[Path, Path]]], Iterator[float]]


def decoder_of(codec: ImageCodec) -> Decoder:
    """Return a decoder that works in this process; the first file is decoded once more beforehand, to warm up."""

    def decode(files: Sequence[tuple[Path, Path]]) -> Iterator[float]:
        for index, (file, picture) in enumerate(files):
            if index == 0:
                codec.decode(read_compressed(file))
            start = perf_counter()
            decoded = codec.decode(read_compressed(file))
            seconds = perf_counter() - start
            write_picture(picture, decoded, picture.suffix)
            yield seconds

    return decode


@final
class DecodingProcess:
    """A process that decodes for one or several models, started when it is first needed and ended by `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> DecodingProcess:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def decoder(self, path: Path, model: TrainedModel, plugins: Plugins, device: str = "cpu") -> Decoder | None:
        """Return a decoder that works in the process, or None where the process could not build the model.

        That is so if its pair was passed to `load_plugins` as an object that no module holds.

        Args:
            path: the model's file, or its run folder.
            model: what is in it.
            plugins: where its pair is registered.
            device: where it runs, see `load_model`.
        """
        modules, others = modules_of(plugins)
        if model.pair.partition(".")[0] in others:
            return None

        def decode(files: Sequence[tuple[Path, Path]]) -> Iterator[float]:
            job = {
                "model": str(located(path).resolve()),
                "device": device,
                "plugins": modules,
                "path": [os.path.abspath(each) for each in sys.path],
                "num_threads": torch.get_num_threads(),  # the same entropy parameters need the same number of threads
                "files": [[str(each.resolve()) for each in pair] for pair in files],
            }
            done = False
            try:
                for answer in self._ask(job, len(files), path):
                    if isinstance(answer, dict):
                        done = True
                        raise BitstreamError(answer["error"])
                    yield answer
                done = True
            finally:
                if not done:
                    self.close()  # left in the middle: what it answers later would be taken for something else

        return decode

    def close(self) -> None:
        """End the process; the next files start another."""
        if self._process is not None and self._errors is not None:
            self._process.kill()
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._errors.close()
            self._process = self._errors = None

    def _ask(self, job: dict[str, Any], num_answers: int, path: Path) -> Iterator[Any]:
        if self._process is None:
            # -P: what lies in the working folder is not imported unless it was here
            command = [sys.executable, "-P", "-m", "distillkit.evaluation.decode"]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(job["path"])}
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            self._process = subprocess.Popen(command, env=environment, stderr=self._errors, **pipes)
        process, errors = self._process, self._errors
        assert process.stdin is not None
        assert process.stdout is not None
        assert errors is not None
        with suppress(BrokenPipeError):  # it ended at once: its code is looked at below
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        for _ in range(num_answers):
            line = process.stdout.readline()
            if not line:
                code = process.wait()
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().rpartition("\n")[2] or "no message"
                raise BitstreamError(
                    f"decoding in a fresh process, model {path}: expected an answer for every file, but it ended with "
                    f"code {code} ({last}). Decode a file with `ImageCodec.decode` to see why."
                )
            yield json.loads(line)


def main() -> None:
    """Do the jobs that standard input describes, one per line; answer with one line per picture, or with an error."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a plugin prints is no answer
    for line in sys.stdin:
        job = json.loads(line)
        sys.path[:] = job["path"]
        torch.set_num_threads(job["num_threads"])
        try:
            plugins = load_plugins(**{name: import_module(module) for name, module in job["plugins"].items()})
            model = load_model(job["model"], plugins, job["device"])
            decode = decoder_of(ImageCodec(model.codec, model.fingerprint, trusted=True))
            for seconds in decode([(Path(file), Path(picture)) for file, picture in job["files"]]):
                print(json.dumps(seconds), file=answers, flush=True)
        except DistillkitError as error:
            print(json.dumps({"error": str(error)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
