"""Damages and forges compressed files, and counts how the decoder answers.

    python benchmarks/fuzz.py --count 100000

Every file must be refused with a BitstreamError, or be unchanged: decode to the picture that was compressed. A forger
who has the model can give a file the entropy hash that fits: such files may be refused or decode to any picture. The
decoder runs in a separate process, so that a crash would be seen; with `--threads` several threads share the codec.
Exits with 1 if anything else happened. Random weights, unless `--model` names a trained model.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np

BATCH = 500
FORGED = "another substream, its hash computed"
GOOD = {"refused", "the picture that was compressed", "a picture that its forger chose"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--codec", default="checkerboard", choices=["checkerboard", "serial", "mean-scale"])
    parser.add_argument("--model", help="a trained model instead")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="that share the codec, in each process")
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.time()
    counts: Counter[str] = Counter()
    crashes = []
    seeds = list(range(arguments.first_seed, arguments.first_seed + -(-arguments.count // BATCH)))
    start = (arguments.codec, arguments.model, arguments.threads)
    while seeds:
        pool = ProcessPoolExecutor(arguments.processes, get_context("spawn"), _Worker.start, start)
        futures = [(seed, pool.submit(_Worker.batch, seed)) for seed in seeds]
        for number, (seed, future) in enumerate(futures, 1):
            try:
                counts.update(future.result())
            except BrokenProcessPool:
                crashes.append(seed)
                seeds = seeds[number:]
                break
            if number % 20 == 0:
                print(f"{counts.total()} files, {time.time() - started:.0f} s", file=sys.stderr)
        else:
            seeds = []
        pool.shutdown(cancel_futures=True)
    by_outcome = Counter()
    for name, count in counts.items():
        by_outcome[name.partition(": ")[2]] += count
    print(json.dumps({"files": counts.total(), "outcomes": by_outcome, "kinds": dict(sorted(counts.items())),
                      "batches that crashed": crashes}, indent=2))  # fmt: skip
    bad = set(by_outcome) - GOOD
    sys.exit(1 if bad or crashes else 0)


class _Worker:
    """What the decoder's process keeps."""

    codec: Any
    files: list[bytes]
    pictures: list[np.ndarray]
    threads: ThreadPoolExecutor

    @classmethod
    def start(cls, kind: str, model: str | None, num_threads: int) -> None:
        import torch

        import distillkit

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        loaded = distillkit.load_model(model) if model else None
        adapter = loaded.codec if loaded else _build(kind)
        cls.codec = distillkit.ImageCodec(adapter, loaded.fingerprint if loaded else "0123456789abcdef")
        y, x = np.mgrid[:128, :128]
        noise = np.random.default_rng(0).normal(0, 20, (128, 128, 3))
        whole = np.stack([128 + 60 * np.sin(x / (9 + c)) + 40 * np.cos(y / (7 + c)) for c in range(3)], 2) + noise
        whole = whole.clip(0, 255).astype(np.uint8)
        sources = [whole[:64, :64], whole[:50, :100], whole[64:65, :1]]
        cls.files = [cls.codec.encode(source) for source in sources]
        cls.pictures = [cls.codec.decode(file) for file in cls.files]
        cls.threads = ThreadPoolExecutor(num_threads)

    @classmethod
    def batch(cls, seed: int) -> Counter[str]:
        rng = random.Random(seed)
        files = [_mutate(rng, rng.choice(cls.files), rng.choice(cls.files)) for _ in range(BATCH)]
        return Counter(cls.threads.map(lambda file: f"{file[0]}: {cls.outcome(*file)}", files))

    @classmethod
    def outcome(cls, kind: str, data: bytes) -> str:
        from distillkit.errors import BitstreamError

        try:
            try:
                decoded = cls.codec.decode(data)
            except BitstreamError as error:
                got = re.search("expected entropy hash [0-9a-f]+, got ([0-9a-f]+)", str(error))
                if kind != FORGED or got is None:
                    return "refused"
                decoded = cls.codec.decode(_with_hash(data, bytes.fromhex(got[1])))
        except BitstreamError:
            return "refused"
        except Exception as error:  # what must not happen
            return f"ANOTHER ERROR: {type(error).__name__}: {error}"[:200]
        # A splice may give the other file whole.
        if any(np.array_equal(decoded, picture) for picture in cls.pictures):
            return "the picture that was compressed"
        return "a picture that its forger chose" if kind == FORGED else "A WRONG PICTURE"


