"""Time one model on the machine this runs on, and print one marked JSON line about it.

This single file is all that is copied to a board. It must run on Python 3.7 with nothing but the
standard library, numpy and one interpreter: `ai_edge_litert`, `tflite_runtime` or `tensorflow.lite` for
`.tflite`, `onnxruntime` for `.onnx`. It imports nothing of the package it comes from.

The line is `MARKER`, a space and a JSON object, so that what a log-in shell or a runtime prints cannot be
taken for it. `{"ok": true, ...}` carries the times (`start_ms` of Python itself, `import_ms` of the
interpreter, `load_ms`, `first_ms`, `warmup_ms`, `timing_ms`, `samples_ms`), `runs`, `inputs`,
`interpreter`, the memory before the model and at its peak, and the `before` and `after` states of the
machine; `other_cpu`, `windows`, `power_w` and `energy_mj` where there are any. `{"ok": false, "kind": ...,
"reason": ...}` carries a refusal, and the exit code says which: 2 no interpreter, 3 the model was refused,
4 an input or the cores were, 6 the delegate was, 7 the output was by the disk.

The process ends, with code 5, when its own file is removed or its parent has gone, looked at every second;
with `--watch-stdin` also as soon as its standard input closes.
"""

from __future__ import annotations

import argparse
import ctypes
import glob
import importlib
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

MARKER = "EHDNAS-AGENT-1"
EXIT_CODES = {"interpreter": 2, "model": 3, "input": 4, "delegate": 6, "disk": 7}
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
# The stick shows the first until a first program has loaded its firmware.
_EDGETPU_USB = ("1a6e:089a", "18d1:9302")
_GPUS = ("gpu", "gp10b", "gv11b", "ga10b")
# What a whole Jetson module draws, on newer and on older ones.
_WHOLE_MODULE = ("VDD_IN", "POM_5V_IN")
_POWER_EVERY_S = 0.05
_CPUFREQ = "sys/devices/system/cpu/cpu{}/cpufreq/"
_HERE, _PARENT = os.path.abspath(__file__), os.getppid()
# The clock that the kernel dates processes by.
_BEGUN_S = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


class RefusalError(Exception):
    """The work cannot be done; `kind` is one of `EXIT_CODES`."""

    def __init__(self, kind: str, reason: object) -> None:
        Exception.__init__(self, " ".join(str(reason).split())[:500])
        self.kind = kind


class TfliteModel:
    """A TFLite file, loaded."""

    def __init__(self, module: Any, path: str, threads: int, delegates: list[Any]) -> None:
        self._interpreter = module.Interpreter(
            model_path=path, num_threads=threads, experimental_delegates=delegates or None
        )
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

    def output(self) -> Any:
        """Run once and return the first output."""
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._interpreter.get_output_details()[0]["index"])


class OnnxModel:
    """An ONNX file, loaded."""

    def __init__(self, module: Any, path: str, threads: int, _delegates: list[Any]) -> None:
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

    def output(self) -> Any:
        """Run once and return the first output."""
        return self._session.run(None, self._feed)[0]


_MODELS: dict[str, Any] = {".tflite": TfliteModel, ".onnx": OnnxModel}


class Samples:
    """Run times in ms; when there are too many, every second of those kept goes, again and again."""

    def __init__(self) -> None:
        self.kept: list[float] = []
        self.count = 0
        self._stride = 1

    def add(self, time_ms: float) -> None:
        """Add one run."""
        if self.count % self._stride == 0:
            self.kept.append(time_ms)
            if len(self.kept) > _MOST_RUNS:
                del self.kept[1::2]
                self._stride *= 2
        self.count += 1


