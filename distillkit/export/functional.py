"""A traced program without operators that change their input: `program.cut` goes by values, not by their order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload

_SCATTERS: dict[Any, Any] = {
    torch.ops.aten.slice.Tensor: torch.ops.aten.slice_scatter.default,
    torch.ops.aten.select.int: torch.ops.aten.select_scatter.default,
}
#: What gives its first input's number type, whatever the others have.
_OF_INPUT_TYPE = ("copy", "fill", "index_put", "masked_fill", "detach")
#: Operators of torch made of others, whose result is never their input or a part of it.
_FRESH = ("conv", "linear", "matmul", "_norm", "softmax", "pad", "pixel_", "upsample", "interpolate", "chunk_cat")


def functional(traced: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program in which no operator changes its input.

    Torch's own way traces the program again, which takes twice as long as the first time. It is needed only where what
    was changed is read again through another view than those that lead to the change.

    Args:
        traced: is changed.
    """
    if not _without_changes(traced.graph):
        return traced.run_decompositions({})
    traced.graph_module.recompile()
    return traced


def _without_changes(graph: fx.Graph) -> bool:
    """Rewrite operators that change their input, and return whether all could be."""
    nodes: list[Any] = list(graph.nodes)
    places = {node: place for place, node in enumerate(nodes)}
    memory: dict[Any, frozenset[Any]] = {}  # whose memory a value may share
    for place, node in enumerate(nodes):
        memory[node] = frozenset([node])
        if node.op != "call_function":
            continue
        target: Any = node.target
        if isinstance(target, HigherOrderOperator):
            return False
        if not isinstance(target, OpOverload):  # a number's, or an item of a list
            memory[node] = _memory_of_inputs(node, memory)
        elif target._schema.is_mutable:  # pyright: ignore[reportPrivateUsage]
            operator, views = _unchanging(node), _views_to(node.args[0])
            owner: Any = views[-1].args[0] if views else node.args[0]
            changed = memory.get(node.args[0], frozenset[Any]())
            others = [other for other in memory if other not in {node, owner} and memory[other] & changed]
            is_read_later = any(places.get(user, 0) > place for other in others for user in other.users)
            if operator is None or is_read_later or any(each.op != "call_function" for each in changed):
                return False
            later = [user for user in owner.users if places.get(user, 0) > place]
            node.target = operator
            whole = _put_back(graph, node, views)
            memory[whole] = frozenset([whole])
            for user in later:
                user.replace_input_with(owner, whole)
        elif _may_share(target):
            memory[node] = _memory_of_inputs(node, memory)
    return True


def _views_to(node: Any) -> list[Any]:
    """Return the slices and selections that lead to a value, the last one first."""
    views: list[Any] = []
    while isinstance(node, fx.Node) and node.target in _SCATTERS:
        views.append(node)
        node = node.args[0]
    return views


def _put_back(graph: fx.Graph, node: Any, views: list[Any]) -> Any:
    """Return the node of a whole tensor with a new value in a part of it."""
    value = node
    for view in views:
        base = view.args[0]
        with graph.inserting_after(value):
            made: Any = graph.call_function(_SCATTERS[view.target], (base, value, *view.args[1:]), view.kwargs)
        made.meta = {"val": base.meta["val"]}
        value = made
    return value


def _unchanging(node: Any) -> Any:
    """Return the operator that gives what a node gives, and leaves its first input as it is; None if there is none."""
    schema = node.target._schema
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments]
    tensors = [each.meta["val"] for each in node.all_input_nodes if isinstance(each.meta.get("val"), Tensor)]
    name = schema.name.removeprefix("aten::").removesuffix("_")
    is_of_input_type = name in _OF_INPUT_TYPE or len({tensor.dtype for tensor in tensors}) == 1
    if written.index(True) or sum(written) > 1 or not is_of_input_type:
        return None
    return getattr(getattr(torch.ops.aten, name, None), node.target._overloadname, None)


def _memory_of_inputs(node: Any, memory: dict[fx.Node, frozenset[fx.Node]]) -> frozenset[fx.Node]:
    return frozenset([node]).union(*(memory[each] for each in node.all_input_nodes))


def _may_share(operator: Any) -> bool:
    """Return whether an operator's result may be its input or a part of it."""
    if any(result.alias_info is not None for result in operator._schema.returns):
        return True
    name = operator._schema.name
    return operator._can_decompose() and not any(part in name for part in _FRESH)
