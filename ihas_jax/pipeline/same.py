"""Which stages have the same result in two runs on the same data."""

from __future__ import annotations

from dataclasses import replace

from ihas_jax.config import Config
from ihas_jax.pipeline.about import About, differences_that_matter
from ihas_jax.selectors.registry import METHODS
from ihas_jax.stages.run import Run
from ihas_jax.stages.teachers import BASE, SEARCH, teach_after_search, teachers_of

_TRAINING = ("optimizer.", "train.", "seed:")
_BASE = ("model.", *_TRAINING)
_TEACHERS = (*_TRAINING, "retrain.teacher_folds")
_NOT_SEARCH = ("budget:", "retrain.")


def same_stages(about: About, run: Run) -> list[str]:
    """The stages of another run that have the same result in this run: base, teach, search."""
    same = {
        BASE: not _differ(about.config, run.config, _BASE),
        "teach": _teach_alike(about.config, run.config),
        SEARCH: _search_alike(about, run),
    }
    teachers = [teacher.name for teacher in teachers_of(run.config)]
    same["teach"] &= all(same.get(teacher, True) for teacher in teachers)
    return [stage for stage, equal in same.items() if equal]


def same_teachers(old: Config, new: Config) -> bool:
    """Whether runs that differ in their click model and share a search have the same teachers."""
    teachers = teachers_of(new)
    names = [teacher.name for teacher in teachers]
    return bool(teachers) and teachers_of(old) == teachers and BASE not in names


def _teach_alike(old: Config, new: Config) -> bool:
    """Whether teachers that the two runs train by themselves are the same."""
    teachers = teachers_of(new)
    return bool(teachers) and teachers_of(old) == teachers and not _differ(old, new, _TEACHERS)


def _search_alike(about: About, run: Run) -> bool:
    """Whether the search of another run is that of this run."""
    old, new = about.config, run.config
    if about.searched_by is not None or run.selector is None:
        return False
    if not all(
        line.startswith((*_NOT_SEARCH, *_choice(run))) for line in differences_that_matter(old, new)
    ):
        return False
    if any(c.retrain.teachers and not teach_after_search(c) for c in (old, new)):
        alike = _teach_alike(old, new) and not _differ(old, new, ("retrain.teacher",))
        if not alike:
            return False
    theirs = replace(run, config=old).selector
    # a search may end at a share that the budget names
    return theirs is not None and run.selector.recipe == theirs.recipe


def _choice(run: Run) -> list[str]:
    """The flags of options that matter to the choice of a method alone, as `differences` has them.

    A search that is cut in steps may be cut by such options, too.
    """
    if run.selector is None or run.selector.recipe.cuts:
        return []
    kinds = METHODS.find(run.config.method).options
    return [f"{kind.flag}.{name}:" for kind in kinds for name in kind.choice]


def _differ(old: Config, new: Config, flags: tuple[str, ...]) -> bool:
    """Whether two configs differ in a flag that begins like one of some."""
    return any(line.startswith(flags) for line in differences_that_matter(old, new))
