"""Damages and forges model files and recipes, and counts how loading ends.

    python benchmarks/fuzz_inputs.py --models 500 --recipes 500

A model file must be refused with an error of distillkit's, or load as the model that was saved; a forger may give it
the checksum that fits. A recipe must be refused in that way, or be read and resolved. Options that name other sources
of weights name a named pipe, on which reading would wait. The work is done in a separate process, so that a crash, a
hang or a demand for memory would be seen. Exits with 1 if anything else happened.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

PATIENCE = 60.0  #: seconds for one file
GOOD = {"refused", "the model that was saved", "a recipe"}
VALUES = (None, True, -1, 0, 3, 4000, 10**9, 10**400, 0.5, float("nan"), "", "x", "student", [], {}, [[]], {"a": {}})
RECIPE = """
num_steps = 10
lmbda = 0.013
teacher = "teacher.safetensors"
seed = 1
accumulate = 2

[pair]
name = "models.cheng2020"
size = "tiny"

[data]
train = "photographs"
crop = 64
batch_size = 4
num_workers = 0

[optimizer]
name = "soap"
learning_rate = 1e-3

[schedule]
name = "feds.staged"

[losses."feds.alignment"]
[losses."feds.channel_entropy"]
calibration_crops = 4
keep = 0.95
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--recipes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in (("models", arguments.models), ("recipes", arguments.recipes)):
            report[kind] = _carry_out(kind, count, arguments.seed, Path(folder))
    print(json.dumps(report, indent=2))
    outcomes = {name.partition(": ")[2] for part in report.values() for name in part["kinds"]}
    sys.exit(1 if outcomes - GOOD else 0)


