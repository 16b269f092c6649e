"""The first lines of a report: is the outcome better, smaller and faster than its base model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ihas_jax.reporting.front_words import signed, times
from ihas_jax.reporting.scores import titles

_SEEDS = 0.001
"""What another seed may change of an AUC, as measured on small logs."""
_ASK = "Delete metrics.json; the same command then measures it, without training anything again."
Metrics = Mapping[str, Any]
"""The content of metrics.json."""


def answers(metrics: Metrics) -> list[str]:
    """Three lines of Markdown: on the AUC, the parameters and the time of the outcome of a run."""
    name = "student" if "student" in metrics else metrics["method"]
    if name not in metrics:
        found = [
            "Not known. The base model was trained alone, so there is nothing to compare it with: "
            "`--method spectral --budget 0.125`, with a new `--output`, makes a smaller model.",
            f"Not known. The base model has {metrics['base']['parameters']:,} parameters.",
            "Not known. The time of a prediction is measured beside that of a method.",
        ]
    else:
        found = [_better(metrics, name), _smaller(metrics, name), _faster(metrics, name)]
    words = ("Better", "Smaller", "Faster")
    return [f"- **{word}?** {line}" for word, line in zip(words, found, strict=True)]


def _better(metrics: Metrics, name: str) -> str:
    own, base = metrics[name]["auc"], metrics["base"]["auc"]
    if not math.isfinite(own - base):
        return "Not known. The test rows have one class, so that there is no AUC."
    gain = metrics.get("gain")
    both = f"{_title(name)} has a test AUC of {own:.4f} and the base model one of {base:.4f}"
    if gain is None:
        return f"Not known. {both}: {signed(own - base)} within a noise that is not known. {_ASK}"
    if not math.isfinite(gain["low"]):
        return f"Not known. {both}; the test rows are too few to say how sure that is."
    half = (gain["high"] - gain["low"]) / 2
    sure = f"{signed(gain['auc'])} ± {half:.4f} (95 % certainty on these test rows, p {_p(gain)})"
    word = "Can't be told apart"
    if abs(gain["auc"]) > half:
        word = "Yes" if gain["auc"] > 0 else "No, worse"
        if abs(gain["auc"]) < _SEEDS:
            sure += f", but another seed may change {_SEEDS:g}"
    return f"{word}. {both}: {sure}."


def _p(gain: Metrics) -> str:
    return "<0.001" if gain["p"] < 0.001 else f"{gain['p']:.3f}"


def _title(name: str) -> str:
    return "The student" if name == "student" else titles()[name]


def _smaller(metrics: Metrics, name: str) -> str:
    own, base = metrics[name]["parameters"], metrics["base"]["parameters"]
    routing = metrics[name].get("router_parameters", 0)
    whole = own + routing
    word = "Yes" if whole < base else "No, larger" if whole > base else "No, of equal size"
    line = f"{word}. {_title(name)} has {whole:,} parameters and the base model {base:,}"
    if whole != base:
        line += f": {times(base / whole, 'fewer', 'more')}"
    if routing:
        line += f"; {routing:,} of them serve routing"
        line += f", and without them there are {times(base / own, 'fewer', 'more')}"
    return f"{line}."


def _faster(metrics: Metrics, name: str) -> str:
    found = metrics.get("microseconds")
    if found is None:
        return f"Not known. The time of a prediction was not measured. {_ASK}"
    ratio = found["ratio"]
    word = "Can't be told apart"
    if ratio["high"] < 1:
        word = "Yes"
    elif ratio["low"] > 1:
        word = "No, slower"
    return (
        f"{word}. {_title(name)} takes {found[name]['middle']:.2f} µs per row and the base model "
        f"{found['base']['middle']:.2f}: {ratio['middle']:.2f} times as long, "
        f"{ratio['low']:.2f} to {ratio['high']:.2f} in {found['turns']} turns."
    )
