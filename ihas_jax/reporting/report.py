"""The `report.md` of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ihas_jax.config import Config
from ihas_jax.names import markdown
from ihas_jax.reporting.answers import answers
from ihas_jax.reporting.drawing import FigureNames
from ihas_jax.reporting.figures import History
from ihas_jax.reporting.provenance import provenance
from ihas_jax.reporting.scores import score_rows, titles, versus
from ihas_jax.stages.advice import Advice, advise, best_epoch
from ihas_jax.training.metrics import auc_text

_IN_SAMPLE = (
    "Where gates learn from validation rows, as those of iHAS do, the validation AUC of `search` "
    "is of rows that the search has seen, unless `--search.stopping-share` keeps some apart."
)


def render_report(
    config: Config, metrics: dict[str, Any], histories: dict[str, History], names: FigureNames
) -> str:
    """The text of `report.md`, which shows the files of `figures/`.

    Args:
      config: the config of the run.
      metrics: the content of metrics.json.
      histories: epochs of each training.
      names: the names of the fields in the figures.
    """
    lines = [*answers(metrics), "", "## What to try next", ""]
    lines += [*_advice(advise(config, metrics, histories)), "", "## Test split", ""]
    gain = f"AUC {versus(metrics)}"
    lines += [f"| model | AUC | logloss | parameters | {gain} |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in score_rows(metrics)]
    noise = (
        "A difference below 0.001 is within the noise of one seed; with few rows, larger ones are."
    )
    lines += ["", noise, ""]
    lines += _teachers(metrics)
    if "clusters" in metrics:
        lines += _clusters(metrics)
    if "selection" in metrics:
        lines += _selection(metrics["selection"])
    lines += [names.note(markdown), ""] if names.stand_ins else []
    lines += [
        "## Training",
        "",
        *_training_table(histories),
        "",
        *([_IN_SAMPLE, ""] if "search" in histories and not config.search.stopping_share else []),
        "![Learning curves](figures/learning_curves.png)",
        "",
        "## Time",
        "",
        "| stage | seconds |",
        "|---|---:|",
        *_seconds(metrics["seconds"]),
        "",
        "## How it was made",
        "",
        *provenance(config),
        "",
    ]
    return "\n".join(lines)


def _advice(found: Sequence[Advice]) -> list[str]:
    """A line for each thing to try."""
    if not found:
        return ["Nothing: no rule for what may go wrong in a run found anything."]
    return [f"- {advice.found} {advice.remedy}" for advice in found]


def _seconds(seconds: dict[str, float]) -> list[str]:
    """A row for each stage, and one for the time of all stages in which programs were compiled."""
    names = {name: "of these, compiling" if name == "compiling" else name for name in seconds}
    return [f"| {names[name]} | {value:.1f} |" for name, value in seconds.items()]


def _teachers(metrics: dict[str, Any]) -> list[str]:
    """What the base model has learnt from, where the models beside it have teachers."""
    if "teacher" not in metrics:
        return []
    lines = [
        "The base model has learnt from clicks, so a difference from it shows what the teachers "
        "give, too."
    ]
    names = metrics["teacher"]["models"]
    if "student" in metrics:
        lines.append("A method with these teachers is worth what it adds to the student.")
    elif "search" not in names:
        lines.append(
            f"To see what {titles()[metrics['method']]} gives, compare it with the student of a "
            f"run with `--method none --retrain.teachers {' '.join(names)}`: the full-size model "
            "that learns from the same teachers."
        )
    return [" ".join(lines), ""]


def _clusters(metrics: dict[str, Any]) -> list[str]:
    method = metrics["method"]
    routing, title = metrics[method]["router_parameters"], titles()[method]
    return [
        f"Parameters of {title} are those of the compact models of its "
        f"{len(metrics['clusters'])} clusters."
        + (f" Routing an instance needs {routing:,} more: {_router(metrics)}." if routing else ""),
        "",
        *_compiled(metrics.get("router")),
        "## Clusters",
        "",
        *_cluster_table(metrics["clusters"]),
        "",
        "![Kept coordinates per field and cluster](figures/widths.png)",
        "",
        *([*_kmeans_table(metrics["kmeans"]), ""] if "kmeans" in metrics else []),
        *(_gates(metrics) if metrics.get("gates", True) else []),
    ]


def _router(metrics: dict[str, Any]) -> str:
    """What routing needs: K-means of rows has a curve, and groups of values have none."""
    if metrics.get("router", {}).get("kept"):
        return "a score of each value for each cluster but one"
    if "kmeans" in metrics:
        return "the searched tables, the gates if there are any, and the centroids"
    return "the group of each value of a field"


def _compiled(router: dict[str, Any] | None) -> list[str]:
    """What a compiled router is beside the exact one."""
    if router is None:
        return []
    if not router["kept"]:
        return [
            f"A compiled router would send {router['agreement']:.1%} of the validation rows the "
            "same way as the exact one, fewer than `--cluster.min-agreement` asks for, so the "
            "exact one is kept.",
            "",
        ]
    own, exact = router["compiled"], router["exact"]
    return [
        f"The compiled router sends {router['test_agreement']:.1%} of the test rows to the same "
        f"cluster as the exact one. It needs {own['parameters']:,} parameters in place of "
        f"{exact['parameters']:,}, and {own['microseconds']:.2f} µs per row in place of "
        f"{exact['microseconds']:.2f}.",
        "",
    ]


def _gates(metrics: dict[str, Any]) -> list[str]:
    return [
        "## Gates",
        "",
        f"The searched model keeps {metrics['search']['kept']:.1%} of the coordinates of an "
        "average test instance.",
        "",
        "![Histogram of gate probabilities](figures/probabilities.png)",
        "",
    ]


def _selection(selection: dict[str, Any]) -> list[str]:
    return [
        "## Selection",
        "",
        f"{selection['kept']:.1%} of the embedding table's numbers are kept.",
        "",
        "| field | kept coordinates, mean over its values |",
        "|---|---:|",
        *(f"| {markdown(name)} | {width:.1f} |" for name, width in selection["widths"].items()),
        "",
        "![Kept coordinates per field](figures/widths.png)",
        "",
    ]


def _cluster_table(clusters: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| cluster | share of rows | kept coordinates | test AUC | test logloss | served by |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for c, cluster in enumerate(clusters):
        test = cluster["test"]
        scores = f"{auc_text(test)} | {test['logloss']:.4f}" if test else "no rows | no rows"
        served = cluster["model"]
        if cluster["fallback"]:
            served += f" ({cluster['fallback']})"
        lines.append(
            f"| {c} | {cluster['share']:.1%} | {cluster['kept']:.1%} | {scores} | {served} |"
        )
    names = clusters[0]["widths"]
    lines += ["", f"| field | {' | '.join(f'cluster {c}' for c in range(len(clusters)))} |"]
    lines.append(f"|---|{'---:|' * len(clusters)}")
    for name in names:
        widths = " | ".join(f"{cluster['widths'][name]:.3g}" for cluster in clusters)
        lines.append(f"| {markdown(name)} | {widths} |")
    return lines


def _kmeans_table(curve: list[dict[str, float]]) -> list[str]:
    return [
        "| rows seen by K-means | mean squared distance to the nearest centroid |",
        "|---:|---:|",
        *(f"| {point['rows']:,} | {point['inertia']:.6f} |" for point in curve),
    ]


def _training_table(histories: dict[str, History]) -> list[str]:
    lines = [
        "| run | epochs | best epoch | validation AUC | logloss |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, history in histories.items():
        best = best_epoch(history)
        lines.append(
            f"| {name} | {sum(facts['epoch'] >= 0 for facts in history)} | "
            f"{'the start' if best['epoch'] < 0 else best['epoch']} | {auc_text(best)} | "
            f"{best['logloss']:.4f} |"
        )
    return lines
