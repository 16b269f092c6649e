"""The records that claims are judged by, and what they lack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from claim_list import CLAIMS, Claim, Content
from verdicts import Gains, Judgement, judge

from ihas_jax.files import null_to_nan, read_json

_NO_RECORD = "no record"


class Found(NamedTuple):
    """What is known of a claim on a log.

    Attributes:
      claim: the claim.
      judged: what the record says; None if the claim is untested.
      why: why it is untested.
    """

    claim: Claim
    judged: Judgement | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """The verdict, or why there is none."""
        return self.judged.verdict if self.judged else f"untested: {self.why}"

    @property
    def short(self) -> str:
        """The verdict with the power of a test that found nothing."""
        found = self.judged
        if found is None or found.verdict != "can't be told" or math.isnan(found.power):
            return self.verdict
        return f"{found.verdict} (power {found.power:.2f})"


def read_records(folder: Path, logs: Sequence[str]) -> dict[str, Content]:
    """The contents of the records in a folder that claims need and that are there, by name."""
    names = {claim.record.format(log=log) for claim in CLAIMS for log in logs}
    paths = {name: folder / f"{name}.json" for name in sorted(names)}
    return {name: null_to_nan(read_json(path)) for name, path in paths.items() if path.exists()}


def judge_log(records: Mapping[str, Content], log: str, level: float) -> list[Found]:
    """All claims on a log, judged together."""
    gains: dict[int, Gains] = {}
    why = {number: claim.untested.get(log, "") for number, claim in enumerate(CLAIMS)}
    for number, claim in enumerate(CLAIMS):
        if why[number]:
            continue
        try:
            own = claim.gains(records[claim.record.format(log=log)], log)
        except (KeyError, ValueError):  # scores are missing, or one variant has fewer than another
            own = {}
        if own and all(own.values()):
            gains[number] = own
        else:
            why[number] = _NO_RECORD
    judged = judge([(own, CLAIMS[number].smallest) for number, own in gains.items()], level)
    found = dict(zip(gains, judged, strict=True))
    return [Found(claim, found.get(n), why[n]) for n, claim in enumerate(CLAIMS)]


def lacking(found: Mapping[str, Sequence[Found]], seeds: int) -> dict[str, list[int]]:
    """The commands that claims need, with the claims whose records they make or make larger.

    Args:
      found: what is known, by log.
      seeds: the number of seeds that a claim should have.

    Returns:
      The numbers of the claims, from 1 on, by command.
    """
    commands: dict[str, list[int]] = {}
    for log, own in found.items():
        for number, one in enumerate(own, start=1):
            few = one.judged is not None and len(one.judged.gains) < seeds
            if few or one.why == _NO_RECORD:
                command = f"{one.claim.command} --seeds {seeds}".format(log=log)
                claims = commands.setdefault(command, [])
                claims += [number] if number not in claims else []
    return commands
