"""What docs/families.md shows is a family, and its Python runs."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block, trained = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "family.toml").write_text(block)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(code, "families.md", "exec"), {})
    jobs = capsys.readouterr().out.splitlines()
    # 4 lambdas: a teacher, and control and feds with three seeds; one run of the random channels
    assert len(jobs) == 4 * (1 + 2 * 3) + 1
    assert jobs[0] == "teacher-0.013 ready 0"
    assert "random-0.013-seed0 waiting 0" in jobs
    recipe = re.search(r"\[teacher\].*?\n\n", block, flags=re.DOTALL)[0]
    family = block.replace(recipe, "").replace("[student]", f"{trained}\n[student]")
    (tmp_path / "family.toml").write_text(family)
    exec(compile(code, "families.md", "exec"), {})
    jobs = capsys.readouterr().out.splitlines()
    assert jobs[0] == "teacher-0.0018-0.0483 ready 0"
    assert len(jobs) == 1 + 4 * (2 * 3) + 1
