"""The tables of a page, and what it shows of runs for MS-SSIM, of many rates, with validation, and without control."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil

import pytest

from distillkit.evaluation.quality import decibel
from distillkit.family.tables import summarise
from distillkit.report.codecs import Codecs
from distillkit.report.comparison import compare_variants
from distillkit.report.headline import cost_difference, measured
from distillkit.report.origins import origins
from distillkit.report.page import render
from distillkit.report.pictures import choose
from distillkit.report.plots import losses, training
from distillkit.report.plots_inside import alignment, channels
from distillkit.report.runs import read_runs
from distillkit.report.tables import latex, picture_table


@pytest.fixture
def family(trained_family, tmp_path):
    """A copy of the trained family, to be changed."""
    return shutil.copytree(trained_family, tmp_path / "small")


def change_results(family, change):
    for file in family.glob("evaluation/*/results.json"):
        results = json.loads(file.read_text())
        for number, row in enumerate([*results["images"], results["averages"]]):
            change(results, row, number)
        file.write_text(json.dumps(results))


def trained_for_ms_ssim(results, row, number):
    row["ms_ssim"] = 0.95 + 0.01 * number
    row["ms_ssim_db"] = decibel(row["ms_ssim"])
    results["metric"] = "ms-ssim"


def decoded(uri):
    return base64.b64decode(uri.partition("base64,")[2]).decode()


def test_every_picture_is_in_the_table_and_every_run_in_the_download(trained_family, family_page):
    runs = read_runs(trained_family)
    table = picture_table(runs)
    assert table.headings == ("bpp", "PSNR, dB", "RD cost")  # the pictures are too small for MS-SSIM
    assert table.sides == (("teacher", "teacher"), ("control", "control"), ("student", "feds"))
    assert [name for name, _ in table.rows] == [image["name"] for image in runs.main.results["images"]]
    image = runs.main.results["images"][0]
    assert table.rows[0][1][-3:] == (f"{image['rate_bpp']:.3f}", f"{image['psnr_db']:.2f}", f"{image['rd_cost']:.3f}")
    rows = list(csv.DictReader(io.StringIO(decoded(table.download))))
    assert len(rows) == len(runs.runs) * len(table.rows)
    (row,) = (row for row in rows if row["run"] == runs.main.name and row["picture"] == image["name"])
    for column in ("file_bytes", "rate_bpp", "psnr_db", "rd_cost", "encode_seconds"):
        assert float(row[column]) == image[column]
    assert (row["variant"], float(row["lambda"]), row["seed"], row["ms_ssim"]) == ("feds", 0.013, "0", "")
    page = family_page.read_text(encoding="utf-8")
    assert f'download="{runs.title}.csv" href="{table.download}"' in page
    assert ">Every picture<" in page


def test_the_main_table_in_latex(trained_family):
    runs = read_runs(trained_family)
    (line, *others) = summarise(measured(runs.runs))
    text = latex([line, *others], "psnr")
    assert text.startswith(
        "\\begin{tabular}{rlrrrrrr}\n\\toprule\n$\\lambda$ & variant & seeds & bpp & PSNR dB & RD cost"
    )
    assert f"0.013 & teacher & 1 & {line.rate_bpp:.3f} & {line.psnr_db:.2f} & {line.rd_cost:.3f} & -- & -- \\\\" in text
    assert re.search(r"0.013 & feds & 2 .* [+-]\d+\.\d\\% \\\\", text)
    strange = type(line)(**{**vars(line), "variant": "50%_a&b"})
    assert r"50\%\_a\&b" in latex([strange], "psnr")
    better = type(line)(**{**vars(line), "against_control": -0.005})
    assert r"& $-$0.5\% \\" in latex([better], "psnr")


@pytest.mark.slow
def test_what_was_trained_for_ms_ssim_is_shown_in_ms_ssim_first(family, trained_plugins):
    change_results(family, trained_for_ms_ssim)
    for recipe in family.glob("*/recipe.toml"):
        text = recipe.read_text()
        recipe.write_text(re.sub(r'(?s)\[objective\]\nname = "core.mse"', '[objective]\nname = "core.ms_ssim"', text))
    runs = read_runs(family)
    assert runs.metric == "ms-ssim"
    assert picture_table(runs).headings == ("bpp", "MS-SSIM, dB", "PSNR, dB", "RD cost")
    page = render(runs, trained_plugins)
    assert page.index("MS-SSIM over rate of each variant") < page.index("PSNR over rate of each variant")
    assert "<th>MS\N{NON-BREAKING HYPHEN}SSIM, dB</th><th>PSNR, dB</th>" in page
    assert "(1 \N{MINUS SIGN} MS-SSIM) + bits per pixel" in page
    assert f"MS-SSIM {decibel(0.95):.2f} dB" in page
    (name, why), *_ = choose(runs)
    assert why.endswith("0.00 dB")  # all runs have the same similarity
    assert "MS-SSIM dB & PSNR dB" in latex(summarise(measured(runs.runs)), runs.metric)


def test_bd_rates_follow_the_metric(family, trained_plugins, tmp_path):
    change_results(family, trained_for_ms_ssim)
    folder = tmp_path / "lambdas"
    for variant, factor in (("teacher", 0.8), ("control", 1.1), ("feds", 1.0)):
        for place, lmbda in enumerate((2.4, 4.58, 8.73, 16.64)):
            name = f"{variant}-{lmbda:g}" + ("" if variant == "teacher" else "-seed0")
            source = "teacher-0.013" if variant == "teacher" else f"{variant}-0.013-seed0"
            shutil.copytree(family / source, folder / name)
            recipe = folder / name / "recipe.toml"
            recipe.write_text(recipe.read_text().replace("lmbda = 0.013", f"lmbda = {lmbda}"))
            results = json.loads((family / "evaluation" / source / "results.json").read_text()) | {"lmbda": lmbda}
            for number, row in enumerate([*results["images"], results["averages"]]):
                # By PSNR the order would be another.
                row |= {"rate_bpp": factor * (0.2 + 0.1 * place), "psnr_db": 28.0 + 2 * place / factor}
                row["ms_ssim"] = 1 - 10 ** -(1 + 0.2 * place + 0.01 * number)
            (folder / "evaluation" / name).mkdir(parents=True)
            (folder / "evaluation" / name / "results.json").write_text(json.dumps(results))
    runs = read_runs(folder)
    comparison = compare_variants(runs, Codecs.load(runs, trained_plugins))
    against = {each.other: each for each in comparison.against}
    assert against["teacher"].bd.metric == "ms-ssim"
    assert against["teacher"].share == pytest.approx(0.25)
    assert against["control"].share == pytest.approx(1 / 1.1 - 1)
    assert against["control"].interval == pytest.approx((1 / 1.1 - 1, 1 / 1.1 - 1))


@pytest.mark.slow
def test_a_model_of_many_rates_is_one_curve(family, trained_plugins):
    for run in [folder for folder in family.iterdir() if (folder / "recipe.toml").is_file()]:
        recipe = (run / "recipe.toml").read_text()
        (run / "recipe.toml").write_text(recipe.replace("lmbda = 0.013", "lmbda = {low = 0.001, high = 0.016}"))
        results = json.loads((family / "evaluation" / run.name / "results.json").read_text())
        factor = {"teacher": 0.8, "control": 1.1, "feds": 1.0}[run.name.partition("-")[0]]
        name = run.name.replace("0.013", "0.001-0.016")
        run.rename(family / name)
        shutil.rmtree(family / "evaluation" / run.name)
        for quality in (0.0, 0.25, 0.5, 0.75, 1.0):
            results |= {"quality": quality, "lmbda": 0.001 * 16**quality}
            for number, row in enumerate([*results["images"], results["averages"]]):
                row |= {"rate_bpp": factor * (0.2 + quality), "psnr_db": 30 + 8 * quality + 0.1 * number}
                row["rd_cost"] = factor * (1 + quality)
            folder = family / "evaluation" / f"{name}-q{quality:g}"
            folder.mkdir()
            (folder / "results.json").write_text(json.dumps(results))
    runs = read_runs(family)
    assert (runs.main.variant, len(runs.main.sweep), runs.main.results["quality"]) == ("feds", 5, 0.5)
    assert runs.teacher.name == "teacher-0.001-0.016"
    comparison = compare_variants(runs, Codecs.load(runs, trained_plugins))
    assert [line.lmbda for line in comparison.lines if line.variant == "feds"] == [0.001, 0.002, 0.004, 0.008, 0.016]
    against = {each.other: each.share for each in comparison.against}
    assert against == pytest.approx({"control": 1 / 1.1 - 1, "teacher": 0.25})
    assert cost_difference(runs, "control").lmbda == pytest.approx(0.004)
    page = render(runs, trained_plugins)
    assert "\N{GREEK SMALL LETTER LAMDA}&nbsp;0.001 to 0.016" in page
    assert "At quality 0.5; the file has all 5 qualities." in page
    assert len(list(csv.reader(io.StringIO(decoded(picture_table(runs).download))))) == 1 + 5 * len(runs.runs) * 3


@pytest.mark.slow
def test_a_validation_is_drawn(family, trained_plugins):
    run = family / "feds-0.013-seed0"
    assert ">Validation<" not in render(read_runs(family), trained_plugins)
    recipe = (run / "recipe.toml").read_text()
    settings = f'\n[validation]\ndata = "{family}"\nevery = 2\ncrops = 4\n'
    (run / "recipe.toml").write_text(recipe + settings)
    with (run / "metrics.jsonl").open("a") as file:
        for step, cost in ((2, 5.0), (4, 3.0), (5, 4.0)):
            line = {"step": step, "validation/rate_bpp": 1.0, "validation/psnr_db": 20.0, "validation/rd_cost": cost}
            file.write(json.dumps(line) + "\n")
    page = render(read_runs(family), trained_plugins)
    assert "RD cost on 4 crops of held-out pictures" in page
    assert "feds: lowest at step 4, 3.000" in page
    assert "The model is that of the lowest cost." in page


def test_a_missing_control_is_reported(family, trained_plugins):
    def notes(path):
        return " ".join(Codecs.load(read_runs(path), trained_plugins).notes)

    assert "control" not in notes(family)
    for folder in family.glob("**/control-0.013-seed0"):
        if "evaluation" in folder.parts:
            shutil.rmtree(folder)
    assert "The control, control-0.013-seed0, has not been measured" in notes(family)
    shutil.rmtree(family / "control-0.013-seed0")
    assert "There is no control beside this run" in render(read_runs(family), trained_plugins)
    assert "There is no control" not in notes(family / "teacher-0.013")


def test_where_the_figures_come_from(trained_family, family_page):
    trained, measured_with = origins(read_runs(trained_family))
    assert trained.title == "feds-0.013-seed0: trained"
    rows = dict(trained.rows)
    assert set(rows) >= {"machine", "system", "device", "commit", "training images, digest", "command", "versions"}
    assert "torch" in rows["versions"]
    assert dict(measured_with.rows)["pictures"] == "3"
    assert rows["training images, digest"] in family_page.read_text(encoding="utf-8")


def test_what_does_not_fit_a_plot_is_marked_at_its_edge():
    lines = [{"step": step, "rd_cost": 100.0 if step == 1 else 1.0, "phase": "a"} for step in range(1, 101)]
    assert "run: up to 100 at step 1, above this plot" in training([("run", "student", lines)])
    assert "above this plot" not in training([("run", "student", lines[1:])])
    assert "-99.0 %, left of this plot" in alignment(["latent"], [("run", "student", {"latent": -0.99})])
    assert "left of this plot" not in alignment(["latent"], [("run", "student", {"latent": -0.4})])
    assert "run: 2 channels spend less" in channels([("run", "student", [1.0, 0.5, 1e-6, 0.0])])
    assert "spend less" not in channels([("run", "student", [1.0, 0.5])])


@pytest.mark.slow
def test_intervals_are_explained_only_where_there_are_some(family, trained_plugins):
    page = render(read_runs(family), trained_plugins)
    assert "Rings: single seeds" in page
    assert "95 % interval" not in page  # of three pictures there is none
    for file in family.glob("evaluation/*/results.json"):
        results = json.loads(file.read_text())
        results["images"] += [image | {"name": f"more {number}"} for number, image in enumerate(results["images"])]
        file.write_text(json.dumps(results))
    assert "Bars: 95 % interval over pictures" in render(read_runs(family), trained_plugins)


def test_a_loss_that_was_on_in_few_steps_is_drawn():
    def lines(*steps):
        return [
            {"step": step, "phase": phase, "rd_cost": 1.0, **({f"loss/{loss}": 0.5} if loss else {})}
            for step, phase, loss in steps
        ]

    drawn = dict(losses(lines((20, "align", "kd.hint"), (24, "align", "kd.hint"), (44, "rest", ""), (64, "rest", ""))))
    assert 'class="line fine s-student"' in drawn["kd.hint"]
    drawn = dict(losses(lines((20, "align", "kd.hint"), (40, "rest", ""), (60, "rest", ""))))
    assert 'data-tip="step 20: 0.5"' in drawn["kd.hint"]
