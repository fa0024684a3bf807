"""Images packed into tar files (WebDataset's layout), each of which can be read by itself."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

from ..errors import DataError
from .content import SUFFIXES
from .images import read_image
from .listing import find_images, list_images
from .processes import start_pool
from .samples import RGB, Samples

INDEX = "index.json"
_FORMAT = "distillkit-shards-1"
_MIB = 1 << 20


@final
@dataclass(frozen=True, order=True)
class PackedImage:
    """An image inside a shard; `read_image` takes it like a path.

    Attributes:
        shard: the tar file.
        name: of the image: its path when it was packed, or its name in the shard.
        offset: of its first byte in the shard.
        num_bytes: length of its file.
        verified_size: width and height in pixels, if the image was decoded when it was packed.
        verified_samples: with which it was decoded then.
    """

    shard: Path
    name: str
    offset: int
    num_bytes: int
    verified_size: tuple[int, int] | None = None
    verified_samples: Samples = RGB

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return the image's file."""
        with self.shard.open(mode) as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.num_bytes))

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"


class TrainingImages(NamedTuple):
    """The training images of a folder.

    Attributes:
        images: paths, or images in shards.
        left_out: what else is there, with its count, or an empty text.
    """

    images: list[Path] | list[PackedImage]
    left_out: str


class Packed(NamedTuple):
    """What `pack` did: the images that went in, the shards, and why other images were left out."""

    num_images: int
    num_shards: int
    problems: list[str]


def pack(
    source: Path,
    out: Path,
    shard_mib: int = 512,
    num_workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    samples: Samples = RGB,
) -> Packed:
    """Pack the images of a folder into shards, each decoded once to see that it can be used.

    The files are written unchanged, in a random order (the same each time), so that neighbours differ.

    Args:
        source: folder of images, searched recursively.
        out: new or empty folder for `shard-000000.tar`, ... and `index.json`.
        shard_mib: a shard is closed once it is larger.
        num_workers: processes that decode; by default one per core.
        progress: called with the number of images seen, and of all.
        samples: that each must have: those of the codec that will be trained.

    Raises:
        DataError: there are no images, none can be used, or `out` is in use or cannot be written.
    """
    paths = list_images(source)
    random.Random(0).shuffle(paths)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise DataError(f"shards {out}: expected a new or empty folder, got one with files; choose another.")
    problems: list[str] = []
    members: list[tuple[str, str, int, int, int, int]] = []
    sizes: dict[str, int] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with start_pool(num_workers or os.cpu_count() or 1) as pool, _Shards(out, shard_mib, sizes) as shards:
            checks = pool.map(partial(_check, samples=samples), paths, chunksize=8)
            for done, (path, checked) in enumerate(zip(paths, checks, strict=True)):
                progress(done + 1, len(paths))
                if isinstance(checked, str):
                    problems.append(checked)
                    continue
                shard, offset, num_bytes = shards.add(path, len(members))
                name = path.relative_to(source).as_posix()
                members.append((shard, name, offset, num_bytes, *checked))
        if not members:
            raise DataError(f"images {source}: none of {len(paths)} can be used. The first: {problems[0]}")
        about = [samples.channels, samples.bits]
        index = {"format": _FORMAT, "samples": about, "shards": sizes, "images": members}
        unfinished = out / f"{INDEX}.partial"
        unfinished.write_text(json.dumps(index), encoding="utf-8")
        unfinished.replace(out / INDEX)
    except OSError as error:
        raise DataError(f"shards {out}: cannot be written: {error.strerror}; choose another place.") from None
    return Packed(len(members), len(sizes), problems)


def list_training_images(folder: Path) -> TrainingImages:
    """Return the training images of a folder.

    They are in its tar files if it was packed (there is an `index.json`) or holds no pictures otherwise; else they are
    the pictures that `find_images` finds.

    Raises:
        DataError: there are none, or the shards are not those of their index.
    """
    shards, file = sorted(folder.glob("*.tar")), folder / INDEX
    if shards and file.exists():
        images = _indexed(file, shards)
        beside = len(_pictures_of(folder))
        left_out = f"images {folder}: {beside} pictures beside the shards of {INDEX} are left out" if beside else ""
        return TrainingImages(images, left_out)
    if not shards or _pictures_of(folder):
        return TrainingImages(*find_images(folder))
    scanned = [image for shard in shards for image in _scanned(shard)]
    if not scanned:
        raise DataError(
            f"shards {folder}: expected images ({', '.join(SUFFIXES)}) in {len(shards)} tar files, got none; make "
            "shards with `distillkit pack`."
        )
    return TrainingImages(scanned, "")


def _pictures_of(folder: Path) -> list[Path]:
    try:
        return find_images(folder).paths
    except DataError:
        return []


def _indexed(file: Path, shards: list[Path]) -> list[PackedImage]:
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        expected = {file.parent / name: size for name, size in index["shards"].items()}
        samples = Samples(*index.get("samples", (3, 8)))
        images = [
            PackedImage(file.parent / shard, name, offset, num_bytes, (width, height), samples)
            for shard, name, offset, num_bytes, width, height in index["images"]
        ]
        for image in images:
            numbers = (image.offset, image.num_bytes, *(image.verified_size or ()))
            if image.shard not in expected or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                raise ValueError(f"an image that lies in none of its shards: {image.name!s:.60}")
            if image.offset + image.num_bytes > expected[image.shard]:
                raise ValueError(f"an image beyond its shard's end: {image.name!s:.60}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: damaged ({error}); remove it, and the shards are read without it.") from None
    got = {shard: shard.stat().st_size for shard in shards}
    for shard in sorted(got.keys() | expected.keys()):
        if got.get(shard) != expected.get(shard):
            raise DataError(
                f"shards {file.parent}: {shard.name}: expected {_length(expected.get(shard))} by {INDEX}, got "
                f"{_length(got.get(shard))}. Copy it again, or pack the images again."
            )
    return images


def _length(num_bytes: int | None) -> str:
    return "no such file" if num_bytes is None else f"{num_bytes} bytes"


def _scanned(shard: Path) -> Iterator[PackedImage]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(SUFFIXES):
                    yield PackedImage(shard, member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"shard {shard}: expected an uncompressed tar file, got one that cannot be read: {error}."
        ) from None


def _check(path: Path, samples: Samples) -> tuple[int, int] | str:
    try:
        height, width, _ = read_image(path, samples=samples).shape
    except DataError as error:
        return str(error)
    return width, height


class _Shards:
    """Writes files into one tar after the other; `sizes` gets the length of each that is closed."""

    def __init__(self, folder: Path, shard_mib: int, sizes: dict[str, int]) -> None:
        self.folder, self.limit, self.sizes = folder, shard_mib * _MIB, sizes
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, path: Path, number: int) -> tuple[str, int, int]:
        """Return the shard, the offset of the file's first byte in it, and its length."""
        name = f"shard-{len(self.sizes):06d}.tar"
        if self._tar is None:
            self._tar = tarfile.open(self.folder / f"{name}.partial", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        data = path.read_bytes()
        about = tarfile.TarInfo(f"{number:09d}{path.suffix.lower()}")
        about.size = len(data)
        self._tar.addfile(about, io.BytesIO(data))
        offset = self._tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if self._tar.offset > self.limit:
            self._close()
        return name, offset, len(data)

    def _close(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        partial, self._tar = Path(str(self._tar.name)), None
        path = partial.with_suffix("")
        partial.replace(path)
        self.sizes[path.name] = path.stat().st_size
