"""How fast E2E-Perf is: networks a second over populations, one network from module to answer, and growth.

    nice python bench/e2e_perf_speed.py [--repeats 5] [--seed 0]

One process on one core, threads off. Rates are by processor time, so that other work on the machine does not
count, with those by the clock beside them; times of one network are by the clock. Medians of the repeats,
with the least and the greatest. A rate includes `Workload.of_population`; it leaves out the layer tables of
the space's parts, which are made once. Networks are DARTS at C=16, 8 cells, 3x32x32, drawn as in
bench/e2e_perf_reference.py; accelerators are the built-in devices. A fresh process is a new Python: what it
imports, the modules that torch.export loads at its first call included, is timed apart from the work.

Growth: p of t = fixed + b·n^p, fitted to all sizes from 1 on; 1 is linear, 1.1 passes. t is the least of the
repeats' processor times: what else runs on the machine only adds to them, by the caches that it shares.
Networks go in chunks of 100,000, each of which has the fixed cost; chains of layers are all new in every
repeat, so that no cache of the models helps. Prints tables, writes bench/results/e2e_perf_speed.json, exits 1
if a bound does not hold.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "e2e_perf_speed.json"
RATES = (  # row, device, explored, networks, least a second
    ("generic, reference, by the slot table", "ehdnas-generic", False, 100_000, 1_000_000),
    ("generic, reference, by the formulas", "ehdnas-generic", False, 100_000, 1_000_000),
    ("pipeline, reference, with B", "ehdnas-pipeline", False, 100_000, 100_000),
    ("generic, realistic", "dpu-b4096", False, 100_000, 20_000),
    ("pipeline, realistic", "zcu102-pipeline", False, 100_000, 20_000),
    ("pipeline, realistic, explored", "zcu102-pipeline", True, 100_000, 20_000),
    ("systolic", "systolic-32x32", False, 100_000, 20_000),
    ("generic, realistic, explored", "zcu102-generic", True, 2_000, None),
)
ANSWERS = ("zcu102-generic", "zcu102-pipeline")
EXPLORED = ("zcu102-pipeline", "zcu102-generic")
MOST_SECONDS, MOST_EXPLORING, MOST_GROWTH = 3, 10, 1.1
CHUNK = 100_000
POPULATIONS = (1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000)
GROWING = ("ehdnas-generic", "ehdnas-pipeline", "dpu-b4096", "zcu102-pipeline")
CHAINS = (10, 32, 100, 316, 1_000, 3_162, 10_000)
IMAGE = (3, 224, 224)
HUGE = {"dsp": 10**9, "bram18": 10**9, "lut": 10**12, "ddr_gbps": 1e6}


def profiler_of(name, explored=False, **options):
    """Return a built-in device's profiler, with some of its options changed."""
    from ehdnas.core.device import read_device
    from ehdnas.profilers.base import find_profiler
    from ehdnas.profilers.devices import builtin_devices

    device = read_device(builtin_devices()[name])
    profiler = find_profiler(device.model_copy(update={"options": {**device.options, **options}}))
    return find_profiler(profiler.codesigned()) if explored else profiler


def timed(step, *args):
    """Return the seconds of processor and of clock that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    step(*args)
    return time.process_time() - processor, time.perf_counter() - clock


def spread(values, digits=4):
    """Return the median of some values, the least, the greatest and how many they are."""
    middle, low, high = (float(f"{f(values):.{digits}g}") for f in (statistics.median, min, max))
    return {"median": middle, "min": low, "max": high, "n": len(values)}


class Populations:
    """The DARTS networks to label, and how; what a space's parts cost to trace is paid here."""

    def __init__(self, networks, seed):
        from e2e_perf_reference import flat, sample, space_layers

        fixed, chosen = space_layers()
        self.fixed, self.chosen = flat(fixed), {key: flat(part) for key, part in chosen.items()}
        self.choices = sample(networks, np.random.default_rng(seed))

    def label(self, accelerator, networks):
        """Return the throughputs of as many networks, chunk by chunk."""
        from ehdnas.profilers.e2e_perf.workload import Workload

        parts = [self.choices[at : min(at + CHUNK, networks)] for at in range(0, networks, CHUNK)]
        found = [accelerator.figures(Workload.of_population(self.fixed, self.chosen, p)) for p in parts]
        return np.concatenate([one.throughput_fps for one in found])

    def rate(self, accelerator, by_table, networks, repeats):
        """Return networks a second, by processor time and by the clock, and the share that fits."""
        if by_table:
            step, fits = accelerator.published, 1.0
            work = (self.choices[:networks],)
        else:
            step, work = self.label, (accelerator, networks)
            fits = float(np.isfinite(self.label(accelerator, networks)).mean())
        step(*work)
        rates = [[networks / seconds for seconds in timed(step, *work)] for _ in range(repeats)]
        processor, clock = (spread(column) for column in zip(*rates, strict=True))
        return {"networks": networks, "per_s": processor, "per_s_by_clock": clock, "share_that_fits": fits}


