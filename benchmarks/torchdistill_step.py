"""Time a training step of distillkit against one of torchdistill.

    pip install torchdistill==1.1.5
    python benchmarks/torchdistill_step.py [--size lite] [--steps 20] [--threads 1] [--json]

Both train the same student with the same losses in float32: rate-distortion, and the squared error of the latent
(`kd.latent` here, `SimpleLossWrapper` around `MSELoss` there), with Adam and the same clipping, taking turns step by
step on the same batches. torchdistill runs the teacher to its end; distillkit's step trains the entropy bottleneck's
quantiles with an optimiser of their own, for which torchdistill has no place.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from setting import common, photographs, teacher

import distillkit
from distillkit.data import batches
from distillkit.distributed import Ranks
from distillkit.losses import rate_distortion
from distillkit.metrics import MetricsWindow
from distillkit.run_folder import RunFolder
from distillkit.setup import prepare
from distillkit.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="lite", choices=["tiny", "lite", "paper"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        times = measure(arguments, Path(folder))
    ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    if arguments.json:
        print(json.dumps({**medians, "ratio": ratio}, indent=2))
        return
    for name, median in medians.items():
        print(f"{name:14s} {median:8.1f} ms")
    print(f"distillkit / torchdistill {ratio:.3f}, median of the {arguments.steps} pairs")


def measure(arguments, folder: Path) -> dict[str, list[float]]:
    keys = common(arguments.size, photographs(folder / "images"), "fp32")
    keys["optimizer"] = {"name": "adam", "learning_rate": 1e-4}
    keys["device"] = "cpu"
    plugins = distillkit.load_plugins()
    num_steps = arguments.steps + 3
    recipe = distillkit.Recipe.create(
        num_steps=num_steps, losses={"kd.latent": {}}, teacher=teacher(folder, keys), **keys
    ).resolve(plugins)
    run = RunFolder(folder / "run")
    run.open(recipe)
    ours, theirs = prepare(recipe, plugins), prepare(recipe, plugins)
    ranks = Ranks(cpu=True)
    trainer = Trainer(recipe, run, plugins, ours, ranks)
    (phase,) = ours.timeline.phases
    trainer._enter(phase)
    ours.task.train()
    box = torchdistill_box(recipe, theirs)
    times: dict[str, list[float]] = {"distillkit": [], "torchdistill": []}
    window = MetricsWindow(list(phase.weights), 0, ranks)
    for step, images in enumerate(batches(ours.dataset, recipe.data.batch_size, 0, num_steps)):
        state = torch.get_rng_state()
        start = time.perf_counter()
        trainer._step(images, phase, step, step, window)
        middle = time.perf_counter()
        torch.set_rng_state(state)
        restart = time.perf_counter()
        loss = box.forward_process(images, targets=images)
        box.post_forward_process(loss)
        end = time.perf_counter()
        if step == 0:
            means = window.means()
            own = means["rate-distortion"] + means["kd.latent"]
            if abs(own - float(loss)) > 1e-3 * own:
                sys.exit(f"the two do not compute the same: loss {own} against {float(loss)}")
        if step >= 3:
            times["distillkit"].append(middle - start)
            times["torchdistill"].append(end - restart)
    AcceleratorState._reset_state(reset_partial_state=True)
    return times


def torchdistill_box(recipe: distillkit.Recipe, setup):
    """Return torchdistill's own trainer of the same student."""
    try:
        from torchdistill.core.distillation import DistillationBox
        from torchdistill.losses.registry import register_func2extract_model_output
    except ImportError as error:
        sys.exit(f"{error}. Install it: pip install torchdistill==1.1.5")
    logging.disable(logging.INFO)

    @register_func2extract_model_output
    def rate_distortion_of_student(output, images, supp_dict=None):
        return {
            "rd": rate_distortion(
                distillkit.CodecOutput(output["x_hat"], output["likelihoods"]), images, recipe.lmbda
            ).cost
        }

    path = {"teacher": setup.pair.teacher_paths["latent"], "student": setup.pair._student_bank.taps["latent"].path}

    def model(side: str, **more):
        hook = {"input": [], "output": [path[side]]}
        return {"forward_proc": "forward_batch_only", "forward_hook": hook, **more}

    latent = {
        "criterion": {"key": "MSELoss", "kwargs": {}},
        "criterion_wrapper": {
            "key": "SimpleLossWrapper",
            "kwargs": {
                "input": {"is_from_teacher": False, "module_path": path["student"], "io": "output"},
                "target": {"is_from_teacher": True, "module_path": path["teacher"], "io": "output"},
            },
        },
        "weight": 1.0,
    }
    optimizer = recipe.optimizer
    config = {
        "num_epochs": 1,
        "teacher": model("teacher", requires_grad=False),
        "student": model("student", requires_grad=True),
        "optimizer": {"key": "Adam", "kwargs": {"lr": optimizer.learning_rate}, "max_grad_norm": optimizer.clip_norm},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"model_term": {"weight": 1}, "sub_terms": {"latent": latent}},
            "func2extract_model_loss": "rate_distortion_of_student",
        },
    }
    for bank in (setup.pair._teacher_bank, setup.pair._student_bank):
        bank._wanted = frozenset()  # our own hooks stay silent
    teacher, student = setup.pair.teacher.module.eval(), setup.codec.module.train()
    return DistillationBox(teacher, student, {}, config, torch.device("cpu"), None, False, 1)


if __name__ == "__main__":
    main()
