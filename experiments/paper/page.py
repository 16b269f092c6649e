"""The page of reproduce.py: the paper's numbers, ours, and the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import table2_overall
import table3_transfer
import table4_ablation
from costs import duration
from steps import ABLATIONS, METHODS, MODELS, Done

from ihas_jax.config import Config
from ihas_jax.files import null_to_nan, read_json
from ihas_jax.reporting.comparison import spread
from ihas_jax.reporting.scores import titles

PAPER_ROWS = {"avazu": 40_400_000, "criteo": 45_840_617}
"""The rows of the paper's logs (Table 1)."""
_METRICS = ("auc", "logloss")
_HEADERS = (
    *("AUC, paper", "ours", "difference", "logloss, paper", "ours", "difference"),
    *("gain over base in AUC, paper", "ours"),
)
_ABOUT = (
    "Test split. Ours: mean ± standard deviation over {} seeds; differences are ours minus the "
    "paper's, which has no deviations, another split, and no number where a cell is empty. Gains "
    "are from the base model of the same table, in Table 3 from the original of the same model."
)
_FIGURES = {
    "Figure 3, gate probabilities without and with the polarisation": "figures/figure3.png",
    "Figure 4, the time of prediction": "figure4.png",
    "Figure 5, kept coordinates of each field": "figures/figure5.png",
    "Figure 6, own and other clusters": "figure6.png",
}
Numbers = Sequence[float]
"""AUC and logloss."""


def content_of(folder: Path) -> dict[str, Any]:
    """The paper's numbers and ours, by table, log and row.

    Returns:
      For each row `paper` (AUC and logloss, or none), `ours` (these by seed), and `base`, the row
      that its gain is from.
    """
    tables: dict[str, Any] = {}
    for log, runs in _logs(folder / "table2").items():
        paper = {m: table2_overall.PAPER.get(m, {}).get(log) for m in ("none", *METHODS)}
        tables[f"Table 2, {log}"] = _rows(runs, paper, "none")
    for log, runs in _logs(folder / "table4").items():
        paper = {row: table4_ablation.PAPER[row] if log == "avazu" else None for row in ABLATIONS}
        tables[f"Table 4, {log}"] = _rows(runs, paper, "base")
    for log, models in _logs(folder / "table3").items():
        rows = tables[f"Table 3, {log}"] = {}
        for model in (model for model in MODELS if model in models):
            given = [*zip(*(table3_transfer.PAPER[model][m] for m in _METRICS), strict=True)]
            methods = ("original", "adafs_soft", "ihas")
            numbers = given if log == "avazu" else [None] * len(methods)
            own = _rows(models[model], dict(zip(methods, numbers, strict=True)), "original")
            rows |= {f"{model}, {name}": row for name, row in own.items()}
    return tables


def _logs(results: Path) -> dict[str, Any]:
    """The scores by log; none until the table is begun."""
    path = Path(f"{results}.json")
    logs: dict[str, Any] = null_to_nan(read_json(path)["logs"]) if path.exists() else {}
    return logs


def _rows(
    runs: Mapping[str, common.Runs], paper: Mapping[str, Numbers | None], base: str
) -> dict[str, Any]:
    return {
        name: {
            "paper": None if given is None else [*given],
            "ours": {m: [run[m] for run in runs[name]] for m in _METRICS},
            "paper_gain": _paper_gain(given, paper[base]) if name != base else None,
            "our_gain": [
                own["auc"] - of_base["auc"]
                for own, of_base in zip(runs[name], runs[base], strict=True)
            ]
            if name != base
            else None,
        }
        for name, given in paper.items()
        if name in runs
    }


def _paper_gain(given: Numbers | None, base: Numbers | None) -> float | None:
    return None if given is None or base is None else given[0] - base[0]


def write(
    folder: Path,
    rows: Mapping[str, int],
    seeds: int,
    done: Done,
    expected: Mapping[str, float | None],
    config: Config,
) -> tuple[str, ...]:
    """Writes the page of what is there so far as Markdown and JSON into a folder.

    Args:
      folder: the folder of the results of all steps.
      rows: the rows of each log.
      seeds: the number of seeds.
      done: the steps with their seconds.
      expected: the seconds that were expected of a step, by its name.
      config: what was trained.

    Returns:
      The files that could not be made.
    """
    tables = content_of(folder)
    content = {"tables": tables, "rows": dict(rows), "seeds": seeds, "steps": done.steps}

    def lines() -> list[str]:
        body = [_logs_line(rows), "", _ABOUT.format(seeds), ""]
        for name, own in tables.items():
            cells = [_cells(row, titles_of(row), own[row]) for row in own]
            body += [f"## {name}", "", *common.markdown_table(("", *_HEADERS), cells), ""]
        figures = [f"- [{n}]({file})" for n, file in _FIGURES.items() if (folder / file).exists()]
        costs = [
            [name, duration(own) if (own := expected.get(name)) else "", duration(one["seconds"])]
            for name, one in done.steps.items()
        ]
        body += ["## Figures", "", *figures, "", "## Costs", ""]
        body += common.markdown_table(("step", "expected, at least", "took"), costs)
        return common.report("The paper's numbers and ours", body, config)

    return common.write_results(folder / "page", content, lines)


def titles_of(row: str) -> str:
    """The name of a row on the page."""
    model, _, method = row.rpartition(", ")
    names = {"none": "base", "base": "base", "original": "original", **titles()}
    names |= {f"ihas_{n}": f"iHAS-{n}" for n in range(1, 5)}
    return ", ".join(part for part in (model, names.get(method, method)) if part)


def _logs_line(rows: Mapping[str, int]) -> str:
    said = [f"{log} {own:,} (the paper: {PAPER_ROWS[log]:,})" for log, own in rows.items()]
    return f"Rows of the logs: {'; '.join(said)}."


def _cells(row: str, title: str, found: Mapping[str, Any]) -> list[str]:
    cells = [title]
    for i, metric in enumerate(_METRICS):
        own, paper = found["ours"][metric], found["paper"]
        cells.append("" if paper is None else f"{paper[i]:.4f}")
        cells.append(f"{spread(own):.4f}")
        cells.append("" if paper is None else f"{np.mean(own) - paper[i]:+.4f}")
    gain, ours = found["paper_gain"], found["our_gain"]
    cells.append("" if gain is None else f"{gain:+.4f}")
    cells.append("" if ours is None else f"{spread(ours):+.4f}")
    return cells
