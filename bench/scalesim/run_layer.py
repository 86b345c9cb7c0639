"""Cycles of single layers by SCALE-Sim 3.0.0, for `bench/scale_sim.py`; needs a Python that has scalesim.

    echo h,w,kernel_h,kernel_w,cin,cout,stride,rows,cols,dataflow,method | python bench/scalesim/run_layer.py

One layer a line in, its cycles a line out; `h` and `w` are of the padded input. `whole` is the command
line's run, and its "Total Cycles" less its "Stall Cycles" in COMPUTE_REPORT.csv. `compute` is the same
code up to the memory simulation, which is left out: SCALE-Sim's demand matrices have one row a cycle, and
"Total Cycles" without stalls is the number of the last one, counted from 0.
"""

import csv
import subprocess
import sys
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
from scalesim.compute import systolic_compute_is, systolic_compute_os, systolic_compute_ws
from scalesim.scale_sim import scalesim
from scalesim.single_layer_sim import single_layer_sim

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {cols}
IfmapSramSzkB = 64
FilterSramSzkB = 64
OfmapSramSzkB = 64
IfmapOffset = 0
FilterOffset = 100000000
OfmapOffset = 200000000
Bandwidth = 10
Dataflow = {dataflow}
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = False
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


class AppendInPlace:
    """NumPy, but that to append to the outcome of one of the last joins copies only what is appended.

    SCALE-Sim joins all the folds so far with each one more: hours for a large layer on a small array.
    """

    def __init__(self):
        self.joined = deque(maxlen=8)

    def __getattr__(self, name):
        return getattr(numpy, name)

    def concatenate(self, parts, axis=0):
        if axis != 0 or len(parts) != 2:
            return numpy.concatenate(parts, axis=axis)
        head, tail = parts
        used, needed = len(head), len(head) + len(tail)
        buffer = next((buffer for view, buffer in self.joined if view is head), None)
        if buffer is None or needed > len(buffer) or buffer.dtype != numpy.result_type(head, tail):
            buffer = numpy.empty((2 * needed, *head.shape[1:]), numpy.result_type(head, tail))
            buffer[:used] = head
        buffer[used:needed] = tail
        self.joined.append((buffer[:needed], buffer))
        return self.joined[-1][0]


class CountCycles:
    """Stands for the memory: it never stalls, and keeps the number of the last cycle."""

    def service_memory_requests(self, *demands):
        self.last = max(len(demand) for demand in demands) - 1


def compute(simulation):
    layer, memory = single_layer_sim(), CountCycles()
    layer.set_params(0, simulation.config, simulation.topo, simulation.layout, verbose=False)
    layer.set_memory_system(memory)
    # Which addresses are fetched ahead is used by the memory in USER bandwidth mode alone.
    layer.compute_system.get_prefetch_matrices = lambda: (None, None)
    layer.run()
    return memory.last


def whole(arguments, folder):
    command = [sys.executable, "-m", "scalesim.scale", *arguments, "-p", folder]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    header, row = csv.reader(Path(folder, "run", "COMPUTE_REPORT.csv").read_text().splitlines())
    report = {name.strip(): value for name, value in zip(header, row, strict=True)}
    return int(report["Total Cycles"]) - int(report["Stall Cycles"])


def cycles(line, folder):
    *sizes, rows, cols, dataflow, method = line.strip().split(",")
    paths = [Path(folder, name) for name in ("layer.csv", "layout.csv", "array.cfg")]
    paths[0].write_text("Layer name, ...,\n" + ",".join(["layer", *sizes]) + ",\n")
    paths[1].write_text("Layer name, ...,\n")
    paths[2].write_text(CONFIG.format(rows=rows, cols=cols, dataflow=dataflow))
    topology, layout, config = map(str, paths)
    if method == "whole":
        return whole(["-t", topology, "-l", layout, "-c", config], folder)
    return compute(scalesim(verbose=False, topology=topology, layout=layout, config=config))


def main():
    for module in (systolic_compute_is, systolic_compute_os, systolic_compute_ws):
        module.np = AppendInPlace()
    for line in sys.stdin:
        with TemporaryDirectory() as folder:
            print(cycles(line, folder), flush=True)


if __name__ == "__main__":
    main()
