"""The paper's Figures 3 to 6 for a finished run of iHAS."""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from case_figure import draw_cases
from cases import case_facts
from finished import gates_of, polarized_run, published, timed_models, unpolarized_run
from gate_figure import draw_polarization, typical_row
from inference_figure import draw_inference
from matplotlib.figure import Figure

from ihas_jax.data.open import open_store
from ihas_jax.data.synthetic import synthetic
from ihas_jax.errors import InputError, run_cli
from ihas_jax.pipeline.parts import make_parts, require_parts
from ihas_jax.pipeline.plugins import import_file
from ihas_jax.progress import say
from ihas_jax.reporting.drawing import figure_names, save_figure
from ihas_jax.reporting.figures import draw_widths
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.run import Run


@dataclass(frozen=True)
class Arguments:
    """Draws the paper's Figures 3 to 6 for a finished run of iHAS, which is left as it is.

    figure3.png: gate probabilities of a test row, without and with the polarisation. It needs a
    second run, without the polarisation: name one by --without, or it is trained beside the
    figures, which takes as long as the run itself without its base model. The same command resumes
    that training, and finds the run again.
    figure4.png: time of predicting all test rows, by base model, searched model and iHAS.
    figure5.png: kept coordinates of each field in the model of each cluster.
    figure6.png: test rows, and what the model of a row's own cluster gains over the others.
    """

    run: Path
    """The folder of a finished run of iHAS, searched with the polarisation."""
    data: Path | None = None
    """The log of the run, as prepare.py made it; without it, the synthetic log of run.py."""
    without: Path | None = None
    """The folder of a finished run that differs in --no-gates.polarization alone; by default it is
    trained in the folder of the figures."""
    output: Path | None = None
    """The folder of the figures; by default paper in the folder of the run."""
    plugins: tuple[Path, ...] = ()
    """Python files that register the click model of the run, if it is one of your own."""


def main() -> None:
    """Parses the command line, trains what is missing, draws the figures."""
    arguments = tyro.cli(Arguments)
    for plugin in arguments.plugins:
        import_file(plugin)
    data = synthetic() if arguments.data is None else open_store(arguments.data)
    run = polarized_run(arguments.run, data)
    output = arguments.output or arguments.run / "paper"
    without = unpolarized_run(run, arguments.without, output / "without_polarization")
    output.mkdir(parents=True, exist_ok=True)
    names = figure_names(data.schema.names)
    draws = draws_of(run, without, names.texts)
    parts = {
        str(output / name): partial(save_figure, output / name, draw, names.fonts)
        for name, draw in draws.items()
    }
    require_parts(make_parts(parts), run.workdir / "metrics.json")
    if note := names.note():
        say(note)
    say(f"Figures: {output}")


def draws_of(run: Run, without: Run, fields: Sequence[str]) -> dict[str, Callable[[], Figure]]:
    """What draws each figure, by its file; Figure 6 only where clusters have models of their own.

    Args:
      run: the finished run.
      without: the run without the polarisation.
      fields: the names of the fields in the figures.
    """
    polarized, plain, (ids, labels) = gates_of(run), gates_of(without), run.data.test
    models, metrics, bundle = timed_models(run), published(run), load_bundle(run.workdir)
    draws: dict[str, Callable[[], Figure]] = {
        "figure3.png": lambda: draw_polarization(plain, polarized, typical_row(polarized)),
        "figure4.png": lambda: draw_inference({"": models}),
        "figure5.png": lambda: draw_widths(metrics, fields),
    }
    try:
        cases = case_facts(bundle, ids, labels, run.config.seed)
    except InputError as error:
        say(f"Figure 6 is left out: {error}")
    else:
        draws["figure6.png"] = lambda: draw_cases({"": [cases]})
    return draws


if __name__ == "__main__":
    run_cli(main)
