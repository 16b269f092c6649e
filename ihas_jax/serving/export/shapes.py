"""Primitives of JAX that move numbers and leave them as they are, as nodes of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ihas_jax.serving.export.graph import Call, Graph, Rule, Value


def _broadcast(call: Call) -> list[Value]:
    """Axes of one entry where the result has new ones; what reads it broadcasts on its own."""
    value, (output,), graph = call.values[0], call.outputs, call.graph
    places = call.params["broadcast_dimensions"]
    new = [n for n in range(len(output.shape)) if n not in places]
    if value.array is not None:
        array = np.expand_dims(value.array, tuple(new))
        return [Value(output.shape, output.dtype, array, full=False)]
    name = graph.node("Unsqueeze", value.name, graph.integers(*new)) if new else value.name
    full = tuple(output.shape[n] for n in places) == value.shape
    return call.made(name, full=value.full and full and all(output.shape[n] == 1 for n in new))


def _reshaped(call: Call) -> list[Value]:
    return [call.graph.reshaped(call.values[0], call.outputs[0].shape)]


def _transposed(call: Call) -> list[Value]:
    return [call.graph.transposed(call.values[0], call.params["permutation"])]


def _joined(call: Call) -> list[Value]:
    names = map(call.graph.full, call.values)
    return call.made(call.graph.node("Concat", *names, axis=call.params["dimension"]))


def _padded(call: Call) -> list[Value]:
    (value, filling), graph = call.values, call.graph
    before, after, between = zip(*call.params["padding_config"], strict=True)
    if any(between):
        raise NotImplementedError("a padding between the entries of an array")
    widths = graph.integers(*before, *after)
    return call.made(graph.node("Pad", graph.full(value), widths, graph.name(filling)))


def _sliced(call: Call) -> list[Value]:
    params, (value,) = call.params, call.values
    starts, ends = params["start_indices"], params["limit_indices"]
    return [cut(call.graph, value, starts, ends, params["strides"])]


def _sliced_at(call: Call) -> list[Value]:
    """A slice that starts at places which are known when the graph is made."""
    value, *starts = call.values
    if any(start.array is None for start in starts):
        raise NotImplementedError("a slice that starts at a place which rows decide")
    places = [int(start.array) for start in starts]  # type: ignore[arg-type]
    return [cut_at(call.graph, value, places, call.params["slice_sizes"])]


def cut_at(graph: Graph, value: Value, starts: Sequence[int], sizes: Sequence[Any]) -> Value:
    """A slice of given sizes; as in JAX, one that would end outside starts before."""
    places = [
        min(max(start, 0), dim - size) if isinstance(dim, int) else 0
        for start, dim, size in zip(starts, value.shape, sizes, strict=True)
    ]
    return cut(graph, value, places, [a + n for a, n in zip(places, sizes, strict=True)])


def cut(
    graph: Graph,
    value: Value,
    starts: Sequence[int],
    ends: Sequence[Any],
    strides: Sequence[int] | None = None,
) -> Value:
    """A slice; the axis of rows stays whole."""
    steps = strides or [1] * len(starts)
    whole = [
        (start, end, step) == (0, dim, 1)
        for start, end, step, dim in zip(starts, ends, steps, value.shape, strict=True)
    ]
    axes = [n for n, all_of_it in enumerate(whole) if not all_of_it]
    if not axes:
        return value
    if any(not isinstance(ends[n], int) for n in axes):
        raise NotImplementedError("a slice of the rows")
    parts = ([one[n] for n in axes] for one in (starts, ends, range(len(starts)), steps))
    name = graph.node("Slice", graph.full(value), *(graph.integers(*part) for part in parts))
    shape = tuple(
        -(-(ends[n] - starts[n]) // steps[n]) if n in axes else dim
        for n, dim in enumerate(value.shape)
    )
    return Value(shape, value.dtype, name=name)


def _split(call: Call) -> list[Value]:
    (value,), graph, sizes = call.values, call.graph, call.params["sizes"]
    name = graph.node(
        *("Split", graph.full(value), graph.integers(*sizes)),
        outputs=len(sizes),
        axis=call.params["axis"],
    )
    return call.made(name, *(f"{name}_{n}" for n in range(1, len(sizes))))


def _turned(call: Call) -> list[Value]:
    """The entries in the other order, along axes."""
    (value,), graph, axes = call.values, call.graph, call.params["dimensions"]
    count = len(axes)
    first, past = graph.integers(*[-1] * count), graph.integers(*[np.iinfo(np.int64).min] * count)
    return call.made(
        graph.node("Slice", graph.full(value), first, past, graph.integers(*axes), first)
    )


def _rows(call: Call) -> list[Value]:
    """The number of rows as a number."""
    graph, (output,) = call.graph, call.outputs
    return call.made(graph.cast(number_of(graph, call.params["dim"]), output.dtype))


def number_of(graph: Graph, dim: Any) -> str:
    """The name of an axis' number of entries, `[]` int64."""
    return graph.node("Squeeze", graph.shape((dim,)), graph.integers(0))


SHAPES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _joined,
    "dim_as_value": _rows,
    "dynamic_slice": _sliced_at,
    "expand_dims": _reshaped,
    "pad": _padded,
    "reshape": _reshaped,
    "rev": _turned,
    "slice": _sliced,
    "split": _split,
    "squeeze": _reshaped,
    "transpose": _transposed,
}
"""Rules by the names of primitives."""
