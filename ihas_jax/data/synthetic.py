"""A synthetic click log with planted truth: groups of instances for which other fields matter.

Each row belongs to one of G groups (markets, for instance). *Context* fields tell the group, since
most of their values occur in one group only. Each group has *own* fields, which affect the clicks
of this group only (of all groups in a log that is less heterogeneous); *shared* fields affect the
clicks of all groups; *noise* fields affect none. Values follow Zipf's law, and each value of a
field that matters shifts the log-odds of a click by a normally distributed effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.split import SPLITS, assign_splits
from ihas_jax.errors import InputError

_MIN_COUNT = 10


@dataclass(frozen=True)
class SyntheticConfig:
    """Shape of the log.

    Attributes:
      rows: instances in all three splits together.
      groups: number of groups, G.
      context: fields that tell the group.
      own: fields per group that matter to this group only.
      shared: fields that matter to all.
      noise: fields that matter to none.
      values: distinct values of each field.
      zipf: exponent of the value frequencies.
      loyalty: probability that a context value is one of the group of its row.
      effect: standard deviation of a value's shift of the log-odds.
      heterogeneity: what other groups lack of the effects of a group's own fields: with 1 they have
        none of them, with 0 all groups are alike. The variance of the log-odds is the same.
      click_rate: share of clicks where all effects are zero.
      seed: seed of all draws.
    """

    rows: int = 200_000
    groups: int = 2
    context: int = 2
    own: int = 3
    shared: int = 1
    noise: int = 3
    values: int = 100
    zipf: float = 1.0
    loyalty: float = 0.95
    effect: float = 0.8
    heterogeneity: float = 1.0
    click_rate: float = 0.25
    seed: int = 0


@dataclass(frozen=True, eq=False)
class SyntheticLog(Dataset):
    """A data set with its planted truth.

    Attributes:
      groups: group of each row, by split, `[n]`.
      relevant: `[G, N]`, whether a field affects the clicks of a group (context fields do not).
      probabilities: true click probability of each row, by split, which no model can surpass.
      roles: 'context', 'own', 'shared' or 'noise' for each field.
    """

    groups: dict[str, np.ndarray]
    relevant: np.ndarray
    probabilities: dict[str, np.ndarray]
    roles: tuple[str, ...]


def synthetic(config: SyntheticConfig | None = None) -> SyntheticLog:
    """Draws a log; the same config gives the same log.

    Raises:
      InputError: the heterogeneity is below 0 or above 1.
    """
    config = config or SyntheticConfig()
    if not 0 <= config.heterogeneity <= 1:
        raise InputError(f"The heterogeneity must be 0 to 1, not {config.heterogeneity}.")
    rng = np.random.Generator(np.random.Philox(config.seed))
    roles = (
        *("context",) * config.context,
        *("own",) * (config.groups * config.own),
        *("shared",) * config.shared,
        *("noise",) * config.noise,
    )
    names = _names(config)
    groups = rng.integers(config.groups, size=config.rows)
    frequencies = np.arange(1, config.values + 1.0) ** -config.zipf
    frequencies /= frequencies.sum()
    log_odds = np.full(config.rows, np.log(config.click_rate / (1 - config.click_rate)))
    relevant = np.zeros((config.groups, len(roles)), bool)
    others = 1 - config.heterogeneity  # the share of an own field's effects that they have
    own_scale = (1 + (config.groups - 1) * others**2) ** -0.5
    columns, fields = [], []
    for n, (name, role) in enumerate(zip(names, roles, strict=True)):
        raw = rng.choice(config.values, size=config.rows, p=frequencies)
        if role == "context":
            loyal = rng.random(config.rows) < config.loyalty
            home = np.where(loyal, groups, rng.integers(config.groups, size=config.rows))
            raw = raw * config.groups + home
        if role in ("own", "shared"):
            owner = (n - config.context) // max(config.own, 1)
            mine = (role == "shared") | (np.arange(config.groups) == owner)
            scale = 1.0 if role == "shared" else own_scale
            weights = np.where(mine, scale, scale * others)
            relevant[:, n] = weights > 0
            effects = rng.normal(0.0, config.effect, config.values)
            log_odds += weights[groups] * effects[raw]
        field, ids = _encode(name, raw)
        fields.append(field)
        columns.append(ids)
    probabilities = 1 / (1 + np.exp(-log_odds))
    labels = (rng.random(config.rows) < probabilities).astype(np.uint8)
    ids = np.stack(columns, axis=1)
    codes = assign_splits(config.rows, config.seed)
    members = {split: codes == code for code, split in enumerate(SPLITS)}
    splits = {split: Split(ids[rows], labels[rows]) for split, rows in members.items()}
    return SyntheticLog(
        schema=Schema("click", tuple(fields)),
        **splits,
        groups={split: groups[rows] for split, rows in members.items()},
        relevant=relevant,
        probabilities={split: probabilities[rows] for split, rows in members.items()},
        roles=roles,
    )


def _names(config: SyntheticConfig) -> list[str]:
    names = [f"context_{i}" for i in range(config.context)]
    names += [f"own_{g}_{i}" for g in range(config.groups) for i in range(config.own)]
    names += [f"shared_{i}" for i in range(config.shared)]
    return names + [f"noise_{i}" for i in range(config.noise)]


def _encode(name: str, raw: np.ndarray) -> tuple[Field, np.ndarray]:
    """A field with values by frequency, and the ids; values seen fewer than 10 times are other."""
    counts = np.bincount(raw)
    order = np.argsort(-counts, kind="stable")
    kept = order[counts[order] >= _MIN_COUNT]
    ids = np.full(len(counts), len(kept), np.int32)
    ids[kept] = np.arange(len(kept), dtype=np.int32)
    values = tuple(f"{name}={value}" for value in kept)
    other = float(1 - counts[kept].sum() / len(raw)) if len(raw) else None
    return Field(name, values, other_share=other), ids[raw]
