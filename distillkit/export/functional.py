"""A traced program without operators that change their input: `program.cut` goes by values, not by their order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload

#: Operators of torch made of others, whose result is never their input or a part of it.
_FRESH = ("conv", "linear", "matmul", "_norm", "softmax", "pad", "pixel_", "upsample", "interpolate", "chunk_cat")


def functional(traced: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program in which no operator changes its input.

    Torch's own way traces the program again, which takes twice as long as the first time. It is needed only where what
    was changed is read again under another name.

    Args:
        traced: is changed.
    """
    found = _without_changes(traced.graph)
    if found is None:
        return traced.run_decompositions({})
    for node, operator in found.items():
        node.target = operator
    traced.graph_module.recompile()
    return traced


def _without_changes(graph: fx.Graph) -> dict[fx.Node, Any] | None:
    """Return the operators that take the places of those that change their input, or None if they cannot."""
    nodes: list[Any] = list(graph.nodes)
    places = {node: place for place, node in enumerate(nodes)}
    memory: dict[fx.Node, frozenset[fx.Node]] = {}  # whose memory a value may share
    found: dict[fx.Node, Any] = {}
    for place, node in enumerate(nodes):
        memory[node] = frozenset([node])
        if node.op != "call_function":
            continue
        target: Any = node.target
        if isinstance(target, HigherOrderOperator):
            return None
        if not isinstance(target, OpOverload):  # a number's, or an item of a list
            memory[node] = _memory_of_inputs(node, memory)
        elif target._schema.is_mutable:  # pyright: ignore[reportPrivateUsage]
            operator = _unchanging(node)
            shared = memory.get(node.args[0], frozenset[fx.Node]())
            sharing = [other for other in nodes[:place] if memory[other] & shared]
            is_read_later = any(places[user] > place for other in sharing for user in other.users)
            if operator is None or is_read_later or any(other.op != "call_function" for other in shared):
                return None
            found[node] = operator
        elif _may_share(target):
            memory[node] = _memory_of_inputs(node, memory)
    return found


def _unchanging(node: Any) -> Any:
    """Return the operator that gives what a node gives, and leaves its first input as it is; None if there is none."""
    schema = node.target._schema
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments]
    tensors = [each.meta["val"] for each in node.all_input_nodes if isinstance(each.meta.get("val"), Tensor)]
    if written.index(True) or sum(written) > 1 or len({tensor.dtype for tensor in tensors}) > 1:
        return None
    name = schema.name.removeprefix("aten::").removesuffix("_")
    return getattr(getattr(torch.ops.aten, name, None), node.target._overloadname, None)


def _memory_of_inputs(node: Any, memory: dict[fx.Node, frozenset[fx.Node]]) -> frozenset[fx.Node]:
    return frozenset([node]).union(*(memory[each] for each in node.all_input_nodes))


def _may_share(operator: Any) -> bool:
    """Return whether an operator's result may be its input or a part of it."""
    if any(result.alias_info is not None for result in operator._schema.returns):
        return True
    name = operator._schema.name
    return operator._can_decompose() and not any(part in name for part in _FRESH)
