"""Who may import whom, what `import` costs, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import distillkit

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "distillkit").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
FOREIGN = {"compressai", "timm", "distillkit_feds", "distillkit_models", "skimage", "sklearn"}


def name_of(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree: ast.AST, *, functions: bool):
    """Every statement that runs: at import, or (with `functions`) at any time."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node) or (
            not functions and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            continue
        yield node
        yield from statements(node, functions=functions)


def imported(path: Path, root: Path = ROOT, *, functions: bool = True) -> set[str]:
    """Absolute names that a file imports; `from a import b` counts as `a` and as `a.b`."""
    package = name_of(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), functions=functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


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


def test_no_import_circles():
    modules = {name_of(path): path for path in CORE}
    graph = {
        name: {other for other in imported(path, functions=False) if other in modules and other != name}
        for name, path in modules.items()
    }
    assert "distillkit.errors" in graph["distillkit.recipe.recipe"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


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
