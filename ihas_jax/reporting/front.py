"""The report of a compression: how small, how good, how fast, how sure."""

from __future__ import annotations

import math

from ihas_jax.config import Config
from ihas_jax.reporting.front_table import WORDS, Facts, markdown_front, markdown_table, shown_auc
from ihas_jax.reporting.report import provenance

_CLOSE = 1.25
"""Times whose ratio is less than this count as equal: a shared machine measures no better."""
_SHOWN = 3


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
        f"{WORDS} {_taught(metrics)}",
        "",
        "![Test AUC and logloss against size and time](figures/front.png)",
        "",
        "Filled points are models on the front; lines join the sizes of a click model.",
        "",
        "## How it was chosen",
        "",
        _choice(metrics),
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
        "A name has the click model and the coefficient of its L2 term, and where they are not "
        "the usual ones batch norm (`norm`), `dropout` and learning rate (`rate`); a number at the "
        "end tells further seeds from the first.",
        "",
        "## What next",
        "",
        "`ihas.load_bundle` of this folder gives the chosen model, whose `predict_proba` takes raw "
        "rows. compress.py with another `--tolerance` or `--standard-errors` chooses anew in this "
        "folder without training, and with other values of `--budget` trains these sizes alone.",
        "",
        "## How it was made",
        "",
        *provenance(config),
        "",
    ]
    return "\n".join(lines)


def _answer(metrics: Facts) -> list[str]:
    """The first paragraphs, and chosen and base model side by side."""
    base, chosen, rows = metrics["base"], metrics["chosen"], metrics["rows"]
    log = (
        f"The log has {rows['training']:,} training rows ({rows['clicks']:.1%} clicks), "
        f"{rows['validation']:,} validation rows and {rows['test']:,} test rows. The base model is "
        f"the best of the trials of its click model on validation rows, {base['trial']}, which "
        "learns from clicks."
    )
    if chosen["name"] == base["name"]:
        return [
            f"**No smaller model is good enough, so the base model is kept**: "
            f"{base['parameters']:,} parameters, test AUC {shown_auc(base)}, logloss "
            f"{base['logloss']:.4f}. A larger --tolerance takes a smaller one of the table below.",
            "",
            log,
        ]
    number = len(metrics["candidates"])
    gain = metrics["gain"]
    sure = _sureness(gain)
    times = {key: base[key] / chosen[key] for key in ("parameters", "bytes", "microseconds")}
    rows = [
        ["parameters", f"{base['parameters']:,}", f"{chosen['parameters']:,}"],
        ["MB", f"{base['bytes'] / 1e6:.3f}", f"{chosen['bytes'] / 1e6:.3f}"],
        ["µs per row", f"{base['microseconds']:.2f}", f"{chosen['microseconds']:.2f}"],
        ["test AUC (more is better)", shown_auc(base), shown_auc(chosen)],
        ["test logloss (less is better)", f"{base['logloss']:.4f}", f"{chosen['logloss']:.4f}"],
    ]
    same = 1 / _CLOSE < times["microseconds"] < _CLOSE
    notes = [
        _times(times["parameters"], "fewer", "more"),
        _times(times["bytes"], "less", "more"),
        "about the same" if same else _times(times["microseconds"], "less", "more"),
        _signed(gain["auc"]) if math.isfinite(gain["auc"]) else "",
        _signed(chosen["logloss"] - base["logloss"]),
    ]
    return [
        f"**{chosen['name']}** is the smallest of {number} models that is about as good as the "
        f"best of them on validation rows, {_times(times['parameters'], 'smaller', 'larger')} than "
        f"the base model. {sure}",
        "",
        *markdown_table(
            ("", "base model", chosen["name"], "difference"),
            [[*row, note] for row, note in zip(rows, notes, strict=True)],
        ),
        "",
        log,
    ]


def _sureness(gain: Facts) -> str:
    if not math.isfinite(gain["low"]):
        return (
            "The test rows are too few, or of one class, to say how sure the difference in AUC is."
        )
    verdict = "beyond" if gain["low"] > 0 or gain["high"] < 0 else "within"
    return (
        f"The difference in test AUC, {_signed(gain['auc'])}, is {verdict} the noise of the test "
        f"rows: with 95 % certainty it lies between {_signed(gain['low'])} and "
        f"{_signed(gain['high'])} for these two models. Models of other seeds would differ, too; "
        "experiments/smallest.py compares several seeds."
    )


def _taught(metrics: Facts) -> str:
    names = metrics["teachers"]
    if not names:
        return "All models learn from clicks."
    counts = {name: names.count(name) for name in names}
    shown = ", ".join(
        name if n == 1 else f"{name} (counts {n} times)" for name, n in counts.items()
    )
    return (
        "The base model and models 'on clicks' learn from clicks; the others learn the mean "
        f"prediction of the teachers, which were chosen on validation rows: {shown}."
    )


def _choice(metrics: Facts) -> str:
    """Why the chosen model, and no smaller one."""
    choices, chosen = metrics["choices"], metrics["chosen"]
    ranked = math.isfinite(chosen["valid_auc"])
    key, word, sign = ("valid_auc", "AUC", 1) if ranked else ("valid_logloss", "logloss", -1)
    best = max(metrics["candidates"], key=lambda facts: sign * facts[key])

    def behind(facts: Facts) -> float:
        return abs(best[key] - facts[key])

    def allowed(facts: Facts) -> float:
        return choices["tolerance"] + facts["valid_doubt"]

    smaller = [f for f in metrics["candidates"] if f["parameters"] < chosen["parameters"]]
    smaller = sorted(smaller, key=behind)[:_SHOWN]
    others = "; ".join(
        f"{f['name']} is behind by {behind(f):.4f}, where {allowed(f):.4f} are allowed"
        for f in smaller
    )
    return (
        f"The best model on validation rows is {best['name']}, with {_article(word)} of "
        f"{best[key]:.4f}. Another one may be behind it by {choices['tolerance']:g} "
        f"(`--tolerance`) and {choices['standard_errors']:g} standard errors of the difference "
        "(`--standard-errors`), since few rows can't tell models apart. "
        f"{chosen['name']} is behind by {behind(chosen):.4f}, where {allowed(chosen):.4f} are "
        "allowed, and is the smallest such model. "
        + (f"Of the smaller ones, {others}. " if smaller else "No smaller one was tried. ")
        + "The test rows gave the final scores alone."
    )


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _article(word: str) -> str:
    return f"an {word}" if word == "AUC" else f"a {word}"


def _times(factor: float, less: str, more: str) -> str:
    """How many times less or more."""
    return f"{factor:.1f} times {less}" if factor >= 1 else f"{1 / factor:.1f} times {more}"
