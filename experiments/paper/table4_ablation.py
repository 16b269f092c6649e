"""Table 4: the base model, four variants of iHAS and iHAS itself, over several seeds.

Finished parts are kept, so the same command goes on where it stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from rendering import write
from variants import Shared, Table, Variant, save_scores, score_all

from ihas_jax.cli import earlier_logs, early_preset, open_logs
from ihas_jax.config import Config, replaced
from ihas_jax.errors import InputError, run_cli
from ihas_jax.presets import PresetName
from ihas_jax.stages.parts import require_parts

VariantName = Literal["base", "ihas_1", "ihas_2", "ihas_3", "ihas_4", "ihas"]
PAPER = {
    "base": (0.7765, 0.3818),
    "ihas_1": (0.7772, 0.3813),
    "ihas_2": (0.7767, 0.3816),
    "ihas_3": (0.7801, 0.3800),
    "ihas_4": (0.7768, 0.3817),
    "ihas": (0.7815, 0.3791),
}
"""AUC and logloss in the paper, on the full Avazu log."""


@dataclass(frozen=True)
class Arguments:
    """Runs the ablations of iHAS on prepared logs. Run the same command again to go on."""

    data: tuple[Path, ...]
    """Folders made by prepare.py."""
    config: Annotated[Config, tyro.conf.arg(name="")]
    variants: tuple[VariantName, ...] = get_args(VariantName)
    """The rows of the table; base always comes first."""
    seeds: int = 3
    """How many seeds, from --seed on."""
    output: Path = Path("runs/table4")
    """Folder of the runs, one folder for each log."""
    results: Path = Path("experiments/results/table4")
    """Where the table goes: this path with .md, .json and .png at its end."""
    preset: PresetName | None = None
    """Values that the other flags start from, as in run.py."""


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = tyro.cli(Arguments, default=Arguments((), early_preset()))
    if arguments.seeds < 2 or not arguments.data:
        raise InputError("Name at least one log by --data, and at least 2 --seeds to compare.")
    if arguments.config.method != "ihas":
        raise InputError("These are ablations of iHAS; leave --method out.")
    table: Table = earlier_logs(arguments.results, arguments.config, arguments.seeds, {})
    shared = Shared(arguments.config, arguments.seeds, {})
    inference: dict[str, dict[str, float]] = {}
    seeds = range(arguments.config.seed, arguments.config.seed + arguments.seeds)
    wanted = ("base", *arguments.variants)
    variants = [row for row in ablations(arguments.config) if row.name in wanted]

    def keep() -> None:
        save_scores(arguments.results, table, shared)

    for name, data in open_logs(arguments.data).items():
        folder, scores = arguments.output / name, table.setdefault(name, {})
        inference[name] = score_all(variants, data, folder, seeds, scores, keep)
        missing = write(
            arguments.results, "Table 4: ablations of iHAS", variants, table, inference,
            shared, _NOTE,
        )  # fmt: skip
    require_parts(missing, f"{arguments.results}.json")
    print(Path(f"{arguments.results}.md").read_text(encoding="utf-8"))


_NOTE = (
    "iHAS-1 is the searched model itself, iHAS-2 one compact model for all rows, iHAS-3 has no "
    "polarisation in the regulariser, the gates of iHAS-4 do not depend on the instance."
)


def ablations(config: Config) -> list[Variant]:
    """The rows of the table, base first."""
    plain = dataclasses.replace(config, method="none")

    def variant(name: str, title: str, key: str, config: Config) -> Variant:
        # runs are called as in Table 2, so that both tables can share a folder
        run = {"base": "none", "search": "ihas"}.get(key, name)
        return Variant(name, run, title, config, key, {"avazu": PAPER[name]})

    return [
        variant("base", "base", "base", plain),
        variant("ihas_1", "iHAS-1", "search", config),
        variant("ihas_2", "iHAS-2", "ihas", replaced(config, "cluster.clusters", 1)),
        variant("ihas_3", "iHAS-3", "ihas", replaced(config, "gates.polarization", False)),
        variant("ihas_4", "iHAS-4", "ihas", replaced(config, "gates.instance_wise", False)),
        variant("ihas", "iHAS", "ihas", config),
    ]


if __name__ == "__main__":
    run_cli(main)
