"""The page of a run or a family: gathers the parts and puts them into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..errors import DistillkitError, TrainingError
from ..hooks.loader import Plugins, load_plugins
from .citations import references
from .codecs import Codecs
from .comparison import compare_variants
from .origins import origins
from .runs import Runs, read_runs
from .sections import codec_sections, picture_section, training_section
from .tables import data_uri, latex, picture_table

PAGE_NAME = "report.html"
_MARKER = '<meta name="generator" content="distillkit report">'  #: a file with it may be written again
#: Characters that change the order of those around them; a name in the page could pass for another with them.
_BIDIRECTIONAL = {
    code: f"\\u{code:04x}" for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_COSTS = {
    "core.mse": "λ·255²·MSE + bits per pixel",
    "core.ms_ssim": "λ·(1 − MS-SSIM) + bits per pixel",
}
_OTHER_COST = "λ times the distortion of {} + bits per pixel"
_LIBRARIES = ("distillkit-lic", "torch", "compressai", "timm", "constriction", "pillow", "numpy")


def write_page(
    path: str | Path,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    plugins: Plugins | None = None,
    on_part: Callable[[str], None] = lambda part: None,
    device: str = "cpu",
) -> Path:
    """Write the page of a run, or of a folder of runs, and return its file.

    What is missing (a teacher, a calibration, an evaluation) is left out, and the page says so.

    Args:
        path: a run folder, or a folder of run folders.
        out: the file to write; by default `report.html` in `path`.
        overwrite: whether a file that is no page of a report may be replaced.
        plugins: where the runs' components are registered; by default the installed plugins.
        on_part: called with the name of each part before it is made, for the page takes a while.
        device: where the codecs run that are looked into, see `load_model`.

    Raises:
        DistillkitError: there is no run in `path`, or something in its folder cannot be used, or `out`
            is a file that no report wrote.
    """
    plugins = plugins or load_plugins()
    runs = read_runs(Path(path))
    out = out or Path(path) / PAGE_NAME
    if out.exists() and not out.is_file():  # a named pipe would be waited for
        raise TrainingError(f"report {out}: expected a file, got a folder or device; choose another file with -o.")
    try:
        if not overwrite and out.exists() and not _is_page(out):
            raise TrainingError(
                f"report {out}: expected a new file or a page of a report, got another file, which would be lost; "
                "choose another with -o, or pass `--overwrite`."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out.parent):  # before the work, not after it
            pass
        html = render(runs, plugins, on_part, device)
        out.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise TrainingError(
            f"report {out}: cannot be written: {error.strerror}; choose another file with -o."
        ) from None
    return out


def render(
    runs: Runs, plugins: Plugins, on_part: Callable[[str], None] = lambda part: None, device: str = "cpu"
) -> str:
    """Return the page as HTML."""
    on_part("models")
    codecs = Codecs.load(runs, plugins, device)
    on_part("pictures")
    pictures = picture_section(runs)
    folder = files("distillkit.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["signed"] = signed
    environment.filters["unbroken"] = unbroken
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    script = (folder / "page.js").read_text(encoding="utf-8")
    comparison = compare_variants(runs, codecs)
    table = latex(comparison.lines, runs.metric)
    page = template.render(
        marker=Markup(_MARKER),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        runs=runs,
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        comparison=comparison,
        pictures=pictures,
        training=training_section(runs),
        **codec_sections(runs, codecs, pictures, plugins, on_part),
        recipe=runs.main.recipe.to_toml(),
        references=_references(runs, plugins),
        versions={"python": platform.python_version()} | _versions(),
        machine=f"{platform.system()} {platform.machine()}",
        origins=origins(runs),
        metric=runs.metric,
        headline_db=_headline_db(runs),
        cost_formula=_COSTS.get(runs.main.recipe.objective.name, _OTHER_COST.format(runs.main.recipe.objective.name)),
        picture_table=picture_table(runs),
        latex=table,
        latex_uri=data_uri(table, "text/x-tex"),
        made=datetime.now(UTC).date().isoformat(),
    )
    return page.translate(_BIDIRECTIONAL)


def _headline_db(runs: Runs) -> float | None:
    averages = runs.main.results["averages"] if runs.main.results else {}
    return averages.get("psnr_db" if runs.metric == "psnr" else "ms_ssim_db")


def _is_page(file: Path) -> bool:
    with file.open("rb") as opened:
        return _MARKER.encode() in opened.read(1024)


def signed(value: float, digits: int = 1) -> str:
    """Return a share as per cent with its sign, a true minus and a thin space: `-12.3 %`."""
    text = f"{100 * value:+.{digits}f}"
    text = text.lstrip("+-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
    return f"{text}\N{NARROW NO-BREAK SPACE}%"


def unbroken(name: str) -> str:
    """Return a name that no line breaks at its hyphens: a narrow heading shows `MS-SSIM` whole."""
    return name.replace("-", "\N{NON-BREAKING HYPHEN}")


def _references(runs: Runs, plugins: Plugins) -> list[dict[str, str]]:
    recipes = [run.recipe for run in runs.runs] if runs.is_family else [runs.main.recipe]
    if runs.teacher:
        recipes.append(runs.teacher.recipe)
    try:
        found = references(plugins, recipes)
    except DistillkitError:  # a plugin that the runs used is not installed here
        return []
    rows = []
    for reference in found[1:]:
        names = reference.field("author").split(" and ")
        shown = [name for name in names[:3] if name != "others"]
        authors = ", ".join(shown) + (" and others" if len(names) > len(shown) else "")
        rows.append(
            {
                "authors": authors,
                "title": reference.field("title") or reference.key,
                "venue": next(filter(None, map(reference.field, ("booktitle", "journal", "institution"))), ""),
                "year": reference.field("year"),
                "arxiv": reference.field("eprint"),
                "used_by": ", ".join(reference.used_by),
            }
        )
    return rows


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