class Windows:
    """What a long timing did in each `window_s` seconds, and how hot and how fast the machine was."""

    def __init__(self, window_s: float, root: str) -> None:
        self.closed: list[dict[str, Any]] = []
        self._window_s, self._root = window_s, root
        self._end_s, self._samples = window_s, Samples()

    def add(self, time_ms: float, at_s: float) -> None:
        """Add one run that ended `at_s` seconds after the first began."""
        self._samples.add(time_ms)
        if at_s < self._end_s:
            return
        state = machine_state(self._root)
        window = {
            "t_s": round(at_s, 3),
            "median_ms": statistics.median(self._samples.kept),
            "runs": self._samples.count,
            "temperature_c": max(state.get("temperature_c", {}).values(), default=None),
            "freq_mhz": state.get("freq_mhz"),
        }
        self.closed.append({key: value for key, value in window.items() if value is not None})
        self._end_s, self._samples = at_s + self._window_s, Samples()


class PowerMeter:
    """Reads a rail while the block it surrounds runs; without a rail it does nothing."""

    def __init__(self, rail: tuple[float, list[str]] | None) -> None:
        self.count, self._sum_w, self._rail = 0, 0.0, rail
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PowerMeter:
        if self._rail:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._rail:
            self._thread.join()

    def figures(self, timing_ms: float, runs: int) -> dict[str, Any]:
        """Return power and energy per run, or nothing where nothing was read."""
        if not self._sum_w or not runs:
            return {}
        power_w = self._sum_w / self.count
        energy_mj = power_w * timing_ms / runs
        return {"power_w": power_w, "energy_mj": energy_mj, "power_samples": self.count}

    def _sample(self) -> None:
        scale, files = self._rail or (0.0, [])
        while True:
            try:
                watts = scale
                for name in files:
                    watts *= int(_read(name))
                self._sum_w, self.count = self._sum_w + max(0.0, watts), self.count + 1
            except ValueError:  # an empty or garbled reading is none
                pass
            if self._done.wait(_POWER_EVERY_S):
                return


def survey(suffix: str) -> tuple[Any, list[dict[str, str]]]:
    """Return the first module for `suffix` that can be imported, or None, and what became of each.

    Those after it are only looked for: two interpreters in one process may clash.
    """
    if suffix not in _INTERPRETERS:
        raise RefusalError("model", f"unknown suffix '{suffix}'; known: .onnx, .tflite")
    module, found = None, []
    for distribution, name, attributes in _INTERPRETERS[suffix]:
        top, reason = name.split(".")[0], ""
        try:
            if module is not None:
                reason = "not tried" if importlib.util.find_spec(top) else "not installed"
            else:
                one = importlib.import_module(name)
                for attribute in attributes:
                    one = getattr(one, attribute)
                module = one
        except Exception as error:  # a broken install raises anything at all; the next one may be whole
            reason = str(error)[:200] or type(error).__name__
        version = getattr(sys.modules.get(top), "__version__", "") or _version(distribution)
        found.append({"name": distribution, "version": str(version), "reason": reason})
    return module, found


def find_interpreter(suffix: str) -> tuple[Any, str]:
    """Return (module, "name version") of the first interpreter for `suffix` that can be imported."""
    module, found = survey(suffix)
    if module is None:
        reasons = "; ".join("{name}: {reason}".format(**one) for one in found)
        raise RefusalError("interpreter", f"no interpreter for {suffix} ({reasons})")
    return module, _working(found)


def _working(found: list[dict[str, str]]) -> str:
    return next("{name} {version}".format(**one).strip() for one in found if not one["reason"])


