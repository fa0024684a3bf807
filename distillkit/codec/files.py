"""Files and folders to compressed files and back: several at once, never half a file, never over another."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, final

from PIL import Image

from ..data.images import BadImageError, read_image
from ..data.listing import list_images
from ..errors import BitstreamError, DataError, DistillkitError
from ..model.file import load_model
from .bitstream import MAGIC, read
from .fast.codec import Precision
from .runtime import MAX_PIXELS, ImageCodec

_HEAD_BYTES = 512  # of a compressed file, beside its substreams, at most
SUFFIX = ".dk"  #: of compressed files
_WORTH_SECONDS = 5.0  #: of work that is left: other processes, which need about as long to start, are worth it
Direction = Literal["compress", "decompress"]


@dataclass(frozen=True)
class Settings:
    """What all files of one call have in common.

    Attributes:
        direction: compress or decompress.
        model: a run folder or model file.
        precision: of the transforms, see `ImageCodec`.
        convert: take pictures that are not 8-bit RGB, see `read_image`.
        max_pixels: larger images are not decoded.
        trusted: decode also by a decoder that forged files can crash, see `ImageCodec`.
    """

    direction: Direction
    model: Path
    precision: Precision = "auto"
    convert: bool = False
    max_pixels: int = MAX_PIXELS
    trusted: bool = False


@dataclass(frozen=True)
class Coded:
    """What became of one file.

    Attributes:
        source: file that was read.
        target: file that was written.
        width: of the picture, in pixels; 0 if it failed.
        height: of the picture, in pixels; 0 if it failed.
        compressed_bytes: size of the compressed file; 0 if it failed.
        error: why nothing was written, or None.
    """

    source: Path
    target: Path
    width: int = 0
    height: int = 0
    compressed_bytes: int = 0
    error: str | None = None


def plan_files(direction: Direction, source: Path, target: Path | None, overwrite: bool) -> list[tuple[Path, Path]]:
    """Return what is to be read and where it is to be written.

    Args:
        direction: compress or decompress.
        source: a file, or a folder, whose subfolders count.
        target: a file or folder; by default beside each source.
        overwrite: whether files that exist may be replaced; never a source.

    Raises:
        DataError: there is nothing to do, two files would go to one place, or a file would be overwritten.
    """
    suffix = SUFFIX if direction == "compress" else ".png"
    if source.is_dir():
        if direction == "compress":
            sources = list_images(source)
        elif not (sources := sorted(path for path in source.rglob(f"*{SUFFIX}") if path.is_file())):
            raise DataError(f"folder {source}: expected files that end in {SUFFIX}, got none; check the path.")
        folder = target or source
        pairs = [(path, (folder / path.relative_to(source)).with_suffix(suffix)) for path in sources]
    elif source.is_file():
        into = target.is_dir() if target is not None else False
        beside = source.with_suffix(suffix) if target is None else target
        pairs = [(source, target / source.with_suffix(suffix).name if into and target is not None else beside)]
        if pairs[0][1].suffix.lower() != suffix:
            raise DataError(f"file {beside}: expected a name that ends in {suffix}, got {beside.name}; rename it.")
    else:
        raise DataError(f"file {source}: expected a file or a folder, got nothing there; check the path.")
    _check_targets(pairs, overwrite)
    return pairs


def code_files(
    settings: Settings,
    pairs: Sequence[tuple[Path, Path]],
    on_coded: Callable[[Coded], None],
    on_note: Callable[[str], None],
) -> list[Coded]:
    """Compress or decompress all files, on all cores if there are several, and return what became of each.

    Files are coded one after the other with torch's own threads, as long as that takes a few seconds. Of more, each
    core codes one at a time with a single thread, which wastes nothing on waiting for one another.

    Args:
        settings: what they have in common.
        pairs: source and target of each.
        on_coded: called as soon as a file is done, in any order.
        on_note: called with what a user should know of how the model codes, if there is something.

    Raises:
        DistillkitError: the model cannot be used, or a process died.
    """
    codec = _load(settings)
    if codec.note is not None:
        on_note(codec.note)
    coded: dict[tuple[Path, Path], Coded] = {}

    def note(result: Coded) -> None:
        coded[result.source, result.target] = result
        on_coded(result)

    waiting = deque(pairs)
    began = time.perf_counter()
    while waiting and (len(coded) < 2 or _seconds_left(began, len(coded), len(waiting)) < _WORTH_SECONDS):
        note(_code(codec, settings, *waiting.popleft()))
    if waiting and _num_cores() > 1:
        _code_with_others(codec, settings, waiting, note)
    for pair in waiting:
        note(_code(codec, settings, *pair))
    return [coded[pair] for pair in pairs]


def _seconds_left(began: float, done: int, left: int) -> float:
    return (time.perf_counter() - began) / done * left


def _code_with_others(
    codec: ImageCodec, settings: Settings, waiting: deque[tuple[Path, Path]], note: Callable[[Coded], None]
) -> None:
    """Empty `waiting` together with a process on each other core; this one codes, too, so their start costs no time."""
    import torch

    others, threads = _num_cores() - 1, torch.get_num_threads()
    pool = ProcessPoolExecutor(others, get_context("spawn"), _start, (settings,))
    torch.set_num_threads(1)
    running: set[Future[Coded]] = set()
    try:
        while waiting or running:
            while waiting and len(running) < 2 * others:
                running.add(pool.submit(_code_here, waiting.popleft()))
            if waiting:
                note(_code(codec, settings, *waiting.popleft()))
            done = wait(running, 0 if waiting else None, FIRST_COMPLETED).done
            for future in done:
                note(future.result())
            running -= done
    except BrokenProcessPool:
        raise DistillkitError(
            f"{settings.direction}: expected every process to finish, got one that died, perhaps for want of memory; "
            "give the files one at a time."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def read_compressed(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the bytes of a compressed file; what cannot be one is not read.

    Args:
        path: the file.
        max_pixels: of the largest image that is decoded; no file of one is longer than four bytes a pixel.

    Raises:
        BitstreamError: it does not begin like one, or is too long.
    """
    most = _HEAD_BYTES + 4 * max_pixels
    with path.open("rb") as file:
        data = file.read(len(MAGIC))
        if data == MAGIC:
            data += file.read(most)
    if data[: len(MAGIC)] != MAGIC:
        read(data)  # raises
    if len(data) > most:
        raise BitstreamError(
            f"compressed file {path}: expected at most {most} bytes, for an image of {max_pixels} pixels, got more; if "
            "you trust the file and have the memory, raise --max-pixels."
        )
    return data


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Give a name beside `path` to write to; it takes the place of `path` at the end, or vanishes on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _check_targets(pairs: Sequence[tuple[Path, Path]], overwrite: bool) -> None:
    taken: dict[Path, Path] = {}
    sources = {source.resolve() for source, _ in pairs}
    for source, target in pairs:
        place = target.resolve()
        if place in taken:
            raise DataError(f"file {source}: would go to {target}, as {taken[place]} does; rename one of them.")
        taken[place] = source
        if place in sources:
            raise DataError(f"file {target}: it is a source and would be overwritten; choose another target.")
    existing = [target for _, target in pairs if target.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise DataError(
            f"file {existing[0]}{more}: exists already and would be overwritten; choose another target or pass "
            "`--overwrite`."
        )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(settings: Settings) -> ImageCodec:
    model = load_model(settings.model)
    options = {"precision": settings.precision, "max_pixels": settings.max_pixels, "trusted": settings.trusted}
    return ImageCodec(model.codec, model.fingerprint, **options)  # type: ignore[arg-type]


def _code(codec: ImageCodec, settings: Settings, source: Path, target: Path) -> Coded:
    try:
        if settings.direction == "compress":
            pixels = read_image(source, convert=settings.convert)
            data = codec.encode(pixels)
            with whole_file(target) as part:
                part.write_bytes(data)
        else:
            data = read_compressed(source, settings.max_pixels)
            pixels = codec.decode(data)
            with whole_file(target) as part:
                Image.fromarray(pixels).save(part, "png")
    except (DistillkitError, MemoryError) as error:
        text = str(error) or "expected enough memory, got too little; take a smaller picture"
        if isinstance(error, BadImageError) and error.problem.convertible and not settings.convert:
            text += " Or pass `--convert`; it makes 8-bit RGB of it."
        prefix = "" if str(source) in text else f"file {source}: "
        return Coded(source, target, error=prefix + text)
    except OSError as error:
        return Coded(source, target, error=f"file {error.filename or source}: cannot be used: {error.strerror}.")
    return Coded(source, target, pixels.shape[1], pixels.shape[0], len(data))


@final
class _Process:
    """What one process of the pool keeps from file to file."""

    codec: ImageCodec
    settings: Settings


def _start(settings: Settings) -> None:
    import torch

    torch.set_num_threads(1)
    _Process.codec, _Process.settings = _load(settings), settings


def _code_here(pair: tuple[Path, Path]) -> Coded:
    return _code(_Process.codec, _Process.settings, *pair)
