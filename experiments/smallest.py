"""What compression leaves on each log, over several seeds: the smallest good model beside its base.

The same student on clicks, and the base model of full size with the teachers, tell what is owed to
the teachers. The same command resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import common
import tyro
from command_line import parse
from comparison import LogComparison, Record
from compress import HIDDEN
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ihas_jax.config.bounds import Positive
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import run_cli
from ihas_jax.files import nan_to_null
from ihas_jax.flags import option_kinds
from ihas_jax.pipeline.compress import compress, plain_config
from ihas_jax.pipeline.workdir import start_from
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import spread
from ihas_jax.stages.pool import FOLDER as POOL

_HEADERS = (
    *("log", "base AUC", "smaller by", "in bytes", "chosen", "p", "chosen, logloss", "p"),
    *("student on clicks", "base, taught", "time"),
)
_ABOUT = (
    "Means over the seeds with standard deviations. The base AUC is that of the base model's best "
    "trial on validation rows; 'smaller by' is its number of parameters over that of the chosen "
    "model, with the least of all seeds in brackets; 'in bytes' is the same of their bytes, which "
    "count which numbers of a table are kept, too; 'time' is the time of prediction for a row over "
    "that of the base. The other columns are differences from the base of the same seed in "
    "test AUC or logloss, and p is that of a paired t-test. The student on clicks is the chosen "
    "model without teachers, or the chosen model itself where that has learnt from clicks; the "
    "taught base has all of its parameters. In the figure, other models are those of all seeds "
    "that were not chosen; those that are far below the base are left out."
)
_BOTTOM = -0.006
"""The least difference in AUC that the figure shows of models that were not chosen."""
_SHOWN = ("auc", "logloss", "valid_auc", "valid_logloss", "parameters", "bytes", "microseconds")
Scores = dict[str, list[dict[str, Any]]]
"""Facts by seed: of base, chosen model, taught base, and the chosen student on clicks."""


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "compact"
    """The values that the other flags start from."""
    output: Path = Path("runs/smallest")
    workers: Positive[int] | None = None
    """The number of processes that train beside each other, each with one thread; by default
    as many as there are cores and memory for, up to four, and one where JAX sees an accelerator."""
    choices: Annotated[CompressConfig, tyro.conf.arg(name="")] = field(
        default_factory=CompressConfig
    )


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = parse(Arguments, __doc__, hidden=(*HIDDEN, *option_kinds()))
    arguments.require_pairs()
    record = Record(arguments, {"choices": nan_to_null(asdict(arguments.choices))})
    missing: tuple[str, ...] = ()
    for name, data in arguments.open_logs().items():
        scores = record.scores_of(name, data)
        for i, seed in enumerate(arguments.seed_range):
            if len(scores.get("base", ())) > i:
                continue
            say(f"[{name}, seed {seed}]")
            for kind, facts in score(arguments, data, f"{name}_{seed}", seed).items():
                scores.setdefault(kind, []).append(facts)
            record.save()
        missing = _write(record)
    common.print_results(arguments.destination, missing)


def score(arguments: Arguments, data: Dataset, name: str, seed: int) -> dict[str, dict[str, Any]]:
    """Facts of one compression, and of the chosen student without teachers."""
    config, choices = replace(arguments.config, seed=seed), arguments.choices

    def metrics_of(choices: CompressConfig, name: str) -> dict[str, Any]:
        folder = arguments.output / name
        return compress(config, choices, data, folder, workers=arguments.workers).metrics

    metrics = metrics_of(choices, name)
    base, chosen = metrics["base"], metrics["chosen"]
    found = {"base": base, "chosen": chosen, "taught": metrics["students"][0], "clicks": chosen}
    if chosen["taught"]:
        student, selection, _ = chosen["name"].split(", ")
        alone = replace(
            choices,
            teachers=(),
            students=() if student == config.model.name else (student,),
            selections=(selection,),
            budget=(chosen["budget"],),
        )
        folder = arguments.output / name
        bases = list(folder.glob(f"{POOL}/{config.model.name}_*"))
        start_from(folder, arguments.output / f"{name}_clicks", bases)
        candidates = metrics_of(alone, f"{name}_clicks")["candidates"]
        found["clicks"] = next(one for one in candidates if one["name"] == chosen["name"])
    facts = {
        kind: {key: one[key] for key in ("name", *_SHOWN) if key in one}
        for kind, one in found.items()
    }
    facts["chosen"]["front"] = [
        {key: one[key] for key in ("name", *_SHOWN)} for one in metrics["candidates"]
    ]
    return facts


def row_of(name: str, scores: Scores) -> list[str]:
    """The row of a log."""
    base, chosen = scores["base"], scores["chosen"]
    times, of_bytes = (_ratios(base, chosen, size) for size in ("parameters", "bytes"))
    cells = [name, common.spread_cell(base, "auc")]
    cells += [f"{spread(times):.1f} ({min(times):.1f})", f"{spread(of_bytes):.1f}"]
    for metric in ("auc", "logloss"):
        cells += common.gain_cells(base, chosen, metric)
    for other in ("clicks", "taught"):
        cells.append(f"{common.gain_over(base, scores[other], 'auc').spread:+.4f}")
    return [*cells, f"{spread(_ratios(chosen, base, 'microseconds')):.2f}"]


def _ratios(over: common.Runs, under: common.Runs, metric: str) -> list[float]:
    return [a[metric] / b[metric] for a, b in zip(over, under, strict=True)]


def _write(record: Record) -> tuple[str, ...]:
    arguments: Any = record.arguments
    logs: dict[str, Scores] = record.logs

    def lines() -> list[str]:
        table = common.markdown_table(_HEADERS, [row_of(*log) for log in logs.items()])
        names = [f"- {log}: {_names(scores)}" for log, scores in logs.items()]
        figure = f"![Test AUC against parameters]({arguments.destination.name}.png)"
        body = [_ABOUT, "", *table, "", "Chosen models, by seed:", "", *names]
        body += ["", "What was tried:", "", *_tried(arguments.choices)]
        config = plain_config(arguments.config)
        return common.report("The smallest good model", body, config, figure)

    figures = {".png": lambda: draw(logs)}
    return common.write_results(arguments.destination, record.content, lines, figures)


def _names(scores: Scores) -> str:
    return "; ".join(one["name"] for one in scores["chosen"])


def draw(logs: Mapping[str, Scores]) -> Figure:
    """Gains in test AUC against parameters: sizes of all seeds, and what was chosen."""
    figure, axes = common.panels(len(logs), min(len(logs), 2), (9, 3.2 * -(-len(logs) // 2)))
    for panel, (name, scores) in zip(axes, logs.items(), strict=True):
        pairs = list(zip(scores["base"], scores["chosen"], strict=True))
        sizes = [(f, base) for base, chosen in pairs for f in chosen["front"][1:]]
        _points(panel, sizes, marker=".", color="#b8c4d6", label="other models")
        chosen = [(one, base) for base, one in pairs]
        _points(panel, chosen, marker="o", color=common.RED, label="chosen, by seed")
        panel.axhline(0, color="black", lw=0.8)
        panel.plot(1, 0, "k*", ms=11, label="base model")
        panel.set(xscale="log", title=name, xlabel="parameters, share of the base model's")
        panel.set_ylim(bottom=min(_BOTTOM, 1.2 * min(one["auc"] - b["auc"] for b, one in pairs)))
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_ylabel("test AUC minus the base's")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _points(
    panel: Any, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], **style: str
) -> None:
    """Points of models beside the base of their seed."""
    xs = [one["parameters"] / base["parameters"] for one, base in pairs]
    panel.plot(xs, [one["auc"] - base["auc"] for one, base in pairs], ls="none", **style)


def _tried(choices: CompressConfig) -> list[str]:
    """The flags of a compression and their values, as Markdown."""
    values = {name: v if isinstance(v, tuple) else [v] for name, v in asdict(choices).items()}
    return [f"- `--{n.replace('_', '-')} {' '.join(map(str, v))}`" for n, v in values.items()]


if __name__ == "__main__":
    run_cli(main)
