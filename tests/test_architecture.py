"""Imports point down only: the order of the packages is that of the list in the README."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ihas_jax"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name in MODULES}


def layers(text: str) -> dict[str, int]:
    """Places of packages and top modules in the list of a README, from the top down."""
    block = next(part for part in text.split("```") if "\nihas_jax/\n" in part)
    names = re.findall(r"^  (\w+(?:, \w+)*)/? +", block, re.MULTILINE)
    return {name.strip(): place for place, line in enumerate(names) for name in line.split(",")}


def layer(module: str, order: dict[str, int]) -> int:
    """Place of a module in the list."""
    return order[module.split(".")[1]]


def arrows_up(order: dict[str, int], arrows: dict[str, set[str]]) -> list[str]:
    """Imports of what stands higher in the list."""
    return [
        f"{module} -> {other}"
        for module, others in arrows.items()
        for other in others
        if "." in module and "." in other and layer(other, order) < layer(module, order)
    ]


@pytest.fixture(scope="module")
def order():
    return layers((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def arrows():
    return {name: imports(path) - {name} for name, path in MODULES.items()}


def test_the_list_names_every_package_and_module_once(order):
    assert set(order) == {name.split(".")[1] for name in MODULES if "." in name}


def test_no_import_points_up(order, arrows):
    assert arrows_up(order, arrows) == []


def test_an_import_that_points_up_is_seen(order, arrows):
    wrong = arrows | {"ihas_jax.nn.mlp": {"ihas_jax.selectors.base"}}
    assert arrows_up(order, wrong) == ["ihas_jax.nn.mlp -> ihas_jax.selectors.base"]


def test_no_import_comes_back(arrows):
    # a package's own module does not count as an import of what is in it
    inner = {
        name: {other for other in others if not name.startswith(f"{other}.")}
        for name, others in arrows.items()
    }
    TopologicalSorter(inner).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(inner | {"ihas_jax.errors": {"ihas_jax.pipeline.fit"}}).prepare()
