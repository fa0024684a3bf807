"""Labels beside plots stay inside, however long a variant's name is."""

from __future__ import annotations

import re

import pytest

from distillkit.family.tables import VariantResult
from distillkit.report.headline import Difference
from distillkit.report.plots import differences, rate_distortion, training
from distillkit.report.plots_inside import alignment, channels, stacked
from distillkit.report.svg import room_for, shortened

METRICS = [{"step": step, "phase": "train", "rd_cost": 1.0 + 1 / step} for step in (10, 20, 30)]
PLOTS = {
    "differences": lambda name: differences(
        [(name, Difference("control", 0.013, 0.01, 0.0, 0.02, 1, 24), [])], {}, "control"
    ),
    "rate_distortion": lambda name: rate_distortion(
        [VariantResult(name, 0.013, 1, rate, 30 + rate, None, 1.5, None, None) for rate in (0.5, 0.6)],
        {name: "student"},
        "psnr",
        "psnr",
    ),
    "training": lambda name: training([(name, "student", METRICS)]),
    "alignment": lambda name: alignment([f"hyper_{name}"[:20]], [("s", "student", {f"hyper_{name}"[:20]: 0.9})]),
    "channels": lambda name: channels([(name, "student", [0.2, 0.1, 0.05])]),
    "stacked": lambda name: stacked([(name, "student", [("analysis", 1.0)])], "M", 2),
}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("name", ["feds", "kd-attention-transfer", "kd-attention-transfer-with-feds-alignment"])
def test_labels_stay_inside_their_plot(plot, name):
    drawn = PLOTS[plot](name)
    num = 0
    for width, inside in re.findall(r'<svg viewBox="0 0 (\d+) .*?>(.*?)</svg>', drawn, re.DOTALL):
        for x, style, text in re.findall(r'<text x="([-\d.]+)" y="[-\d.]+" class="([^"]*)">([^<]*)</text>', inside):
            if "label" in style:
                length = 7 * len(text)  # of ordinary characters; wide ones are rarer than narrow ones
                ends = (float(x) - length, float(x)) if "end" in style else (float(x), float(x) + length)
                assert ends[0] >= 0, (width, text)
                assert ends[1] <= float(width) + 8, (width, text)
                num += 1
    assert num >= 2  # on a desk and on a phone


def test_what_does_not_fit_is_shortened():
    assert shortened("control", 100) == "control"
    assert shortened("kd-attention-transfer", 92) == "kd-attentio\N{HORIZONTAL ELLIPSIS}"
    assert room_for(["control"], 60, 90) == 66
    assert room_for(["kd-attention-transfer"], 60, 90) == 90
