"""A bundle as a model of ONNX: ids in, the probability and the cluster of each row out.

A row passes the model of its cluster alone, and a model without rows is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from jax import export
from onnx import TensorProto, helper

from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.export.graph import OPSET, Graph, used
from ihas_jax.serving.export.program import Program, of_model, of_router
from ihas_jax.serving.export.walk import add

IDS, PROBABILITY, CLUSTER, ROWS = "ids", "probability", "cluster", "rows"
"""Names of the input `[rows, N]` int32, of the outputs `[rows]`, and of their axis."""
MODEL, WEIGHTS = "model.onnx", "model.onnx.data"
_LARGE = 1 << 30


def onnx_model(bundle: Bundle) -> onnx.ModelProto:
    """The model of a bundle, with its router and all of its models inside.

    Raises:
      InputError: as `walk.add`.
    """
    fields, graph = len(bundle.schema.names), Graph(export.symbolic_shape(ROWS)[0])
    rows = graph.rows = graph.node("Shape", IDS, start=0, end=1)
    (cluster,) = add(graph, *of_router(bundle.cluster_router), IDS, fields)
    programs = [of_model(served) for served in bundle.models]
    if len(programs) == 1:
        (probability,) = add(graph, *programs[0], IDS, fields)
    else:
        routes = graph.constant(bundle.routes, np.int32)
        serving = graph.node("Gather", routes, cluster)
        probability = graph.node("Expand", graph.constant(0, np.float32), rows)
        for index, program in enumerate(programs):
            whether = graph.node("Equal", serving, graph.constant(index, np.int32))
            found = graph.node("NonZero", whether)
            own = graph.node("Squeeze", found, graph.integers(0))
            probs = _answer(graph, program, own, fields)
            probability = graph.node("ScatterElements", probability, own, probs)
    graph.nodes.append(helper.make_node("Identity", [probability], [PROBABILITY]))
    graph.nodes.append(helper.make_node("Identity", [cluster], [CLUSTER]))
    return _model(graph, fields)


def _answer(graph: Graph, program: Program, own: str, fields: int) -> str:
    """The name of the probabilities of a model's own rows, whose places are given.

    A model without rows is not run, which is most of the time of a batch of one row.
    """
    graph.rows = graph.node("Shape", own)
    whether = graph.node("Squeeze", graph.node("Greater", graph.rows, graph.integers(0)))
    with graph.branch() as nodes:
        (probs,) = add(graph, *program, graph.node("Gather", IDS, own), fields)
    with graph.branch() as nothing:
        none = graph.node("Cast", graph.rows, to=TensorProto.FLOAT)
        none = graph.node("Slice", none, graph.integers(0), graph.integers(0))
    branches = {
        name: helper.make_graph(
            used(inner, [output])[0],
            name,
            [],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        )
        for name, inner, output in (
            ("then_branch", nodes, probs),
            ("else_branch", nothing, none),
        )
    }
    return graph.node("If", whether, **branches)


def _model(graph: Graph, fields: int) -> onnx.ModelProto:
    graph.trim([PROBABILITY, CLUSTER])
    made = helper.make_graph(
        graph.nodes,
        "bundle",
        [helper.make_tensor_value_info(IDS, TensorProto.INT32, [ROWS, fields])],
        [
            helper.make_tensor_value_info(PROBABILITY, TensorProto.FLOAT, [ROWS]),
            helper.make_tensor_value_info(CLUSTER, TensorProto.INT32, [ROWS]),
        ],
        list(graph.constants.values()),
    )
    opset = helper.make_opsetid("", OPSET)
    version = helper.find_min_ir_version_for([opset])
    return helper.make_model(
        made, opset_imports=[opset], ir_version=version, producer_name="ihas_jax"
    )


def write(bundle: Bundle, folder: Path) -> None:
    """Writes the model; weights of more than 1 GiB stand in a file of their own beside it.

    Raises:
      InputError: as `onnx_model`.
    """
    model, path = onnx_model(bundle), folder / MODEL
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size <= _LARGE:
        onnx.save_model(model, path)
    else:  # a message of protobuf has at most 2 GiB
        onnx.save_model(model, path, save_as_external_data=True, location=WEIGHTS)
