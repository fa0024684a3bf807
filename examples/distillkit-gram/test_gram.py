"""The loss keeps the contract, is found through its entry point, and trains."""

import torch
from distillkit_gram import GramAlignment, gram

import distillkit
import distillkit.testing


def test_contract():
    distillkit.testing.check_loss_term(GramAlignment)


def test_zero_where_equal():
    distillkit.testing.check_loss_term(GramAlignment, zero_where_equal=True, tap="analysis.1/8")


def test_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)
    assert gram(features).tolist() == [[[2.5, 5.5], [5.5, 12.5]]]


def test_a_run_with_the_installed_plugin(distillkit_recipe, distillkit_teacher, tmp_path):
    recipe = distillkit_recipe(losses={"gram.alignment": {}}, teacher=distillkit_teacher)
    model = distillkit.train(recipe, tmp_path / "run")
    assert '"loss/gram.alignment"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert (tmp_path / "run" / "gram.txt").read_text() == f"3 steps, {model.stat().st_size} bytes\n"
