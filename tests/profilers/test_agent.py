"""The agent by itself: its language, its answers and its refusals, in real processes."""

import ast
import builtins
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ehdnas.profilers import agent
from ehdnas.profilers.board.smoke import smoke_model

FAST = ("--runs", "3", "--warmup-runs", "1", "--warmup-s", "0", "--min-s", "0", "--max-s", "5")
# Windows, because a tiny model otherwise has its most runs in a quarter of a second.
LONG = ("--min-s", "100", "--max-s", "100", "--warmup-s", "0", "--window-s", "10")
STANDARD_LIBRARY_OR_RUN_TIME = sys.stdlib_module_names | {"numpy"}


def run(*arguments: str, python: str = sys.executable, flag: str = "-I", **options) -> tuple[int, dict]:
    command = [python, flag, agent.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    lines = [line for line in done.stdout.splitlines() if line.startswith(agent.MARKER + " ")]
    assert len(lines) == 1, done.stderr
    return done.returncode, json.loads(lines[0][len(agent.MARKER) :])


@pytest.fixture
def relu(tmp_path) -> Path:
    (tmp_path / "relu.tflite").write_bytes(smoke_model(".tflite"))
    return tmp_path / "relu.tflite"


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
    # Each run begins within the limit, so all but the last end there; that one may be held up by others.
    assert sum(by_limit["samples_ms"][:-1]) < 50


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


def test_a_batch_is_run_item_by_item_and_the_outputs_are_saved(gather, tmp_path):
    images = np.arange(24, dtype=np.float32).reshape(6, 4)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "i.npy", np.array([0, 3]))
    given = ("--input", tmp_path / "x.npy", "--input", tmp_path / "i.npy")
    code, answer = run(gather, *given, "--output", tmp_path / "y.npy")
    assert code == 0 and "samples_ms" not in answer
    assert (answer["outputs"], answer["dtype"], answer["shape"]) == (6, "float32", [6, 2])
    assert np.array_equal(np.load(tmp_path / "y.npy"), images[:, [0, 3]])
    assert run(gather, *FAST, *given)[0] == 0  # timed on the first item


def test_outputs_are_those_of_the_interpreter(model, tmp_path):
    images = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", np.asfortranarray(images))
    assert run(model, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), np.maximum(images, 0))


def test_batches_that_do_not_fit_are_refused(gather, tmp_path):
    np.save(tmp_path / "six.npy", np.zeros((6, 4), np.float32))
    np.save(tmp_path / "two.npy", np.array([0, 3, 1, 2]))
    np.save(tmp_path / "none.npy", np.zeros((0, 4), np.float32))
    np.savez(tmp_path / "many.npz", a=np.zeros((1, 4), np.float32))
    for first, second in (("six", "two"), ("none", "two"), ("many", "two")):
        files = [next(tmp_path.glob(f"{name}.np*")) for name in (first, second)]
        code, answer = run(gather, *FAST, "--input", files[0], "--input", files[1])
        assert (code, answer["kind"]) == (4, "input"), answer


def test_an_output_that_cannot_be_written_is_a_refusal(relu, tmp_path):
    code, answer = run(relu, "--output", tmp_path / "no" / "y.npy")
    assert (code, answer["kind"]) == (4, "input") and "cannot write" in answer["reason"]


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


