"""Peak memory of coding one picture, each time in a separate process.

The figure is the process's: interpreter, libraries, weights and all. What a library keeps after another's picture
cannot be in it, and what was there before the first picture stands beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ...errors import DistillkitError
from .timing import Direction

_STATUS = Path("/proc/self/status")


@final
@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that codes one picture once.

    Attributes:
        peak_bytes: the most it held in its life.
        loaded_bytes: what it held with the model ready, before the picture.
    """

    peak_bytes: int
    loaded_bytes: int


def measure_memory(
    model: Path, image: Path, threads: int, precision: str, device: str = "cpu", quality: float | None = None
) -> dict[Direction, Memory] | None:
    """Return the memory of encoding and of decoding a picture; None on systems other than Linux.

    Args:
        model: a run folder or model file.
        image: the picture.
        threads: of torch.
        precision: as `ImageCodec` has it.
        device: where the model runs; a GPU's own memory is not in the figure.
        quality: in [0, 1], for a model of many rates.

    Raises:
        DistillkitError: a process failed.
    """
    if not _STATUS.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.dk"
        return {
            direction: _measure(direction, model, image, file, threads, (precision, device, json.dumps(quality)))
            for direction in ("encode", "decode")
        }


def _measure(
    direction: Direction, model: Path, image: Path, file: Path, threads: int, how: tuple[str, str, str]
) -> Memory:
    command = [sys.executable, "-m", __name__, direction, str(model), str(image), str(file), *how]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DistillkitError(
            f"memory of {model}: expected its process to end with code 0, got {done.returncode}; its output: "
            f"{done.stderr.strip()}"
        )
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _main(direction: str, model: str, image: str, file: str, precision: str, device: str, quality: str) -> None:
    from ...codec.reading import read_compressed
    from ...codec.runtime import ImageCodec
    from ...data.images import read_image
    from ...model.file import load_model

    trained = load_model(model, device=device)
    codec = ImageCodec(trained.codec, trained.fingerprint, precision=precision, trusted=True)  # type: ignore[arg-type]
    loaded = _kilobytes("VmRSS")
    if direction == "encode":
        Path(file).write_bytes(codec.encode(read_image(image, samples=codec.samples), json.loads(quality)))
    else:
        codec.decode(read_compressed(file))
    # Not getrusage: after a fork its maximum is the parent's.
    print(json.dumps({"peak_bytes": 1024 * _kilobytes("VmHWM"), "loaded_bytes": 1024 * loaded}))


def _kilobytes(field: str) -> int:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    _main(*sys.argv[1:])
