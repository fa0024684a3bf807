"""A family's record, its BD-rates, and the page made from it."""

from __future__ import annotations

import dataclasses
import json
from statistics import stdev

import pytest

from distillkit.errors import DataError
from distillkit.family.gains import gains
from distillkit.family.record import MeasuredJob, Record, read_record
from distillkit.family.results import results_markdown

LMBDAS = (0.013, 0.0067, 0.0035, 0.025)  # not in order, as families have them


def job(variant, lmbda, seed=0, factor=1.0, psnr=0.0):
    """A run whose rate is so much above the control's."""
    images = {
        f"picture{n}": (factor * (1 + n / 9) * 40 * lmbda, psnr + 26 + n + 10 * (lmbda / 0.0035) ** 0.5)
        for n in range(5)
    }
    rate, quality = (sum(figures[i] for figures in images.values()) / 5 for i in (0, 1))
    averages = {"rate_bpp": rate, "psnr_db": quality, "rd_cost": rate + lmbda * 100, "ms_ssim": None}
    return MeasuredJob(f"{variant}-{lmbda:g}-seed{seed}", variant, lmbda, seed, 100, averages, images)


@pytest.fixture
def jobs():
    found = []
    for lmbda in LMBDAS:
        found.append(job("teacher", lmbda, factor=0.8))
        for seed, luck in ((0, 1.02), (1, 0.98)):
            found.append(job("control", lmbda, seed, factor=luck))
            found.append(job("feds", lmbda, seed, factor=0.9 * luck))
        found.append(job("control", lmbda, 2, factor=7.0))  # feds has no such seed
    found.append(job("alignment", 0.013, factor=0.95))
    return found


def test_bd_rates_over_equal_lambdas_and_seeds(jobs):
    found = gains(jobs)
    figures = {(result.test, result.anchor): result for result in found.results}
    feds = figures["feds", "control"]
    assert feds.rate_percent == pytest.approx(-10)
    assert feds.interval == pytest.approx((-10, -10))
    assert (feds.num_images, sorted(feds.test_lmbdas)) == (5, sorted(LMBDAS))
    assert feds.test_source == "runs: 2 at lambda 0.013, 2 at lambda 0.0067, 2 at lambda 0.0035, 2 at lambda 0.025"
    assert figures["feds", "teacher"].rate_percent == pytest.approx(100 * (0.9 / 0.8 - 1))
    assert figures["control", "teacher"].rate_percent == pytest.approx(100 * (3 / 0.8 - 1))
    assert found.spreads["control", "feds"].percent == pytest.approx(0, abs=1e-9)  # each against its own seed
    against_teacher = found.spreads["teacher", "feds"]
    single = [100 * (0.9 * luck / 0.8 - 1) for luck in (1.02, 0.98)]
    assert (against_teacher.percent, against_teacher.num_seeds) == (pytest.approx(stdev(single)), 2)
    assert found.notes == tuple(
        f"Of alignment against {anchor}: fewer than 4 lambdas; compare RD costs instead."
        for anchor in ("control", "teacher")
    )


def test_without_control_or_lambdas_there_are_no_figures(jobs):
    assert gains([each for each in jobs if each.variant in ("feds", "alignment")]).results == ()
    assert gains([]).notes == ()
    few = gains([each for each in jobs if each.lmbda < 0.02])
    assert few.results == ()
    assert few.notes == (
        "Of feds, alignment against control: fewer than 4 lambdas; compare RD costs instead.",
        "Of control, feds, alignment against teacher: fewer than 4 lambdas; compare RD costs instead.",
    )


def test_curves_that_cannot_be_compared_are_named(jobs):
    better = [job("lucky", lmbda, psnr=30) for lmbda in LMBDAS]
    (note, _) = gains([*jobs, *better]).notes[:2]
    assert note.startswith("BD-rate of lucky against control: expected the curves to share at least 50%")


