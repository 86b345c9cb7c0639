"""The example of a space of one's own: registered as its own package, it keeps every promise of a space."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "my_space"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the example installed as pip would leave it: its module and its metadata."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    (spaces,) = project["project"]["entry-points"].items()
    metadata = site / "my_space-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-space\nVersion: 0.1.0\n")
    lines = [f"{name} = {value}" for name, value in spaces[1].items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{spaces[0]}]", *lines, ""]))
    (module,) = project["tool"]["setuptools"]["py-modules"]
    (site / f"{module}.py").write_text((EXAMPLE / f"{module}.py").read_text())
    return {**os.environ, "PYTHONPATH": str(site)}


def test_it_passes_the_contract_of_spaces(installed):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "residual or there_are_spaces",
    ]
    done = subprocess.run(
        [*command, "tests/contracts/test_spaces.py"], cwd=ROOT, env=installed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 10, "the suite ran on it"


@pytest.mark.slow
def test_the_tool_searches_it(installed, tmp_path):
    flags = [
        "--space",
        "residual",
        "--samples",
        "20",
        "--search-epochs",
        "1",
        "--channels",
        "4",
        "--batch-size",
        "128",
    ]
    (tmp_path / ".ehdnas").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "ehdnas", "search", *flags, "--device", "ehdnas-generic"],
        cwd=tmp_path, env=installed, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'residual'" in done.stderr
