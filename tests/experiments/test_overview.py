"""The picture of the first README: differences from the full-size model, and sizes."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

from ihas_jax.errors import InputError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def overview():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("overview")


def scores(*aucs, parameters=100, router=0):
    return [{"auc": auc, "parameters": parameters, "router_parameters": router} for auc in aucs]


LOG = {
    "none": scores(0.70, 0.72),
    "pep": scores(0.701, 0.723, parameters=40),
    "dimreg": scores(0.60, 0.622, parameters=1),
    "ihas": scores(0.69, 0.712, parameters=80, router=150),
}


def test_dots_arrows_and_sizes(overview):
    figure = overview.draw({"a log": LOG, "another": {"none": LOG["none"], "pep": LOG["pep"]}})
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["PEP", "DimReg", "iHAS"]
    assert [text.get_text() for text in first.texts] == ["0.40", "-99", "0.01", "2.30"]
    assert [text.get_text() for text in second.texts] == ["0.40"]
    dots = {
        (round(float(line.get_xdata()[0]), 6), float(line.get_ydata()[0]))
        for line in first.lines
        if line.get_marker() in ("o", "<")
    }
    assert dots == {(2, 0), (-22, 1), (-9, 2)}
    bar = first.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 0] == pytest.approx([2 - math.sqrt(2), 2 + math.sqrt(2)])  # of 1 and 3


def test_the_script_writes_the_file(overview, monkeypatch, tmp_path):
    table, figure = tmp_path / "table.json", tmp_path / "new" / "overview.png"
    table.write_text(json.dumps({"logs": {"a log": LOG, "begun": {"pep": LOG["pep"]}}}))
    command = ["overview.py", "--table", str(table), "--figure", str(figure)]
    monkeypatch.setattr(sys, "argv", command)
    overview.main()
    assert figure.read_bytes().startswith(b"\x89PNG")
    table.write_text(json.dumps({"logs": {}}))
    with pytest.raises(InputError, match="no scores of the full-size model"):
        overview.main()
    table.unlink()
    with pytest.raises(InputError, match=r"table2_overall\.py makes it"):
        overview.main()
