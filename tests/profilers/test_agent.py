"""The agent by itself: its language, its answers and its refusals, in real processes."""

import ast
import builtins
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ehdnas.profilers import agent
from ehdnas.profilers.board.smoke import smoke_model

FAST = ("--runs", "3", "--warmup-runs", "1", "--warmup-s", "0", "--min-s", "0", "--max-s", "5")
STANDARD_LIBRARY_OR_RUN_TIME = sys.stdlib_module_names | {"numpy"}


def run(*arguments: str, python: str = sys.executable, **options) -> tuple[int, dict]:
    command = [python, "-I", agent.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    lines = [line for line in done.stdout.splitlines() if line.startswith(agent.MARKER + " ")]
    assert len(lines) == 1, done.stderr
    return done.returncode, json.loads(lines[0][len(agent.MARKER) :])


@pytest.fixture
def gather(tmp_path) -> Path:
    """y = x[i] with a batch that is left open and an index input, so two inputs of two types."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=1)],
        "gather",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("i", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
    )
    path = tmp_path / "gather.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_the_agent_is_python_3_7():
    tree = ast.parse(Path(agent.__file__).read_text(), feature_version=(3, 7))
    future = tree.body[1]
    assert isinstance(future, ast.ImportFrom) and future.names[0].name == "annotations"
    # Walrus and positional-only parameters are syntax, which feature_version refuses; `list[int]` and
    # `int | None` are not, and fail at run time wherever they are evaluated.
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    evaluated = [node for node in ast.walk(tree) if id(node) not in annotations]
    subscripts = [node.value for node in evaluated if isinstance(node, ast.Subscript)]
    assert not [node for node in subscripts if getattr(node, "id", "") in dir(builtins)]
    assert not [n for n in evaluated if isinstance(n, ast.BinOp) and isinstance(n.op, ast.BitOr)]
    assert not [n for n in evaluated if isinstance(n, ast.keyword) and n.arg == "strict"]


def test_the_agent_imports_only_the_standard_library_and_numpy():
    tree = ast.parse(Path(agent.__file__).read_text())
    names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= STANDARD_LIBRARY_OR_RUN_TIME


def test_it_times_a_model(model):
    code, answer = run(model, *FAST)
    assert code == 0 and answer["ok"]
    assert len(answer["samples_ms"]) == 3 and min(answer["samples_ms"]) > 0
    assert answer["load_ms"] > 0 and answer["first_ms"] > 0
    assert answer["inputs"] == [{"name": "x", "shape": [1, 8], "dtype": "float32"}]
    assert answer["machine"]["python"] == sys.version.split()[0]
    assert answer["before"]["affinity"] == sorted(os.sched_getaffinity(0))


def test_the_protocol_decides_how_long_it_runs(model):
    _, by_time = run(model, "--runs", "1", "--min-s", "0.2", "--warmup-s", "0", "--warmup-runs", "0")
    assert len(by_time["samples_ms"]) > 100
    _, by_limit = run(model, "--runs", "100000", "--min-s", "9", "--max-s", "0.05", "--warmup-s", "0")
    assert sum(by_limit["samples_ms"]) < 100


def test_open_sizes_and_integer_inputs_are_filled_in(gather):
    code, answer = run(gather, *FAST)
    assert code == 0
    assert [(one["shape"], one["dtype"]) for one in answer["inputs"]] == [([1, 4], "float32"), ([2], "int64")]


def test_given_inputs_are_used_and_checked(gather, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    np.save(tmp_path / "i.npy", np.array([0, 3]))
    np.save(tmp_path / "far.npy", np.array([0, 99]))
    given = ("--input", tmp_path / "x.npy", "--input")
    assert run(gather, *FAST, *given, tmp_path / "i.npy")[0] == 0
    code, answer = run(gather, *FAST, *given, tmp_path / "far.npy")
    assert (code, answer["kind"]) == (3, "model")  # the index reached the model, which refused it
    code, answer = run(gather, *FAST, *given, tmp_path / "x.npy")
    assert (code, answer["kind"]) == (4, "input") and "x.npy is float32" in answer["reason"]
    code, answer = run(gather, *FAST, "--input", tmp_path / "x.npy")
    assert (code, answer["kind"]) == (4, "input") and "2 inputs, 1" in answer["reason"]


def test_pickled_input_is_refused(gather, tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object))
    code, answer = run(gather, *FAST, "--input", tmp_path / "evil.npy", "--input", tmp_path / "evil.npy")
    assert (code, answer["kind"]) == (4, "input")


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_a_damaged_model_is_refused_with_the_reason(suffix, tmp_path):
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(smoke_model(suffix)[:40])
    code, answer = run(path, *FAST)
    assert code == 3 and not answer["ok"] and answer["kind"] == "model"
    assert "refused it" in answer["reason"] and "\n" not in answer["reason"]


def test_without_an_interpreter_it_says_which_were_tried(model, tmp_path):
    # A bare environment has the standard library alone.
    venv.create(tmp_path / "bare", with_pip=False)
    code, answer = run(model, *FAST, python=str(tmp_path / "bare" / "bin" / "python"))
    assert code == 2 and answer["kind"] == "interpreter"
    assert ("tflite-runtime" if model.suffix == ".tflite" else "onnxruntime") in answer["reason"]


def test_probe_reports_interpreter_and_machine():
    code, answer = run(".tflite", "--probe")
    assert code == 0 and answer["interpreter"].startswith("ai-edge-litert ")
    assert answer["machine"]["free_disk_mb"] > 0 and answer["before"]["load"] >= 0


def test_it_ends_when_its_standard_input_closes(model):
    command = [
        sys.executable,
        "-I",
        agent.__file__,
        model,
        "--min-s",
        "100",
        "--max-s",
        "100",
        "--warmup-s",
        "100",
    ]
    with subprocess.Popen(
        [*command, "--watch-stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdin.close()
        assert process.wait(timeout=20) == agent.ABANDONED


@pytest.mark.slow
def test_it_runs_on_the_packages_pinned_for_boards(tmp_path):
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has no wheel for this Python")
    venv.create(tmp_path / "board", with_pip=True)
    python = str(tmp_path / "board" / "bin" / "python")
    pins = Path(__file__).parents[2] / "requirements-board.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", pins], check=True)
    (tmp_path / "relu.tflite").write_bytes(smoke_model(".tflite"))
    code, answer = run(tmp_path / "relu.tflite", *FAST, python=python)
    assert code == 0, answer
    assert answer["interpreter"] == "tflite-runtime 2.14.0" and answer["machine"]["numpy"].startswith("1.")