def _mutate(rng: random.Random, data: bytes, other: bytes) -> tuple[str, bytes]:
    """Return the name of a kind of damage, and a damaged file; for half of the files the CRC is computed again."""
    kind = rng.choice(("bits", "truncated", "spliced", "header", "random bytes", "another substream", FORGED))
    if kind in ("another substream", FORGED):
        return kind, _forge(rng, data, other)
    body = bytearray(data[:-4])
    place = rng.randrange(len(body))
    if kind == "bits":
        for _ in range(rng.randint(1, 6)):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    elif kind == "truncated":
        del body[place:]
    elif kind == "spliced":
        start = rng.randrange(len(other))
        body[place : place + rng.randint(0, 200)] = other[start : start + rng.randint(0, 200)]
    elif kind == "header":
        ends = (4, 5, 13, 17, 21, 22, 24, 26, 27, 28)  # see `distillkit.codec.bitstream`
        field = slice(*rng.choice([*pairwise(ends), (22, 26)]))
        size = field.stop - field.start
        near = (int.from_bytes(body[field], "little") + rng.randint(-3, 3)) % 256**size
        body[field] = rng.choice((rng.randbytes(size), near.to_bytes(size, "little"), b"\xff" * size, bytes(size)))
    else:
        body = bytearray(rng.choice((b"", data[:5], data[:22], data[:27])) + rng.randbytes(rng.randint(0, 300)))
    if rng.random() < 0.5:
        return kind, bytes(body) + data[-4:]
    return f"{kind}, CRC computed", bytes(body) + struct.pack("<I", zlib.crc32(body))


def _forge(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return a valid file with the hash of `data` in which one substream is another."""
    from distillkit.codec.bitstream import read, write

    image = read(data)
    substreams = list(image.substreams)
    at = rng.randrange(len(substreams))
    changed = bytearray(substreams[at])
    action = rng.randrange(6)
    if action == 0 and changed:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif action == 1:
        del changed[rng.randrange(len(changed) + 1) :]
    elif action == 2:
        changed += rng.randbytes(rng.randint(1, 50))
    elif action == 3:
        changed = bytearray(rng.randbytes(rng.randint(0, 100)))
    elif action == 4:
        changed = bytearray(rng.choice(read(other).substreams))
    else:
        changed = bytearray(rng.choice((b"\xff", b"\1", b"\x80")) * rng.randint(0, 3000))
    substreams[at] = bytes(changed)
    return write(replace(image, substreams=tuple(substreams)))


def _with_hash(data: bytes, entropy_hash: bytes) -> bytes:
    """Return a sound file whose entropy hash is replaced."""
    from distillkit.codec.bitstream import read, write

    return write(replace(read(data), entropy_hash=entropy_hash))


def _build(kind: str) -> Any:
    """Return a small codec with random weights whose latents are not all 0."""
    import torch

    import distillkit
    from distillkit.model.adapters import as_codec

    torch.manual_seed(0)
    if kind == "checkerboard":
        pair = distillkit.load_plugins().get("pair", "models.cheng2020", "fuzz")
        module = pair(pair.Config(size="tiny")).build_student()
    else:
        from compressai.models import JointAutoregressiveHierarchicalPriors, MeanScaleHyperprior

        module = (JointAutoregressiveHierarchicalPriors if kind == "serial" else MeanScaleHyperprior)(12, 16)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            analysis = name.startswith("g_a") and parameter.ndim == 4
            if name.endswith("weight") and (analysis or "h_s" in name or "entropy_parameters" in name):
                parameter.mul_(2.0)
    adapter = as_codec(module.eval())
    adapter.update()
    return adapter


if __name__ == "__main__":
    main()
