"""Parity: does the exported file, in its own interpreter, agree with the network?"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.artifact import Artifact, Parity
from ehdnas.core.errors import DataError, ExportError, ParityError

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]

_RUNNER = Path(__file__).with_name("runner.py")
_TIMEOUT_S = 600.0
_BATCH = 64


def run_artifact(artifact_path: Path, images: Array, timeout_s: float = _TIMEOUT_S) -> Array:
    """Return the logits (n, classes) that an exported file gives for `images` (n, C, H, W), normalised.

    The file runs in a process of its own, on one thread: a bad one can abort the interpreter.

    Raises:
        ExportError: the interpreter refuses the file, aborts, or takes longer than `timeout_s`.
        DataError: there is no such file, or there are no images.
    """
    if not artifact_path.is_file():
        raise DataError(f"{artifact_path} does not exist; export the network first")
    if not len(images):
        raise DataError(f"no images to run {artifact_path} on; give at least one")
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        source, result = Path(folder, "images.npy"), Path(folder, "logits.npy")
        np.save(source, np.ascontiguousarray(images, dtype=np.float32))
        _run(artifact_path, source, result, timeout_s)
        logits: Array = np.load(result, allow_pickle=False)
    return logits


def _run(artifact_path: Path, source: Path, result: Path, timeout_s: float) -> None:
    # -P: the script's own folder must not be on the path, where onnx.py would hide the real onnx.
    command = [sys.executable, "-P", str(_RUNNER), str(artifact_path.resolve()), str(source), str(result)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{artifact_path} did not finish within {timeout_s:g} s; try fewer images or a smaller network"
        ) from error
    if done.returncode < 0:
        raise ExportError(
            f"{artifact_path} ended its interpreter with {_signal_name(-done.returncode)}; "
            "the file must not be deployed: export it again"
        )
    if done.returncode > 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExportError(f"{artifact_path} does not run in its interpreter: {reason}; export it again")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def check_parity(artifact: Artifact, model: nn.Module, images: Array, threshold: float) -> Parity:
    """Return how the file's logits for `images` (n, C, H, W), normalised, compare with the network's.

    The network runs in eval mode and is left as it was found. A logit that is not finite counts as
    the largest float32 difference.

    Raises:
        ExportError, DataError: as `run_artifact`; a difference, however large, raises nothing.
    """
    expected = _logits(model, images)
    actual = run_artifact(artifact.path, images)
    if actual.shape != expected.shape:
        raise ExportError(
            f"{artifact.path} gives logits of shape {actual.shape}, its network {expected.shape}; "
            "export it again"
        )
    limit = float(np.finfo(np.float32).max)
    difference = np.nan_to_num(np.abs(actual.astype(np.float64) - expected), nan=limit, posinf=limit)
    largest = float(difference.max())
    return Parity(
        images=len(images),
        max_difference=largest,
        mean_difference=float(difference.mean()),
        top1_agreement=float((actual.argmax(1) == expected.argmax(1)).mean()),
        threshold=threshold,
        passed=largest <= threshold,
    )


def require_parity(artifact: Artifact) -> None:
    """Return if the artifact was checked and agrees with its network.

    Raises:
        ParityError: it was never checked, or differs by more than its threshold.
    """
    parity = artifact.manifest.parity
    if parity is None:
        raise ParityError(f"{artifact.path} was never compared with its network; run the parity check first")
    if not parity.passed:
        raise ParityError(
            f"{artifact.path} differs from its network by {parity.max_difference:.3g} "
            f"(mean {parity.mean_difference:.3g}, same class for {parity.top1_agreement:.1%} of "
            f"{parity.images} images), more than the {parity.threshold:.3g} allowed; do not deploy it"
        )


def _logits(model: nn.Module, images: Array) -> Array:
    import torch

    from ehdnas.core.graph import eval_mode

    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    with eval_mode(model), torch.no_grad():
        parts = [model(torch.as_tensor(batch).to(device)).cpu().numpy() for batch in batches]
    logits: Array = np.concatenate(parts)
    return logits
