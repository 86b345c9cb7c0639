"""The package as it is shipped: every folder and data file listed, a Dockerfile that can work."""

import re
import tomllib
from pathlib import Path

import pytest

from ehdnas.core.device import read_device
from ehdnas.profilers.devices import builtin_devices

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAP = PROJECT["tool"]["setuptools"]["package-dir"]


def test_every_package_folder_is_listed():
    found = set()
    for name, folder in MAP.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / folder).parts]))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])
    assert all(name.split(".")[0] == "ehdnas" for name in found)


def test_every_data_file_is_shipped():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for name, folder in MAP.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc", ".typed"):
                package = ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
                assert any(path.match(pattern) for pattern in data[package]), path


def test_the_dockerfile_copies_what_exists_and_runs_what_the_makefile_runs():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
    assert set(MAP.values()) <= set(copied)
    makefile = (ROOT / "Makefile").read_text()
    for command in (line for line in lines if "pip install" in line):
        install = re.search(r"pip install [\w -]*--constraint", command)
        assert install and install[0] in makefile
    ignored = (ROOT / ".dockerignore").read_text()
    assert all(f"!{source}" in ignored for source in copied)
    assert 'ENTRYPOINT ["ehdnas"]' in lines
    assert any(line.startswith("USER ") and "root" not in line for line in lines)


def test_constraints_pin_every_direct_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"]["dev"]
    for requirement in [*PROJECT["project"]["dependencies"], *extras]:
        name = re.match(r"[\w-]+", requirement)[0].lower()
        if "!= 'linux'" not in requirement:
            assert name in pinned, name


@pytest.mark.parametrize("path", builtin_devices().values(), ids=lambda path: path.stem)
def test_built_in_devices_are_whole(path):
    device = read_device(path)
    assert device.title
    assert device.description


def test_files_keep_to_their_size():
    sizes = [
        len(path.read_text().splitlines())
        for folder in MAP.values()
        for path in (ROOT / folder).rglob("*.py")
        # The agent is one file whatever its size: that is what is copied to a board.
        if path.name not in ("__init__.py", "agent.py")
    ]
    assert max(sizes) <= 400
    assert sorted(sizes)[len(sizes) // 2] <= 150
