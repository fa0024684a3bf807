"""The documentation is true: its examples run as they stand, its links lead somewhere, its generated pages are fresh.

A page's blocks run in order in one folder, in a virtual environment with distillkit installed. `sh` goes to bash;
`python` and `toml` blocks whose first line is `# FILE` are written to that file, other `python` blocks run. A block
after `<!-- not run: why -->` does not. Recipes are cut to a few steps before a command sees them, families to one
lambda, one seed and the smallest codecs. Pages that need other means have a test file of their own.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from distillkit.cli.app import app
from distillkit.testing.pytest_plugin import draw_photographs
from tests.environment import Environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = [page for page in PAGES if page.parent.name == "reference"]
WRITTEN = [page for page in PAGES if page not in GENERATED]
#: Pages that go on from the job of the first page, in an order in which each finds what it needs.
GOES_ON = [
    "README.md",
    "docs/distil.md",
    "docs/deploy.md",  # before a page that exports the same file again
    "docs/how-to.md",
    "docs/recipes.md",
    "docs/families.md",
    "docs/evaluation.md",  # of that family
    "docs/report.md",
]
TUTORIALS = ["docs/tutorial-codec.md", "docs/tutorial-loss.md"]
#: Page -> the tests that run its examples, and why they do not run here.
ELSEWHERE = {
    "docs/coding.md": "test_docs_coding.py",  # in one process, since its results are compared
    "docs/file-format.md": "test_docs_coding.py",
    "docs/light-decoders.md": "test_docs_light.py",  # its teacher is a small one of the tests
    "docs/ms-ssim.md": "test_docs_training.py",  # plugins that exist on the page alone
    "docs/own-loop.md": "test_docs_own_loop.py",  # its loop runs in one process
    "docs/pairs.md": "test_docs_pairs.py",  # its adapters are for foreign codecs, which the tests bring
    "docs/rates.md": "test_docs_training.py",  # its codecs are built in one process
    "docs/samples.md": "test_docs_samples.py",  # its pictures are made by the test
    "docs/scale.md": "test_docs_scale.py",  # several processes, and scripts that take minutes
    "docs/step-extension.md": "test_docs_training.py",
}
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

SHORTEN = r"""
import pathlib, re, sys
for path in pathlib.Path.cwd().rglob("*.toml"):
    text = path.read_text()
    if "num_steps" in text and "# shortened" not in text and "runs" not in path.parts:
        for key, value in (("steps", 5), ("crop", 64), ("batch_size", 1), ("warmup_steps", 1)):
            text = re.sub(rf"\b((?:num_|teacher_|student_)?{key}) = [0-9_]+", rf"\1 = {value}", text)
        for key, value in (("lmbdas", "[0.013]"), ("seeds", "[0]")):
            text = re.sub(rf"(?m)^{key} = \[.*?\]", f"{key} = {value}", text)
        text = text.replace('size = "lite"', 'size = "tiny"')
        text = re.sub(r'(?m)^\[losses\."feds\.channel_entropy"\]', r"\g<0>\ncalibration_crops = 2", text)
        path.write_text(text + "# shortened\n")
"""
PRELUDE = """set -euo pipefail
shorten() { python "$SHORTEN_PY"; }
distillkit() { shorten; command distillkit "$@"; }
"""


def blocks(page: Path) -> list[tuple[str, str, bool]]:
    """Return (language, text, whether it runs) of every fenced block."""
    return [(m[2], m[3], m[1] is None) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def run(page: Path, folder: Path, environment: Environment) -> None:
    """Run a page's blocks in a folder."""
    here, state, shorten = folder, folder / ".state", folder / ".shorten.py"
    shorten.write_text(SHORTEN)
    for language, text, runs in blocks(page):
        file = re.match(r"# ([\w./-]+\.(?:py|toml))\n", text)
        if not runs or language not in ("sh", "python", "toml"):
            continue
        if language == "sh":
            script = f"export SHORTEN_PY={shlex.quote(str(shorten))}\n{PRELUDE}{text}\npwd > {shlex.quote(str(state))}"
            environment.call(["bash", "-c", script], here)
            here = Path(state.read_text().strip())
        elif file:
            (here / file[1]).write_text(text)
        elif language == "python":
            environment.run(shorten, cwd=here)
            environment.run("-c", text, cwd=here)
        else:
            tomllib.loads(text)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder as the reader has it: photographs, and nothing else."""
    folder = tmp_path_factory.mktemp("pictures")
    for each in ("photos", "test-photos"):
        (folder / each).mkdir()
        draw_photographs(folder / each)
    shutil.copy(folder / "photos" / "0.png", folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory, environment, pictures) -> Path:
    """The folder after the first page's job: recipes, trained runs, an evaluation."""
    folder = tmp_path_factory.mktemp("job") / "work"
    shutil.copytree(pictures, folder)
    run(ROOT / "docs" / "index.md", folder, environment)
    assert (folder / "runs" / "evaluation" / "comparison.png").is_file()
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a real process for each command: a minute or two where nothing else runs
@pytest.mark.parametrize("page", GOES_ON)
def test_pages_that_start_from_trained_runs(page, environment, job):
    run(ROOT / page, job, environment)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", TUTORIALS)
def test_tutorials_start_from_photographs(page, environment, pictures, tmp_path):
    folder = Path(shutil.copytree(pictures, tmp_path / "work"))
    run(ROOT / page, folder, environment)
    assert list(folder.rglob("runs/evaluation/comparison.json"))


def test_the_tutorial_builds_the_example():
    named = {text.partition("\n")[0]: text.partition("\n")[2] for _, text, _ in blocks(ROOT / "docs/tutorial-loss.md")}
    for file in ("distillkit_gram.py", "test_gram.py"):
        assert named[f"# {file}"] == (ROOT / "examples" / "distillkit-gram" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_page_with_examples_is_run_by_a_test(page):
    if any(language in ("sh", "python") and runs for language, _, runs in blocks(page)):
        own = ELSEWHERE.get(name(page))
        assert own or name(page) in ("docs/index.md", *TUTORIALS, *GOES_ON), "no test runs it"
        assert own is None or page.name in (ROOT / "tests" / "docs" / own).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_and_their_options_exist(page):
    for language, text, _ in blocks(page):
        for line in text.replace("\\\n", " ").splitlines() if language == "sh" else ():
            if line.startswith("distillkit "):
                plain = re.sub(r'"?\$\(.*', "x", line)  # without what the shell computes
                check_command(shlex.split(plain, comments=True)[1:])


def check_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
        elif word.startswith("--"):
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert word.partition("=")[0] in known, f"{command.name}: no option {word}"
        else:
            assert not getattr(command, "commands", {}), f"no command {word}"


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [
        link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and not link.startswith("mailto:")
    ]


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return set(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) | {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{name(page)}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name(page)}: {link}; there are {sorted(anchors(target))}"


def test_generated_pages_are_fresh():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = {page.name: page.read_text(encoding="utf-8") for page in GENERATED}
    fresh = {page: text.rstrip("\n") + "\n" for page, text in module.pages().items()}
    stale = [page for page in sorted(fresh.keys() | written.keys()) if fresh.get(page) != written.get(page)]
    assert not stale, f"docs/reference: stale: {', '.join(stale)}. Run `python docs/generate.py`."


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (page for page in PAGES if page.is_relative_to(ROOT / "docs")):
        file = (tmp_path / "site" / page.relative_to(ROOT / "docs")).with_suffix(".html")
        assert "<h1" in file.read_text(encoding="utf-8")
