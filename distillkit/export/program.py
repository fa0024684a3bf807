"""A recorded pass, cut into networks at the entropy coder's steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .networks import Network

_STEPS = "distillkit."  # operators of `record`
_RESHAPES = tuple(
    f"aten.{name}."
    for name in (
        *("view", "reshape", "_to_copy", "clone", "alias", "_unsafe_view"),
        *("to", "contiguous", "detach", "flatten", "unsqueeze", "squeeze"),
    )
)
_CHECKS = ("_assert", "sym_constrain", "_guards_fn")


def cut(graph: torch.export.ExportedProgram, name: str) -> tuple[list[dict[str, Any]], list[Network]]:
    """Return the steps of a program, as they stand in `codec.json`, and its networks.

    Args:
        graph: see `record`; its only input is `x`, of shape (1, C, 2 n, 3 n).
        name: goes before the networks' numbers.
    """
    module: Any = graph.module(check_guards=False)
    nodes = list(module.graph.nodes)
    (given,) = (node for node in nodes if node.op == "placeholder")
    inputs: Any = graph.example_inputs
    small = inputs[0][0]
    larger = small.shape[2] // 2 * 3, small.shape[3] // 3 * 5
    shapes = [_shapes(module, small, sides) for sides in (small.shape[2:], larger)]
    steps: list[dict[str, Any]] = []
    networks: list[Network] = []
    names = {given: "x"}
    part: list[fx.Node] = []
    wanted = _wanted(nodes)

    def close() -> None:
        """End the network that `part` is."""
        inside, position = set(part), nodes.index(part[-1]) if part else 0
        outputs = [node for node in part if node in wanted and wanted[node] > position]
        part.clear()
        if not outputs:
            return
        made, taken = _extract(module, inside, outputs)
        names.update((node, node.name) for node in outputs)
        dynamic = [_growth(*(found[node] for found in shapes)) for node in taken]
        examples = [torch.zeros(shapes[0][node], dtype=node.meta["val"].dtype) for node in taken]
        is_exact = any(_is_tensor(node) and node.meta["val"].dtype == torch.float64 for node in inside)
        called = [names[node] for node in taken], [node.name for node in outputs]
        networks.append(Network(f"{name}-{len(networks)}", made, *called, examples, dynamic, is_exact))
        steps.append({"run": networks[-1].name, "in": called[0], "out": called[1]})

    for node in nodes:
        if node.op == "call_function" and str(node.target).startswith(_STEPS):
            close()
            names[node] = node.name
            steps.append(_step(node, names))
        elif node.op == "call_function":
            part.append(node)
        elif node.op == "output":
            close()
            steps.append({"result": names[node.args[0][0]]})
    return _with_drops(steps), networks


def _step(node: fx.Node, names: dict[fx.Node, str]) -> dict[str, Any]:
    """Return one of the coder's steps: its tensors by name, and its other arguments."""
    target: Any = node.target
    arguments = zip(target._schema.arguments, node.args, strict=False)
    known = {argument.name: value for argument, value in arguments if argument.name != "call"}
    tensors = {key: _base(value) for key, value in known.items() if isinstance(value, fx.Node)}
    step: dict[str, Any] = {"do": target._schema.name.partition("::")[2], "out": [node.name]}
    step["in"] = [names[value] for value in tensors.values()]
    step["as"] = list(tensors)
    step |= {key: value for key, value in known.items() if key not in tensors}
    step["flat"] = node.meta["val"].ndim == 1
    return step


def _base(node: fx.Node) -> fx.Node:
    """Return what a node is only another shape or number type of: the coder takes values in their order."""
    while node.op == "call_function" and str(node.target).startswith(_RESHAPES):
        (node, *_) = node.all_input_nodes
    return node


def _wanted(nodes: list[Any]) -> dict[fx.Node, int]:
    """Return, for each tensor that a step, a later network or the result needs, the last place that needs it."""
    wanted: dict[fx.Node, int] = {}
    for place, node in enumerate(nodes):
        if node.op == "output":
            wanted[node.args[0][0]] = place
        elif node.op == "call_function" and str(node.target).startswith(_STEPS):
            wanted |= {_base(each): place for each in node.all_input_nodes}
        elif node.op == "call_function" and not any(check in str(node.target) for check in _CHECKS):
            wanted |= {each: place for each in _tensors_behind(node)}
    return wanted


def _tensors_behind(node: fx.Node) -> list[fx.Node]:
    """Return the tensors that a node is computed of, those of which sizes are taken among them."""
    found: list[fx.Node] = []
    for each in node.all_input_nodes:
        found += [each] if _is_tensor(each) or each.op == "get_attr" else _tensors_behind(each)
    return found


def _growth(small: Sequence[int], large: Sequence[int]) -> dict[int, tuple[int, str] | None]:
    """Return `Network.dynamic` of one input, from its shapes for pictures of 2x3 and 3x5 strides."""
    found: dict[int, tuple[int, str] | None] = {}
    for axis, (a, b) in enumerate(zip(small, large, strict=True)):
        if a != b:
            sides = {(2, 3): "height", (3, 5): "width"}
            fits = [(a // x, side) for (x, y), side in sides.items() if a % x == 0 and a // x * y == b]
            found[axis] = fits[0] if fits else None
    return found


def _extract(module: Any, part: set[fx.Node], outputs: list[fx.Node]) -> tuple[nn.Module, list[fx.Node]]:
    """Return a module of some nodes of a graph, and the nodes that it takes as inputs."""
    graph, copies, inputs = fx.Graph(), dict[fx.Node, fx.Node](), list[fx.Node]()
    needed: list[fx.Node] = []

    def visit(node: fx.Node) -> None:
        if node in needed:
            return
        if node in part or node.op == "get_attr" or not _is_tensor(node):
            for each in node.all_input_nodes:
                visit(each)
        elif node not in inputs:
            inputs.append(node)
        needed.append(node)

    for node in outputs:
        visit(node)
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = {"val": node.meta["val"]}
    for node in needed:
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda each: copies[each])
    graph.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(module, graph), inputs


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _with_drops(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Note in each step which values nothing after it needs."""
    needed = set[str]()
    for step in reversed(steps):
        if "result" in step:
            needed.add(step["result"])
            continue
        step["drop"] = sorted({*step["in"], *step["out"]} - needed)
        needed |= set(step["in"])
    return steps


def _shapes(module: Any, example: Tensor, sides: Sequence[int]) -> dict[fx.Node, tuple[int, ...]]:
    """Return the shape of every tensor of a program for a picture of these sides; nothing is computed."""
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        run = _Shapes(module)
        run.run(example.new_empty(*example.shape[:2], *sides))
    return run.found


@final
class _Shapes(fx.Interpreter):
    """Runs a program, and notes the shapes of its tensors."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        if any(check in str(n.target) for check in _CHECKS):
            return None
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = tuple(value.shape)
        return value
