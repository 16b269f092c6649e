"""Primitives of JAX that look up or count by index, as nodes of ONNX."""

from __future__ import annotations

import numpy as np

from ihas_jax.serving.export.graph import Call, Graph, Rule, Value
from ihas_jax.serving.export.shapes import cut_at


def _gather(call: Call) -> list[Value]:
    """Entries or whole slices of an array, at places that the last axis of the index holds."""
    (array, index), (output,), graph = call.values, call.outputs, call.graph
    numbers, sizes = call.params["dimension_numbers"], call.params["slice_sizes"]
    each, of_each = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    sought, dropped = numbers.start_index_map, numbers.collapsed_slice_dims
    if index.array is not None and len(index.shape) == 1 and not each:
        # a slice in the words of a look-up
        found = dict(zip(sought, index.array.tolist(), strict=True))
        starts = [found.get(n, 0) for n in range(len(array.shape))]
        return [graph.reshaped(cut_at(graph, array, starts, sizes), output.shape)]
    kept = [n for n in range(len(array.shape)) if n not in (*each, *dropped)]
    if {*sought} != {*dropped} or any(sizes[n] != array.shape[n] for n in kept):
        raise NotImplementedError("a look-up of parts of slices")
    places = list(range(len(index.shape) - 1))
    if len(sought) == 1 and not each:
        index = graph.reshaped(index, index.shape[:-1])
        made = graph.node("Gather", graph.full(array), _wide(graph, index), axis=sought[0])
        # the axes of the result: those of the array, with the index in place of the one sought
        axes: list[tuple[str, int]] = [("kept", n) for n in kept]
        axes[sought[0] : sought[0]] = [("index", n) for n in places]
    else:
        array = graph.transposed(array, [*each, *sought, *kept])
        others = [n for n in places if n not in of_each]
        index = graph.transposed(index, [*of_each, *others, len(places)])
        made = graph.node(
            *("GatherND", graph.full(array), _wide(graph, index, np.int64)), batch_dims=len(each)
        )
        axes = [("index", n) for n in (*of_each, *others)] + [("kept", n) for n in kept]
    slices, rest = iter(kept), iter(places)
    wanted = [
        ("kept", next(slices)) if n in numbers.offset_dims else ("index", next(rest))
        for n in range(len(output.shape))
    ]
    order = [axes.index(axis) for axis in wanted]
    if order != sorted(order):
        made = graph.node("Transpose", made, perm=order)
    return call.made(made)


def _wide(graph: Graph, index: Value, dtype: type = np.int32) -> str:
    name = graph.full(index)
    fits = index.dtype == dtype or (dtype == np.int32 and index.dtype == np.int64)
    return name if fits else graph.cast(name, np.int64)


def _counted(call: Call) -> list[Value]:
    """Numbers added to the entries of each row at places in it, as a histogram needs them."""
    (array, index, added), graph = call.values, call.graph
    numbers = call.params["dimension_numbers"]
    along_rows = (
        tuple(numbers.operand_batching_dims) == (0,)
        and tuple(numbers.scatter_indices_batching_dims) == (0,)
        and tuple(numbers.inserted_window_dims) == (1,)
        and len(array.shape) == 2
        and len(index.shape) == 3
    )
    if not along_rows:
        raise NotImplementedError("an addition at places other than those of a histogram per row")
    places = graph.reshaped(index, index.shape[:-1])
    return call.made(
        graph.node(
            *("ScatterElements", graph.full(array), graph.full(places), graph.full(added)),
            axis=1,
            reduction="add",
        )
    )


INDEXING: dict[str, Rule] = {"gather": _gather, "scatter-add": _counted}
"""Rules by the names of primitives."""
