"""The wheel: built, installed where the repository is not seen, and the whole loop run by it."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Small enough for a test; what is asked here is whether everything that the loop needs was shipped.
SETTINGS = """channels = 4
cells = 3
samples = 40
search_epochs = 2
finalists = 1
train_epochs = 1
"""
FOLDERS = ("toolkit", "search", "exporters", "profilers", "core")
pytestmark = pytest.mark.slow


def told(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr[-2000:]  # 3: so short a search may miss its budget
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:  # a copy, since building leaves its own folders beside what it builds
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    told(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_nothing_but_ehdnas_lands_in_site_packages(wheel):
    with ZipFile(wheel) as file:
        tops = {name.split("/")[0] for name in file.namelist()}
    assert tops == {"ehdnas", "-".join(wheel.name.split("-")[:2]) + ".dist-info"}


def test_the_installed_wheel_runs_the_loop_away_from_the_repository(wheel, tmp_path):
    told(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    told(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    # What it depends on is taken from where the tests run; a folder named in a .pth file is searched last.
    own = Path(
        told(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "ehdnas.toml").write_text(SETTINGS)
    found = told(python, "-c", "import ehdnas; print(ehdnas.__file__)", cwd=project)
    assert Path(found.strip()).is_relative_to(own)
    assert "verdict" in told(tmp_path / "venv" / "bin" / "ehdnas", "run", cwd=project)
    assert list((project / ".ehdnas" / "runs").glob("*/report.html"))