def test_what_all_were_trained_for_is_compared(jobs):
    def similar(each, better):
        images = {name: (rate, psnr, 1 - 10 ** (-(psnr + better) / 20)) for name, (rate, psnr) in each.images.items()}
        averages = {**each.averages, "ms_ssim": 1 - 10 ** (-(each.averages["psnr_db"] + better) / 20)}
        return dataclasses.replace(each, images=images, averages=averages, metric="ms-ssim")

    # By PSNR feds saves 10 %; by MS-SSIM it saves what 1 dB more is worth as well.
    changed = [similar(each, 1 if each.variant == "feds" else 0) for each in jobs]
    (found, *_) = (each for each in gains(changed).results if (each.test, each.anchor) == ("feds", "control"))
    assert found.metric == "ms-ssim"
    assert found.rate_percent < -12
    assert found.interval[0] <= found.rate_percent <= found.interval[1]
    mixed = [*changed, dataclasses.replace(changed[0], metric="psnr")]
    assert gains(mixed).results[0].metric == "psnr"
    page = results_markdown(Record(tuple(changed), {}, ()))
    assert "| MS-SSIM dB |" in page
    assert "BD-rate on MS-SSIM" in page
    again = json.loads(Record(tuple(changed), {}, ()).to_json())["jobs"][0]
    assert (again["metric"], len(again["images"][0])) == ("ms-ssim", 4)


def test_a_model_of_many_rates_is_a_curve_beside_models_of_one(jobs):
    lmbdas = [0.0035 * (0.025 / 0.0035) ** quality for quality in (0.0, 0.25, 0.5, 0.75, 1.0)]
    sweep = [
        dataclasses.replace(job("many", lmbda, factor=1.1 * 1.02), job="many-seed0", quality=place / 4)
        for place, lmbda in enumerate(lmbdas)
    ]
    results = {(each.test, each.anchor): each for each in gains([*jobs, *sweep]).results}
    assert results["many", "control"].num_points == (4, 5)  # seed 0 of the control alone
    assert results["many", "control"].rate_percent == pytest.approx(10, abs=0.2)
    assert results["feds", "control"].rate_percent == pytest.approx(-10)  # the others as before
    assert results["many", "teacher"].rate_percent == pytest.approx(100 * (1.1 * 1.02 / 0.8 - 1), abs=0.3)


@pytest.fixture
def record(jobs):
    about = {
        "pair": {"name": "small.pair"},
        "losses": {"feds.alignment": {"taps": 3}, "kd.hint": {}},
        "schedule": {"name": "feds.staged", "every": 2},
        "optimizer": {"name": "soap"},
        "batch": "8 of 128x128",
        "initial_weights": "random",
    }
    variants = {name: about for name in ("teacher", "control", "feds", "alignment")}
    return Record(tuple(jobs), variants, ({"distillkit": "0.1.0", "num_threads": 1},))


def test_the_record_is_small_and_comes_back(record, tmp_path):
    text = record.to_json()
    assert text.count("\n") < 40
    (tmp_path / "kept.json").write_text(text)
    again = read_record(tmp_path / "kept.json")
    assert again.to_json() == text
    assert [each.job for each in again.jobs] == [each.job for each in record.jobs]
    assert again.jobs[0].images["picture1"] == pytest.approx(record.jobs[0].images["picture1"])
    assert gains(again.jobs).results[0].rate_percent == pytest.approx(-10, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("{", "expected JSON"), ("[]", "expected format distillkit-family-1")],
)
def test_what_is_no_record_is_said(text, message, tmp_path):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_record(tmp_path / "a.json")


def test_the_page(record):
    page = results_markdown(record)
    lines = page.splitlines()
    assert lines[0].startswith("Means over 5 pictures, then over seeds; bpp from file bytes.")
    assert "Measured on: distillkit 0.1.0, num_threads 1." in lines[0]
    (row,) = (line for line in lines if line.startswith("| 0.0067 | feds |"))
    assert row.split(" | ")[2] == "2"
    assert "| feds | control | -10.00 % | -10.00 to -10.00 | 0.00 | -10.00 % | -10.00 % |" in page
    assert "| feds | teacher | +12.50 % |" in page
    assert "- Of alignment against control: fewer than 4 lambdas" in page
    assert '| alignment | feds.alignment {"taps": 3}; kd.hint | feds.staged {"every": 2} | random | 100 |' in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert json.loads(record.to_json())["variants"]["feds"]["schedule"] == {"name": "feds.staged", "every": 2}
