"""How far one measurement can be trusted: the same networks again, later, in other processes.

    python bench/measurement_trust.py [--networks 20] [--rounds 3] [--minutes 10]

Random DARTS networks (C=16 x 8 cells, 64x64, fp32 TensorFlow Lite, the seed fixed) are measured on this
machine by the standard protocol (three processes, median of medians) in rounds that start `--minutes` apart,
each round a process of its own. In each round every network is measured on the idle machine, by LiteRT's
own `litert-benchmark` (of the ai-edge-litert wheel; as many runs, one thread), and then by us with a
process spinning for each core.

Printed: for each network the range of its figures over the rounds as a share of their median; our figure
over that of litert-benchmark in the same round; and how many measurements were marked, idle and loaded.
Writes bench/results/measurement_trust.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import ROOT, spread, write_result

SEED = 20261
WORK = ROOT / "build" / "bench" / "trust"
TOOL = Path(sys.executable).with_name("litert-benchmark")
TOOL_RUNS = 500  # it gives hundredths of a millisecond: networks of some milliseconds are told apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10, help="between the starts of two rounds")
    parser.add_argument("--round", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.round is not None:
        one_round(arguments.round)
        return
    export(arguments.networks)
    for number in range(arguments.rounds):
        started = time.monotonic()
        subprocess.run([sys.executable, __file__, "--round", str(number)], check=True)
        if number + 1 < arguments.rounds:
            time.sleep(max(0.0, 60 * arguments.minutes - (time.monotonic() - started)))
    rounds = [json.loads((WORK / f"round{number}.json").read_text()) for number in range(arguments.rounds)]
    report(rounds, arguments)


def export(networks: int) -> None:
    from ehdnas.exporters import find_exporter
    from ehdnas.pipeline.candidates import untrained
    from ehdnas.search.spaces.base import NetworkShape, find_space

    WORK.mkdir(parents=True, exist_ok=True)
    space, shape = find_space("darts"), NetworkShape(16, 8, (3, 64, 64), 10)
    rng, exporter = np.random.default_rng(SEED), find_exporter("tflite")
    for old in WORK.glob("*"):
        old.unlink()
    for number in range(networks):
        network = untrained(space, space.sample(rng), shape)
        exporter.export(network, shape.image, WORK / f"network{number:02}.tflite")


def one_round(number: int) -> None:
    from ehdnas.core.device import read_device
    from ehdnas.profilers.devices import builtin_devices
    from ehdnas.profilers.local import LocalProfiler
    from ehdnas.profilers.protocol import STANDARD

    files = sorted(WORK.glob("network*.tflite"))
    rows = {path.name: {} for path in files}
    with LocalProfiler(read_device(builtin_devices()["local"])) as local:
        for state, context in (("idle", idle), ("loaded", loaded)):
            with context():
                for path in files:
                    taken = local.measure(path, STANDARD)
                    rows[path.name][state] = {
                        "ms": taken.metric("latency_ms"), "spread": taken.statistics.spread,
                        "min_ms": taken.statistics.min_ms, "flags": taken.flags,
                    }  # fmt: skip
                    if state == "idle":
                        rows[path.name]["litert-benchmark"] = litert_benchmark(path)
            print(f"round {number}: {state} done", flush=True)
    (WORK / f"round{number}.json").write_text(json.dumps(rows))


def litert_benchmark(path: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        result = Path(folder) / "result.json"
        command = [str(TOOL), f"--model={path}", f"--num_runs={TOOL_RUNS}", "--num_threads=1"]
        subprocess.run([*command, f"--result_json={result}"], check=True, capture_output=True)
        return json.loads(result.read_text())["latency"]


@contextmanager
def idle():
    yield


@contextmanager
def loaded():
    cores = os.cpu_count()
    spinning = [multiprocessing.Process(target=spin, daemon=True) for _ in range(cores)]
    for process in spinning:
        process.start()
    try:
        yield
    finally:
        for process in spinning:
            process.kill()


def spin() -> None:
    while True:
        pass


def report(rounds: list[dict], arguments: argparse.Namespace) -> None:
    names = sorted(rounds[0])
    figures = {}
    for state in ("idle", "loaded"):
        every = [one[name][state] for one in rounds for name in names]
        found = figures[state] = {
            "range_over_rounds": ranges([[one[name][state]["ms"] for one in rounds] for name in names]),
            "range_of_minimum": ranges([[one[name][state]["min_ms"] for one in rounds] for name in names]),
            "spread_within": [row["spread"] for row in every],
            "marked": sum(bool(row["flags"]) for row in every),
            "measurements": len(every),
        }
        print(f"{state}: range over {len(rounds)} rounds {spread(found['range_over_rounds'])}, worst "
              f"{max(found['range_over_rounds']):.3g}; of the minimum {spread(found['range_of_minimum'])}; "
              f"within a measurement {spread(found['spread_within'])}; "
              f"marked {found['marked']} of {len(every)}")  # fmt: skip
    medians = [[tool_median(one[name]["litert-benchmark"]) for one in rounds] for name in names]
    ours = [[one[name]["idle"]["ms"] for one in rounds] for name in names]
    figures["litert_benchmark"] = {
        "range_over_rounds": ranges(medians),
        "ours_over_theirs": [float(a / b) for x, y in zip(ours, medians, strict=True)
                             for a, b in zip(x, y, strict=True)],
    }  # fmt: skip
    print(f"litert-benchmark: range over rounds {spread(figures['litert_benchmark']['range_over_rounds'])}")
    print(f"ours over litert-benchmark: {spread(figures['litert_benchmark']['ours_over_theirs'])}")
    write_result("measurement_trust", {"arguments": vars(arguments), **figures, "rounds": rounds})


def ranges(values: list[list[float]]) -> list[float]:
    return [float(np.ptp(of_rounds) / np.median(of_rounds)) for of_rounds in values]


def tool_median(result: dict) -> float:
    return result["median_ms"]


if __name__ == "__main__":
    main()
