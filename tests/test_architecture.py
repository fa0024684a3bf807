"""Who may import whom, what `import` costs, and how long a file may be."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

import distillkit

from .house import CORE, FLOORS, ROOT, House, imported, is_type_checking, name_of

PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
FOREIGN = {"compressai", "timm", "distillkit_feds", "distillkit_models", "skimage", "sklearn"}


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_imports_no_plugin_and_no_model_library(path):
    assert not {name.partition(".")[0] for name in imported(path)} & FOREIGN


def test_plugins_use_public_names_only():
    plugins_root, used = ROOT / "plugins", set()
    for path in PLUGINS:
        inner = {name for name in imported(path, plugins_root) if name.partition(".")[0] == "distillkit"}
        assert inner <= {"distillkit"}, f"{path}: write `import distillkit`, not {inner}"
        others = {name.partition(".")[0] for name in imported(path, plugins_root)} & {p.parent.name for p in PLUGINS}
        assert others <= {path.parent.name}, f"{path} imports another plugin"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distillkit":
                used.add(node.attr)
    assert used
    assert used <= set(distillkit.__all__)


def used_names(tree):
    """Yield (module, name) of all that a program takes from distillkit, and (module, None) of what it imports."""
    modules = {"distillkit": "distillkit"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "distillkit":
                    modules[alias.asname or alias.name] = alias.name
                    yield alias.name, None
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "distillkit":
            yield from ((node.module, alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := modules.get(ast.unparse(node.value))):
            yield module, node.attr


def programs():
    """Python that a reader sees: name -> source."""
    found = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").rglob("*.py"))}
    found |= {
        path: path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "distillkit/testing/templates").rglob("*.py*"))
    }
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = {
        page: re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S) for page in pages
    }
    blocks |= {page: [*each, *heredocs(page)] for page, each in blocks.items()}
    shown = {path.relative_to(ROOT).as_posix(): [source] for path, source in found.items()}
    return shown | {page.relative_to(ROOT).as_posix(): each for page, each in blocks.items() if each}


def heredocs(page):
    return re.findall(r"^python - <<'END'\n(.*?)^END$", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("name", programs())
def test_docs_and_examples_use_public_names_only(name):
    submodules = {
        line.split("`")[1]
        for line in (ROOT / "docs/reference/api.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `distillkit.")
    }
    for source in programs()[name]:
        for module, used in used_names(ast.parse(source)):
            assert module == "distillkit" or module in submodules, f"{name}: {module} is not public"
            if used is not None and f"{module}.{used}" not in submodules:
                assert used in importlib.import_module(module).__all__, f"{name}: {module}.{used} is not public"


def test_the_list_of_public_modules_is_read():
    assert set(used_names(ast.parse("import distillkit.testing\ndistillkit.testing.check_pair(distillkit.x)"))) == {
        ("distillkit.testing", None),
        ("distillkit", "testing"),
        ("distillkit", "x"),
        ("distillkit.testing", "check_pair"),
    }
    assert ("distillkit.codec.bitstream", "read") in set(used_names(ast.parse(programs()["docs/file-format.md"][0])))


def test_no_import_circles():
    modules = {name_of(path): path for path in CORE}
    graph = {
        name: {other for other in imported(path, functions=False) if other in modules and other != name}
        for name, path in modules.items()
    }
    assert "distillkit.errors" in graph["distillkit.recipe.recipe"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_rooms_without_circles_and_climbs():
    house = House.of(CORE)
    assert house.rooms == set().union(*FLOORS), "say on which floor a new room lies"
    assert sum(map(len, FLOORS)) == len(house.rooms)
    assert house.circle() == []
    assert house.climbs() == []


def test_circles_and_climbs_are_seen(tmp_path):
    files = {
        "errors": "",
        "hooks/loader": "def load():\n    from ..model.file import read\n",
        "model/file": "from ..errors import no\nfrom ..taps import pair\n",
        "taps/pair": "if TYPE_CHECKING:\n    from ..training import trainer\n",
        "training/trainer": "import distillkit.model.file\nfrom ..taps.pair import taps\n",
    }
    for name, text in {"": "", **files}.items():
        path = tmp_path / "distillkit" / f"{name or '__init__'}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    house = House.of(sorted(tmp_path.rglob("*.py")), tmp_path)
    assert house.rooms == {"errors", "hooks", "model", "taps", "training"}
    assert house.circle() == []
    assert house.climbs() == [
        "distillkit.hooks.loader -> distillkit.model.file",
        "distillkit.model.file -> distillkit.taps.pair",
    ]
    (tmp_path / "distillkit/errors.py").write_text("def help():\n    from .hooks import loader\n")
    assert set(House.of(sorted(tmp_path.rglob("*.py")), tmp_path).circle()) == {"errors", "hooks", "model"}


def test_no_utils():
    assert not [path for path in (*CORE, *PLUGINS) if path.stem in ("util", "utils", "helpers", "misc", "common")]


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_long_files(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, "one idea a file: make it two"


def test_no_crowded_folders():
    folders = {path.parent for path in (*CORE, *PLUGINS)}
    crowded = {folder.name: n for folder in folders if (n := len(list(folder.glob("*.py")))) > 24}
    assert not crowded, "nobody finds a room there: group its files"


def test_public_names():
    assert distillkit.__all__ == sorted(distillkit.__all__)
    for name in distillkit.__all__:
        assert getattr(getattr(distillkit, name), "__name__", name) == name
    with pytest.raises(AttributeError, match="no attribute 'Recipes'"):
        distillkit.Recipes  # noqa: B018


def test_public_names_are_the_ones_that_type_checkers_see():
    tree = ast.parse((ROOT / "distillkit/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if is_type_checking(node))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == distillkit._HOME


COST = """
import sys
import distillkit, distillkit.cli
heavy = {"torch", "numpy", "PIL", "pydantic", "compressai", "timm"} & sys.modules.keys()
assert not heavy, f"importing the command line loads {heavy}"
import importlib, pkgutil
names = [m.name for m in pkgutil.walk_packages(distillkit.__path__, "distillkit.") if not m.name.endswith("__main__")]
assert len(names) > 25, names
for name in names:
    importlib.import_module(name)
assert "torch" in sys.modules
heavy = {"compressai", "timm", "skimage", "sklearn"} & sys.modules.keys()
assert not heavy, f"importing the core loads {heavy}"
distillkit.load_plugins()
heavy = {"compressai", "timm", "skimage", "sklearn"} & sys.modules.keys()
assert not heavy, f"loading the plugins loads {heavy}"
"""


def test_what_an_import_costs():
    done = subprocess.run([sys.executable, "-W", "error", "-c", COST], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
