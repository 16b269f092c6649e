"""What a page or a client needs to know of a bundle, ready for JSON."""

from __future__ import annotations

from typing import Any

from ihas_jax.serving.bundle import Bundle

_SHOWN_VALUES = 50


def model_facts(bundle: Bundle) -> dict[str, Any]:
    """The fields with their most frequent values, and what each cluster's model keeps of them.

    Of each cluster `kept` has the coordinates of each field's embedding, from 0 to `dim` - 1.
    """
    spec = bundle.models[0].model.embedding
    every = tuple(range(spec.dim))
    kept = [own or (every,) * len(bundle.schema.fields) for own in bundle.kept]
    return {
        "model": bundle.config.model.name,
        "method": bundle.config.method,
        "parameters": bundle.parameters + bundle.router_parameters,
        "dim": spec.dim,
        "fields": [
            {
                "name": field.name,
                "kind": field.kind,
                # the values of a schema are sorted by how often they occur
                "values": list(field.values[:_SHOWN_VALUES]) if field.rule == "category" else [],
            }
            for field in bundle.schema.fields
        ],
        "kept": [kept[model] for model in bundle.routes],
    }