def test_a_probe_without_an_interpreter_still_tells_of_the_machine(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    code, answer = run(".tflite", "--probe", python=str(tmp_path / "bare" / "bin" / "python"))
    assert code == 0 and "interpreter" not in answer and answer["machine"]["cores"] > 0
    assert len(answer["interpreters"]) == 3 and all(one["reason"] for one in answer["interpreters"])


def test_a_probe_of_an_unknown_suffix_is_a_refusal():
    code, answer = run(".pt", "--probe")
    assert (code, answer["kind"]) == (3, "model")


def test_probe_reports_interpreter_and_machine():
    code, answer = run(".tflite", "--probe")
    assert code == 0 and answer["interpreter"].startswith("ai-edge-litert ")
    first, *others = answer["interpreters"]
    assert (first["name"], first["reason"]) == ("ai-edge-litert", "") and first["version"]
    assert {one["reason"] for one in others} <= {"not tried", "not installed"}
    assert answer["machine"]["free_disk_mb"] > 0 and answer["before"]["load"] >= 0


def test_it_ends_when_its_standard_input_closes(model):
    command = [sys.executable, "-I", agent.__file__, model, *LONG]
    with subprocess.Popen(
        [*command, "--watch-stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdin.close()
        assert process.wait(timeout=20) == agent.ABANDONED


def test_it_ends_when_its_own_file_is_removed(relu, tmp_path):
    here = tmp_path / "job" / "agent.py"
    here.parent.mkdir()
    shutil.copy(agent.__file__, here)
    with subprocess.Popen(
        [sys.executable, here, relu, *LONG], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(0.5)
        assert process.poll() is None
        shutil.rmtree(here.parent)
        assert process.wait(timeout=20) == agent.ABANDONED


def test_it_ends_when_its_parent_is_killed(relu):
    middle = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    command = [sys.executable, "-c", middle, sys.executable, agent.__file__, relu, *LONG]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        status = Path("/proc") / parent.stdout.readline().decode().strip() / "status"
        time.sleep(1)
        assert status.exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.1)


def test_times_are_told_apart_and_a_jump_of_the_wall_clock_does_not_show(model, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "days = itertools.count()\n"
        "time.time = lambda: 86400.0 * next(days)\n"
        "time.time_ns = lambda: -86400 * 10**9 * next(days)\n"
        "open({!r}, 'w').close()\n".format(str(tmp_path / "seen"))
    )
    begin = time.monotonic()
    code, answer = run(
        model, *FAST, "--min-s", "0.05", flag="-P", env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    wall_ms = 1000 * (time.monotonic() - begin)
    assert code == 0 and (tmp_path / "seen").exists()
    parts = ("start_ms", "import_ms", "load_ms", "first_ms", "warmup_ms", "timing_ms")
    assert all(answer[part] > 0 for part in parts)
    assert 50 <= answer["timing_ms"] <= sum(answer[part] for part in parts) <= wall_ms + 20
    assert sum(answer["samples_ms"]) <= answer["timing_ms"]
    assert answer["runs"] == len(answer["samples_ms"])


def test_windows_are_told_and_the_samples_thinned(model, monkeypatch):
    monkeypatch.setattr(agent, "_MOST_RUNS", 100)
    samples = agent.Samples()
    for number in range(1000):
        samples.add(float(number))
    assert samples.count == 1000 and samples.kept == [16.0 * n for n in range(63)]
    code, answer = run(model, *FAST, "--min-s", "0.35", "--window-s", "0.1")
    assert code == 0 and len(answer["windows"]) == 3
    assert [round(one["t_s"], 1) for one in answer["windows"]] == [0.1, 0.2, 0.3]
    assert all(one["runs"] > 10 and one["median_ms"] > 0 for one in answer["windows"])
    assert sum(one["runs"] for one in answer["windows"]) <= answer["runs"]


def test_memory_is_its_own_and_not_that_of_the_process_that_started_it(relu):
    ballast = np.ones(300 * 2**17)  # 300 MB, which ru_maxrss of a child would show
    _, answer = run(relu, *FAST)
    assert ballast.sum() and 5 < answer["base_memory_mb"] <= answer["peak_memory_mb"] < 250


def test_it_runs_on_the_cores_it_is_given(relu):
    core = max(os.sched_getaffinity(0))
    _, answer = run(relu, *FAST, "--cpus", str(core))
    assert answer["before"]["affinity"] == [core]


@pytest.mark.parametrize("cpus", ["0,900", "900", "two", "-1", "0,,1", "9" * 30])
def test_cores_that_are_not_there_are_refused(relu, cpus):
    code, answer = run(relu, *FAST, f"--cpus={cpus}")
    assert (code, answer["kind"]) == (4, "input") and "this machine has 0 to" in answer["reason"]


def test_what_other_programs_use_of_the_cpu_is_told(relu):
    # With windows it is not done after its most runs, which are too short for the system's counters.
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            _, answer = run(relu, *FAST, "--min-s", "0.6", "--window-s", "10")
        finally:
            busy.kill()
    assert answer["other_cpu"] > 0.5 / os.cpu_count()


DELEGATE = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef struct Delegate {
    void *data; int (*prepare)(void *, struct Delegate *); void *from, *to, *freed; int64_t flags; void *more;
} Delegate;
static int prepare(void *context, Delegate *delegate) { return 0; }
static Delegate made = {0, prepare};
void *tflite_plugin_create_delegate(char **keys, char **values, size_t n, void (*report)(const char *)) {
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(keys[i], "refuse")) { report("no such accelerator"); return 0; }
        fprintf(stderr, "option %s is %s\\n", keys[i], values[i]);
    }
    return &made;
}
void tflite_plugin_destroy_delegate(void *delegate) {}
"""


@pytest.fixture(scope="module")
def delegate(tmp_path_factory) -> Path:
    """A real delegate that takes no operators; with the option `refuse` it cannot be made."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "it.c").write_text(DELEGATE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "it.so", folder / "it.c"], check=True)
    return folder / "it.so"


def test_a_delegate_is_loaded_with_its_options(delegate, relu):
    command = [sys.executable, "-I", agent.__file__, relu, *FAST, "--delegate", delegate]
    done = subprocess.run([*command, "--delegate-option", "device=usb=1"], capture_output=True, text=True)
    assert done.returncode == 0 and "option device is usb=1" in done.stderr


@pytest.mark.parametrize(
    ("library", "option"),
    [("libnothere.so.1", "a=b"), ("", "refuse=yes"), ("", "no-value")],
)
def test_a_delegate_that_cannot_be_loaded_is_a_refusal_that_names_it(delegate, relu, library, option):
    flags = ("--delegate", library or delegate, "--delegate-option", option)
    code, answer = run(relu, *FAST, *flags)
    assert (code, answer["kind"]) == (6, "delegate")
    assert f"cannot load delegate {library or delegate}: " in answer["reason"]
    assert run(".tflite", "--probe", *flags)[1]["delegate"] == answer["reason"]


def test_a_probe_says_that_a_delegate_loads(delegate):
    assert run(".tflite", "--probe", "--delegate", delegate)[1]["delegate"] == ""


def test_onnx_runtime_takes_no_delegate(gather):
    code, answer = run(gather, *FAST, "--delegate", "libedgetpu.so.1")
    assert (code, answer["kind"]) == (6, "delegate") and "takes no delegate" in answer["reason"]


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
