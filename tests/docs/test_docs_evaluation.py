"""What docs/evaluation.md computes comes out as it says, and every figure is explained."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(code, "evaluation.md", "exec"), {})
    assert capsys.readouterr().out == "-10.0 % (overlap 100%, Akima -10.0 %)\n"


def test_every_figure_is_explained():
    from distillkit.evaluation.results import AVERAGED

    assert all(f"`{name}`" in TEXT for name in (*AVERAGED, "ms_ssim_db"))
