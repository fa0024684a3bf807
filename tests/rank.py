"""One process of a run that a test starts with torchrun: python -m torch.distributed.run ... -m tests.rank SPEC."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", category=FutureWarning)

import torch  # noqa: E402

import distillkit  # noqa: E402
from distillkit.training import trainer  # noqa: E402
from distillkit.training.distributed import leave  # noqa: E402
from distillkit.training.folder.checkpoint import list_checkpoints  # noqa: E402
from distillkit.training.preemption import TrainingStopped  # noqa: E402
from distillkit.training.setup import data as crops  # noqa: E402


class Watch:
    """Writes down what this process is told: nothing, but for the first."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @distillkit.hookimpl
    def run_started(self, run):
        self.file.write_text(f"{run.start_step}\n")

    @distillkit.hookimpl
    def run_finished(self, run):
        with self.file.open("a") as file:
            file.write("finished\n")


def main() -> None:
    import tests.small_pair

    torch.set_num_threads(1)
    plugins = distillkit.load_plugins(small=tests.small_pair)
    originals = crops.batches, trainer.Ranks.wrap
    for spec in json.loads(Path(sys.argv[1]).read_text()):
        crops.batches, trainer.Ranks.wrap = originals
        carry_out(spec, plugins)
    leave()
    sys.stdout.flush()
    os._exit(0)


def carry_out(spec: dict, plugins: distillkit.Plugins) -> None:
    """Train, and write down how that ended."""
    rank, folder = int(os.environ.get("RANK", "0")), Path(spec["folder"])
    original, numbers = crops.batches, itertools.count()

    def batches(*args):
        for batch, number in zip(original(*args), numbers):  # noqa: B905 - there is a loader for each phase
            if rank == spec.get("fault_rank") and number == spec["fault_step"]:
                if spec["fault"] == "sigterm":
                    os.kill(os.getpid(), signal.SIGTERM)
                elif spec["fault"] == "data":
                    raise distillkit.DistillkitError(f"rank {rank} cannot read its images")
                elif spec["fault"] == "nan":
                    batch[0] = float("nan")
                elif spec["fault"] == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    crops.batches = batches
    recipe = distillkit.Recipe.create(**spec["recipe"])
    if spec.get("joined"):  # by the program that calls `train`
        torch.distributed.init_process_group("gloo")
    said = "finished"
    wrapped: list[str] = []
    wrap = trainer.Ranks.wrap

    def noted(ranks, task):
        module = wrap(ranks, task)
        wrapped.append(type(module).__name__)
        names = [name for name, _ in module.named_parameters()]
        assert not any("teacher" in name for name in names)
        return module

    trainer.Ranks.wrap = noted
    try:
        distillkit.train(recipe, folder / "run", plugins=plugins, observers=[Watch(folder / f"told-{rank}.txt")])
    except (distillkit.DistillkitError, TrainingStopped) as error:
        said = f"{type(error).__name__}: {error}"
    checkpoints = [path.stem for path in list_checkpoints(folder / "run" / "checkpoints")]
    written = json.dumps({"said": said, "wrapped": wrapped, "saved": checkpoints})
    (folder / f"said-{spec['place']}-{rank}.json").write_text(written)


main()
