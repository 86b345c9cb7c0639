"""Time one model on the machine this runs on, and print one marked JSON line about it.

This single file is all that is copied to a board. It must run on Python 3.7 with nothing but the
standard library, numpy and one interpreter: `ai_edge_litert`, `tflite_runtime` or `tensorflow.lite` for
`.tflite`, `onnxruntime` for `.onnx`. It imports nothing of the package it comes from.

The line is `MARKER`, a space and a JSON object, so that what a log-in shell or a runtime prints cannot be
taken for it. `{"ok": true, ...}` carries `load_ms`, `first_ms`, `samples_ms`, `inputs`, `interpreter` and
the `before` and `after` states of the machine; `{"ok": false, "kind": ..., "reason": ...}` carries a
refusal, and the exit code says which: 2 no interpreter, 3 the model was refused, 4 an input was.
With `--watch-stdin` the process ends, with code 5, as soon as its standard input closes.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

MARKER = "EHDNAS-AGENT-1"
EXIT_CODES = {"interpreter": 2, "model": 3, "input": 4}
ABANDONED = 5

# Suffix -> (distribution, module, attributes down to the one with `Interpreter`), tried in this order.
_INTERPRETERS = {
    ".tflite": (
        ("ai-edge-litert", "ai_edge_litert.interpreter", ()),
        ("tflite-runtime", "tflite_runtime.interpreter", ()),
        ("tensorflow", "tensorflow", ("lite",)),
    ),
    ".onnx": (("onnxruntime", "onnxruntime", ()),),
}
# A model of microseconds is well known by then, and the answer stays a line of under a megabyte.
_MOST_RUNS = 100000
_ONNX_TYPES = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool_"}


class RefusalError(Exception):
    """The work cannot be done; `kind` is one of `EXIT_CODES`."""

    def __init__(self, kind: str, reason: object) -> None:
        Exception.__init__(self, " ".join(str(reason).split())[:500])
        self.kind = kind


class TfliteModel:
    """A TFLite file, loaded."""

    def __init__(self, module: Any, path: str, threads: int) -> None:
        self._interpreter = module.Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._details = self._interpreter.get_input_details()
        self.inputs = [
            {
                "name": str(one["name"]),
                "shape": [int(n) for n in one["shape"]],
                "dtype": one["dtype"].__name__,
            }
            for one in self._details
        ]

    def feed(self, arrays: list[Any]) -> None:
        """Set the inputs of the next runs."""
        for detail, array in zip(self._details, arrays):  # noqa: B905 - `strict` came with Python 3.10
            self._interpreter.set_tensor(detail["index"], array)

    def run(self) -> None:
        """Run once."""
        self._interpreter.invoke()


class OnnxModel:
    """An ONNX file, loaded."""

    def __init__(self, module: Any, path: str, threads: int) -> None:
        options = module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = module.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._feed: dict[str, Any] = {}
        self.inputs = [_onnx_input(one) for one in self._session.get_inputs()]

    def feed(self, arrays: list[Any]) -> None:
        """Set the inputs of the next runs."""
        self._feed = {one["name"]: array for one, array in zip(self.inputs, arrays)}  # noqa: B905

    def run(self) -> None:
        """Run once."""
        self._session.run(None, self._feed)


_MODELS: dict[str, Any] = {".tflite": TfliteModel, ".onnx": OnnxModel}


def find_interpreter(suffix: str) -> tuple[Any, str]:
    """Return (module, "name version") of the first interpreter for `suffix` that can be imported."""
    reasons = []
    for distribution, name, attributes in _INTERPRETERS[suffix]:
        try:
            module = importlib.import_module(name)
            version = getattr(sys.modules[name.split(".")[0]], "__version__", "")
            for attribute in attributes:
                module = getattr(module, attribute)
            return module, f"{distribution} {version or _version(distribution)}".strip()
        except Exception as error:  # a broken install raises anything at all; the next one may be whole
            reasons.append(f"{distribution}: {error}")
    raise RefusalError("interpreter", "no interpreter for {} ({})".format(suffix, "; ".join(reasons)))


def machine_state() -> dict[str, Any]:
    """Return what the machine says of itself now; whatever it does not say is left out."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    folders = [f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/" for cpu in cpus]
    governors = sorted({text for text in (_read(one + "scaling_governor") for one in folders) if text})
    state = {
        "governor": ",".join(governors) or None,
        "freq_mhz": _largest(_read(one + "scaling_cur_freq") for one in folders),
        "max_freq_mhz": _largest(_read(one + "cpuinfo_max_freq") for one in folders),
        "temperature_c": _temperatures(),
        "throttled": _throttled(),
        "load": round(os.getloadavg()[0], 2),
        "affinity": cpus,
        "free_memory_mb": _free_memory_mb(),
    }
    return {key: value for key, value in state.items() if value not in (None, {}, [])}


