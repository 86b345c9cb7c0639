"""E2E-Perf's systolic cycles against SCALE-Sim 3.0.0: AlexNet and ResNet-18, three dataflows, three arrays.

    python bench/scale_sim.py                          prints the differences, from the stored cycles
    python bench/scale_sim.py --measure [--python P]   first runs SCALE-Sim for the rows that are not stored

SCALE-Sim needs an older NumPy than this project: P is a Python that has it, and by default one is made in
build/scalesim. Rows are stored one by one, so a run that was stopped goes on where it was. Compared are
stall-free compute cycles: "Total Cycles" less "Stall Cycles" in COMPUTE_REPORT.csv, bandwidth mode CALC.
SCALE-Sim is given the padded input. `whole` rows are its command line's; `compute` rows leave its memory
simulation out (bench/scalesim/run_layer.py), and the table shows that the two are equal where both ran.
"""

import argparse
import csv
import subprocess
import sys
import time
import venv
from collections import defaultdict
from pathlib import Path

import numpy as np

from ehdnas.core.layers import Layer
from ehdnas.profilers.e2e_perf.systolic.array import systolic_cycles
from ehdnas.profilers.e2e_perf.workload import Columns

ROOT = Path(__file__).parents[1]
STORED = ROOT / "bench" / "results" / "scale_sim_cycles.csv"
RUNNER = ROOT / "bench" / "scalesim" / "run_layer.py"
# With NumPy 2.4 the release stops at a conversion that NumPy had deprecated.
REQUIREMENTS = ("scalesim==3.0.0", "numpy<2.4")
ARRAYS = ((128, 128), (16, 32), (8, 8))
DATAFLOWS = ("os", "ws", "is")
SHAPE = ("cin", "cout", "size", "kernel", "stride", "padding")
FIELDS = ("network", "layer", *SHAPE, "rows", "cols", "dataflow", "method", "cycles", "seconds")
# What tells a row from another.
KEY = FIELDS[: FIELDS.index("cycles")]
# The distinct layers as torchvision has them; a classifier is a convolution of one pixel.
NETWORKS = {
    "alexnet": {
        "features.0": (3, 64, 224, 11, 4, 2),
        "features.3": (64, 192, 27, 5, 1, 2),
        "features.6": (192, 384, 13, 3, 1, 1),
        "features.8": (384, 256, 13, 3, 1, 1),
        "features.10": (256, 256, 13, 3, 1, 1),
        "classifier.1": (9216, 4096, 1, 1, 1, 0),
        "classifier.4": (4096, 4096, 1, 1, 1, 0),
        "classifier.6": (4096, 1000, 1, 1, 1, 0),
    },
    "resnet18": {
        "conv1": (3, 64, 224, 7, 2, 3),
        "layer1.0.conv1": (64, 64, 56, 3, 1, 1),
        "layer2.0.conv1": (64, 128, 56, 3, 2, 1),
        "layer2.0.conv2": (128, 128, 28, 3, 1, 1),
        "layer2.0.downsample": (64, 128, 56, 1, 2, 0),
        "layer3.0.conv1": (128, 256, 28, 3, 2, 1),
        "layer3.0.conv2": (256, 256, 14, 3, 1, 1),
        "layer3.0.downsample": (128, 256, 28, 1, 2, 0),
        "layer4.0.conv1": (256, 512, 14, 3, 2, 1),
        "layer4.0.conv2": (512, 512, 7, 3, 1, 1),
        "layer4.0.downsample": (256, 512, 14, 1, 2, 0),
        "fc": (512, 1000, 1, 1, 1, 0),
    },
}
# Small enough for whole runs: SCALE-Sim's memory simulation takes minutes for each of the others.
WHOLE = ("features.10", "layer3.0.downsample", "layer4.0.downsample", "fc")


def jobs():
    """Return the rows to store, their cycles still to be found, the quick ones first."""
    rows = []
    for method in ("compute", "whole"):
        for array in ARRAYS:
            for network, layers in NETWORKS.items():
                for name, shape in layers.items():
                    if method == "compute" or (
                        name in WHOLE and not (name == "features.10" and array == (8, 8))
                    ):
                        rows += [(network, name, *shape, *array, flow, method) for flow in DATAFLOWS]
    return [dict(zip(FIELDS, map(str, row), strict=False)) for row in rows]


