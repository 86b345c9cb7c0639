"""`ehdnas devices install`: a Python environment of our own on a board, in one folder, and its removal."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ehdnas.core.errors import DataError, DeviceError, EhdnasError
from ehdnas.core.files import sha256
from ehdnas.core.remote import Completed, Transport
from ehdnas.profilers.board.options import BoardOptions

_MARKER = "ehdnas-installed"
_QUICK_S = 60.0
_PIP_S = 1800.0
# Scripts are constant, on one line and without single quotes: any log-in shell passes them on unharmed. Words
# of ours come as arguments.
_HOME = 'cd && printf "%s" "$PWD"'
_READ = 'test ! -L "$1" || exit 3; test -e "$1" || exit 4; test -f "$1/$2" || exit 5; cat "$1/$2"'
_CLEAR = 'rm -rf -- "$1"'
# What an install of hours ago left when it was cut off is nobody's any more.
_MAKE = (
    'mkdir -p -- "$(dirname -- "$1")" && find "$(dirname -- "$1")" -maxdepth 1 -name "*.partial-*" '
    '-mmin +180 -exec rm -rf -- "{}" + ; exec "$2" -I -m venv "$1"'
)
_KEEP = (
    'printf "%s" "$4" >"$1/$3" && rm -rf -- "$2.old" && if test -e "$2"; then mv -- "$2" "$2.old"; fi && '
    'mv -- "$1" "$2" && rm -rf -- "$2.old"'
)
_NO_NETWORK = ("NewConnectionError", "onnection broken", "timed out", "resolution")
_LINK, _ABSENT, _FOREIGN = 3, 4, 5
# What a tiny install lacks is no failure: which of them a device needs is for its profiler to say.
_SMOKE = """
import importlib, json, os, platform
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
found = {"python": platform.python_version()}
for name in ("numpy", "tflite_runtime.interpreter", "ai_edge_litert.interpreter", "onnxruntime"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        if getattr(error, "name", "") != name.split(".")[0]:
            raise
        continue
    top = importlib.import_module(name.split(".")[0])
    found[top.__name__] = str(getattr(top, "__version__", ""))
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Installed:
    """What `install` left: the Python that runs the agent, the versions it has, and whether it was there."""

    python: str
    versions: dict[str, str]
    before: bool


def board_requirements() -> Path:
    """Return the file of what is installed on a board.

    Raises:
        DataError: it did not come with the tool.
    """
    path = Path(__file__).with_name("requirements.txt")
    if not path.is_file():
        raise DataError(f"no {path}: it came without what boards need; install ehdnas again")
    return path


def install(
    there: Transport,
    options: BoardOptions,
    requirements: Path,
    say: Callable[[str], None],
    wheels: Path | None = None,
) -> Installed:
    """Set up `requirements`, hashes required, in the device's own folder under the log-in's home.

    The folder is whole or absent, and one of the same requirements is left as it is. Packages come from the
    index that the device's pip knows, or from the folder `wheels` of this machine.

    Raises:
        DataError: the requirements or the wheels cannot be read.
        DeviceError: the device cannot be reached, lacks something, or a package is not what it should be.
    """
    digest = _digest(requirements)
    sent = _wheels(wheels)
    folder = installed_folder(there, options)
    python = f"{folder}/bin/python"
    if _marker(there, folder) == digest:
        with suppress(DeviceError):
            return Installed(python, _versions(there, python), before=True)
    partial = f"{folder}.partial-{secrets.token_hex(4)}"  # another may be at it from elsewhere
    try:
        say(f"making {folder}")
        _make(there, partial, options.python or "python3")
        say(
            f"installing {'the wheels you gave' if sent else 'packages'}; this takes minutes on a small board"
        )
        _fill(there, f"{partial}/bin/python", requirements, sent)
        versions = _versions(there, f"{partial}/bin/python")
        _sh(there, _KEEP, partial, folder, _MARKER, digest)
    except BaseException:
        with suppress(EhdnasError):
            there.run(["sh", "-c", _CLEAR, "sh", partial], _QUICK_S)
        raise
    return Installed(python, versions, before=False)


def remove(there: Transport, options: BoardOptions) -> str:
    """Remove what `install` set up, and nothing else; return the folder that is gone.

    Raises:
        DeviceError: there is none, or the folder is not ours.
    """
    folder = installed_folder(there, options)
    if _marker(there, folder) is None:
        raise DeviceError(f"there is no {folder}; nothing to remove")
    _sh(there, _CLEAR, folder)
    return folder


def installed_folder(there: Transport, options: BoardOptions) -> str:
    """Return the absolute path that the device's folder has, or would have, over there.

    Raises:
        DeviceError: the device cannot be reached, or the log-in has no home.
    """
    return str(PurePosixPath(_home(there)) / options.folder.removeprefix("~/"))


def _home(there: Transport) -> str:
    home = _sh(there, _HOME)
    if not home.startswith("/") or not home.isprintable():
        raise DeviceError(f"the log-in has no usable home ({home[:80]!r}); give it one")
    return home


def _marker(there: Transport, folder: str) -> str | None:
    """Return what our marker in `folder` says, None where there is no such folder."""
    done = there.run(["sh", "-c", _READ, "sh", folder, _MARKER], _QUICK_S)
    if done.code == _ABSENT:
        return None
    if done.code in (_LINK, _FOREIGN):
        what = "a link" if done.code == _LINK else "there, but not made by `ehdnas devices install`"
        raise DeviceError(f"{folder} is {what}, and is left alone; move it away, or set options.folder")
    if done.code:
        raise DeviceError(f"cannot read {folder}: {_last(done)}; check its permissions")
    return done.stdout.decode(errors="replace").strip()


def _make(there: Transport, partial: str, python: str) -> None:
    if python.startswith("~/"):
        python = _home(there) + python[1:]
    done = there.run(["sh", "-c", _MAKE, "sh", partial, python], _PIP_S)
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.code == 127:
        raise DeviceError(f"there is no {python}; sudo apt install python3 python3-venv")
    if "ensurepip" in said or "No module named venv" in said:
        raise DeviceError("its Python cannot make environments; sudo apt install python3-venv")
    if done.code:
        raise DeviceError(
            f"cannot make {partial}: {_last(done)}; free some space there, or set options.folder"
        )


def _fill(there: Transport, python: str, requirements: Path, wheels: Sequence[Path]) -> None:
    source: list[str] = []
    for wheel in wheels:
        sent = PurePosixPath(there.put(wheel, wheel.name))
        source = ["--no-index", "--find-links", str(sent.parent)]
    newer_pip = _stanza(requirements.read_text(), "pip==")
    if newer_pip:  # alone and first: an old pip does not know today's names of wheels
        _pip(there, python, _put_text(there, newer_pip, "pip.txt"), source)
    _pip(there, python, there.put(requirements, "requirements.txt"), source)


def _pip(there: Transport, python: str, requirements: str, source: list[str]) -> None:
    flags = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--require-hashes"]
    # `:all:` is pip's word for every package: nothing is built on the board.
    flags += ["--only-binary", ":all:", *source, "-r", requirements]
    done = there.run([python, "-I", "-m", "pip", "install", *flags], _PIP_S)
    if done.code == 0:
        return
    said = done.stderr.decode(errors="replace")
    errors = [line[7:] for line in said.splitlines() if line.startswith("ERROR: ")]
    why = errors[-1] if errors else _last(done)
    if "DO NOT MATCH THE HASHES" in said:
        raise DeviceError(
            "a package is not the one that requirements-board.txt names by its SHA-256, and nothing was "
            "installed; check the index that the device's pip is set to, or give --wheels"
        )
    if "No matching distribution" in said and not any(word in said for word in _NO_NETWORK):
        mend = "give --wheels with it" if source else "it needs CPython 3.7 to 3.14 on a 64-bit Linux"
        raise DeviceError(f"{why[:200]}; {mend}")
    raise DeviceError(
        f"pip failed: {why[:200]}; where the device has no internet, give --wheels with a folder of them"
    )


def _put_text(there: Transport, text: str, name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        path = Path(folder) / name
        path.write_text(text)
        return there.put(path, name)


def _stanza(text: str, start: str) -> str:
    """Return the requirement that begins with `start`, with its hashes; "" where there is none."""
    joined = text.replace("\\\n", " ").splitlines()
    return "".join(f"{line}\n" for line in joined if line.startswith(start))


def _versions(there: Transport, python: str) -> dict[str, str]:
    done = there.run([python, "-I", _put_text(there, _SMOKE, "smoke.py")], _QUICK_S)
    if done.code:
        raise DeviceError(f"what was installed does not load: {_last(done)}; its system may be too old")
    try:
        return {str(key): str(value) for key, value in json.loads(done.stdout.splitlines()[-1]).items()}
    except (ValueError, IndexError, AttributeError) as error:
        raise DeviceError("what was installed gave no versions; try again") from error


def _sh(there: Transport, script: str, *words: str) -> str:
    done = there.run(["sh", "-c", script, "sh", *words], _QUICK_S)
    if done.code:
        raise DeviceError(f"the device refused: {_last(done)}; check permissions and free space there")
    return done.stdout.decode(errors="replace")


def _last(done: Completed) -> str:
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {done.code}"


def _digest(requirements: Path) -> str:
    try:
        return sha256(requirements)
    except OSError as error:
        raise DataError(f"cannot read {requirements}: {error.strerror}; install ehdnas again") from error


def _wheels(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    found = sorted(folder.glob("*.whl"))
    if not found:
        raise DataError(f"no wheels in {folder}; fetch them there as the head of requirements-board.txt says")
    return found