def machine_state(root: str = "/") -> dict[str, Any]:
    """Return what the machine says of itself now; whatever it does not say is left out."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    folders = [os.path.join(root, _CPUFREQ.format(cpu)) for cpu in cpus]
    governors = sorted({text for text in (_read(one + "scaling_governor") for one in folders) if text})
    gpu = [one for one in _find(root, "sys/class/devfreq/*/") if any(name in one for name in _GPUS)]
    state = {
        "governor": ",".join(governors) or None,
        "freq_mhz": _largest((_read(one + "scaling_cur_freq") for one in folders), 1e3),
        "max_freq_mhz": _largest((_read(one + "cpuinfo_max_freq") for one in folders), 1e3),
        "gpu_freq_mhz": _largest((_read(one + "cur_freq") for one in gpu), 1e6),
        "gpu_max_freq_mhz": _largest((_read(one + "max_freq") for one in gpu), 1e6),
        "temperature_c": _temperatures(root),
        "throttled": _throttled(root),
        "power_mode": _power_mode(root),
        "jetson_clocks": _jetson_clocks(root),
        "load": round(os.getloadavg()[0], 2),
        "affinity": cpus,
        "cpus_online": _read(os.path.join(root, "sys/devices/system/cpu/online")) or None,
        "free_memory_mb": _memory_mb(root, "proc/meminfo", "MemAvailable"),
        "swap_used_mb": _swap_used_mb(root),
    }
    return {key: value for key, value in state.items() if value not in (None, {}, [])}


def machine(root: str = "/", rail: str = "") -> dict[str, Any]:
    """Return what does not change from run to run: the machine, the system and the versions.

    The rails that can be read are listed; where `rail` is named and there are none, as an empty list.
    """
    release = _read(os.path.join(root, "etc/nv_tegra_release")).splitlines()[:1]
    rails = sorted(power_rails(root))
    facts = {
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "model": _read(os.path.join(root, "proc/device-tree/model")).strip("\0") or _cpu_model(root),
        "system": f"{platform.system()} {platform.release()}",
        "os_release": _field(root, "etc/os-release", "PRETTY_NAME", "=").strip("\"'"),
        "jetpack": "".join(release).lstrip("# "),
        "edgetpu_usb_mbps": _edgetpu_usb_mbps(root),
        "edgetpu_pcie": True if _find(root, "sys/class/apex/*") else None,
        "power_rails": rails if rails or rail not in ("", "auto") else None,
        "glibc": platform.libc_ver()[1],
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "cores": os.cpu_count(),
        "free_disk_mb": shutil.disk_usage(os.path.dirname(_HERE)).free // 2**20,
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def power_rails(root: str = "/") -> dict[str, tuple[float, list[str]]]:
    """Return label -> (scale, files): the power in watts is their product times the scale."""
    rails = {}
    for path in _find(root, "sys/class/hwmon/hwmon*/in*_label"):  # mV and mA
        folder, number = os.path.dirname(path), os.path.basename(path)[2:-6]
        files = [f"{folder}/in{number}_input", f"{folder}/curr{number}_input"]
        if all(map(os.path.exists, files)):
            rails[_read(path)] = (1e-6, files)
    for path in _find(root, "sys/bus/i2c/drivers/ina3221x/*/iio*/rail_name_*"):  # mW, or mV and mA
        folder, number = os.path.dirname(path), path.rpartition("_")[2]
        power = f"{folder}/in_power{number}_input"
        pair = [f"{folder}/in_voltage{number}_input", f"{folder}/in_current{number}_input"]
        rails[_read(path)] = (1e-3, [power]) if os.path.exists(power) else (1e-6, pair)
    return rails


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the model, warm it up and time it; times in milliseconds."""
    module, answer = _import(arguments)
    answer["before"] = machine_state(arguments.root)
    with _refusals(answer["interpreter"]):
        model = _load(module, arguments, answer)
        model.feed(next(_items(model.inputs, arguments.input, arguments.seed)))
        start = time.perf_counter_ns()
        model.run()
        answer["first_ms"] = _ms_since(start)
        start = time.perf_counter_ns()
        _repeat(model.run, arguments.warmup_runs, arguments.warmup_s, arguments.max_s, None)
        answer["warmup_ms"] = _ms_since(start)
        answer.update(_time(model.run, arguments))
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # ru_maxrss outlives exec: in a child of a large process it is the parent's.
    answer["peak_memory_mb"] = _memory_mb("/", "proc/self/status", "VmHWM") or round(peak_kb / 1024, 1)
    answer["after"] = machine_state(arguments.root)
    return answer


