"""The agent in the oldest Pythons that boards have, really run."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ehdnas.profilers import agent
from ehdnas.profilers.board.reply import Output, read_reply
from ehdnas.profilers.board.smoke import smoke_model

BRIEF = ("--runs", "10", "--warmup-s", "0.1", "--min-s", "0.3", "--max-s", "5", "--window-s", "0.1")


def find_python(version: str) -> str:
    """Return a working Python of this version, on the PATH, from pyenv or from uv; else skip."""
    homes = [
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
        Path.home() / ".local" / "share" / "uv" / "python",
    ]
    found = [
        shutil.which(f"python{version}"),
        *(p for home in homes for p in home.glob(f"*/bin/python{version}")),
    ]
    for path in filter(None, found):
        if subprocess.run([path, "-c", "import ssl, venv"], capture_output=True).returncode == 0:
            return str(path)
    pytest.skip(f"no Python {version} here: pyenv install {version}, or uv python install {version}")


def run(python: str, *arguments: str) -> Output:
    command = [python, "-I", agent.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return Output(done.stdout, done.stderr, done.returncode)


def answer_of(output: Output) -> dict:
    assert agent.MARKER in output.stdout, output.stderr
    return json.loads(output.stdout.partition(agent.MARKER)[2])


@pytest.mark.parametrize("version", ["3.7", "3.8"])
def test_it_probes_and_refuses(version):
    python = find_python(version)
    probed = answer_of(run(python, ".tflite", "--probe", "--delegate", "libedgetpu.so.1"))
    assert probed["ok"] and probed["machine"]["python"].startswith(version + ".")
    assert len(probed["interpreters"]) == 3 and probed["before"]["affinity"]
    refused = run(python, "relu.onnx", "--cpus", "99999")
    assert refused.status == 4 and answer_of(refused)["kind"] == "input" and refused.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "package", "suffix"),
    [
        ("3.8", "tflite-runtime==2.14.0", ".tflite"),
        ("3.7", "tflite-runtime==2.11.0", ".tflite"),
        ("3.7", "onnxruntime==1.14.1", ".onnx"),
    ],
)
def test_it_times_and_gives_outputs(version, package, suffix, tmp_path):
    subprocess.run([find_python(version), "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    command = [python, "-m", "pip", "install", "-q", package, "numpy<2"]
    installed = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution" in installed.stderr:
        pytest.skip(f"pip has no {package} for Python {version} here")
    assert installed.returncode == 0, installed.stderr
    model, images, outputs = tmp_path / f"relu{suffix}", tmp_path / "x.npy", tmp_path / "y.npy"
    model.write_bytes(smoke_model(suffix))
    reply = read_reply(run(python, model, *BRIEF), model.name)
    assert reply.interpreter == package.replace("==", " ") and reply.machine["numpy"].startswith("1.")
    assert reply.runs >= 10 and len(reply.windows) >= 2 and reply.import_ms > 0
    code = f"import numpy; numpy.save({str(images)!r}, numpy.arange(-16, 16, dtype='float32').reshape(4, 8))"
    subprocess.run([python, "-c", code], check=True)
    given = answer_of(run(python, model, "--input", images, "--output", outputs))
    assert (given["outputs"], given["shape"]) == (4, [4, 8]) and outputs.stat().st_size == 128 + 4 * 32
