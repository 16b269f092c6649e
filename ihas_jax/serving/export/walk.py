"""From a function of JAX to nodes of ONNX: a walk over the primitives of its trace.

What depends on weights alone is calculated by JAX when the graph is made, so that the graph holds
what depends on the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from ihas_jax.errors import InputError
from ihas_jax.serving.export.arithmetic import ARITHMETIC
from ihas_jax.serving.export.graph import Call, Graph, Value
from ihas_jax.serving.export.indexing import INDEXING
from ihas_jax.serving.export.program import untraced
from ihas_jax.serving.export.reductions import REDUCTIONS
from ihas_jax.serving.export.shapes import SHAPES

_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Names of the parameter of a primitive that calls another function, such as `jit`."""
RULES = ARITHMETIC | REDUCTIONS | SHAPES | INDEXING
"""Rules by the names of primitives."""


def add(
    graph: Graph, function: Callable[..., Any], arrays: Any, ids: str, fields: int
) -> list[str]:
    """Adds a function of weights and rows to a graph.

    Args:
      graph: the graph.
      function: `function(arrays, ids [B, N]) -> tree of arrays`, traced for any number of rows.
      arrays: the weights.
      ids: name of the ids `[B, N]` int32.
      fields: N.

    Returns:
      The names of its outputs.

    Raises:
      InputError: the function can't be traced for any number of rows, or has a primitive
        that no rule knows.
    """
    spec = jax.ShapeDtypeStruct((graph.symbol, fields), np.int32)
    try:
        traced = jax.make_jaxpr(function)(arrays, spec)
    except TypeError as error:
        raise untraced(error) from error
    leaves = [_known(leaf) for leaf in jax.tree.leaves(arrays)]
    rows = Value(spec.shape, spec.dtype, name=ids)
    outputs = _walk(graph, traced.jaxpr, [_known(c) for c in traced.consts], [*leaves, rows])
    return [graph.full(output) for output in outputs]


def _known(array: Any) -> Value:
    array = np.asarray(array)
    return Value(array.shape, array.dtype, array)


def _walk(
    graph: Graph, jaxpr: Any, consts: Sequence[Value], inputs: Sequence[Value]
) -> list[Value]:
    """The values of the outputs of a trace."""
    found = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def read(variable: Any) -> Value:
        if isinstance(variable, Literal):
            aval: Any = variable.aval
            return _known(np.asarray(variable.val, aval.dtype))
        return found[variable]

    for equation in jaxpr.eqns:
        values = [read(variable) for variable in equation.invars]
        found |= zip(equation.outvars, _apply(graph, equation, values), strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """The outputs of a primitive."""
    name, params = equation.primitive.name, equation.params
    for inner in _INNER:
        if inner in params:
            closed = params[inner]
            consts = [_known(c) for c in getattr(closed, "consts", ())]
            return _walk(graph, getattr(closed, "jaxpr", closed), consts, values)
    outputs = [variable.aval for variable in equation.outvars]
    static = all(isinstance(dim, int) for output in outputs for dim in output.shape)
    if static and name != "dim_as_value" and all(value.array is not None for value in values):
        return _calculate(equation, [graph.whole(value).array for value in values])
    rule = RULES.get(name)
    try:
        if rule is None:
            raise NotImplementedError(f"the primitive {name}")
        return rule(Call(graph, values, outputs, params))
    except NotImplementedError as missing:
        raise InputError(
            f"The model has {missing}, which has no translation to ONNX here. Export the model "
            "with --to stablehlo, write it with other operations, or add a rule to "
            "ihas_jax/serving/export."
        ) from None


def _calculate(equation: Any, arrays: Sequence[Any]) -> list[Value]:
    """The outputs of a primitive of which all inputs are known."""
    made = equation.primitive.bind(*arrays, **equation.params)
    return [_known(one) for one in (made if equation.primitive.multiple_results else [made])]