def _carry_out(kind: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return what became of `count` files; a process that dies or hangs is replaced."""
    counts: Counter[str] = Counter()
    slowest, peak, done = 0.0, 0.0, 0
    while done < count:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(kind, range(done, count), seed, folder, theirs)
        )
        process.start()
        theirs.close()
        while done < count:
            try:
                if not ours.poll(PATIENCE):
                    counts[f"number {done}: IT HANGS"] += 1
                    break
                name, seconds, megabytes = ours.recv()
            except EOFError:
                counts[f"number {done}: A CRASH"] += 1
                break
            counts[name] += 1
            done += 1
            slowest, peak = max(slowest, seconds), max(peak, megabytes)
        else:
            process.join()
            break
        process.kill()
        done += 1
    return {
        "files": done,
        "kinds": dict(sorted(counts.items())),
        "slowest_seconds": round(slowest, 2),
        "megabytes_beside_the_first_load": round(peak),
    }


def _work(kind: str, numbers: range, seed: int, folder: Path, answers: Any) -> None:
    warnings.simplefilter("ignore")
    import torch

    import distillkit

    torch.set_num_threads(1)
    trial = (_Models if kind == "models" else _Recipes)(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        rng, start = random.Random(f"{seed} {number}"), time.perf_counter()
        damage, data = trial.damaged(rng)
        try:
            outcome = trial.outcome(data)
        except distillkit.DistillkitError:
            outcome = "refused"
        except Exception as error:  # what must not happen
            outcome = f"ANOTHER ERROR, number {number}: {type(error).__name__}: {error}"[:200]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers.send((f"{damage}: {outcome}", time.perf_counter() - start, (peak - before) / 1000))


class _Models:
    def __init__(self, folder: Path) -> None:
        import distillkit
        from distillkit.model.file import save_model
        from distillkit.model.tensors import read_tensors

        self.folder, self.sound = folder, []
        fifo = folder / "fifo"
        if not fifo.exists():
            os.mkfifo(fifo)
        self.sources = [{"weights": str(fifo)}, {"pretrained": True, "quality": 4}, {"teacher": str(fifo)}]
        small = {"teacher": {"N": 8, "M": 12}, "student": {"N": 8, "M": 12}}
        for pair, options, part in (
            ("models.cheng2020", {"size": "tiny"}, "student"),
            ("models.compressai", small, "teacher"),
            ("models.light", {"teacher": "zoo:lite-student", "synthesis": {"width": 8}}, "student"),
        ):
            pair_class, config = distillkit.load_plugins().configure("pair", pair, options, "fuzz")
            made = pair_class(config)
            codec = distillkit.as_codec(made.build_student() if part == "student" else made.build_teacher())
            file = folder / f"{pair}.safetensors"
            save_model(file, codec, pair, made.options_of(part, codec.module), part, 0.013)
            fingerprint = distillkit.load_model(file).fingerprint
            self.sound.append((file.read_bytes(), *read_tensors(file), fingerprint))

    def damaged(self, rng: random.Random) -> tuple[str, tuple[bytes, str]]:
        data, tensors, metadata, fingerprint = rng.choice(self.sound)
        kind = rng.choice(("bits", "truncated", "a field", "a field deep inside", "text", "tensors", "a source"))
        if kind in ("bits", "truncated"):
            changed = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(rng.choice((300, len(changed))))] ^= 1 << rng.randrange(8)
            return kind, (bytes(changed if kind == "bits" else data[: rng.randrange(len(data))]), fingerprint)
        about, tensors = json.loads(metadata["model"]), dict(tensors)
        if kind == "a field":
            about[rng.choice([*about, "more"])] = rng.choice(VALUES)
        elif kind == "a field deep inside":
            place = about["options"]
            while (inner := [value for value in place.values() if isinstance(value, dict)]) and rng.random() < 0.7:
                place = rng.choice(inner)
            place[rng.choice([*place, "more"])] = rng.choice(VALUES)
        elif kind == "a source":
            about["options"].update(rng.choice((self.sources[2], {"teacher": rng.choice(self.sources[:2])})))
            about["pair"] = rng.choice((about["pair"], "models.light", "models.compressai"))
            about["part"] = rng.choice(("student", "teacher"))
        elif kind == "tensors":
            self._change_tensors(rng, tensors)
        text = json.dumps(about)
        if kind == "text":
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(("", "[" * 100_000, "}", "\0", '"')) + text[at + rng.randint(0, 9) :]
        from distillkit.model.tensors import write_tensors

        write_tensors(self.folder / "forged", tensors, {**metadata, "model": text})
        return f"{kind}, checksum computed", ((self.folder / "forged").read_bytes(), fingerprint)

    def _change_tensors(self, rng: random.Random, tensors: dict[str, Any]) -> None:
        import torch

        name = rng.choice(sorted(tensors))
        action = rng.randrange(6)
        if action == 0:
            del tensors[name]
        elif action == 1:
            tensors["more"] = torch.zeros(3)
        elif action == 2:
            tensors[name] = tensors[name].reshape(-1)[:1]
        elif action == 3:
            tensors[name] = tensors[name].to(rng.choice((torch.int8, torch.float64, torch.complex64, torch.bool)))
        else:
            changed = tensors[name].clone().reshape(-1)
            if len(changed):
                changed[rng.randrange(len(changed))] = (
                    float("nan") if changed.is_floating_point() and action == 4 else 7
                )
            tensors[name] = changed.reshape(tensors[name].shape)

    def outcome(self, data: tuple[bytes, str]) -> str:
        import distillkit

        file = self.folder / "damaged.safetensors"
        file.write_bytes(data[0])
        model = distillkit.load_model(file)
        return "the model that was saved" if model.fingerprint == data[1] else "ANOTHER MODEL"


class _Recipes:
    def __init__(self, folder: Path) -> None:
        import distillkit

        self.file, self.plugins = folder / "recipe.toml", distillkit.load_plugins()
        self.outcome(RECIPE.encode())  # sound as it is

    def damaged(self, rng: random.Random) -> tuple[str, bytes]:
        kind = rng.choice(("bytes", "a value", "a key", "lines", "nesting"))
        lines = RECIPE.strip().splitlines()
        at = rng.choice([number for number, line in enumerate(lines) if " = " in line])
        key, _, _ = lines[at].partition(" = ")
        if kind == "bytes":
            data = bytearray(RECIPE.encode())
            for _ in range(rng.randint(1, 5)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return kind, bytes(data)
        if kind == "a value":
            simple = ("true", "-1", "0", "1e400", "nan", "inf", '""', '"../x"', "[]", "{}", "1979-05-27", "9" * 400)
            lines[at] = f"{key} = {rng.choice((*simple, '[[]]', '{a = {b = 1}}', '10000000', '0.5'))}"
        elif kind == "a key":
            lines[at] = lines[at].replace(key, rng.choice((key[:-1] or "x", "more", f"{key}.x", '""', key.upper())), 1)
        elif kind == "lines":
            rng.shuffle(lines)
        else:
            depth = rng.choice((10, 1000, 100_000))
            lines[at] = f"{key} = {'[' * depth}{']' * depth}"
        return kind, "\n".join(lines).encode()

    def outcome(self, data: bytes) -> str:
        import distillkit
        from distillkit.training.setup.resolve import resolve

        self.file.write_bytes(data)
        resolve(distillkit.Recipe.load(self.file), self.plugins)
        return "a recipe"


if __name__ == "__main__":
    main()
