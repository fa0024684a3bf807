"""Time a training step of distillkit against a hand-written loop that does the same mathematics.

    python benchmarks/step_time.py [--size tiny] [--steps 20] [--threads 2] [--precision bf16] [--json]

Both train the same student from the same weights on the same batches with the same noise, taking turns step by step
in one process, in each of FEDS's phases. The hand-written loop knows this one pair: it walks through the transforms'
blocks itself, so it pays for no hooks, schedules, metrics or checks. The run fails if, from equal weights, the two do
not arrive at the same loss. With one thread it measures processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import distillkit
from distillkit.model.adapters import as_codec
from distillkit.training.distributed import Ranks
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.metrics import MetricsWindow
from distillkit.training.pace.pace import Pace
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.trainer import Trainer


class HandWritten:
    """What a researcher would write for this pair."""

    def __init__(self, recipe, teacher, student, adapters, taps, channel_loss):
        self.recipe, self.teacher, self.student, self.adapters, self.taps = recipe, teacher, student, adapters, taps
        self.channel_loss = channel_loss
        main = [p for n, p in student.named_parameters() if not n.endswith(".quantiles")] + list(adapters.parameters())
        self.main = main
        self.optimizer = Pace(recipe, distillkit.load_plugins(), main).optimizer
        quantiles = [p for n, p in student.named_parameters() if n.endswith(".quantiles")]
        self.aux_optimizer = torch.optim.Adam(quantiles, recipe.optimizer.aux_learning_rate)

    @staticmethod
    def walk(model, images, taps, stop_at_latent=False, stop_after=None):
        features = {}
        hidden = images
        for index, block in enumerate(model.g_a):
            hidden = block(hidden)
            if (role := taps.get(f"g_a.{index}")) is not None:
                features[role] = hidden
        features["latent"] = hidden
        if stop_at_latent:
            return features, None, None
        coded = model.latent_codec(hidden)
        hidden = coded["y_hat"]
        for index, block in enumerate(model.g_s):
            hidden = block(hidden)
            if (role := taps.get(f"g_s.{index}")) is not None:
                features[role] = hidden
                if role == stop_after:
                    return features, None, None
        return features, hidden, coded["likelihoods"]

    def step(self, images, align, channel):
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if align or channel:
                with torch.no_grad():
                    wanted, _, _ = self.walk(self.teacher, images, self.taps[0], not align, self.taps[2])
            features, x_hat, likelihoods = self.walk(self.student, images, self.taps[1])
            num_pixels = images.shape[0] * images.shape[2] * images.shape[3]
            rate = sum(p.float().log().sum() for p in likelihoods.values()) / (-np.log(2) * num_pixels)
            mse = F.mse_loss(x_hat.float(), images)
            loss = cost = self.recipe.lmbda * 255**2 * mse + rate
            if align:
                terms = []
                for role in wanted:
                    if role not in features:
                        continue
                    student = (
                        self.adapters[role.replace(".", "_")](features[role])
                        if (role.replace(".", "_") in self.adapters)
                        else features[role]
                    )
                    teacher = wanted[role].float()
                    variance = teacher.var(dim=(0, 2, 3), unbiased=False).mean().clamp_min(1e-6)
                    terms.append((student.float() - teacher).square().mean() / variance)
                loss = loss + align * torch.stack(terms).mean()
            if channel:
                chosen, weights = self.channel_loss
                errors = (features["latent"].float() - wanted["latent"].float())[:, chosen]
                loss = loss + channel * (weights * errors.square().mean(dim=(0, 2, 3))).sum()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.main, self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        self.aux_optimizer.zero_grad()
        self.student.aux_loss().backward()
        self.aux_optimizer.step()
        return cost.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=["tiny", "lite", "paper"])
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each loop in each phase")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{arguments.size}, {arguments.precision}, batch 8 of 128x128, {arguments.threads} threads, medians")
    for row in rows:
        print(
            f"{row['phase']:10s} distillkit {row['distillkit_ms']:8.1f} ms   "
            f"hand-written {row['hand_ms']:8.1f} ms   ratio {row['ratio']:.3f}"
        )


def measure(arguments, folder: Path) -> list[dict]:
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    for index in range(2):
        picture = generator.integers(0, 256, (256, 256, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((512, 512), Image.Resampling.BICUBIC).save(folder / "images" / f"{index}.png")
    plugins = distillkit.load_plugins()
    common = {
        "pair": {"name": "models.cheng2020", "size": arguments.size},
        "data": {"train": folder / "images", "crop": 128, "batch_size": 8},
        "optimizer": {"name": "soap", "learning_rate": 1e-3},
        "precision": arguments.precision,
        "device": "cpu",
    }
    teacher_recipe = distillkit.Recipe.create(trains="teacher", num_steps=1, **common)
    teacher_file = distillkit.train(teacher_recipe, folder / "teacher", plugins=plugins)
    recipe = resolve(
        distillkit.Recipe.create(
            num_steps=3 * (arguments.steps + 3),
            teacher=teacher_file,
            # At every position, as the hand-written loop has it.
            losses={"feds.alignment": {"positions": 0}, "feds.channel_entropy": {}},
            # Equal thirds and plain weights keep the hand-written loop short.
            schedule={
                "name": "feds.staged",
                "alignment_share": 1 / 3,
                "channel_share": 1 / 3,
                "anneal_share": 0.0,
                "balance": 0.0,
                "finetune_learning_rate": 1.0,
            },
            **common,
        ),
        plugins,
    )
    run = RunFolder(folder / "student")
    run.open(recipe)
    ours = prepare(recipe, plugins)
    trainer = Trainer(recipe, run, plugins, ours, Ranks("cpu"))
    copy = prepare(recipe, plugins)
    roles = set(ours.task.pairs["teacher"].report.shapes.student)
    taps = [
        {tap.path: role for role, tap in bank.taps.items() if role in roles and role.count("/")}
        for bank in (ours.task.pairs["teacher"]._teacher_bank, ours.task.pairs["teacher"]._student_bank)
    ]
    last = [role for path, role in sorted(taps[0].items(), key=lambda item: item[0]) if path.startswith("g_s")][-1]
    adapters = copy.task.term("feds.alignment").adapters
    stages = ours.stages
    trainer._enter(stages[1])
    ranking = ours.task.term("feds.channel_entropy")
    student = as_codec(copy.codec.module).module.train()
    teacher = distillkit.load_model(teacher_file, plugins).codec.module.requires_grad_(False)
    hand = HandWritten(recipe, teacher, student, adapters, (*taps, last), (ranking.teacher_channels, ranking.weights))
    ours.task.train()
    clock = time.process_time if arguments.threads == 1 else time.perf_counter  # which other work does not disturb
    rows = []
    step = 0
    stream = distillkit_batches(ours, recipe)
    for stage in stages:
        phase = stage.phase
        trainer._enter(stage)
        student.load_state_dict(ours.codec.module.state_dict())  # rounding drifts apart within a phase
        window = MetricsWindow(list(phase.weights), step, trainer.ranks)
        times: tuple[list[float], list[float]] = ([], [])
        for place in range(phase.num_steps):
            images = next(stream)
            weights = phase.weights_at(place)
            state = torch.get_rng_state()
            start = clock()
            trainer._step(images, stage, step, place, window)
            middle = clock()
            torch.set_rng_state(state)
            restart = clock()
            cost = hand.step(images, weights.get("feds.alignment", 0.0), weights.get("feds.channel_entropy", 0.0))
            end = clock()
            if place >= 3:
                times[0].append(middle - start)
                times[1].append(end - restart)
            ours_cost = window.means()["rate-distortion"]
            if place == 0 and abs(ours_cost - float(cost)) > 1e-3 * abs(float(cost)):
                sys.exit(f"{phase.name}: the loops do not do the same: cost {ours_cost} against {float(cost)}")
            step += 1
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        ms = [1000 * statistics.median(t) for t in times]
        rows.append({"phase": phase.name, "distillkit_ms": ms[0], "hand_ms": ms[1], "ratio": ratio})
    return rows


def distillkit_batches(setup, recipe):
    from distillkit.data.crops import batches

    return batches(setup.dataset, recipe.data.batch_size, 0, recipe.num_steps, 0)


if __name__ == "__main__":
    main()
