"""The page of a run: what it says, what it leaves out, and how it fits into one file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from distillkit.errors import TrainingError
from distillkit.evaluation.bd import bd_rate
from distillkit.evaluation.curve import curve_from_results
from distillkit.report.codecs import Codecs
from distillkit.report.comparison import compare_variants
from distillkit.report.headline import cost_difference, time_cut
from distillkit.report.page import render, signed, write_page
from distillkit.report.pictures import PIECE, WINDOW, choose, show
from distillkit.report.runs import read_runs
from distillkit.report.sections import training_section
from distillkit.report.svg import Scale


class Content(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.headings, self.ids, self.open, self.text = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("src", "href", "srcset", "action") if attributes.get(name)]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)
        if self.open:
            self.headings[-1] = " ".join((self.headings[-1] + data).split())


def test_the_page_of_a_family_is_one_file_with_everything_in_it(family_page):
    text = family_page.read_text(encoding="utf-8")
    content = Content(text)
    assert family_page.stat().st_size < 5e6
    assert all(link.startswith(("data:", "#")) for link in content.links)
    assert all(link[1:] in content.ids for link in content.links if link.startswith("#"))
    assert len(content.ids) == len(set(content.ids))
    assert "@import" not in text
    assert not re.search(r"url\((?!data:)", text)
    assert content.headings[0].startswith("feds has")
    for heading in (
        "Rate and distortion",
        "Every variant against the control",
        "Pictures",
        "Training",
        "Distillation losses",
        "Which channels carry the information",
        "How well each tap is aligned",
        "Bits by channel",
        "Bits by position",
        "Where the time goes",
        "Recipe and versions",
        "References",
    ):
        assert heading in content.headings
    assert "fine-tuning" not in text
    assert all(phase in text for phase in (">align<", ">channel<", "FEDS: Feature and Entropy-Based"))


def test_the_figures_are_those_of_the_results(trained_family, trained_plugins):
    runs = read_runs(trained_family)
    assert (runs.main.name, runs.main.variant, runs.is_family) == ("feds-0.013-seed0", "feds", True)
    assert (runs.teacher.name, runs.control.name) == ("teacher-0.013", "control-0.013-seed0")

    def costs(name):
        results = json.loads((trained_family / "evaluation" / name / "results.json").read_text())
        return results["averages"]["rd_cost"], results["averages"]

    ours = fmean(costs(f"feds-0.013-seed{seed}")[0] for seed in (0, 1))
    theirs = fmean(costs(f"control-0.013-seed{seed}")[0] for seed in (0, 1))
    against = cost_difference(runs, "control")
    assert against.value == pytest.approx(ours / theirs - 1)
    assert (against.num_seeds, against.num_images, against.low) == (2, 3, None)
    assert cost_difference(runs, "teacher").value == pytest.approx(ours / costs("teacher-0.013")[0] - 1)
    assert cost_difference(runs, "nobody") is None
    seconds = [
        sum(costs(name)[1][f"{way}code_seconds"] for way in ("en", "de")) for name in (runs.main.name, "teacher-0.013")
    ]
    assert time_cut(runs) == pytest.approx(1 - seconds[0] / seconds[1])
    codecs = Codecs.load(runs, trained_plugins)
    comparison = compare_variants(runs, codecs)
    assert [each.other for each in comparison.against] == ["control", "teacher"]
    assert "needs 4 lambdas that both have; so far they share 0.013" in comparison.against[0].why
    sizes = [codecs.student.num_parameters, codecs.teacher.num_parameters]
    assert comparison.parameter_cut == 1 - sizes[0] / sizes[1]
    assert sum(codecs.student.parameters.values()) == sizes[0]


def test_the_interval_is_over_pictures_paired(trained_family):
    runs = read_runs(trained_family)
    for run in runs.runs:
        for number, image in enumerate(list(run.results["images"]) * 4):
            run.results["images"].append(image | {"name": f"more{number}"})
    exact = cost_difference(runs, "control", "control")
    assert exact is None
    for run in runs.runs:
        factor = 0.9 if run.variant == "feds" else 1.0
        for number, image in enumerate(run.results["images"]):
            image["rd_cost"] = factor * (1 + number)
    same = cost_difference(runs, "control")
    assert (same.value, same.low, same.high) == pytest.approx((-0.1, -0.1, -0.1))  # every picture gains as much


@pytest.mark.slow
def test_four_lambdas_give_a_bd_rate(trained_family, tmp_path, trained_plugins):
    folder = tmp_path / "lambdas"
    lmbdas = [0.0035, 0.0067, 0.013, 0.025]
    tables = {}
    for variant, factor in (("teacher", 0.8), ("control", 1.1), ("feds", 1.0)):
        for place, lmbda in enumerate(lmbdas):
            name = f"{variant}-{lmbda:g}" + ("" if variant == "teacher" else "-seed0")
            source = trained_family / ("teacher-0.013" if variant == "teacher" else f"{variant}-0.013-seed0")
            shutil.copytree(source, folder / name)
            recipe = folder / name / "recipe.toml"
            recipe.write_text(recipe.read_text().replace("lmbda = 0.013", f"lmbda = {lmbda}"))
            results = json.loads((trained_family / "evaluation" / source.name / "results.json").read_text())
            for number, row in enumerate([*results["images"], results["averages"]]):
                row |= {"rate_bpp": factor * (0.2 + 0.1 * place), "psnr_db": 28.0 + 2 * place + 0.1 * number}
            results["averages"]["psnr_db"] = 28.1 + 2 * place
            results["lmbda"] = lmbda
            tables.setdefault(variant, []).append(results)
            (folder / "evaluation" / name).mkdir(parents=True)
            (folder / "evaluation" / name / "results.json").write_text(json.dumps(results))
    runs = read_runs(folder)
    against = {each.other: each for each in compare_variants(runs, Codecs.load(runs, trained_plugins)).against}
    expected = bd_rate(*(curve_from_results(name, tables[name]) for name in ("teacher", "feds")))
    assert against["teacher"].share == pytest.approx(expected.rate_percent / 100) == pytest.approx(0.25)
    assert against["control"].share == pytest.approx(1 / 1.1 - 1)
    assert against["control"].interval == pytest.approx((1 / 1.1 - 1, 1 / 1.1 - 1))
    text = " ".join("".join(Content(render(runs, trained_plugins)).text).split())
    assert "9.1 % less rate at equal quality than the same student without distillation" in text
    assert "25.0 % more than its teacher" in text
    assert "BD-rate against the teacher" in text

    # Another variant at one lambda: there is most to compare at that one. And a curve that folds back has no BD-rate.
    assert runs.main.recipe.lmbda == 0.0035
    for place in (folder, folder / "evaluation"):
        shutil.copytree(place / "feds-0.013-seed0", place / "other-0.013-seed0")
    worst = folder / "evaluation" / "feds-0.025-seed0" / "results.json"
    results = json.loads(worst.read_text())
    results["averages"]["psnr_db"] = 20.0
    worst.write_text(json.dumps(results))
    runs = read_runs(folder)
    assert runs.main.name == "feds-0.013-seed0"
    for each in compare_variants(runs, Codecs.load(runs, trained_plugins)).against:
        assert each.bd is None
        assert each.why.startswith(f"BD-rate of feds against {each.other}: expected quality to rise with rate")
        assert each.why.count("BD-rate of") == 1


def test_a_run_is_shown_with_its_teacher_and_control(trained_family, trained_plugins):
    runs = read_runs(trained_family / "feds-0.013-seed1")
    assert [run.name for run in runs.runs] == ["teacher-0.013", "control-0.013-seed1", "feds-0.013-seed1"]
    assert not runs.is_family
    text = render(runs, trained_plugins)
    assert "Every variant" not in text
    teacher = render(read_runs(trained_family / "teacher-0.013"), trained_plugins)
    assert "How well each tap" not in teacher
    assert "Bits by channel" in teacher


def test_a_warm_start_is_said(trained_family, tmp_path):
    folder = tmp_path / "feds-0.013-seed0"
    shutil.copytree(trained_family / folder.name, folder)
    assert training_section(read_runs(folder))["start"] is None
    recipe = folder / "recipe.toml"
    start = 'initial_weights = "/runs/feds-0.025-seed0/model.safetensors"'
    recipe.write_text(re.sub(r"(?m)^initial_weights = .*$", start, recipe.read_text()))
    assert training_section(read_runs(folder))["start"] == "feds-0.025-seed0"


def test_what_a_run_does_not_have_is_left_out_with_a_word(trained_family, tmp_path, trained_plugins):
    alone = tmp_path / "alone" / "feds-0.013-seed0"
    alone.mkdir(parents=True)
    shutil.copy(trained_family / "feds-0.013-seed0" / "recipe.toml", alone)
    recipe = alone / "recipe.toml"
    recipe.write_text(re.sub(r"(?m)^teacher = .*$", 'teacher = "/nowhere/model.safetensors"', recipe.read_text()))
    text = render(read_runs(alone), trained_plugins)
    headings = Content(text).headings
    assert headings[0] == "feds is still being trained."
    assert "No <code>metrics.jsonl</code>" in text
    assert "Nothing was measured on held-out pictures" in text
    assert not {"Pictures", "Inside", "Size and speed"} & set(headings)
    shutil.copy(trained_family / "feds-0.013-seed0" / "metrics.jsonl", alone)
    shutil.copy(trained_family / "feds-0.013-seed0" / "model.safetensors", alone)
    text = render(read_runs(alone), trained_plugins)
    assert Content(text).headings[0] == "feds has not been measured on held-out pictures yet."
    assert "There is no trained teacher beside this run." in text
    evaluated = tmp_path / "alone" / "evaluation" / alone.name
    evaluated.mkdir(parents=True)
    results = json.loads((trained_family / "evaluation" / alone.name / "results.json").read_text())
    for image in results["images"]:
        image["source"] = "/nowhere/" + image["name"] + ".png"
    (evaluated / "results.json").write_text(json.dumps(results))
    text = render(read_runs(alone), trained_plugins)
    assert "The originals or the decoded pictures are not where they were" in text
    assert "dB at" in Content(text).headings[0]


def test_names_are_escaped(trained_family, tmp_path, trained_plugins):
    folder = tmp_path / "<script>alert(1)</script>&".replace("/", "")
    shutil.copytree(trained_family / "control-0.013-seed0", folder / '<img src=x>"')
    text = render(read_runs(folder), trained_plugins)
    assert "&lt;img src=x&gt;" in text
    assert "<img src=x>" not in text
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "expected a run folder, or a folder of such, got nothing there"),
        (lambda run: (run / "recipe.toml").unlink(), "got neither; `distillkit train`"),
        (lambda run: (run / "recipe.toml").write_text("num_steps = 1"), "report .*: run .*: recipe recipe.toml: pair"),
        (lambda run: (run / "metrics.jsonl").write_text("{nonsense}\n"), "metrics.jsonl cannot be read"),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 1}\n'), "expected step, phase, rd_cost"),
        (lambda run: (run.parent / "evaluation" / run.name / "results.json").write_text("{"), "results.json cannot be"),
        (lambda run: (run.parent / "evaluation" / run.name / "results.json").write_text("[]"), "expected an object"),
        (lambda run: (run.parent / "evaluation" / run.name / "results.json").write_text("{}"), "measure again"),
        (lambda run: (run / "calibration" / "feds.channel_entropy.json").write_text("{"), "cannot be read"),
        (lambda run: (run / "calibration" / "feds.channel_entropy.json").write_text("{}"), "holds no record"),
    ],
)
def test_bad_input_is_said(trained_family, tmp_path, trained_plugins, spoil, message):
    run = tmp_path / "feds-0.013-seed0"
    shutil.copytree(trained_family / run.name, run)
    shutil.copytree(trained_family / "evaluation" / run.name, tmp_path / "evaluation" / run.name)
    spoil(run)
    with pytest.raises(TrainingError, match=message):
        write_page(run, tmp_path / "page.html", plugins=trained_plugins)


def test_a_page_that_cannot_be_written_is_said(trained_family, tmp_path, trained_plugins):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written: .*choose another file with -o"):
        write_page(trained_family / "teacher-0.013", tmp_path / "file" / "page.html", plugins=trained_plugins)


def test_pictures_are_chosen_by_what_the_student_loses(trained_family):
    runs = read_runs(trained_family)
    for run in runs.runs:
        for image, loss in zip(run.results["images"], (3.0, 1.0, 2.0), strict=True):
            image["psnr_db"] = 30 - loss if run.variant == "feds" else 30.0
    assert choose(runs) == [
        ("0", "where it falls furthest behind the teacher, \N{MINUS SIGN}3.00 dB"),
        ("2", "in the middle, \N{MINUS SIGN}2.00 dB"),
        ("1", "where it is least behind the teacher, \N{MINUS SIGN}1.00 dB"),
    ]
    for run in runs.runs:
        for image, gain in zip(run.results["images"], (3.0, 1.0, 2.0), strict=True):
            image["psnr_db"] = 30 + gain if run.variant == "feds" else 30.0
    assert [why for _, why in choose(runs)] == [
        "where it is least ahead of the teacher, +1.00 dB",
        "in the middle, +2.00 dB",
        "where it is furthest ahead of the teacher, +3.00 dB",
    ]


def test_a_large_picture_is_shown_in_part_and_the_pieces_are_where_it_differs(trained_family, tmp_path):
    runs = read_runs(trained_family)
    run = runs.main
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), dtype=np.uint8)  # the worst case for its size
    spoilt = noise.copy()
    spoilt[600:690, 880:970] ^= 255
    Image.fromarray(noise).save(tmp_path / "original.png")
    (tmp_path / "decoded").mkdir()
    Image.fromarray(spoilt).save(tmp_path / "decoded" / "big.png")
    image = run.results["images"][0] | {"name": "big", "source": str(tmp_path / "original.png")}
    run = type(run)(run.folder, run.variant, run.recipe, (), run.results | {"images": [image]}, tmp_path / "decoded")
    picture = show("big", "", [("student", "feds", run)])
    assert (picture.width, picture.height, picture.is_window) == (*WINDOW, True)
    left, top, _, _ = picture.places[0]
    # The window is the first one that holds all that differs; so it ends where that ends.
    assert (left * WINDOW[0] / 100, top * WINDOW[1] / 100) == pytest.approx((WINDOW[0] - PIECE, WINDOW[1] - PIECE))
    assert sum(len(view.data) for view in picture.views) * 6 + 4e5 < 5e6  # 3 pictures in 4 versions, and their pieces
    image["source"] = str(tmp_path / "gone.png")
    assert show("big", "", [("student", "feds", run)]) is None


@pytest.mark.parametrize(("low", "high"), [(1.05, 1.9), (0.3, 0.45), (0.03, 0.5), (0.9, 30.0), (1e-9, 1.0)])
def test_a_logarithmic_axis_has_ticks_whatever_its_range(low, high):
    ticks = Scale(low, high, 0, 100, log=True).ticks(5)
    assert 3 <= len(ticks) <= 8
    assert all(0.99 * low <= tick <= 1.01 * high for tick in ticks)


def test_signed():
    assert [signed(value) for value in (0.1234, -0.05, 0.0001)] == [
        f"{text}\N{NARROW NO-BREAK SPACE}%" for text in ("+12.3", "\N{MINUS SIGN}5.0", "0.0")
    ]


def test_the_command(trained_family, tmp_path, monkeypatch, trained_plugins):
    from typer.testing import CliRunner

    import distillkit.report.page as module
    from distillkit.cli.app import app

    monkeypatch.setattr(module, "load_plugins", lambda: trained_plugins)  # of a pair that is not installed
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(trained_family / "control-0.013-seed0"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith(f"{out}: ")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert Path(out).stat().st_size < 5e6


def test_nothing_runs_in_the_page_but_its_own_script(family_page):
    text = family_page.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'")


def test_another_file_is_not_overwritten(trained_family, trained_plugins, tmp_path):
    other = tmp_path / "thesis.html"
    other.write_text("years of work")
    with pytest.raises(TrainingError, match=r"expected a new file or a page of a report.*--overwrite"):
        write_page(trained_family, other, plugins=trained_plugins)
    assert other.read_text() == "years of work"
    write_page(trained_family, other, plugins=trained_plugins, overwrite=True)
    write_page(trained_family, other, plugins=trained_plugins)  # a page of before may be written anew


def test_a_folder_or_a_pipe_is_refused_before_the_work(trained_family, trained_plugins, tmp_path):
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    parts = []
    for name in ("folder.html", "pipe.html"):
        with pytest.raises(TrainingError, match="expected a file, got a folder or device; choose another file with -o"):
            write_page(trained_family, tmp_path / name, plugins=trained_plugins, on_part=parts.append)
    assert not parts


def test_characters_that_turn_the_reading_direction_are_shown_by_their_numbers(
    trained_family, trained_plugins, tmp_path
):
    folder = tmp_path / "run\u202egnp.exe"
    shutil.copytree(trained_family, folder)
    text = write_page(folder, tmp_path / "page.html", plugins=trained_plugins).read_text(encoding="utf-8")
    assert "\u202e" not in text
    assert "run\\u202egnp.exe" in text
