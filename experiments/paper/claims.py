"""Each claim of the paper, judged by the records of results that are there.

It trains nothing: the page names the commands that make what is missing, or that add seeds.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common is

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
import tyro
from claim_figure import draw_claims
from claim_list import CLAIMS
from claim_records import Found, judge_log, lacking, read_records
from matplotlib.figure import Figure

from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import link, markdown
from ihas_jax.reporting.comparison import paired_gain
from ihas_jax.reporting.drawing import figure_names

_CLAIM_HEADERS = ("#", "claim", "paper", "measure", "of interest from")
_HEADERS = (
    *("#", "verdict", "against", "gain", "seeds", "p", "above 0", "below the effect of interest"),
    *("power", "seeds for 0.8"),
)
_ABOUT = (
    "A claim is that all of its gains are positive; the one with the smallest mean is shown, with "
    "its standard deviation over the seeds. *Holds*: every gain is above 0. *Does not*: some gain "
    "is below the smallest effect of interest, of which a gain that is below 0 is a case. Both by "
    "paired t-tests by seed, at a level of {level:g}; their p-values, *above 0* and *below the "
    "effect of interest*, are corrected for the claims that are tested on a log (Holm), and for "
    "the number of gains of a claim. *Can't be told*: neither. p: that of the gain that is shown, "
    "not corrected. "
    "Power: the chance that the test, at the level at which Holm's procedure ended, would have "
    "found the smallest effect of interest at the deviation that was observed, for the gain with "
    "the largest one; the last column is the number of seeds that it takes for a chance of 0.8. "
    "The tests are about other seeds on the same rows: they do not say what other rows, or the "
    "full logs, on which the paper's numbers are, would show."
)
_CAPTION = (
    "The weakest gain of each claim in units of its smallest effect of interest (dotted line), "
    "with intervals of 95 % that are not corrected. Numbers are those of the claims."
)


@dataclass(frozen=True)
class Arguments:
    """Judges each claim of the paper by records of results, and trains nothing.

    The page names the commands that make what is missing, or that add seeds.
    """

    records: Path = Path("experiments/results")
    """The folder with the JSON files that the scripts of the tables and figures write."""
    results: Path | None = None
    """The path of the results, without their endings .md, .json and .png; by default claims in the
    folder of the records."""
    logs: tuple[str, ...] = ("avazu", "criteo", "movielens")
    """The names of the logs in the records."""
    seeds: int = 5
    """The number of seeds that a claim should have on each log."""
    level: float = 0.05
    """The chance, on each log, of any wrong verdict that a claim holds, and of any that one does
    not."""


def main() -> None:
    """Parses the command line, reads the records, writes page and figure."""
    arguments = tyro.cli(Arguments)
    records = read_records(arguments.records, arguments.logs)
    if not records:
        raise InputError(f"{arguments.records} holds no record. Run the scripts of paper/ first.")
    if not 0 < arguments.level < 1 or arguments.seeds < 2:
        raise InputError("--level must lie between 0 and 1, and --seeds must be at least 2.")
    found = {log: judge_log(records, log, arguments.level) for log in arguments.logs}
    results = arguments.results or arguments.records / "claims"
    names = figure_names([*found], "log")

    def draw() -> Figure:
        return draw_claims(dict(zip(names.texts, found.values(), strict=True)))

    missing = common.write_results(
        results,
        {"logs": {log: facts_of(own) for log, own in found.items()}},
        lambda: lines_of(found, arguments, results.name),
        {".png": draw},
        names,
    )
    common.print_results(results, missing)


def facts_of(found: Sequence[Found]) -> list[dict[str, object]]:
    """All numbers of a log as JSON."""
    facts = []
    for one in found:
        about = {"claim": one.claim.text, "smallest": one.claim.smallest, "verdict": one.verdict}
        own = {} if one.judged is None else one.judged._asdict()
        facts.append(about | own | ({"evidence": own["evidence"]._asdict()} if own else {}))
    return facts


def lines_of(found: Mapping[str, Sequence[Found]], arguments: Arguments, name: str) -> list[str]:
    """The lines of the Markdown file."""
    rows = []
    for number, claim in enumerate(CLAIMS, start=1):
        least = f"{claim.smallest:g} ({claim.unit})"
        verdicts = [own[number - 1].short for own in found.values()]
        rows.append([str(number), claim.text, claim.place, claim.measure, least, *verdicts])
    headers, texts = (*_CLAIM_HEADERS, *map(markdown, found)), range(1, 5 + len(found))
    lines = ["# The claims of the paper", "", *common.markdown_table(headers, rows, [*texts]), ""]
    lines += [f"![Gains]({link(name)}.png)", "", _CAPTION, ""]
    for log, own in found.items():
        table = common.markdown_table(_HEADERS, [*map(row_of, range(1, len(own) + 1), own)], (1, 2))
        lines += [f"## {markdown(log)}", "", *table, ""]
    lines += [*commands_of(found, arguments.seeds), ""]
    return [*lines, _ABOUT.format(level=arguments.level), "", *common.machine(), ""]


def row_of(number: int, one: Found) -> list[str]:
    """The row of a claim in the table of a log."""
    if one.judged is None:
        return [str(number), one.verdict, *[""] * (len(_HEADERS) - 2)]
    found, digits = one.judged, 4 if one.claim.smallest < 0.01 else 2
    gain = paired_gain(found.gains, [0.0] * len(found.gains))
    return [
        *(str(number), f"**{found.verdict}**", found.weakest.replace("_", " ")),
        *(f"{gain.spread:+.{digits}f}", str(len(found.gains)), gain.p_text),
        *(gain._replace(p=p).p_text for p in found.evidence),
        f"{found.power:.2f}" if found.power == found.power else "",
        "" if found.needed is None else str(found.needed),
    ]


def commands_of(found: Mapping[str, Sequence[Found]], seeds: int) -> list[str]:
    """What makes the records that are missing, or that have fewer seeds than wanted."""
    commands = lacking(found, seeds)
    if not commands:
        return [f"Every claim that can be tested has {seeds} seeds."]
    lines = [
        f"What is missing for {seeds} seeds of each claim, into a folder of its own; then judge by "
        "`python experiments/paper/claims.py --records runs/claims`:",
        "",
        "```bash",
    ]
    for command, numbers in commands.items():
        record = CLAIMS[numbers[0] - 1].record
        lines.append(f"# claims {', '.join(map(str, numbers))}")
        if record == "{log}":
            record = command.partition("--data data/")[2].partition(" ")[0]
        lines.append(f"python {command} --results runs/claims/{record}")
    return [*lines, "```"]


if __name__ == "__main__":
    run_cli(main)