def outputs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the model on each item of the inputs and save its first outputs, one after another, as .npy."""
    module, answer = _import(arguments)
    import numpy

    with _refusals(answer["interpreter"]):
        model = _load(module, arguments, answer)
        results = []
        for arrays in _items(model.inputs, arguments.input, arguments.seed):
            model.feed(arrays)
            results.append(numpy.atleast_1d(model.output()))
        whole = numpy.concatenate(results)
    failed = f"cannot write {arguments.output}"
    try:
        stream = open(arguments.output, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise RefusalError("input", f"{failed}: {error}") from error
    try:
        with stream:
            numpy.save(stream, whole)
    except OSError as error:
        raise RefusalError("disk", f"{failed}: {error}; free some space there (df -h)") from error
    answer.update(outputs=len(results), dtype=str(whole.dtype), shape=list(whole.shape))
    return answer


def probe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return which interpreters there are for a suffix, if any, whether the delegate loads, and the state."""
    module, found = survey(arguments.model)
    answer: dict[str, Any] = {"interpreters": found, "before": machine_state(arguments.root)}
    if module is not None:
        answer["interpreter"] = _working(found)
    if arguments.delegate:
        try:
            _delegates(module, arguments)
            answer["delegate"] = ""
            answer["edgetpu_runtime"] = _edgetpu_version(arguments.delegate)
        except RefusalError as refusal:
            answer["delegate"] = str(refusal)
    return answer


def _edgetpu_version(library: str) -> str:
    """What the Edge TPU's runtime says of itself, with `RuntimeVersion(14)` in it; '' for other libraries."""
    try:
        version = ctypes.CDLL(library).edgetpu_version  # edgetpu_c.h: const char* edgetpu_version()
        version.restype = ctypes.c_char_p
        return str(version().decode(errors="replace"))[:200]
    except (OSError, AttributeError):
        return ""


