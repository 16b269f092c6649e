"""The report of a compression: how small, how good, how fast, how sure."""

from __future__ import annotations

import math

from ihas_jax.config import Config
from ihas_jax.reporting.front_table import Facts, markdown_front, shown_auc
from ihas_jax.reporting.front_words import (
    WORDS,
    calibration,
    chance,
    choice,
    signed,
    sureness,
    taught,
    times,
)
from ihas_jax.reporting.provenance import provenance
from ihas_jax.reporting.tables import markdown_table
from ihas_jax.stages.verdict import STEP

_NEXT = (
    "With the path of this folder in place of RUN:",
    "",
    "- `python experiments/predict.py --run RUN --input FILE --output predictions.csv` predicts "
    "the rows of a raw file;",
    "- `python experiments/serve.py --run RUN` answers requests over HTTP;",
    "- `python experiments/export.py --run RUN --to onnx --output DIR` writes a model that runs "
    "without this library;",
    '- `ihas.load_bundle("RUN").predict_proba(rows)` predicts in Python.',
    "",
    "compress.py with another `--tolerance` or `--standard-errors` chooses anew in this folder "
    "from what is trained, in a minute or two, and with other values of `--budget` trains these "
    "sizes alone.",
)
_AUC, _LOGLOSS = "test AUC (more is better)", "test logloss (less is better)"


def render_front(config: Config, metrics: Facts) -> str:
    """The text of report.md, which shows figures/front.png."""
    lines = [
        "# The smallest good model",
        "",
        *_answer(metrics),
        "",
        "## All models",
        "",
        *markdown_front(metrics),
        "",
        f"{WORDS} {taught(metrics)}",
        "",
        "![Test AUC and logloss against size and time](figures/front.png)",
        "",
        "Filled points are models on the front, which validation rows decide; lines join the sizes "
        "of a click model under one selection. A triangle is a model that is worse than the axis "
        "shows.",
        "",
        "## How it was chosen",
        "",
        choice(metrics),
        "",
        "## What was trained on clicks",
        "",
        *markdown_table(
            ("on clicks", "validation AUC", "validation logloss"),
            [
                [one["name"], shown_auc(one, "valid_"), f"{one['valid_logloss']:.4f}"]
                for one in metrics["pool"]
            ],
        ),
        "",
        "A name has the click model and the coefficient of its L2 term; batch norm (`norm`) and "
        "`dropout` where the model has them; the learning rate (`rate`) where it is not the usual "
        "one; and a number at the end for a further seed.",
        "",
        *_seeds(metrics["pool"]),
        *_diverged(metrics["diverged"]),
        "## What next",
        "",
        *_NEXT,
        "",
        "## How it was made",
        "",
        *provenance(config),
        "",
    ]
    return "\n".join(lines)


def _seeds(pool: list[Facts]) -> list[str]:
    """How far seeds of one trial lie apart."""
    trials: dict[str, list[float]] = {}
    for one in pool:
        trials.setdefault(one.get("trial", one["name"]), []).append(one["valid_auc"])
    ranges = [
        f"{name} from {min(found):.4f} to {max(found):.4f}"
        for name, found in trials.items()
        if len(found) > 1 and all(map(math.isfinite, found))
    ]
    if not ranges:
        return []
    return [f"Seeds of the same trial differ in validation AUC: {'; '.join(ranges)}.", ""]


def _diverged(names: list[str]) -> list[str]:
    """What is not in the tables."""
    if not names:
        return []
    return [f"The training of these diverged, so they were left out: {'; '.join(names)}.", ""]


def _answer(metrics: Facts) -> list[str]:
    """The first paragraphs, and chosen and base model side by side."""
    base, chosen, rows = metrics["base"], metrics["chosen"], metrics["rows"]
    log = (
        f"The log has {rows['training']:,} training rows ({100 * rows['clicks']:.3g} % clicks), "
        f"{rows['validation']:,} validation rows and {rows['test']:,} test rows. The base model is "
        f"the best of the trials of its click model on validation rows, {base['trial']}, which "
        f"learns from clicks. {calibration(metrics)}"
    )
    doubt = [f"**{text}**", ""] if (text := chance(metrics)) else []
    if chosen["name"] == base["name"]:
        kept = (
            "**No smaller model is good enough, so the base model is kept**: "
            f"{base['parameters']:,} parameters, test AUC {shown_auc(base)}, logloss "
            f"{base['logloss']:.4f}."
        )
        smaller = any(f["parameters"] < base["parameters"] for f in metrics["candidates"])
        more = " A larger --tolerance takes a smaller one of the table below." if smaller else ""
        return [*doubt, kept + more, "", log]
    size = times(base["parameters"] / chosen["parameters"], "fewer parameters", "more parameters")
    return [
        *doubt,
        f"**{chosen['name']}** is, of {len(metrics['candidates'])} candidates, the smallest that "
        f"is about as good as the best of them on validation rows: {size} than the base model. "
        f"{sureness(metrics['gain'])}",
        "",
        *_beside(metrics),
        "",
        log,
    ]


def _beside(metrics: Facts) -> list[str]:
    """The table of base and chosen model, with their differences."""
    base, chosen, gain = metrics["base"], metrics["chosen"], metrics["gain"]["auc"]
    factors = {key: base[key] / chosen[key] for key in ("parameters", "bytes", "microseconds")}
    same = 1 / STEP < factors["microseconds"] < STEP
    notes = [
        times(factors["parameters"], "fewer", "more"),
        times(factors["bytes"], "less", "more"),
        "about the same" if same else times(factors["microseconds"], "less", "more"),
        signed(gain) if math.isfinite(gain) else "",
        signed(chosen["logloss"] - base["logloss"]),
    ]
    titles = ("parameters", "MB of what is kept", "µs per row", _AUC, _LOGLOSS)
    cells = zip(*(_shown(facts) for facts in (base, chosen)), strict=True)
    rows = [[title, *pair, note] for title, pair, note in zip(titles, cells, notes, strict=True)]
    return markdown_table(("", "base model", chosen["name"], "difference"), rows)


def _shown(facts: Facts) -> list[str]:
    """Size, time and scores of a model."""
    return [
        f"{facts['parameters']:,}",
        f"{facts['bytes'] / 1e6:.3f}",
        f"{facts['microseconds']:.2f}",
        shown_auc(facts),
        f"{facts['logloss']:.4f}",
    ]
