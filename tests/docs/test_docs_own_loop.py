"""The loops of docs/own-loop.md train: weights move, the teacher's do not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import distillkit
from distillkit.errors import PairError, RecipeError

TEXT = (Path(__file__).parents[2] / "docs" / "own-loop.md").read_text(encoding="utf-8")
PLAIN, FABRIC = ("\n".join(re.findall(r"```python\n(.*?)```", part, re.DOTALL)) for part in TEXT.split("## Lightning"))


def run(code: str, before_training: str) -> dict:
    """Run a page's code; its training loop starts after `before_training`."""
    torch.manual_seed(0)
    names: dict = {}
    start, _, rest = code.partition(before_training)
    exec(start, names)
    for codec in ("teacher", "student"):
        names[f"{codec}_before"] = {key: value.clone() for key, value in names[codec].state_dict().items()}
    exec(before_training + rest, names)
    return names


def changed(names: dict, codec: str) -> bool:
    after = names[codec].state_dict()
    return any(not torch.equal(value, after[key]) for key, value in names[f"{codec}_before"].items() if "g_a" in key)


def test_plain_pytorch():
    names = run(PLAIN, "student.train()")
    assert changed(names, "student")
    assert not changed(names, "teacher")
    image = distillkit.ImageCodec(names["codec"]).decode(names["data"])
    assert (image.dtype, image.shape) == (np.uint8, (64, 64, 3))
    assert names["ranked"].kept_channels


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning_fabric():
    pytest.importorskip("lightning_fabric", reason="needs the package lightning-fabric")
    names = run(FABRIC, "task.train()")
    assert changed(names, "student")
    assert not changed(names, "teacher")
    assert torch.isfinite(names["total"])


def test_what_does_not_fit_is_refused():
    from compressai.models import MeanScaleHyperprior

    teacher, student = MeanScaleHyperprior(12, 16), MeanScaleHyperprior(8, 16)
    with pytest.raises(PairError, match="multiples of 64, got 60x64"):
        distillkit.bind(teacher, student, (60, 64))
    pair = distillkit.bind(teacher, student, (64, 64))
    with pytest.raises(RecipeError, match=r"build_loss feds.alignement: no loss .* Did you mean 'feds.alignment'"):
        distillkit.build_loss("feds.alignement", pair)
    with pytest.raises(RecipeError, match="build_loss feds.alignment: resise: unknown key"):
        distillkit.build_loss("feds.alignment", pair, resise=True)
