"""Time a training step of distillkit against one of torchdistill.

    pip install torchdistill==1.1.5
    python benchmarks/torchdistill_step.py [--loss alignment] [--size lite] [--steps 20] [--threads 1] [--json]

Both train the same student with the same losses in float32, with Adam and the same clipping, taking turns step by step
on the same batches: rate-distortion, and either FEDS's feature alignment at every position (`feds.alignment` here, a
criterion with adapters on the student there), or the squared error of the latent (`kd.latent` here, `SimpleLossWrapper`
around `MSELoss` there). torchdistill runs the teacher to its end; distillkit's step trains the
entropy bottleneck's quantiles with a separate optimiser, which torchdistill does not support.
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
import torch.nn.functional as F
from setting import common, photographs, teacher

import distillkit
from distillkit.data.crops import batches
from distillkit.training.distributed import Ranks
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.metrics import MetricsWindow
from distillkit.training.objectives.objective import rate_distortion
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", default="alignment", choices=["alignment", "latent"])
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
    name, options = {"alignment": ("feds.alignment", {"positions": 0}), "latent": ("kd.latent", {})}[arguments.loss]
    recipe = resolve(
        distillkit.Recipe.create(num_steps=num_steps, losses={name: options}, teacher=teacher(folder, keys), **keys),
        plugins,
    )
    run = RunFolder(folder / "run")
    run.open(recipe)
    ours, theirs = prepare(recipe, plugins), prepare(recipe, plugins)
    ranks = Ranks("cpu")
    trainer = Trainer(recipe, run, plugins, ours, ranks)
    (stage,) = ours.stages
    trainer._enter(stage)
    ours.task.train()
    box = torchdistill_box(recipe, theirs, name)
    times: dict[str, list[float]] = {"distillkit": [], "torchdistill": []}
    window = MetricsWindow(list(stage.phase.weights), 0, ranks)
    for step, images in enumerate(batches(ours.dataset, recipe.data.batch_size, 0, num_steps)):
        state = torch.get_rng_state()
        start = time.perf_counter()
        trainer._step(images, stage, step, step, window)
        middle = time.perf_counter()
        torch.set_rng_state(state)
        restart = time.perf_counter()
        loss = box.forward_process(images, targets=images)
        box.post_forward_process(loss)
        end = time.perf_counter()
        if step == 0:
            means = window.means()
            own = means["rate-distortion"] + means[name]
            if abs(own - float(loss)) > 1e-3 * own:
                sys.exit(f"the two do not compute the same: loss {own} against {float(loss)}")
        if step >= 3:
            times["distillkit"].append(middle - start)
            times["torchdistill"].append(end - restart)
    return times


def torchdistill_box(recipe: distillkit.Recipe, setup, name: str):
    """Return torchdistill's own trainer of the same student."""
    try:
        from torchdistill.core.distillation import DistillationBox
        from torchdistill.losses.registry import register_func2extract_model_output, register_mid_level_loss
    except ImportError as error:
        sys.exit(f"{error}. Install it: pip install torchdistill==1.1.5")
    logging.disable(logging.INFO)
    roles = sorted(setup.task.term(name).required_taps())
    teacher, student = setup.task.pairs["teacher"].teacher.module.eval(), setup.codec.module.train()
    teacher_path = {role: setup.task.pairs["teacher"].teacher_paths[role] for role in roles}
    student_path = {role: setup.task.pairs["teacher"]._student_bank.taps[role].path for role in roles}

    @register_func2extract_model_output
    def rate_distortion_of_student(output, images, supp_dict=None):
        return {
            "rd": rate_distortion(
                distillkit.CodecOutput(output["x_hat"], output["likelihoods"]), images, recipe.lmbda
            ).cost
        }

    @register_mid_level_loss
    class FeatureAlignment(torch.nn.Module):
        def forward(self, student_io, teacher_io, *_):
            return sum(self.distance(role, student_io, teacher_io) for role in roles) / len(roles)

        def distance(self, role, student_io, teacher_io):
            features, target = student_io[student_path[role]]["output"], teacher_io[teacher_path[role]]["output"]
            if (key := role.replace(".", "_")) in student.adapters:
                features = student.adapters[key](features)
            return F.mse_loss(features, target) / target.var(dim=(0, 2, 3), correction=0).mean()

    if name == "feds.alignment":
        student.adapters = setup.task.term(name).adapters  # where the optimiser finds them
        term = {"criterion": {"key": "FeatureAlignment", "kwargs": {}}, "weight": 1.0}
    else:
        (role,) = roles
        ends = {
            "input": {"is_from_teacher": False, "module_path": student_path[role], "io": "output"},
            "target": {"is_from_teacher": True, "module_path": teacher_path[role], "io": "output"},
        }
        term = {
            "criterion": {"key": "MSELoss", "kwargs": {}},
            "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": ends},
            "weight": 1.0,
        }

    def model(paths, **more):
        hook = {"input": [], "output": list(paths.values())}
        return {"forward_proc": "forward_batch_only", "forward_hook": hook, **more}

    optimizer = recipe.optimizer
    config = {
        "num_epochs": 1,
        "teacher": model(teacher_path, requires_grad=False),
        "student": model(student_path, requires_grad=True),
        "optimizer": {"key": "Adam", "kwargs": {"lr": optimizer.learning_rate}, "max_grad_norm": optimizer.clip_norm},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"model_term": {"weight": 1}, "sub_terms": {"distillation": term}},
            "func2extract_model_loss": "rate_distortion_of_student",
        },
    }
    for bank in (setup.task.pairs["teacher"]._teacher_bank, setup.task.pairs["teacher"]._student_bank):
        bank._wanted = frozenset()  # our own hooks stay silent
    return DistillationBox(teacher, student, {}, config, torch.device("cpu"), None, False, 1)


if __name__ == "__main__":
    main()
