"""The README files: links, anchors, commands, examples, lengths, and what must agree with code."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import tyro
from scipy.stats import ttest_rel

import ihas_jax
from ihas_jax.config import ClusterConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.models import MODELS
from ihas_jax.presets import preset

KEYS = ("auc", "parameters", "bytes", "microseconds")
ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = [ROOT / name for name in ("experiments", "ihas_jax", "tests")]
READMES = [README, *sorted(path for folder in FOLDERS for path in folder.rglob("README.md"))]
RESULTS = ROOT / "experiments" / "results"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


each_readme = pytest.mark.parametrize("path", READMES, ids=name_of)


def fenced(path, language):
    """The blocks of a language; what follows it in the same line marks sketches that do not run."""
    return [code for info, code in _FENCE.findall(path.read_text("utf-8")) if info == language]


def prose(path):
    """The text without fenced blocks, in which a link is none."""
    return _FENCE.sub("", path.read_text("utf-8"))


def anchors(path):
    """The anchors that GitHub gives the headings of a Markdown file."""
    found = []
    for heading in re.findall(r"^#+ +(.+)$", prose(path), re.MULTILINE):
        text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


def links(path):
    text = re.sub(r"`[^`]*`", "", prose(path))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def commands(path):
    """The arguments of each `python experiments/...` command, in fenced blocks and in the prose.

    A word of capitals, such as S or DIR, stands for whatever the reader has: here for 1.
    """
    lines = "\n".join(fenced(path, "bash")).replace("\\\n", " ").splitlines()
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]*)`", prose(path))]
    found = []
    for line in lines:
        if "python experiments/" in line:
            words = shlex.split(line, comments=True)
            for joined, group in groupby(words, lambda word: word in ("&&", "|")):
                command = [re.sub(r"(?<![A-Za-z])[A-Z]+(?![A-Za-z])", "1", word) for word in group]
                if not joined and command[0] == "python":
                    found.append(command[1:])
    return found


COMMANDS = [
    pytest.param(command, id=f"{name_of(path)}: {' '.join(command)}")
    for path in READMES
    for command in commands(path)
]


def test_every_readme_is_found():
    assert {name_of(path) for path in READMES} >= {
        "README.md",
        "experiments/README.md",
        "experiments/results/README.md",
        "ihas_jax/README.md",
        "ihas_jax/data/README.md",
        "ihas_jax/models/README.md",
        "ihas_jax/selectors/README.md",
        "ihas_jax/training/README.md",
    }
    assert len(COMMANDS) > 40


@each_readme
def test_links_and_anchors_resolve(path):
    assert links(path)
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{link}: there is no {target}"
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


@pytest.fixture(scope="module")
def script():
    """Imports a script of experiments/ once, by its path in the repository."""
    modules = {}

    def load(name):
        if name not in modules:
            path = ROOT / name
            assert path.is_file(), f"there is no {name}"
            patch.syspath_prepend(path.parent)
            spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
            modules[name] = module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, module)
            spec.loader.exec_module(module)
        return modules[name]

    with pytest.MonkeyPatch.context() as patch:
        yield load


class ParsedError(Exception):
    """Ends a script once its command line is read."""


@pytest.fixture
def parse(script, monkeypatch):
    """Reads a command line by the script's own `main`, which ends before its work begins."""

    def read(command):
        name, *arguments = command
        module = script(name)
        real = tyro.cli

        def cli(*args, **options):
            found = real(*args, **options)
            if options.get("return_unknown_args"):  # the preset is read ahead
                return found
            raise ParsedError

        with monkeypatch.context() as patch:
            patch.setattr(tyro, "cli", cli)
            patch.setattr(sys, "argv", command)
            if "--help" in arguments:
                with pytest.raises(SystemExit) as end:
                    module.main()
                assert end.value.code == 0
                return
            with pytest.raises(ParsedError):
                module.main()

    return read


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """The files of the examples that register a name, in the folder of the command."""
    monkeypatch.chdir(tmp_path)
    for code in (code for path in READMES for code in fenced(path, "python")):
        if registered := re.search(r"ihas\.register_\w+\(\"(\w+)\"", code):
            (tmp_path / f"{registered[1]}.py").write_text(code, encoding="utf-8")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, parse):
    parse(command)