def main(argv: list[str] | None = None) -> int:
    """Answer one command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    threading.Thread(target=_end_when_abandoned, daemon=True).start()
    if arguments.watch_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    mode = probe if arguments.probe else outputs if arguments.output else measure
    code = 0
    # ONNX Runtime would report its use to its maker, and leave files for that in two folders.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        _pin(arguments.cpus)
        answer = mode(arguments)
        answer["ok"] = True
    except RefusalError as refusal:
        answer = {"ok": False, "kind": refusal.kind, "reason": str(refusal)}
        code = EXIT_CODES[refusal.kind]
    answer["machine"] = machine(arguments.root, arguments.power_rail)
    # A line of its own, even after something that was printed without an end of line.
    sys.stdout.write(f"\n{MARKER} {json.dumps(answer)}\n")
    sys.stdout.flush()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", help="a .tflite or .onnx file; with --probe, a suffix")
    add("--probe", action="store_true", help="run nothing: report interpreter and machine")
    add("--output", default="", help="time nothing: save the first output of each input item as this .npy")
    add("--threads", type=int, default=1)
    add("--cpus", default="", help="the cores to run on, such as 2,3")
    add("--delegate", default="", help="the shared library of an accelerator")
    add("--delegate-option", action="append", default=[], help="key=value")
    add("--warmup-runs", type=int, default=5)
    add("--warmup-s", type=float, default=0.5)
    add("--runs", type=int, default=50)
    add("--min-s", type=float, default=2.0)
    add("--max-s", type=float, default=60.0)
    add("--window-s", type=float, default=0.0, help="also report windows of so many seconds; 0 for none")
    add("--power-rail", default="auto", help="the label of the supply that energy is read from")
    add("--input", action="append", default=[], help="a .npy file, once for each input; or a batch of them")
    add("--seed", type=int, default=0, help="of the random input, where none is given")
    add("--root", default="/", help="where the system's own files are")
    add("--watch-stdin", action="store_true", help="end when standard input closes")
    return parser


def _end_with_stdin() -> None:
    # os.read, not sys.stdin: its lock, held at exit, would abort an interpreter that is otherwise done.
    while os.read(0, 4096):
        pass
    os._exit(ABANDONED)


def _end_when_abandoned() -> None:
    while os.path.exists(_HERE) and os.getppid() == _PARENT:
        time.sleep(1)
    os._exit(ABANDONED)


def _pin(cpus: str) -> None:
    if not cpus:
        return
    try:
        wanted = {int(cpu) for cpu in cpus.split(",")}
        os.sched_setaffinity(0, wanted)
        if os.sched_getaffinity(0) == wanted:  # cores that do not exist are dropped without a word
            return
    except (AttributeError, ValueError, OverflowError, OSError):
        pass
    cores = os.cpu_count() or 1
    raise RefusalError("input", f"cannot run on cores '{cpus}'; this machine has 0 to {cores - 1}")


def _import(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    start = time.perf_counter_ns()
    module, interpreter = find_interpreter(os.path.splitext(arguments.model)[1])
    answer: dict[str, Any] = {"interpreter": interpreter, "threads": arguments.threads}
    answer.update(
        start_ms=_start_ms(),
        import_ms=_ms_since(start),
        base_memory_mb=_memory_mb("/", "proc/self/status", "VmRSS"),
    )
    return module, answer


def _load(module: Any, arguments: argparse.Namespace, answer: dict[str, Any]) -> Any:
    start = time.perf_counter_ns()
    delegates = _delegates(module, arguments)
    kind = _MODELS[os.path.splitext(arguments.model)[1]]
    model = kind(module, arguments.model, arguments.threads, delegates)
    answer.update(load_ms=_ms_since(start), inputs=model.inputs)
    return model


def _delegates(module: Any, arguments: argparse.Namespace) -> list[Any]:
    if not arguments.delegate:
        return []
    load = getattr(module, "load_delegate", None)
    load = load or getattr(getattr(module, "experimental", None), "load_delegate", None)
    try:
        if load is None:
            raise ValueError("this interpreter takes no delegate")
        return [load(arguments.delegate, dict(one.split("=", 1) for one in arguments.delegate_option))]
    except Exception as error:  # ValueError, OSError, or what the library itself comes to
        raise RefusalError("delegate", f"cannot load delegate {arguments.delegate}: {error}") from error


@contextmanager
def _refusals(interpreter: str) -> Iterator[None]:
    try:
        yield
    except RefusalError:
        raise
    except Exception as error:  # ValueError, RuntimeError, SystemError, types of their own
        raise RefusalError("model", f"{interpreter} refused it: {error}") from error


def _time(run: Callable[[], None], arguments: argparse.Namespace) -> dict[str, Any]:
    rails, wanted = power_rails(arguments.root), arguments.power_rail
    labels = _WHOLE_MODULE if wanted in ("", "auto") else (wanted,)
    windows = Windows(arguments.window_s, arguments.root) if arguments.window_s > 0 else None
    others = _other_ticks(arguments.root)
    start = time.perf_counter_ns()
    with PowerMeter(next((rails[one] for one in labels if one in rails), None)) as meter:
        samples = _repeat(run, arguments.runs, arguments.min_s, arguments.max_s, windows)
        timing_ms = _ms_since(start)
    figures = {"timing_ms": timing_ms, "runs": samples.count, "samples_ms": samples.kept}
    figures.update(meter.figures(timing_ms, samples.count))
    figures.update({"windows": windows.closed} if windows else {})
    share = _share(others, _other_ticks(arguments.root))
    figures.update({} if share is None else {"other_cpu": share})
    return figures


def _repeat(
    run: Callable[[], None], runs: int, least_s: float, most_s: float, windows: Windows | None
) -> Samples:
    samples = Samples()
    begin = end = time.perf_counter_ns()
    while end - begin < most_s * 1e9 and (windows or samples.count < _MOST_RUNS):
        if samples.count >= runs and end - begin >= least_s * 1e9:
            break
        start = time.perf_counter_ns()
        run()
        end = time.perf_counter_ns()
        time_ms = round((end - start) / 1e6, 5)
        samples.add(time_ms)
        if windows:
            windows.add(time_ms, (end - begin) / 1e9)
    return samples


def _items(wanted: list[dict[str, Any]], files: list[str], seed: int) -> Iterator[list[Any]]:
    import numpy

    generator = numpy.random.RandomState(seed)
    if files and len(files) != len(wanted):
        raise RefusalError("input", f"the model has {len(wanted)} inputs, {len(files)} were given")
    batches = [_batch(numpy, name, one) for name, one in zip(files, wanted)]  # noqa: B905
    batches = batches or [_random(numpy, generator, one)[None] for one in wanted]
    count = max(map(len, batches))
    if any(len(batch) not in (1, count) for batch in batches):
        raise RefusalError("input", "the inputs hold different numbers of items")
    for index in range(count):
        yield [numpy.array(batch[index % len(batch)], order="C") for batch in batches]


def _batch(numpy: Any, name: str, one: dict[str, Any]) -> Any:
    """Return a file's items, the first dimension counting them, as a view of the file."""
    try:
        array = numpy.lib.format.open_memmap(name, mode="r")
    except (OSError, ValueError) as error:
        raise RefusalError("input", f"cannot read {name}: {error}") from error
    shape, given = one["shape"], list(array.shape)
    several = shape and len(given) == len(shape) and given[1:] == shape[1:] and not given[0] % shape[0]
    if array.dtype != numpy.dtype(one["dtype"]) or not (given == shape or several):
        text = "{} is {} {}, not {dtype} {shape}".format(name, array.dtype, array.shape, **one)
        raise RefusalError("input", text)
    return array.reshape([-1, *shape])


