"""Networks labelled by E2E-Perf through `ehdnas label`: the rate on one core and on two, and the memory.

    python bench/labels.py [--networks 10000000]

Protocol, written down before it was run. The DARTS space at C=16 x 8 cells and 32x32 pixels, the generic
accelerator of EH-DNAS by its formulas; files of 100,000 networks in a temporary folder. First one process,
then two workers on Ray, each with one thread, `--networks` each. Memory is the most that the processes of a
command hold together (resident, shared pages counted once a process), looked at twice a second, in the first
and in the second half of the time: what grows with the number of networks would show as a difference.

Prints a line a side; writes bench/results/labels.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from common import write_result

PAGE = os.sysconf("SC_PAGE_SIZE")
FLAGS = ("--device", "ehdnas-generic", "--channels", "16", "--cells", "8")


def resident(root: int) -> int:
    """Return the bytes that a process and all below it hold."""
    parents: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            number = int(path.name)
            after = (path / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(after[1]), []).append(number)
            pages[number] = int((path / "statm").read_text().split()[1])
    family, left = [], [root]
    while left:
        family.append(left.pop())
        left += parents.get(family[-1], [])
    return PAGE * sum(pages.get(one, 0) for one in family)


def labelled(networks: int, workers: int) -> dict:
    """Return what the command tells, with the most memory in each half of its time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ehdnas", "label", "--count", str(networks), "--out", "labels"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, *FLAGS, "--workers", str(workers), "--json"],
            cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        held = []
        while process.poll() is None:
            held.append(resident(process.pid))
            time.sleep(0.5)
        told = json.loads(process.communicate()[0])
        size = sum(path.stat().st_size for path in Path(folder, "labels").iterdir())
    halves = held[: len(held) // 2], held[len(held) // 2 :]
    first, second = (round(max(half, default=0) / 2**20) for half in halves)
    row = {
        "workers": workers,
        "networks": networks,
        "seconds": told["seconds"],
        "per_second": told["per_second"],
    }
    row |= {"first_half_mib": first, "second_half_mib": second, "bytes_a_network": round(size / networks, 1)}
    print(
        f"{workers} worker(s): {networks:,} networks, {told['per_second']:,} a second; "
        f"at most {first} MiB in the first half, {second} MiB in the second",
        flush=True,
    )
    return row


def main() -> None:
    """Label by one process and by two, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=10_000_000)
    args = parser.parse_args()
    rows = [labelled(args.networks, workers) for workers in (1, 2)]
    write_result("labels", {"sides": rows})


if __name__ == "__main__":
    main()
