"""Table 4: the base model, four baselines, variants of iHAS and iHAS itself, over several seeds.

With teachers, the base model learns from them as iHAS does. The same command resumes after an
interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from command_line import parse
from compare import Variant
from comparison import LogComparison, Record
from reference import full_size, reference_of
from rendering import tabulate

from ihas_jax.config import Config
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.pipeline.idle import for_method
from ihas_jax.selectors.registry import METHODS

Baseline = Literal["uniform", "mixed", "magnitude", "random"]
Ablation = Literal["ihas_1", "ihas_2", "ihas_3", "ihas_4", "ihas_shared", "ihas"]
PAPER = {
    "base": (0.7765, 0.3818),
    "ihas_1": (0.7772, 0.3813),
    "ihas_2": (0.7767, 0.3816),
    "ihas_3": (0.7801, 0.3800),
    "ihas_4": (0.7768, 0.3817),
    "ihas": (0.7815, 0.3791),
}
"""AUC and logloss in the paper, on the full Avazu log."""

_DECIDING = 0.5
"""The share of validation rows that decide about clusters over one table, and move no gate."""
_NOTE = (
    "The baselines keep a quarter of the table by default and learn no gates. iHAS-1 is the "
    "searched model itself, iHAS-2 one compact model for all rows, iHAS-3 has no polarisation in "
    "the regulariser, the gates of iHAS-4 do not depend on the instance. The clusters of iHAS over "
    "one table go on from one compact model, and have networks of their own only where these are "
    "better on validation rows that moved no gate."
)


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    variants: tuple[Literal["base", Baseline, Ablation], ...] = (
        "base",
        *get_args(Baseline),
        *get_args(Ablation),
    )
    """The rows of the table; base is always included and comes first."""
    output: Path = Path("runs/table4")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_pairs()
    if arguments.config.method != "ihas":
        raise InputError("These are ablations of iHAS; leave --method out.")
    wanted = ("base", *arguments.variants)
    variants = [row for row in rows_of(arguments) if row.name in wanted]
    record = Record(arguments, reference_of(arguments.config).identity)
    tabulate(record, "Table 4: ablations of iHAS", lambda name, data: variants, lambda: _NOTE)


def rows_of(arguments: LogComparison) -> list[Variant]:
    """The rows of the table, base first, which learns from the teachers if there are any."""
    config, reference = arguments.config, reference_of(arguments.config)
    alike = for_method(replaced(config, "gates.instance_wise", False))
    shared = replaced(config, "retrain.start", "shared")
    if not config.search.stopping_share:
        shared = replaced(shared, "search.stopping_share", _DECIDING)

    def variant(name: str, title: str, key: str, config: Config) -> Variant:
        # runs have the names of Table 2, so that both tables can share a folder
        run = {reference.key: "none", "search": "ihas"}.get(key, name)
        paper = {"avazu": PAPER[name]} if name in PAPER else {}
        return Variant(name, run, title, config, key, paper)

    return [
        variant("base", reference.title, reference.key, full_size(config)),
        *(
            variant(name, METHODS[name].title, name, arguments.config_of(name))
            for name in get_args(Baseline)
        ),
        variant("ihas_1", "iHAS-1", "search", config),
        variant("ihas_2", "iHAS-2", "ihas", replaced(config, "cluster.clusters", 1)),
        variant("ihas_3", "iHAS-3", "ihas", replaced(config, "gates.polarization", False)),
        variant("ihas_4", "iHAS-4", "ihas", alike),
        variant("ihas_shared", "iHAS, one table", "ihas", shared),
        variant("ihas", "iHAS", "ihas", config),
    ]


if __name__ == "__main__":
    run_cli(main)
