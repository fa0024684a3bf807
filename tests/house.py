"""Count what the layout of `distillkit/` is made of: `python -m tests.house`.

A *room* is a package of `distillkit/` with all that is nested in it, or one of its single files. A *line* leads from
a room to another one of which it imports something, at import time or later; what only type checkers import counts for
nothing. A *circle* is a set of rooms that reach one another. A *climb* is an import from a room to one on its own or a
higher floor of `FLOORS`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "distillkit").rglob("*.py"))

#: Rooms from the ground up; docs/design.md says why they lie so.
FLOORS = (
    {"errors"},
    {"hooks", "data"},
    {"model"},
    {"recipe", "taps"},
    {"training", "codec"},
    {"evaluation", "export", "builtin"},
    {"family", "testing"},
    {"report"},
    {"experiment", "doctor", "demo"},
    {"cli"},
    {"__main__"},
)


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


def room_of(module: str) -> str:
    """The room that a module lies in; the core's own plugin is one of its own, for only its entry point leads there."""
    _, _, inner = module.partition(".")
    return "builtin" if inner == "hooks.builtin" else inner.partition(".")[0]


@dataclass(frozen=True)
class House:
    rooms: set[str]
    lines: dict[tuple[str, str], list[tuple[str, str]]]  # from, to -> the modules that import and are imported

    @classmethod
    def of(cls, paths: list[Path], root: Path = ROOT) -> House:
        modules = {name_of(path, root): path for path in paths}
        del modules["distillkit"]  # names what is public; it imports nothing until asked
        lines: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for module, path in modules.items():
            for other in sorted(imported(path, root) & modules.keys()):
                if room_of(module) != room_of(other):
                    lines.setdefault((room_of(module), room_of(other)), []).append((module, other))
        return cls({room_of(module) for module in modules}, lines)

    def circle(self) -> list[str]:
        """Return the rooms of a circle, or nothing."""
        graph = {room: {to for start, to in self.lines if start == room} for room in self.rooms}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return error.args[1]
        return []

    def climbs(self) -> list[str]:
        """Return the imports that do not lead down."""
        floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
        return [
            f"{module} -> {other}"
            for (start, to), imports in self.lines.items()
            for module, other in imports
            if floor[start] <= floor[to]
        ]


if __name__ == "__main__":
    house = House.of(CORE)
    print(f"{len(CORE)} files in {len(house.rooms)} rooms on {len(FLOORS)} floors, {len(house.lines)} lines")
    print(f"circle: {' -> '.join(house.circle()) or 'none'}; climbs: {', '.join(house.climbs()) or 'none'}")