def rate_rows(populations, repeats):
    rows = {}
    for name, device, explored, networks, least in RATES:
        accelerator = profiler_of(device, explored).accelerator
        row = populations.rate(accelerator, "slot table" in name, networks, repeats)
        passed = None if least is None else row["per_s"]["median"] >= least
        rows[name] = {"device": device, **row, "at_least": least, "passed": passed}
    return rows


def answer(device):
    """Return, in seconds, the imports and the work of one answer in this process: ResNet-50's."""
    start = time.perf_counter()
    import torch
    import torch.export._trace  # what torch.export imports at its first call
    from zoo import resnet50

    from ehdnas.core.graph import layer_table

    torch.set_num_threads(1)
    profiler = profiler_of(device)
    network = resnet50().eval()
    ready = time.perf_counter()
    profiler.explain(layer_table(network, IMAGE))
    return {"imports": ready - start, "work": time.perf_counter() - ready}


def fresh(device):
    """Return what `answer` does in a Python of its own, and how long that lived."""
    command = [sys.executable, __file__, "--answer", device]
    start = time.perf_counter()
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {**json.loads(found), "process": time.perf_counter() - start}


def answer_rows(repeats):
    rows = {}
    for device in ANSWERS:
        answer(device)
        warm = [answer(device)["work"] for _ in range(repeats)]
        alone = [fresh(device) for _ in range(repeats)]
        parts = {part: spread([row[part] for row in alone]) for part in ("work", "imports", "process")}
        passed = max(statistics.median(warm), parts["work"]["median"]) <= MOST_SECONDS
        rows[device] = {"warm": spread(warm), "fresh": parts, "at_most": MOST_SECONDS, "passed": passed}
    return rows


def explored_rows(repeats):
    from zoo import resnet50

    from ehdnas.core.graph import layer_table

    network, rows = resnet50().eval(), {}
    for device in EXPLORED:
        profiler = profiler_of(device)
        own = profiler.explain(layer_table(network, IMAGE))

        def explore(profiler=profiler):
            return profiler.explain(layer_table(network, IMAGE), explore=True)

        seconds = spread([timed(explore)[1] for _ in range(repeats)])
        fps = [own.throughput_fps, explore().throughput_fps]
        passed = seconds["median"] <= MOST_EXPLORING
        rows[device] = {"seconds": seconds, "fps": fps, "at_most": MOST_EXPLORING, "passed": passed}
    return rows


def chain(layers, image):
    """Return the table of a chain of as many distinct 3x3 convolutions, on an image of that size."""
    from ehdnas.core.layers import Layer, LayerTable

    widths = [16 + at for at in range(layers + 1)]
    return LayerTable(
        tuple(
            Layer(f"conv{a}", "conv", a, b, image, image, (3, 3), padding=(1, 1)) for a, b in pairwise(widths)
        )
    )


def growth(sizes, chunks, seconds):
    """Return fixed and p of seconds = fixed·chunks + b·n^p, all [k], by least squares of logarithms."""
    from scipy.optimize import least_squares

    sizes, chunks, seconds = (np.array(part, dtype=float) for part in (sizes, chunks, seconds))

    def residuals(terms):
        fixed, greatest = np.exp(terms[:2])
        return np.log((fixed * chunks + greatest * (sizes / sizes[-1]) ** terms[2]) / seconds)

    fixed, _, exponent = least_squares(residuals, (*np.log(seconds[[0, -1]]), 1.0)).x
    return float(np.exp(fixed)), float(exponent)