def stored():
    """Return the rows of the CSV, less the comment at its head."""
    if not STORED.exists():
        return []
    lines = STORED.read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def scalesim_python(folder):
    """Return a Python with SCALE-Sim 3.0.0, made in `folder` if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def scalesim_cycles(python, rows):
    """Yield SCALE-Sim's cycles and seconds for each of the rows, in one process."""
    with subprocess.Popen(
        [python, RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        for row in rows:
            size = int(row["size"]) + 2 * int(row["padding"])
            sizes = (size, size, row["kernel"], row["kernel"], row["cin"], row["cout"], row["stride"])
            options = (row["rows"], row["cols"], row["dataflow"], row["method"])
            start = time.perf_counter()
            process.stdin.write(",".join(map(str, (*sizes, *options))) + "\n")
            answer = process.stdout.readline()
            if not answer:
                raise SystemExit(f"SCALE-Sim stopped at {row}")
            yield int(answer), time.perf_counter() - start
        process.stdin.close()


def measure(python):
    """Append to the CSV every row that it lacks."""
    known = {tuple(row[name] for name in KEY) for row in stored()}
    missing = [row for row in jobs() if tuple(row.values()) not in known]
    if not STORED.exists():
        STORED.parent.mkdir(exist_ok=True)
        head = "# SCALE-Sim 3.0.0, stall-free compute cycles: python bench/scale_sim.py --measure\n"
        STORED.write_text(head + ",".join(FIELDS) + "\n")
    for row, (cycles, seconds) in zip(missing, scalesim_cycles(python, missing), strict=True):
        with STORED.open("a") as file:
            file.write(",".join((*row.values(), str(cycles), f"{seconds:.1f}")) + "\n")


def formula(row, partial_windows=True):
    """Return E2E-Perf's cycles for one stored row."""
    cin, cout, size, *window = (int(row[name]) for name in SHAPE)
    kernel, stride, padding = ((value, value) for value in window)
    layer = Layer(row["layer"], "conv", cin, cout, size, size, kernel, stride, padding)
    array = int(row["rows"]), int(row["cols"])
    cycles = systolic_cycles(Columns([layer]), *array, row["dataflow"], partial_windows)
    return int(cycles[0])


def table(rows):
    """Print, for each network, array, dataflow and method, how far the formula is from SCALE-Sim.

    `cycles` are SCALE-Sim's, summed over the distinct layers; `difference` is the largest of one layer.
    `outputs` are the cycles of the outputs that the network has, without the windows over the edge.
    """
    groups = defaultdict(list)
    for row in rows:
        name = (row["network"], f"{row['rows']}x{row['cols']}", row["dataflow"], row["method"])
        theirs, seconds = int(row["cycles"]), float(row["seconds"])
        groups[name].append((theirs, formula(row), formula(row, partial_windows=False), seconds))
    print("network       array flow method   layers      cycles  difference     outputs  seconds")
    for (network, array, flow, method), values in groups.items():
        theirs, ours, outputs, seconds = np.array(values).T
        print(
            f"{network:10}{array:>9} {flow:5}{method:9}{len(values):6}{int(theirs.sum()):12}"
            f"{int(np.abs(theirs - ours).max()):12}{int(outputs.sum()):12}{seconds.sum():9.1f}"
        )
    differing = [row for row in rows if int(row["cycles"]) != formula(row)]
    print(f"{len(rows)} of {len(jobs())} rows stored; {len(differing)} differ from the formula")
    return differing


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="run SCALE-Sim for the rows that are missing")
    parser.add_argument("--python", type=Path, help="a Python that has scalesim 3.0.0")
    args = parser.parse_args()
    if args.measure:
        measure(args.python or scalesim_python(ROOT / "build" / "scalesim"))
    sys.exit(1 if table(stored()) else 0)


if __name__ == "__main__":
    main()
