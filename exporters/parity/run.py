"""An exported file run on images, in a process that may crash without taking ours along."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import DataError, EhdnasError, ExportError
from ehdnas.exporters.tflite.file import read_tflite, sound_scales

Array = NDArray[np.float32]

_RUNNER = Path(__file__).with_name("runner.py")
_START_S = 120.0  # an interpreter's own start, on a busy machine
_IMAGE_S = 2.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a file gave: `outputs` (n, classes) or (n, C, H, W), and what its interpreter is."""

    outputs: Array
    interpreter: str
    facts: dict[str, Any] = field(default_factory=dict)


def run_artifact(
    path: Path, images: Array | Sequence[Array], timeout_s: float | None = None, python: str = sys.executable
) -> Outcome:
    """Return what an exported file gives for normalised `images` (n, C, H, W), one array an input.

    The file runs on one thread in a process of its own: a bad one can abort the interpreter.

    Args:
        timeout_s: by default two minutes, and two seconds an image.
        python: the Python whose interpreters are used, such as that of another environment.

    Raises:
        ExportError: the interpreter refuses the file, aborts, or takes too long.
        DataError: there is no such file, or there are no images.
        EhdnasError: there is no room for the images among the temporary files.
    """
    several: list[Array] = [images] if isinstance(images, np.ndarray) else list(images)
    if not path.is_file():
        raise DataError(f"{path} does not exist; export the network first")
    if not several or not len(several[0]):
        raise DataError(f"no images to run {path} on; give at least one")
    limit_s = _START_S + _IMAGE_S * len(several[0]) if timeout_s is None else timeout_s
    _require_sound(path)
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        source, result = Path(folder, "images.npz"), Path(folder, "result.npz")
        arrays = {str(i): np.ascontiguousarray(one, dtype=np.float32) for i, one in enumerate(several)}
        try:
            np.savez(source, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise EhdnasError(
                f"cannot write images to {folder}: {error.strerror or error}; free some space or set TMPDIR"
            ) from error
        _run([python, "-P" if python == sys.executable else "-s"], path, source, result, limit_s)
        with np.load(result, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            return Outcome(stored["outputs"], facts.pop("interpreter"), facts)


def _require_sound(path: Path) -> None:
    """Refuse a TensorFlow Lite file whose scales abort interpreters; what is no such file is theirs to judge.

    Raises:
        ExportError: it has such a scale.
    """
    if path.suffix != ".tflite":
        return
    with suppress(DataError):
        unsound = sound_scales(read_tflite(path))
        if unsound:
            raise ExportError(f"{path} would end its interpreter: {unsound[0]}; export it again")


def _run(python: list[str], path: Path, source: Path, result: Path, timeout_s: float) -> None:
    command = [*python, str(_RUNNER), str(path.resolve()), str(source), str(result)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{path} did not finish within {timeout_s:g} s; try fewer images or a smaller network"
        ) from error
    if done.returncode < 0:
        raise ExportError(
            f"{path} ended its interpreter with {_signal_name(-done.returncode)}; "
            "the file must not be deployed: export it again"
        )
    if done.returncode > 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExportError(f"{path} does not run in its interpreter: {reason}; export it again")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