def population_growth(populations, repeats):
    rows = {}
    for device in GROWING:
        accelerator = profiler_of(device).accelerator
        populations.label(accelerator, 1)
        seconds = [
            min(timed(populations.label, accelerator, size)[0] for _ in range(repeats))
            for size in (1, *POPULATIONS)
        ]
        rows[device] = growth_row((1, *POPULATIONS), CHUNK, seconds)
    return rows


def chain_growth(repeats):
    rows, image = {}, 0
    for device in (*GROWING, "systolic-32x32"):
        options = {"board": HUGE} if device == "zcu102-pipeline" else {}
        if device == "ehdnas-pipeline":
            options = {"dsp": HUGE["dsp"], "bram18": HUGE["bram18"]}
        profiler, seconds = profiler_of(device, **options), []
        profiler.explain(chain(1, 7))
        for size in (1, *CHAINS):
            times = []
            for _ in range(repeats):
                image += 1
                times.append(timed(profiler.explain, chain(size, 7 + image))[0])
            seconds.append(min(times))
        rows[device] = growth_row((1, *CHAINS), max(CHAINS), seconds)
    return rows


def growth_row(sizes, chunk, seconds):
    fixed, exponent = growth(sizes, [-(-size // chunk) for size in sizes], seconds)
    return {
        "seconds": {size: float(f"{value:.4g}") for size, value in zip(sizes, seconds, strict=True)},
        "fixed_s": float(f"{fixed:.3g}"),
        "exponent": round(exponent, 3),
        "at_most": MOST_GROWTH,
        "passed": exponent <= MOST_GROWTH,
    }


def machine():
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def verdict(row):
    return {True: "pass", False: "FAIL", None: "no bound"}[row["passed"]]


def show(result):
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, one used; load average {about['load_average']} before")
    print(f"\n{'networks a second':40}{'median':>11}{'min':>11}{'max':>11}{'by clock':>11}{'bound':>11}")
    for name, row in result["rates"].items():
        values = [row["per_s"][key] for key in ("median", "min", "max")] + [row["per_s_by_clock"]["median"]]
        bound = "" if row["at_least"] is None else f"{row['at_least']:,}"
        print(f"{name:40}" + "".join(f"{value:>11,.0f}" for value in values) + f"{bound:>11}  {verdict(row)}")
    print(f"\n{'ResNet-50, module to answer, s':32}{'warm':>8}{'fresh':>8}{'min':>8}{'max':>8}{'imports':>9}")
    for name, row in result["answers"].items():
        work = row["fresh"]["work"]
        values = [row["warm"]["median"], work["median"], work["min"], work["max"]]
        values = "".join(f"{value:>8.2f}" for value in values)
        print(f"{name:32}{values}{row['fresh']['imports']['median']:>9.2f}  {verdict(row)}")
    print(f"\n{'ResNet-50 explored, s':32}{'median':>8}{'min':>8}{'max':>8}  fps before, after")
    for name, row in result["explored"].items():
        values = "".join(f"{row['seconds'][key]:>8.2f}" for key in ("median", "min", "max"))
        print(f"{name:32}{values}  {row['fps'][0]:.1f}, {row['fps'][1]:.1f}  {verdict(row)}")
    for title in ("networks", "layers"):
        rows = result[f"growth_with_{title}"]
        sizes = next(iter(rows.values()))["seconds"]
        print(f"\n{'s for ' + title:20}" + "".join(f"{size:>10,}" for size in sizes) + "   fixed  exponent")
        for name, row in rows.items():
            values = "".join(f"{value:>10.4f}" for value in row["seconds"].values())
            print(f"{name:20}{values}{row['fixed_s']:>8.4f}{row['exponent']:>10.3f}  {verdict(row)}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--answer", metavar="DEVICE", help="only time one answer here: a fresh process")
    args = parser.parse_args()
    if args.answer:
        print(json.dumps(answer(args.answer)))
        return
    about, populations = machine(), Populations(max(POPULATIONS), args.seed)
    result = {
        "machine": about,
        "seed": args.seed,
        "repeats": args.repeats,
        "rates": rate_rows(populations, args.repeats),
        "answers": answer_rows(args.repeats),
        "explored": explored_rows(args.repeats),
        "growth_with_networks": population_growth(populations, args.repeats),
        "growth_with_layers": chain_growth(args.repeats),
    }
    show(result)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sections = [part for part in result.values() if isinstance(part, dict) and part is not about]
    sys.exit(any(row["passed"] is False for part in sections for row in part.values()))


if __name__ == "__main__":
    main()