def _random(numpy: Any, generator: Any, one: dict[str, Any]) -> Any:
    dtype = numpy.dtype(one["dtype"])
    if dtype.kind == "f":
        return numpy.asarray(generator.standard_normal(one["shape"])).astype(dtype)
    if dtype in (numpy.int8, numpy.uint8):
        limits = numpy.iinfo(dtype)
        return generator.randint(limits.min, limits.max + 1, one["shape"]).astype(dtype)
    # Wider integers are mostly indices: zeros are in range whatever they index.
    return numpy.zeros(one["shape"], dtype)


def _onnx_input(one: Any) -> dict[str, Any]:
    name = one.type.replace("tensor(", "").rstrip(")")
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in one.shape]
    return {"name": one.name, "shape": shape, "dtype": _ONNX_TYPES.get(name, name)}


def _ms_since(start: int) -> float:
    return round((time.perf_counter_ns() - start) / 1e6, 5)


def _start_ms() -> float | None:
    """From the start of the process, which the kernel knows to 10 ms, until this file ran."""
    try:
        ticks = int(_read("/proc/self/stat").rpartition(")")[2].split()[19])
    except (IndexError, ValueError):
        return None
    start_ms = round(1000 * (_BEGUN_S - ticks / os.sysconf("SC_CLK_TCK")), 1)
    return start_ms if 0 <= start_ms < 600000 else None


def _other_ticks(root: str) -> tuple[float, int] | None:
    """Return (ticks of all cores used by other processes, ticks of all cores) since some moment."""
    words = _read(os.path.join(root, "proc/stat")).partition("\n")[0].split()[1:9]
    if len(words) < 8 or not all(word.isdigit() for word in words):
        return None
    ticks = [int(word) for word in words]
    own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
    return sum(ticks) - ticks[3] - ticks[4] - own, sum(ticks)  # less idle and waiting for a disk


