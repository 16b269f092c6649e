"""Sentences on a compression: what its words mean, why the choice, and how sure the gain is."""

from __future__ import annotations

import math

from ihas_jax.reporting.front_table import Facts

_NEAREST = 3
WORDS = """\
A name has the click model, how it was made smaller, and the share that it keeps of the numbers in \
the base model's embedding table. `spectral` turns the embeddings of a trained model to their \
principal axes, removes the numbers that are worth least, and trains on; `uniform` trains a model \
whose embeddings are shorter for all values alike. 'Smaller by' is the base model's number of \
parameters over the model's own. MB counts the numbers that a model keeps, as float32, and the \
record of which ones, as a bundle stores them; once loaded, a `spectral` model has a zero in place \
of each other number. µs per row is the time of a prediction from ids to probabilities, of up to \
100,000 rows at once where it was measured. A model is on the front if no other one is at least as \
good on validation rows, at least as small, at least as fast, and better in one of these; times \
are rounded to powers of 1.25 for that, since a machine measures no better. Models that are 'not \
cut' are no candidates."""
"""What names and columns mean."""


def sureness(gain: Facts) -> str:
    """How sure the difference in test AUC from the base model is."""
    if not math.isfinite(gain["low"]):
        return (
            "The test rows are too few, or of one class, to say how sure the difference in AUC is."
        )
    verdict = "beyond" if gain["low"] > 0 or gain["high"] < 0 else "within"
    return (
        f"The difference in test AUC, {signed(gain['auc'])}, is {verdict} the noise of the test "
        f"rows: with 95 % certainty it lies between {signed(gain['low'])} and "
        f"{signed(gain['high'])} for these two models. Models of other seeds would differ, too; "
        "experiments/smallest.py compares several seeds."
    )


def chance(metrics: Facts) -> str:
    """That the chosen model may rank no better than chance; empty if it does rank better."""
    above = metrics["chance"]
    if not above["low"] <= 0:
        return ""
    return (
        "The chosen model is not known to rank better than chance, which has an AUC of 0.5: its "
        f"test AUC lies between {0.5 + above['low']:.4f} and {0.5 + above['high']:.4f} with "
        "95 % certainty. Either the fields say nothing of the labels, or the rows are too few."
    )


def calibration(metrics: Facts) -> str:
    """The logloss of the click rate, and which of base and chosen model have none below it."""
    rate = metrics["rows"]["logloss_of_rate"]
    said = (
        "A model that predicts the click rate of the training rows for every row has a test "
        f"logloss of {rate:.4f}"
    )
    models = {metrics[key]["name"]: metrics[key]["logloss"] for key in ("base", "chosen")}
    worse = [name for name, own in models.items() if own >= rate]
    return said + (f"; the logloss of {' and '.join(worse)} is not below it." if worse else ".")


def taught(metrics: Facts) -> str:
    """What the models have learnt from."""
    names = metrics["teachers"]
    if not names:
        return "All models learn from clicks."
    counts = {name: names.count(name) for name in names}
    shown = ", ".join(
        name if n == 1 else f"{name} (counts {n} times)" for name, n in counts.items()
    )
    return (
        "The base model and models 'on clicks' learn from clicks; the others learn the mean "
        f"prediction of the teachers, which were chosen on validation rows and whose mean is no "
        f"candidate: {shown}."
    )


def choice(metrics: Facts) -> str:
    """Why the chosen model, and no smaller one."""
    choices, chosen = metrics["choices"], metrics["chosen"]
    ranked = math.isfinite(chosen["valid_auc"])
    key, word, sign = ("valid_auc", "AUC", 1) if ranked else ("valid_logloss", "logloss", -1)
    best = max(metrics["candidates"], key=lambda facts: sign * facts[key])

    def behind(facts: Facts) -> float:
        return abs(best[key] - facts[key])

    def allowed(facts: Facts) -> float:
        return choices["tolerance"] + facts["valid_doubt"]

    doubt, errors = "", choices["standard_errors"]
    # there are none where the base model is the best, or a class has a single row
    if errors and any(facts["valid_doubt"] for facts in metrics["candidates"]):
        doubt = (
            f" plus {errors:g} standard errors of the difference (`--standard-errors`), since few "
            "rows can't tell models apart, but no further below the base model than the tolerance"
        )
    smaller = [f for f in metrics["candidates"] if f["parameters"] < chosen["parameters"]]
    nearest = sorted(smaller, key=behind)[:_NEAREST]
    others = "; ".join(
        f"{f['name']} is behind by {behind(f):.5f}, where {allowed(f):.5f} are allowed"
        for f in nearest
    )
    return (
        f"The best of the {len(metrics['candidates'])} candidates on validation rows is "
        f"{best['name']}, with {_article(word)} of {best[key]:.4f}. Another one may be behind it "
        f"by {choices['tolerance']:g} (`--tolerance`){doubt}. "
        f"{chosen['name']} is behind by {behind(chosen):.5f}, where {allowed(chosen):.5f} are "
        "allowed, and is the smallest such model. "
        + (f"The nearest of {len(smaller)} that are smaller: {others}. " if smaller else "")
        + "The test rows chose nothing. Validation rows did, so their AUC of the chosen model is a "
        "little too high."
    )


def _article(word: str) -> str:
    return f"an {word}" if word == "AUC" else f"a {word}"


def verdict(metrics: Facts) -> str:
    """The chosen model in a sentence or two, for a terminal."""
    base, chosen = metrics["base"], metrics["chosen"]
    if chosen["name"] == base["name"]:
        return "Chosen: the base model, since no smaller one is good enough."
    size = times(base["parameters"] / chosen["parameters"], "fewer", "more")
    return (
        f"Chosen: {chosen['name']}, with {chosen['parameters']:,} parameters, {size} than the base "
        f"model. {sureness(metrics['gain'])}" + (f" {text}" if (text := chance(metrics)) else "")
    )


def times(factor: float, less: str, more: str) -> str:
    """How many times less or more."""
    return f"{factor:.1f} times {less}" if factor >= 1 else f"{1 / factor:.1f} times {more}"


def signed(value: float) -> str:
    """A difference of scores."""
    return f"{value:+.4f}"