def machine() -> dict[str, Any]:
    """Return what does not change from run to run: the machine, the system and the versions."""
    facts = {
        "machine": platform.machine(),
        "model": _read("/proc/device-tree/model").strip("\0") or _cpu_model(),
        "system": f"{platform.system()} {platform.release()}",
        "glibc": platform.libc_ver()[1],
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "cores": os.cpu_count(),
        "free_disk_mb": shutil.disk_usage(os.path.dirname(os.path.abspath(__file__))).free // 2**20,
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the model, warm it up and time it; times in milliseconds."""
    suffix = os.path.splitext(arguments.model)[1]
    if suffix not in _MODELS:
        raise RefusalError("model", f"unknown suffix '{suffix}'; known: .onnx, .tflite")
    module, interpreter = find_interpreter(suffix)
    before = machine_state()
    start = time.perf_counter_ns()
    try:
        model = _MODELS[suffix](module, arguments.model, arguments.threads)
        load_ms = _ms_since(start)
        model.feed(_inputs(model.inputs, arguments.input, arguments.seed))
        start = time.perf_counter_ns()
        model.run()
        first_ms = _ms_since(start)
        _repeat(model.run, arguments.warmup_runs, arguments.warmup_s, arguments.max_s)
        samples = _repeat(model.run, arguments.runs, arguments.min_s, arguments.max_s)
    except RefusalError:
        raise
    except Exception as error:  # ValueError, RuntimeError, SystemError, types of their own
        raise RefusalError("model", f"{interpreter} refused it: {error}") from error
    return {
        "interpreter": interpreter,
        "threads": arguments.threads,
        "inputs": model.inputs,
        "load_ms": load_ms,
        "first_ms": first_ms,
        "samples_ms": samples,
        "before": before,
        "after": machine_state(),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def probe(suffix: str) -> dict[str, Any]:
    """Return which interpreter there is for `suffix`, and the state of the machine."""
    return {"interpreter": find_interpreter(suffix)[1], "before": machine_state()}


def main(argv: list[str] | None = None) -> int:
    """Answer one command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.watch_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        answer = probe(arguments.model) if arguments.probe else measure(arguments)
        answer.update(ok=True, machine=machine())
        code = 0
    except RefusalError as refusal:
        answer = {"ok": False, "kind": refusal.kind, "reason": str(refusal), "machine": machine()}
        code = EXIT_CODES[refusal.kind]
    # A line of its own, even after something that was printed without an end of line.
    sys.stdout.write(f"\n{MARKER} {json.dumps(answer)}\n")
    sys.stdout.flush()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .tflite or .onnx file; with --probe, a suffix")
    parser.add_argument("--probe", action="store_true", help="run nothing: report interpreter and machine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup-runs", type=int, default=5)
    parser.add_argument("--warmup-s", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--min-s", type=float, default=2.0)
    parser.add_argument("--max-s", type=float, default=60.0)
    parser.add_argument("--input", action="append", default=[], help="a .npy file, once for each input")
    parser.add_argument("--seed", type=int, default=0, help="of the random input, where none is given")
    parser.add_argument("--watch-stdin", action="store_true", help="end when standard input closes")
    return parser


def _end_with_stdin() -> None:
    # os.read, not sys.stdin: its lock, held at exit, would abort an interpreter that is otherwise done.
    while os.read(0, 4096):
        pass
    os._exit(ABANDONED)


def _repeat(run: Callable[[], None], runs: int, least_s: float, most_s: float) -> list[float]:
    samples: list[float] = []
    begin = end = time.perf_counter_ns()
    while len(samples) < _MOST_RUNS and end - begin < most_s * 1e9:
        if len(samples) >= runs and end - begin >= least_s * 1e9:
            break
        start = time.perf_counter_ns()
        run()
        end = time.perf_counter_ns()
        samples.append(round((end - start) / 1e6, 5))
    return samples


def _inputs(wanted: list[dict[str, Any]], files: list[str], seed: int) -> list[Any]:
    import numpy

    if not files:
        generator = numpy.random.RandomState(seed)
        return [_random(numpy, generator, one) for one in wanted]
    if len(files) != len(wanted):
        raise RefusalError("input", f"the model has {len(wanted)} inputs, {len(files)} were given")
    arrays = []
    for one, name in zip(wanted, files):  # noqa: B905 - `strict` came with Python 3.10
        try:
            array = numpy.load(name, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RefusalError("input", f"cannot read {name}: {error}") from error
        if list(array.shape) != one["shape"] or array.dtype != numpy.dtype(one["dtype"]):
            raise RefusalError(
                "input", "{} is {} {}, not {dtype} {shape}".format(name, array.dtype, array.shape, **one)
            )
        arrays.append(array)
    return arrays


def _random(numpy: Any, generator: Any, one: dict[str, Any]) -> Any:
    dtype = numpy.dtype(one["dtype"])
    if dtype.kind == "f":
        return generator.standard_normal(one["shape"]).astype(dtype)
    if dtype in (numpy.int8, numpy.uint8):
        limits = numpy.iinfo(dtype)
        return generator.randint(limits.min, limits.max + 1, one["shape"]).astype(dtype)
    # Wider integers are mostly indices: zeros are in range whatever they index.
    return numpy.zeros(one["shape"], dtype)


def _tflite_input(one: dict[str, Any]) -> dict[str, Any]:
    shape = [int(size) for size in one["shape"]]
    return {"name": str(one["name"]), "shape": shape, "dtype": one["dtype"].__name__}


def _onnx_input(one: Any) -> dict[str, Any]:
    name = one.type.replace("tensor(", "").rstrip(")")
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in one.shape]
    return {"name": one.name, "shape": shape, "dtype": _ONNX_TYPES.get(name, name)}


def _ms_since(start: int) -> float:
    return round((time.perf_counter_ns() - start) / 1e6, 5)


def _version(distribution: str) -> str:
    try:
        from importlib.metadata import version  # Python 3.8 and later

        return version(distribution)
    except Exception:  # no such module, no such distribution, or metadata that cannot be read
        return ""


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _largest(readings: Iterable[str]) -> float | None:
    values = [int(text) / 1000 for text in readings if text.isdigit()]
    return max(values) if values else None


def _temperatures() -> dict[str, Any]:
    zones = {}
    for folder in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        text = _read(folder + "/temp")
        if text.lstrip("-").isdigit():
            zones["{}:{}".format(os.path.basename(folder)[12:], _read(folder + "/type"))] = int(text) / 1000
    return zones


def _throttled() -> str | None:
    """Raspberry Pi's word: bits 0 to 3 say what limits the clock now, 16 to 19 what did since boot."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        answer = subprocess.run([program, "get_throttled"], stdout=subprocess.PIPE, timeout=3, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").strip().partition("=")[2] or None


def _field(path: str, name: str) -> str:
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _cpu_model() -> str:
    return _field("/proc/cpuinfo", "model name") or _field("/proc/cpuinfo", "Model")


def _free_memory_mb() -> int | None:
    words = _field("/proc/meminfo", "MemAvailable").split()
    return int(words[0]) // 1024 if words and words[0].isdigit() else None


if __name__ == "__main__":
    sys.exit(main())
