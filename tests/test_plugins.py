"""Classes and YAML of the user's own, from a folder outside the repository."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src import api
from src.support import plugins
from tests.conftest import ROOT, Ended
from tests.test_run import runs

MODULE = '''
from dataclasses import dataclass

import numpy as np

from src.data import Samples, Source
from src.nn.layers import Activation


@dataclass(frozen=True)
class Swish(Activation):
    """x / (1 + exp(-beta x))."""

    beta: float = 1.0

    def apply(self, x):
        return x / (1 + np.exp(-self.beta * x))

    def derivative(self, x, y):
        s = 1 / (1 + np.exp(-self.beta * x))
        return s + self.beta * x * s * (1 - s)


@dataclass(frozen=True, kw_only=True)
class Stripes(Source):
    """Images of 4 by 4 pixels in which one row is bright; the label is the row."""

    count: int

    @property
    def name(self):
        return "stripes"

    def samples(self):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 4, self.count)
        images = rng.integers(0, 60, (self.count, 4, 4), dtype=np.uint8)
        images[np.arange(self.count), labels] += 150
        return Samples(images.reshape(self.count, 16), labels, (4, 4))
'''
SPLIT = "{train: null, val: 50, test: 50, shuffle: true, stratify: true, seed: 0}"
FILES = {
    "my_lab.py": MODULE,
    "conf/activation/swish.yaml": "_target_: my_lab.Swish\nbeta: 1.5\n",
    "conf/data/stripes.yaml": f"_target_: my_lab.Stripes\ncount: 300\nsplit: {SPLIT}\n",
    "conf/experiment/sly.yaml": "# @package _global_\nplugins: [my_lab]\n",
}
SETTINGS = ["data=stripes", "model.inputs=16", "model.outputs=4", "epochs=20", "lr=0.5"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a plugin and its YAML, as a user has it; it is the working directory."""
    folder = tmp_path / "lab"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    yield folder
    plugins.accept([])


def start(lab: Path, *arguments: str) -> Ended:
    """Run the command in the user's folder, as a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "src.run", "--config-dir", "conf", *arguments],
        cwd=lab,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(lab / "outputs", ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.slow
def test_own_classes_are_choices_in_a_sweep(lab: Path) -> None:
    ended = start(lab, "-m", "plugins=[my_lab]", "activation=relu,swish", *SETTINGS)
    assert ended.code == 0, ended.err
    results = [json.loads((folder / "result.json").read_text()) for folder in ended.folders]
    assert [result["metrics"]["test/accuracy"] for result in results] == [1, 1]
    assert {run.data.params["model.activation"] for run in runs(ended)} == {"relu", "swish"}


@pytest.mark.slow
def test_a_served_model_brings_the_plugins_that_its_network_uses(lab: Path, tmp_path: Path) -> None:
    ended = start(lab, "plugins=[my_lab]", "activation=swish", *SETTINGS, "epochs=1")
    assert ended.code == 0, ended.err
    (model,) = (lab / "outputs").glob("artifacts/models/*/artifacts")
    script = (
        "import sys, mlflow, numpy\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(model.predict(numpy.zeros((2, 16), 'u1'))['probabilities'].shape)\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.stdout.strip() == "(2, 4)", loaded.stderr


@pytest.mark.slow
def test_python_takes_plugins_and_their_source_is_part_of_the_identity(lab: Path) -> None:
    folder = f"hydra.searchpath=[file://{lab}/conf]"
    given = [folder, "plugins=[my_lab]", "activation=swish", *SETTINGS]
    trained = api.train(*given, show=False)
    assert trained.metrics["test/accuracy"] == 1
    assert type(trained.network[1]).__name__ == "Swish"
    (first,) = runs(Ended(lab / "outputs", 0, "", ""))
    api.train("epochs=1", show=False)
    _, second = runs(Ended(lab / "outputs", 0, "", ""))
    assert first.data.tags["code_digest"] != second.data.tags["code_digest"]


def test_another_source_is_another_identity(lab: Path) -> None:
    script = "from src.support import plugins; plugins.accept(['my_lab']); print(plugins.digests())"

    def digest() -> str:
        command = [sys.executable, "-c", script]
        return subprocess.check_output(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
        )

    before = digest()
    assert before == digest()
    (lab / "my_lab.py").write_text(MODULE + "# changed\n")
    assert digest() != before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config-dir=conf", "experiment=sly"],
        ["-m", "--config-dir=conf", "experiment=sly", "seed=0,1"],
        ["+hydra.job.env_set.SCRATCHGRID_PLUGINS=my_lab"],
    ],
)
def test_a_file_can_not_ask_for_a_plugin(
    arguments: list[str], lab: Path, invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "my_lab", raising=False)
    outputs = lab / "kept"
    arguments = [argument.replace("=conf", f"={lab}/conf") for argument in arguments]
    ended = invoke(*arguments, f"outputs={outputs}")
    assert ended.code == 2
    assert "ommand line" in ended.err
    assert "my_lab" not in sys.modules
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[none_such]", "plugins=[none_such]: there is no module none_such in "),
        ("[faulty]", "plugins=[faulty]: the module can't be imported, it raises ZeroDivisionError"),
        ("[wanting]", "plugins=[wanting]: the module can't be imported, it raises ModuleNotFound"),
        ("my_lab", "plugins=my_lab: must be a list of module names such as [my_module]"),
        ("[../x]", "must be a list of module names"),
    ],
)
def test_a_plugin_that_can_not_be_imported_is_told_in_a_line(
    value: str, message: str, lab: Path, invoke: Callable[..., Ended]
) -> None:
    (lab / "faulty.py").write_text("1 / 0\n")
    (lab / "wanting.py").write_text("import none_such_either\n")
    sys.path.insert(0, str(lab))
    try:
        ended = invoke(f"plugins={value}")
    finally:
        sys.path.remove(str(lab))
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
