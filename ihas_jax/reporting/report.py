"""`report.md` of a run, and the table that closes it on the terminal."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from ihas_jax.config import Config, differences
from ihas_jax.method_config import MethodName
from ihas_jax.progress import console
from ihas_jax.reporting.figures import History
from ihas_jax.training.metrics import Scores

METHODS: dict[MethodName, str] = {
    "none": "base",
    "pep": "PEP",
    "autofield": "AutoField",
    "optembed": "OptEmbed",
    "adafs_soft": "AdaFS-soft",
    "adafs_hard": "AdaFS-hard",
    "optfs": "OptFS",
    "autodim": "AutoDim",
    "sseds": "SSEDS",
    "dimreg": "DimReg",
    "ihas": "iHAS",
}
"""How the methods are called in reports, in the order of the paper's Table 2."""
MODELS = {"base": "base", "search": "search"} | {k: v for k, v in METHODS.items() if k != "none"}
"""The models that metrics.json may have scores of."""
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def closing_table(metrics: dict[str, Any]) -> None:
    """Prints test metrics and parameters of the models that a run has scores of."""
    table = Table(title="Test split")
    table.add_column("model")
    for column in ("AUC", "logloss", "parameters", "vs base"):
        table.add_column(column, justify="right")
    for key in _scored(metrics):
        table.add_row(_name(metrics, key), *_cells(metrics, key))
    console.print(table)


def write_report(
    workdir: Path, config: Config, metrics: dict[str, Any], histories: dict[str, History]
) -> None:
    """Writes `report.md` from the content of metrics.json, beside `figures/`."""
    method = METHODS[metrics.get("method", "ihas")]
    lines = [f"# {method} run", "", "## Test split", ""]
    lines += ["| model | AUC | logloss | parameters | AUC vs base |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {_name(metrics, key)} | {' | '.join(_cells(metrics, key))} |"
        for key in _scored(metrics)
    ]
    lines += ["", "A difference below 0.001 is within the noise of one seed.", ""]
    if "clusters" in metrics:
        lines += _clusters(metrics)
    if "selection" in metrics:
        lines += _selection(metrics["selection"])
    lines += [
        "## Training",
        "",
        *_training_table(histories),
        "",
        "![Learning curves](figures/learning_curves.png)",
        "",
        "## Time",
        "",
        "| stage | seconds |",
        "|---|---:|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in metrics["seconds"].items()),
        "",
        "## How it was made",
        "",
        *provenance(config),
        "",
    ]
    (workdir / "report.md").write_text("\n".join(lines), encoding="utf-8")


def _scored(metrics: dict[str, Any]) -> list[str]:
    """The models with scores."""
    return [key for key in MODELS if key in metrics]


def _clusters(metrics: dict[str, Any]) -> list[str]:
    routing = metrics["ihas"]["router_parameters"]
    return [
        f"Parameters of iHAS are those of its {len(metrics['clusters'])} clusters' compact models."
        + (
            f" Routing an instance needs {routing:,} more: the searched tables, the gates and the "
            "centroids."
            if routing
            else ""
        ),
        "",
        "## Clusters",
        "",
        *_cluster_table(metrics["clusters"]),
        "",
        "![Kept coordinates per field and cluster](figures/widths.png)",
        "",
        *_kmeans_table(metrics["kmeans"]),
        "",
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
        *(f"| {name} | {width:.1f} |" for name, width in selection["widths"].items()),
        "",
        "![Kept coordinates per field](figures/widths.png)",
        "",
    ]


def _name(metrics: dict[str, Any], key: str) -> str:
    """With the click model's where a transfer has two of them."""
    models = metrics.get("models", {})
    name = "search (iHAS-1)" if key == "search" and "ihas" in metrics else MODELS[key]
    return f"{name}, {models[key]}" if len(set(models.values())) > 1 else name


def _cells(metrics: dict[str, Any], key: str) -> list[str]:
    row, models = metrics[key], metrics.get("models", {})
    same = models.get(key) == models.get("base")  # a gain over another click model says nothing
    gain = f"{row['auc'] - metrics['base']['auc']:+.4f}" if same and key != "base" else ""
    return [f"{row['auc']:.4f}", f"{row['logloss']:.4f}", f"{row['parameters']:,}", gain]


def _cluster_table(clusters: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| cluster | share of rows | kept coordinates | test AUC | test logloss | served by |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for c, cluster in enumerate(clusters):
        test = cluster["test"]
        scores = f"{test['auc']:.4f} | {test['logloss']:.4f}" if test else "no rows | no rows"
        served = cluster["model"]
        if cluster["fallback"]:
            served += f" ({cluster['fallback']})"
        lines.append(
            f"| {c} | {cluster['share']:.1%} | {cluster['kept']:.1%} | {scores} | {served} |"
        )
    names = clusters[0]["widths"]
    lines += ["", f"| field | {' | '.join(f'cluster {c}' for c in range(len(clusters)))} |"]
    lines.append(f"|---|{'---:|' * len(clusters)}")
    lines += [
        f"| {name} | {' | '.join(str(cluster['widths'][name]) for cluster in clusters)} |"
        for name in names
    ]
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
        best = max(history, key=lambda facts: Scores(facts["auc"], facts["logloss"]).objective)
        lines.append(
            f"| {name} | {len(history)} | {best['epoch']} | {best['auc']:.4f} | "
            f"{best['logloss']:.4f} |"
        )
    return lines


def provenance(config: Config) -> list[str]:
    """Lines of Markdown: hardware, versions, command, and what differs from the paper's values."""
    device = jax.devices()[0]
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    hardware = cores if device.platform == "cpu" else f"{device.device_kind}, {cores}"
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    changed = differences(Config(), config) or ["none"]
    return [
        f"- hardware: {jax.device_count()} device(s), {hardware}",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- command: `{shlex.join(_command())}`",
        f"- config values that differ from the paper's: {'; '.join(changed)}",
    ]


def _command() -> list[str]:
    script = Path(sys.argv[0])
    return ["python", script.name if script.is_absolute() else str(script), *sys.argv[1:]]
