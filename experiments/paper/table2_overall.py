"""Table 2: all selection methods on the same logs, click model, split and budget, over seeds.

With teachers, methods are compared with the full-size model that learns from them. The same command
resumes after an interruption. Flags of --search apply to the method that --method names; the others
have the values of the preset.
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

from command_line import parse
from compare import Variant
from comparison import LogComparison, Record
from reference import reference_of
from rendering import tabulate
from tuning import best_of

from ihas_jax.config import differences
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import markdown
from ihas_jax.reporting.scores import titles
from ihas_jax.selectors.registry import METHODS

PAPER = {
    "none": {"avazu": (0.7765, 0.3818)},
    "pep": {"avazu": (0.7665, 0.3874), "criteo": (0.8006, 0.4507)},
    "autofield": {"avazu": (0.7773, 0.3813), "criteo": (0.8029, 0.4490)},
    "optembed": {"avazu": (0.7630, 0.3894), "criteo": (0.7962, 0.4543)},
    "adafs_soft": {"avazu": (0.7777, 0.3812), "criteo": (0.8039, 0.4484)},
    "adafs_hard": {"avazu": (0.7763, 0.3821), "criteo": (0.8031, 0.4560)},
    "optfs": {"avazu": (0.7724, 0.3840), "criteo": (0.8015, 0.4504)},
    "ihas": {"avazu": (0.7815, 0.3791), "criteo": (0.8043, 0.4478)},
}
"""AUC and logloss of the paper's Table 2 (base: Table 4), on the full logs."""

_TEACHERS = " The teachers of a method train with the learning rate and the L2 that it has chosen."


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    methods: tuple[str, ...] = ()
    """The methods to compare, by default all; none, the base model, is always compared first."""
    trials: int = 0
    """The number of configs that each method tries on validation rows before its seeds are run.
    With 0 each method has its default values."""
    output: Path = Path("runs/table2")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_pairs()
    if arguments.trials < 0:
        raise InputError(f"--trials must be at least 0, not {arguments.trials}.")
    wanted = arguments.methods or METHODS
    for method in {*wanted} - {"none"}:
        METHODS.find(method)
    order = ["none", *(method for method in METHODS if method in wanted)]
    own = {
        method: differences(arguments.config, arguments.config_of(method))
        for method in ("none", *METHODS)
    }
    chosen: list[str] = []

    def variants_of(name: str, data: Dataset) -> list[Variant]:
        variants = [variant_of(arguments, m, data, arguments.output / name) for m in order]
        chosen.extend(
            f"{markdown(name)}, {variant.title}: {choice}."
            for variant in variants
            if (choice := choice_of(arguments, variant))
        )
        return variants

    identity = {"trials": arguments.trials, "own": own}
    record = Record(arguments, identity | reference_of(arguments.config).identity)
    title = "Table 2: selection methods"
    tabulate(record, title, variants_of, lambda: _note(arguments, own, chosen))


def variant_of(arguments: Arguments, method: str, data: Dataset, folder: Path) -> Variant:
    """A method with its defaults, or with the best of its trials on validation rows."""
    default = arguments.config_of(method)
    config = best_of(default, data, folder / "trials", arguments.trials)
    key, title = method, titles()[method]
    if method == "none":
        reference = reference_of(arguments.config)
        key, title = reference.key, reference.title
    return Variant(method, method, title, config, key, PAPER.get(method, {}))


def choice_of(arguments: Arguments, variant: Variant) -> str:
    """The differences of the chosen config of a method from its defaults."""
    return "; ".join(differences(arguments.config_of(variant.config.method), variant.config))


def _note(arguments: Arguments, own: dict[str, list[str]], chosen: list[str]) -> str:
    differing = [
        f"{titles()[method]}, {'; '.join(values)}."
        for method, found in own.items()
        if (values := [value for value in found if not value.startswith("method:")])
    ]
    defaults = f"Defaults that differ from the values below: {' '.join(differing)}"
    if not arguments.trials:
        return f"Every method has its default values. {defaults}"
    return (
        f"Every method has the best of {arguments.trials} trials on validation rows, of which the "
        "first are its defaults; methods whose gates learn on validation rows have seen them "
        f"before. {defaults} Chosen instead of defaults: {' '.join(chosen) or 'nothing.'}"
        + (_TEACHERS if arguments.config.retrain.teachers else "")
    )


if __name__ == "__main__":
    run_cli(main)
