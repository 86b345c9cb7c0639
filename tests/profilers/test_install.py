"""`ehdnas devices install`: whole or absent, hashes required, and nothing but our own folder is touched."""

import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ehdnas.core.device import Device
from ehdnas.core.errors import DataError, DeviceError, UsageError
from ehdnas.core.remote import LocalTransport
from ehdnas.profilers.board.install import (
    board_requirements,
    install,
    installed_folder,
    remove,
)
from ehdnas.profilers.board.options import BoardOptions, board_options

pytest_plugins = ("sshd_fixtures",)

OPTIONS = BoardOptions(python=sys.executable)
OTHERS = [
    path for version in ("3.7", "3.8", "3.9", "3.10", "3.12", "3.13")
    for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))[:1]
]  # fmt: skip


def installed_python(there, options):
    """The Python that is installed over there; '' where none is."""
    folder = installed_folder(there, options)
    there_is = there.run(["test", "-f", f"{folder}/ehdnas-installed"], 30).code == 0
    return f"{folder}/bin/python" if there_is else ""


def wheel(folder, name="onnxruntime", version="1.0", body="__version__ = '1.0'\n"):
    """A wheel of one module, and the requirement that names it by its hash."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},"
        f"{len(text)}\n"
        for path, text in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def there(home):
    with LocalTransport() as transport:
        yield transport


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Options with a Python whose `-m venv` copies an environment that was made once, with our own pip."""
    folder, pip = tmp_path_factory.mktemp("prepared"), importlib.util.find_spec("pip")
    if pip is None:
        pytest.skip("no pip in the environment of these tests")
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (packages / "pip").symlink_to(Path(pip.origin).parent)
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\ntest "$1 $2 $3" = "-I -m venv" && exec cp -a {folder}/venv "$4"\nexit 9\n')
    python.chmod(0o755)
    return BoardOptions(python=str(python))


@pytest.fixture
def tiny(tmp_path):
    """Requirements of one tiny package, and the folder of its wheel."""
    path = tmp_path / "requirements.txt"
    path.write_text(wheel(tmp_path / "wheels"))
    return path, tmp_path / "wheels"


def left(home):
    """What is in the home, but for the folders that lead to ours."""
    ours = home / OPTIONS.folder
    return sorted(path.name for path in ours.parent.iterdir()) if ours.parent.is_dir() else []


def test_it_installs_once_and_is_removed(prepared, there, home, tiny):
    said = []
    assert installed_python(there, prepared) == ""
    done = install(there, prepared, tiny[0], said.append, tiny[1])
    assert done.python == f"{home}/.local/share/ehdnas-board/bin/python" and not done.before
    assert done.versions["onnxruntime"] == "1.0" and said
    run = subprocess.run(
        [done.python, "-c", "import onnxruntime, sys; print(onnxruntime.__version__, sys.prefix)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split() == ["1.0", str(home / prepared.folder)]
    assert installed_python(there, prepared) == done.python
    again = install(there, prepared, tiny[0], said.append, tiny[1])
    assert again == replace(done, before=True)
    assert left(home) == ["ehdnas-board"]
    (home / "mine").write_text("kept")
    assert remove(there, prepared) == str(home / prepared.folder)
    assert left(home) == [] and (home / "mine").is_file()
    with pytest.raises(DeviceError, match="nothing to remove"):
        remove(there, prepared)


def test_other_requirements_replace_what_was_installed(prepared, there, home, tiny, tmp_path):
    install(there, prepared, tiny[0], print, tiny[1])
    tiny[0].write_text(wheel(tmp_path / "wheels", version="2.0", body="__version__ = '2.0'\n"))
    done = install(there, prepared, tiny[0], print, tiny[1])
    assert (done.before, done.versions["onnxruntime"]) == (False, "2.0")
    assert left(home) == ["ehdnas-board"]


def test_one_that_was_broken_is_made_anew(prepared, there, home, tiny):
    done = install(there, prepared, tiny[0], print, tiny[1])
    Path(done.python).unlink()
    assert not install(there, prepared, tiny[0], print, tiny[1]).before
    assert Path(done.python).exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("onnxruntime==1.0 --hash=sha256:" + 64 * "0", "SHA-256"),
        ("onnxruntime==1.0", "pip failed"),
        ("nothing==1.0 --hash=sha256:" + 64 * "0", "No matching distribution found for nothing==1.0"),
    ],
)
def test_a_failed_install_leaves_nothing(prepared, there, home, tiny, text, says):
    tiny[0].write_text(text + "\n")
    with pytest.raises(DeviceError, match=says):
        install(there, prepared, tiny[0], print, tiny[1])
    assert left(home) == []


