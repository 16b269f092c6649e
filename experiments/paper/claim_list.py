"""The claims of the paper, as data: where they stand, and how records of results bear on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from verdicts import Gains

Content = Mapping[str, Any]
"""The content of the JSON file of a script's results."""
_SMALL_AUC = 0.001
"""The paper's section 4.2: an improvement of AUC or logloss of this size is a significant one."""
_METHODS = ("pep", "autofield", "optembed", "adafs_soft", "adafs_hard", "optfs")
"""The methods of the paper's Table 2."""
_MODELS = ("fm", "wide_deep", "deepfm")
_IDS = {"avazu": ("site_id", "app_id", "device_id"), "movielens": ("user", "movie")}
_ANONYMOUS = re.compile(r"[CI]\d+")
"""Fields of Avazu and Criteo without a meaning, which the paper's Figure 5 leaves out."""
_DATA = "--data data/avazu data/criteo data/movielens"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
      short: the claim in the figure.
      text: the claim.
      place: where it stands in the paper.
      measure: what is compared.
      unit: the unit of the gains.
      smallest: the smallest effect of interest, in that unit.
      record: the name of the record, in which `{log}` stands for a log.
      command: what makes the record, without the number of seeds and the place of the results.
      gains: the gains on a log by comparison, from the record's content and the log's name; it
        raises a KeyError or ValueError where the record lacks such scores.
      untested: why the claim can't be tested, by log.
    """

    short: str
    text: str
    place: str
    measure: str
    unit: str
    smallest: float
    record: str
    command: str
    gains: Callable[[Content, str], Gains]
    untested: Mapping[str, str] = field(default_factory=dict)


def _differences(ours: Sequence[Content], theirs: Sequence[Content], metric: str) -> list[float]:
    return [own[metric] - other[metric] for own, other in zip(ours, theirs, strict=True)]


def _above(ours: str, *others: str) -> Callable[[Content, str], Gains]:
    """The test AUC of a row of Table 2 or 4 minus that of others."""

    def gains(content: Content, log: str) -> Gains:
        scores = content["logs"][log]
        return {name: _differences(scores[ours], scores[name], "auc") for name in others}

    return gains


def _transferred(kind: str) -> Callable[[Content, str], Gains]:
    """The test AUC of iHAS in Table 3 minus that of another column, by click model."""

    def gains(content: Content, log: str) -> Gains:
        scores = content["logs"][log]
        return {m: _differences(scores[m]["ihas"], scores[m][kind], "auc") for m in _MODELS}

    return gains


def _gates(fact: str) -> Callable[[Content, str], Gains]:
    """A fact of gates that were searched with the polarisation minus that without it."""

    def gains(content: Content, log: str) -> Gains:
        scores = content["logs"][log]
        return {"without polarisation": _differences(scores["ihas"], scores["ihas_3"], fact)}

    return gains


def _speed(content: Content, log: str) -> Gains:
    """The logarithm of each method's time over that of iHAS."""
    times = {k: np.log(v) for k, v in content["inference"][log]["microseconds"].items()}
    return {name: (times[name] - times["ihas"]).tolist() for name in _METHODS}


def _id_widths(content: Content, log: str) -> Gains:
    """Kept coordinates of a field of ids minus those of another one, means over fields."""
    gains = []
    for run in content["runs"]:
        clusters = run["clusters"]
        total = sum(cluster["share"] for cluster in clusters)
        widths = {
            name: sum(c["share"] * c["widths"][name] for c in clusters) / total
            for name in clusters[0]["widths"]
            if not _ANONYMOUS.fullmatch(name)
        }
        others = [width for name, width in widths.items() if name not in _IDS[log]]
        gains.append(float(np.mean([widths[name] for name in _IDS[log]]) - np.mean(others)))
    return {"other fields": gains}


def _unlike_clusters(content: Content, log: str) -> Gains:
    """How far apart the clusters' numbers of kept coordinates are, mean over fields."""
    widths = [[[*c["widths"].values()] for c in run["clusters"]] for run in content["runs"]]
    return {"equal clusters": [float(np.ptp(np.array(own), axis=0).mean()) for own in widths]}


def _own_cluster(content: Content, log: str) -> Gains:
    """How much smaller the logloss by the own model is, in the cluster where that is least."""
    facts = content["logs"][log]["seeds"]
    return {
        "the other clusters' models": [
            min(one["logloss"]["gain"] for one in seed["clusters"] if one) for seed in facts
        ]
    }


