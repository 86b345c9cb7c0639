"""A sweep of 12 searches on two workers, one of them killed half-way, beside the same searches one by one.

    python bench/sweep.py [--workers 2]

Protocol, written down before it was run. Digits, the DARTS space at C=4 x 3 cells, searches of 5 epochs, two
finalists tried for two epochs; budgets of 0.8x and 0.9x on two simulated devices, three seeds. The device's
predictor is fitted before either side begins. First the 12 searches are typed one by one (`ehdnas search`),
then `ehdnas sweep` does them on Ray on loopback; when six of its results are there, a process that is at a
search is killed (SIGKILL). All 12 results have to be the same: genotype, figures and accuracy.

Overhead is what the sweep takes beyond a fair share of what the single searches take without their start-up,
which is timed by itself. Prints a line a search, then both wall times; writes bench/results/sweep.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from itertools import product
from pathlib import Path

from common import write_result

SETTINGS = """channels = 4
cells = 3
samples = 100
search_epochs = 5
finalists = 2
trial_epochs = 2
"""
BUDGETS, SEEDS = ("0.8x", "0.9x"), (0, 1, 2)
DEVICES = ("ehdnas-generic", "zcu102-generic")
EHDNAS = (sys.executable, "-m", "ehdnas")


def told(*arguments: str) -> dict:
    """Return what a command of ehdnas tells, as a process of its own."""
    done = subprocess.run([*EHDNAS, *arguments, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def singly() -> tuple[list[dict], float]:
    """Return what each search finds by itself, and the seconds they take together."""
    begin, rows = time.monotonic(), []
    for device, budget, seed in product(DEVICES, BUDGETS, SEEDS):
        found = told("search", "--device", device, "--budget", budget, "--seed", str(seed))
        tried = [one["accuracy"] for one in found["trials"] if one["genotype"] == found["genotype"]]
        rows.append(
            {"genotype": found["genotype"], "figures": found["chosen"]["figures"], "accuracy": tried[-1]}
        )
        print(f"{device:16} {budget} seed {seed}  {found['genotype']}  {tried[-1]:.2%}", flush=True)
    return rows, time.monotonic() - begin


def swept(workers: int) -> tuple[list[dict], float, bool]:
    """Return the rows of the sweep, its seconds, and whether a worker was killed at a search."""
    begin = time.monotonic()
    flags = ["--budgets", ";".join(BUDGETS), "--devices", ",".join(DEVICES), "--seeds", "0-2"]
    command = [*EHDNAS, "sweep", *flags, "--workers", str(workers), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    killed = False
    while process.poll() is None:
        done = len(list(Path(".ehdnas/sweeps").glob("0001/[0-9]*.json")))
        if not killed and done >= 6 and (worker := at_a_search()):
            os.kill(worker, signal.SIGKILL)
            killed = True
        time.sleep(0.2)
    out, _ = process.communicate()
    return json.loads(out)["searches"], time.monotonic() - begin, killed


def at_a_search() -> int | None:
    """Return a process of Ray's that is at a search."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_text().startswith("ray::_run_job"):
                return int(path.parent.name)
        except OSError:
            continue
    return None


def start_up() -> float:
    """Return the seconds that a command takes which finds its search done."""
    begin = time.monotonic()
    told("search", "--device", DEVICES[-1], "--budget", BUDGETS[-1], "--seed", str(SEEDS[-1]), "--resume")
    return time.monotonic() - begin


def main() -> None:
    """Search both ways, compare, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("ehdnas.toml").write_text(SETTINGS)
        for device in DEVICES:
            told("profile", "--device", device)
        alone, serial = singly()
        each = start_up()
        rows, wall, killed = swept(args.workers)
    same = [all(row[key] == one[key] for key in one) for row, one in zip(rows, alone, strict=True)]
    fair = (serial - len(alone) * each) / args.workers
    print(
        f"{sum(same)} of {len(rows)} the same; a worker was killed: {killed}\n"
        f"one by one {serial:.0f} s, of which {len(alone) * each:.0f} s start-up; the sweep {wall:.0f} s by "
        f"{args.workers} workers, {wall - fair:.0f} s more than a fair share of {fair:.0f} s"
    )
    figures = {"singly_s": serial, "start_up_s": each, "sweep_s": wall, "overhead_s": wall - fair}
    about = {"searches": len(rows), "same": sum(same), "killed": killed, "workers": args.workers}
    write_result("sweep", {**about, **figures})


if __name__ == "__main__":
    main()