def test_names_of_the_package_exist():
    for path in READMES:
        for name in re.findall(r"\bihas\.([a-z_A-Z]\w*)", path.read_text("utf-8")):
            assert hasattr(ihas_jax, name), f"{name_of(path)}: ihas.{name}"


@pytest.mark.parametrize("flags", [["--no-such-flag"], ["--stage", "nonsense"]])
def test_a_wrong_command_does_not_parse(flags, parse):
    with pytest.raises(SystemExit):
        parse(["experiments/run.py", *flags])


TITLES = {
    "criteo": "Criteo, a sample | 137,139",
    "avazu": "Avazu, a sample | 58,419",
    "kuairand": "KuaiRand-Pure | 228,329",
    "movielens": "MovieLens-1M | 1,000,209",
}


def test_the_first_table_is_that_of_the_record():
    """Means over the seeds, by hand from the record."""
    logs = json.loads((RESULTS / "smallest.json").read_text("utf-8"))["logs"]
    lines = README.read_text("utf-8").splitlines()
    for name, scores in logs.items():
        base, chosen = (
            {key: np.array([run[key] for run in scores[kind]]) for key in KEYS}
            for kind in ("base", "chosen")
        )
        times = ((base[size] / chosen[size]).mean() for size in ("parameters", "bytes"))
        smaller = " | ".join(f"{one:.2g} times" for one in times)
        gain, time = chosen["auc"] - base["auc"], chosen["microseconds"] / base["microseconds"]
        p = ttest_rel(chosen["auc"], base["auc"]).pvalue
        p_text = "<0.001" if p < 0.001 else f"{p:.3f}"
        cells = f"{base['auc'].mean():.4f} | {smaller} | {gain.mean():+.4f} | {p_text}"
        assert f"| {TITLES[name]} | {cells} | {time.mean():.2f} of the base's |" in lines
    assert sum(line.endswith(" of the base's |") for line in lines) == len(logs)


def test_the_readme_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= 200


@pytest.fixture
def tiny_log(monkeypatch, tmp_path):
    """Examples draw a tiny log, train one epoch, and write into an empty folder."""
    config = preset("small")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dim=2, hidden=(4,)),
        train=dataclasses.replace(config.train, max_epochs=1),
        search=dataclasses.replace(config.search, pretrain_epochs=0),
    ).having(dataclasses.replace(config.of(ClusterConfig), clusters=1, starts=1))
    log = synthetic(SyntheticConfig(rows=6000, own=1, noise=1, values=20))
    monkeypatch.setattr(ihas_jax, "synthetic", lambda: log)
    monkeypatch.setattr(ihas_jax, "preset", {"small": config, "compact": config}.__getitem__)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("tiny_log")
@pytest.mark.parametrize("path", [path for path in READMES if fenced(path, "python")], ids=name_of)
def test_examples_run(path):
    namespace = {}
    for number, code in enumerate(fenced(path, "python")):
        place = f"{name_of(path)}, example {number + 1}"
        exec(compile(code, place, "exec", dont_inherit=True), namespace)
    if path == README:
        assert namespace["p"].shape == (1,) and 0 < namespace["p"][0] < 1
        assert set(namespace["result"].metrics) >= {"base", "search", "ihas"}
        assert namespace["state"] is not None and namespace["metrics"]


def test_the_table_of_models_has_the_equations_of_the_code():
    table = (ROOT / "ihas_jax" / "models" / "README.md").read_text("utf-8")
    for name, model in MODELS.items():
        said = model.equation.replace("|", "\\|")
        assert f"\n| {name} | `{said}` | " in table, name


def test_the_index_of_results_names_every_file():
    named = {link.partition("#")[0] for link in links(RESULTS / "README.md")}
    files = {path.name for path in RESULTS.iterdir()} - {"README.md"}
    assert files <= named, files - named


def test_no_readme_repeats_a_measured_number():
    """A second copy of a mean and its deviation would have to be kept equal by hand."""
    texts = {path: path.read_text("utf-8") for path in {*READMES, *RESULTS.glob("*.md")}}
    for path in READMES:
        measured = set(re.findall(r"\d\.\d{4} ± \d\.\d{4}", texts[path]))
        for other in texts.keys() - {path}:
            assert not {number for number in measured if number in texts[other]}, other