def _auc(short: str, text: str, place: str, record: str, command: str, gains: Any) -> Claim:
    return Claim(short, text, place, "test AUC", "AUC", _SMALL_AUC, record, command, gains)


_TABLE2 = f"experiments/paper/table2_overall.py --preset small {_DATA} --output runs/table2"
_TABLE3 = f"experiments/paper/table3_transfer.py --preset small {_DATA}"
_TABLE4 = f"experiments/paper/table4_ablation.py --preset small {_DATA} --output runs/table2"
_SEEDS = "experiments/seeds.py --preset small --data data/{log} --output runs/{log}"
_ANONYMOUS_LOG = {"criteo": "the fields have no names"}

CLAIMS = (
    _auc(
        "above the full size",
        "iHAS is more accurate than the full-size model.",
        *("Tables 2 and 4", "table2", _TABLE2, _above("ihas", "none")),
    ),
    _auc(
        "above every method",
        "iHAS is more accurate than every other method of the paper.",
        *("Table 2", "table2", _TABLE2, _above("ihas", *_METHODS)),
    ),
    _auc(
        "transfers",
        "FM, W&D and DeepFM are more accurate with the gates of iHAS than without.",
        *("Table 3", "table3", _TABLE3, _transferred("original")),
    ),
    _auc(
        "above AdaFS-soft there",
        "FM, W&D and DeepFM are more accurate with iHAS than with AdaFS-soft.",
        *("Table 3", "table3", _TABLE3, _transferred("adafs_soft")),
    ),
    _auc(
        "above iHAS-1",
        "Clusters and retraining pay: iHAS is more accurate than its searched model (iHAS-1).",
        *("Table 4", "table4", _TABLE4, _above("ihas", "ihas_1")),
    ),
    _auc(
        "iHAS-1 above iHAS-2",
        "The searched model is more accurate than one compact model of all rows (iHAS-2).",
        *("Table 4", "table4", _TABLE4, _above("ihas_1", "ihas_2")),
    ),
    _auc(
        "above iHAS-3",
        "The polarisation pays: iHAS is more accurate than without it (iHAS-3).",
        *("Table 4", "table4", _TABLE4, _above("ihas", "ihas_3")),
    ),
    _auc(
        "above iHAS-4",
        "Gates that depend on the instance pay: iHAS is more accurate than without (iHAS-4).",
        *("Table 4", "table4", _TABLE4, _above("ihas", "ihas_4")),
    ),
    Claim(
        "polarised",
        "With the polarisation the probabilities of gates are farther from their mean.",
        *("Figure 3", "mean distance from a row's mean", "probability", 0.05, "figure3"),
        f"experiments/paper/figure3_gates.py --preset small {_DATA} --output runs/table2",
        _gates("distance"),
    ),
    Claim(
        "separated",
        "With the polarisation a threshold separates two groups of probabilities.",
        *("Figure 3", "gap of mean probabilities of open and closed gates", "probability", 0.05),
        "figure3",
        f"experiments/paper/figure3_gates.py --preset small {_DATA} --output runs/table2",
        _gates("gap"),
    ),
    Claim(
        "fastest",
        "iHAS predicts faster than every other method of the paper.",
        *("Figure 4", "time of the test split", "log of the ratio", 0.05, "figure4"),
        f"experiments/paper/figure4_inference.py {_DATA} --output runs/table2",
        _speed,
    ),
    Claim(
        "ids are wider",
        "Fields of ids keep more coordinates than others.",
        *("Figure 5", "kept coordinates of a field", "coordinates", 1.0, "{log}", _SEEDS),
        _id_widths,
        _ANONYMOUS_LOG,
    ),
    Claim(
        "clusters differ",
        "Clusters keep different numbers of coordinates of a field.",
        *("Figure 5", "kept coordinates, apart between clusters", "coordinates", 1.0, "{log}"),
        _SEEDS,
        _unlike_clusters,
    ),
    Claim(
        "own cluster is best",
        "The rows of each cluster are best predicted by the model of that cluster.",
        *("Figure 6", "test logloss in the worst cluster", "nats per row", _SMALL_AUC, "figure6"),
        f"experiments/paper/figure6_cases.py {_DATA} --output runs/table2",
        _own_cluster,
    ),
)
