"""What is said of the registered pairs."""

from __future__ import annotations

from dataclasses import replace

from distillkit.evaluation.describe import describe_pairs


def test_pairs_are_timed_on_request(plugins):
    pair = plugins.get("pair", "small.pair", "test")
    only = replace(plugins, components=plugins.components | {"pair": {"small.pair": pair}})
    teacher, student = describe_pairs(only, timed=True)
    assert teacher["num_parameters"] > student["num_parameters"] == sum(student["parameters_by_part"].values())
    assert student["parameters_by_part"]["analysis"] > 0
    assert min(student["encode_seconds"], student["decode_seconds"]) > 0
    assert "encode_seconds" not in describe_pairs(only)[0]