def _share(before: tuple[float, int] | None, after: tuple[float, int] | None) -> float | None:
    # Too few ticks tell nothing: the counters move by one every 10 ms.
    if before is None or after is None or after[1] - before[1] < 50:
        return None
    return round(min(1.0, max(0.0, (after[0] - before[0]) / (after[1] - before[1]))), 3)


def _version(distribution: str) -> str:
    try:
        from importlib.metadata import version  # Python 3.8 and later

        return version(distribution)
    except Exception:  # no such module, no such distribution, or metadata that cannot be read
        return getattr(sys.modules.get(distribution), "__version__", "")


def _find(root: str, pattern: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(root), pattern)))


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _largest(readings: Iterable[str], divisor: float) -> float | None:
    return max((int(text) / divisor for text in readings if text.isdigit()), default=None)


def _temperatures(root: str) -> dict[str, Any]:
    zones = {}
    for folder in _find(root, "sys/class/thermal/thermal_zone*"):
        text = _read(folder + "/temp")
        if text.lstrip("-").isdigit():
            zones["{}:{}".format(os.path.basename(folder)[12:], _read(folder + "/type"))] = int(text) / 1000
    return zones


def _throttled(root: str) -> str | None:
    """Raspberry Pi's word: bits 0 to 3 say what limits the clock now, 16 to 19 what did since boot."""
    for path in _find(root, "sys/devices/platform/soc*/soc*firmware/get_throttled"):
        return "0x" + _read(path)
    return _answer("vcgencmd", "get_throttled").partition("=")[2] or None


def _power_mode(root: str) -> str | None:
    """A Jetson's mode, by its number and its name."""
    mode = _read(os.path.join(root, "var/lib/nvpmodel/status")).partition(":")[2]
    if not mode and root == "/":
        mode = _answer("nvpmodel", "-q").rpartition("\n")[2]
    if not mode.isdigit():
        return None
    modes = _read(os.path.join(root, "etc/nvpmodel.conf"))
    name = re.search(rf"^<\s*POWER_MODEL\s+ID=0*{int(mode)}\s+NAME=(\S+)", modes, re.MULTILINE)
    return f"{int(mode)} {name.group(1)}" if name else str(int(mode))


def _jetson_clocks(root: str) -> bool | None:
    folders = _find(root, _CPUFREQ.format("[0-9]*"))
    if not folders or not _read(os.path.join(root, "etc/nv_tegra_release")):
        return None
    names = ("scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    return all(len({_read(folder + name) for name in names}) == 1 for folder in folders)


def _answer(tool: str, argument: str) -> str:
    program = shutil.which(tool)
    if program is None:
        return ""
    try:
        done = subprocess.run([program, argument], stdout=subprocess.PIPE, timeout=3, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def _edgetpu_usb_mbps(root: str) -> float | None:
    speeds = []
    for folder in _find(root, "sys/bus/usb/devices/*/"):
        if "{}:{}".format(_read(folder + "idVendor"), _read(folder + "idProduct")) in _EDGETPU_USB:
            speeds.append(_read(folder + "speed"))
    return _largest(speeds, 1)


def _field(root: str, path: str, name: str, separator: str = ":") -> str:
    for line in _read(os.path.join(root, path)).splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return ""


def _cpu_model(root: str) -> str:
    return _field(root, "proc/cpuinfo", "model name") or _field(root, "proc/cpuinfo", "Model")


def _memory_mb(root: str, path: str, name: str) -> float | None:
    words = _field(root, path, name).split()
    return round(int(words[0]) / 1024, 1) if words and words[0].isdigit() else None


def _swap_used_mb(root: str) -> float | None:
    total, free = (_memory_mb(root, "proc/meminfo", name) for name in ("SwapTotal", "SwapFree"))
    return None if total is None or free is None else round(total - free, 1)


if __name__ == "__main__":
    sys.exit(main())