def test_what_does_not_load_is_not_kept_and_the_old_one_stays(prepared, there, home, tiny, tmp_path):
    install(there, prepared, tiny[0], print, tiny[1])
    tiny[0].write_text(wheel(tmp_path / "wheels", version="3.0", body="raise OSError('too old a glibc')\n"))
    with pytest.raises(DeviceError, match="too old a glibc"):
        install(there, prepared, tiny[0], print, tiny[1])
    python = installed_python(there, prepared)
    assert subprocess.run([python, "-c", "import onnxruntime"], check=False).returncode == 0
    assert left(home) == ["ehdnas-board"]


def test_folders_that_are_not_ours_are_left_alone(there, home, tiny, tmp_path):
    ours = home / OPTIONS.folder
    ours.mkdir(parents=True)
    (ours / "precious").write_text("kept")
    for act in (remove, lambda *given: install(*given, tiny[0], print, tiny[1])):
        with pytest.raises(DeviceError, match="left alone"):
            act(there, OPTIONS)
    elsewhere = tmp_path / "elsewhere"
    ours.rename(elsewhere)
    (elsewhere / "ehdnas-installed").write_text("a marker, behind a link")
    ours.symlink_to(elsewhere)
    for act in (remove, lambda *given: install(*given, tiny[0], print, tiny[1])):
        with pytest.raises(DeviceError, match="is a link"):
            act(there, OPTIONS)
    assert (elsewhere / "precious").read_text() == "kept"


@pytest.mark.parametrize("folder", ["", ".", "/etc", "../x", "a/../../x", "~", "~/.."])
def test_folders_outside_the_home_are_refused(there, folder):
    with pytest.raises(UsageError, match=r"under the home"):
        board_options(Device(name="b", kind="ssh", title="B", options={"folder": folder}))
    assert installed_folder(there, BoardOptions(folder="~/mine")).endswith("/home/mine")


def test_what_is_missing_is_named(there, home, tiny, tmp_path):
    with pytest.raises(DeviceError, match="no python9; sudo apt install python3"):
        install(there, BoardOptions(python="python9"), tiny[0], print, tiny[1])
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'ensurepip is not available'; exit 1\n")
    bare.chmod(0o755)
    with pytest.raises(DeviceError, match="sudo apt install python3-venv"):
        install(there, BoardOptions(python=str(bare)), tiny[0], print, tiny[1])
    with pytest.raises(DataError, match="no wheels in"):
        install(there, OPTIONS, tiny[0], print, home)
    with pytest.raises(DataError, match="cannot read"):
        install(there, OPTIONS, tmp_path / "absent", print)
    assert left(home) == []


def test_over_ssh(sshd, prepared, tiny):
    with sshd.transport() as there:
        done = install(there, prepared, tiny[0], print, tiny[1])
        assert done.versions["onnxruntime"] == "1.0"
        assert there.run([installed_python(there, prepared), "-c", "import onnxruntime"], 30).code == 0
        remove(there, prepared)
        assert installed_python(there, prepared) == ""


def test_every_requirement_has_hashes_and_the_design_is_kept():
    lines = board_requirements().read_text().replace("\\\n", "").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line and "--hash=sha256:" in line for line in pins)
    for line in pins:
        if line.startswith(("tflite-runtime", "ai-edge-litert", "onnxruntime")):
            assert line.count("--hash") >= 2, "aarch64 and x86_64"
    assert any(line.startswith("tflite-runtime==2.14.0 ") for line in pins)
    assert board_requirements().resolve() == Path(__file__).parents[2] / "requirements-board.txt"


@pytest.mark.slow
def test_a_new_environment_has_a_pip_of_its_own(there, home, tiny):
    done = install(there, OPTIONS, tiny[0], print, tiny[1])
    assert done.versions["onnxruntime"] == "1.0"
    assert (home / OPTIONS.folder / "bin" / "pip").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("python", [sys.executable, *map(str, OTHERS)])
def test_the_real_packages_install_and_run(there, python):
    done = install(there, BoardOptions(python=os.path.realpath(python)), board_requirements(), print)
    assert {"numpy", "onnxruntime"} <= set(done.versions)
    assert {"tflite_runtime", "ai_edge_litert"} & set(done.versions)
