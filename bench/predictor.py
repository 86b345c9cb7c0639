"""Predictors of latency compared, on the same networks measured on real devices and the same splits.

    python bench/predictor.py [--device NAME ...] [--n 30,100] [--seeds 10] [--methods a,b] [--jobs 2]
    python bench/predictor.py --table FILE.csv --target COLUMN --n 100 --seeds 3 [--json]

By default: NAS-Bench-201's connected networks on the four devices of nb201/measured.csv.gz, from $EHDNAS_DATA
(default ../shared/data). For each device, number of samples and seed the networks are shuffled; every method
is fitted to the first n and judged on the next 3,000, or on all the rest where there are fewer.

Methods: the median; a line through the MACs; ridge regression on the one-hot form; the paper's embedding; a
Gaussian process, extremely randomised trees and gradient boosting of scikit-learn on the one-hot form, the
live graph and the costs (bench/predictor_rivals.py); and ours. Each runs on one thread and gets its 90 %
interval in one way: cross conformal, from five folds of its samples (one fold from 2,000 samples on); seconds
a fit are for those folds and the last fit together.

Printed: means over the seeds, and ours minus each other one, paired by split, with the standard error. The
full default run also says how often our 90 % interval holds over 30 seeds, and writes
bench/results/predictor.json; `--no-write` or anything that restricts it does not.

A table of one's own has a column `arch` (NAS-Bench-201's strings) or `op_idx` (JSON lists of choice indices,
of which no graph or cost is known) and a column of positive values; see bench/predictor_tables.py. With
--json one JSON object is all that is printed, with standard errors where there are two seeds or more.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from common import ROOT, write_result
from predictor_rivals import RIVALS
from predictor_tables import read_rows, read_table, require_enough
from threadpoolctl import threadpool_limits
from torch import Tensor

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.predictor.base import Identity, Predictor
from ehdnas.search.predictor.facts import MACS, SpaceFacts
from ehdnas.search.predictor.methods import METHODS, make_predictor

DATA = Path(os.environ.get("EHDNAS_DATA", ROOT.parent / "shared" / "data")) / "nb201" / "measured.csv.gz"
OURS = "ehdnas"
COUNTS, SEEDS, TEST = (30, 100, 300, 900), 10, 3000
COVERAGE_SEEDS = 30
MOST_SEEDS = 1000
FIGURES = ("spearman", "kendall", "within10", "mape", "coverage90", "seconds")
PAIRED = ("spearman", "within10")
WITH_ERRORS = ("spearman", "within10", "mape")
Samples = tuple[Tensor, Tensor]  # gates [n, slots, choices], values [n]
Trial = dict[str, dict[str, float]]  # by method, its figures on one split


@dataclass(frozen=True)
class Job:
    """One split of one column, for every method."""

    target: str
    n: int
    seed: int


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main() -> int:
    try:
        arguments = parsed()
        if arguments.table is None:
            compare_devices(arguments)
        else:
            compare_table(arguments)
    except UsageError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parsed() -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--device", nargs="+", help="columns of the default table, such as raspi4_ms")
    parser.add_argument("--table", type=Path, help="a .csv or .csv.gz of measured networks")
    parser.add_argument("--target", help="the table's column of positive values")
    parser.add_argument(
        "--n", action="append", help="samples to fit to; several times, or a list with commas"
    )
    parser.add_argument("--seeds", type=int, help=f"how many splits; {SEEDS} unless said otherwise")
    parser.add_argument("--methods", help="a list with commas; all unless said otherwise")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="print one JSON object; needs --table")
    parser.add_argument("--no-write", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    restricting = (arguments.device, arguments.n, arguments.seeds, arguments.methods, arguments.table)
    arguments.full = not arguments.no_write and all(value is None for value in restricting)
    if (arguments.table is None) != (arguments.target is None):
        raise UsageError("--table and --target go together")
    if arguments.table is None and arguments.json:
        raise UsageError("--json needs --table and --target")
    if arguments.table is not None and arguments.device:
        raise UsageError("--device is of the default table; a table of one's own has --target")
    arguments.n = COUNTS if arguments.n is None else counts_of(arguments.n)
    arguments.seeds = SEEDS if arguments.seeds is None else arguments.seeds
    if not 1 <= arguments.seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds {arguments.seeds}: from 1 to {MOST_SEEDS}")
    if not 1 <= arguments.jobs <= 64:
        raise UsageError(f"--jobs {arguments.jobs}: from 1 to 64")
    return arguments


def counts_of(texts: list[str]) -> tuple[int, ...]:
    found = []
    for text in ",".join(texts).split(","):
        if not (text.strip().isdecimal() and len(text) < 10):
            raise UsageError(f"--n '{text[:20]}': give whole numbers, such as --n 30,100")
        found.append(int(text))
    return tuple(dict.fromkeys(found))


def methods_for(asked: str | None, facts: SpaceFacts, op_times: bool = False) -> list[str]:
    """Return the methods to compare: as asked, or all that can be fitted with these facts."""
    possible = {
        "flops": facts.costs is not None and MACS in facts.costs.names,
        "op-sum": op_times,
    }
    known = [name for name in (*METHODS, *RIVALS) if name != OURS and possible.get(name, True)] + [OURS]
    if asked is None:
        return known
    names = list(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"--methods: '{name[:40]}' cannot be fitted here{nearest(name[:40], known)}")
    return names


def compare_table(arguments: argparse.Namespace) -> None:
    table = read_table(arguments.table, arguments.target)
    require_enough(table, arguments.n, str(arguments.table))
    if table.repeated:
        networks, median = ("networks", "their median") if table.repeated > 1 else ("network", "its median")
        print(f"{table.repeated} repeated {networks} merged by {median}", file=sys.stderr)
    methods = methods_for(arguments.methods, table.facts)
    jobs = [Job(arguments.target, n, seed) for n in arguments.n for seed in range(arguments.seeds)]
    found = trials(arguments.table, jobs, methods, arguments.jobs)
    per_n = {n: [found[job] for job in jobs if job.n == n] for n in arguments.n}
    if not arguments.json:
        for n, of_seeds in per_n.items():
            show(f"{arguments.target}, n = {n}, {arguments.seeds} seeds", of_seeds)
        return
    rows = [
        {"n": n, **row, **errors(of_seeds, row["method"])}
        for n, of_seeds in per_n.items()
        for row in summary(of_seeds)
    ]
    about = {"table": str(arguments.table), "target": arguments.target, "seeds": arguments.seeds}
    many = list(arguments.n) if len(arguments.n) > 1 else arguments.n[0]
    print(json.dumps(finite({**about, "n": many, "rows": rows}), allow_nan=False))


def compare_devices(arguments: argparse.Namespace) -> None:
    known = [name for name in read_rows(DATA)[0] if name.endswith("_ms")]
    devices = known if arguments.device is None else list(dict.fromkeys(arguments.device))
    for device in devices:
        if device not in known:
            raise UsageError(f"--device: no column '{device[:40]}'{nearest(device[:40], known)}")
    tables = {device: read_table(DATA, device) for device in devices}
    for device, table in tables.items():
        require_enough(table, arguments.n, device)
    methods = methods_for(arguments.methods, tables[devices[0]].facts)
    cells = [(device, n) for device in devices for n in arguments.n]
    jobs = [Job(device, n, seed) for device, n in cells for seed in range(arguments.seeds)]
    found = trials(DATA, jobs, methods, arguments.jobs, said=True)
    if arguments.full:
        more = [Job(device, n, seed) for device, n in cells for seed in range(SEEDS, COVERAGE_SEEDS)]
        found |= trials(DATA, more, [OURS], arguments.jobs, said=True)
    figures: dict[str, dict[str, Any]] = {device: {} for device in devices}
    for device, n in cells:
        of_seeds = [found[job] for job in jobs if (job.target, job.n) == (device, n)]
        tested = min(TEST, len(tables[device].values) - n)
        show(f"{device}, n = {n}, {tested} to test on, {arguments.seeds} seeds", of_seeds)
        figures[device][str(n)] = {
            "test": tested,
            "rows": summary(of_seeds),
            "ours_minus": paired(of_seeds),
            "per_seed": {name: {of: [t[name][of] for t in of_seeds] for of in PAIRED} for name in methods},
        }
    if arguments.full:
        cover(found, cells, figures)
        networks = {device: len(table.values) for device, table in tables.items()}
        write("predictor", {"seeds": arguments.seeds, "networks": networks, "devices": figures})


def cover(found: dict[Job, Trial], cells: list[tuple[str, int]], figures: dict[str, dict[str, Any]]) -> None:
    """Add to the figures how often our interval holds on all the seeds run, and print it."""
    for device, n in cells:
        every = [
            trial[OURS]["coverage90"] for job, trial in found.items() if (job.target, job.n) == (device, n)
        ]
        error = float(np.std(every, ddof=1) / math.sqrt(len(every)))
        figures[device][str(n)]["coverage90"] = {
            "seeds": len(every),
            "mean": float(np.mean(every)),
            "error": error,
        }
        held = f"{np.mean(every):.1%} ± {error:.1%} over {len(every)} seeds"
        print(f"{device}, n = {n}: the 90 % interval holds {held}")


def write(name: str, figures: dict[str, Any], command: Sequence[str] = ()) -> None:
    """Write a result file, the command in it as it is typed in the project's folder."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT)
    sys.argv = [str(script), *(command or sys.argv[1:])]
    libraries = {package: version(package) for package in ("scikit-learn", "torch")}
    write_result(name, finite({"libraries": libraries, **figures}))


def trials(
    path: Path, jobs: list[Job], methods: list[str], processes: int, said: bool = False
) -> dict[Job, Trial]:
    """Return what every method gives on every split; with `said`, progress goes to stderr."""
    work = functools.partial(trial, path, tuple(methods))
    with workers(min(processes, len(jobs))) as run:
        found = {}
        for job, figures in run(work, jobs):
            found[job] = figures
            if said:
                print(f"{len(found)} of {len(jobs)}: {job.target}, n = {job.n}", file=sys.stderr, flush=True)
        return found


@contextmanager
def workers(processes: int) -> Iterator[Any]:
    if processes == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield pool.imap_unordered


def trial(path: Path, methods: tuple[str, ...], job: Job) -> tuple[Job, Trial]:
    table = cached_table(path, job.target)
    order = np.random.default_rng(job.seed).permutation(len(table.values))
    train, test = (
        (table.gates(rows), torch.from_numpy(table.values[rows]))
        for rows in (order[: job.n], order[job.n : job.n + TEST])
    )
    # Nothing in it is of the column's name: a method sees networks, values and facts alone.
    who = Identity("", table.space, table.slots, table.choices, "", "table", "", "value")
    with one_thread():
        predictors = {name: predictor_of(replace(who, method=name), table.facts) for name in methods}
        return job, {name: judged(one, train, test, job.seed) for name, one in predictors.items()}


cached_table = functools.cache(read_table)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel's parameter ended at a bound
        yield
    torch.set_num_threads(threads)


def judged(predictor: Predictor, train: Samples, test: Samples, seed: int) -> dict[str, float]:
    """Return a predictor's figures on networks it was not fitted to, and the seconds of fitting it."""
    started = time.perf_counter()
    predictor.fit(*train, seed)
    seconds = time.perf_counter() - started
    quality = predictor.evaluate(*test)
    return {**{of: getattr(quality, of) for of in FIGURES[:-1]}, "seconds": seconds}


def predictor_of(identity: Identity, facts: SpaceFacts) -> Predictor:
    if identity.method in RIVALS:
        return RIVALS[identity.method](identity, facts)
    return make_predictor(identity, facts)


def summary(of_seeds: list[Trial]) -> list[dict[str, Any]]:
    """Return a row a method, its figures the means over the seeds."""
    return [
        {"method": name, **{of: float(np.mean([trial[name][of] for trial in of_seeds])) for of in FIGURES}}
        for name in of_seeds[0]
    ]


def errors(of_seeds: list[Trial], name: str) -> dict[str, float]:
    """Return the standard errors of a method's means over the seeds; none of a single seed."""
    if len(of_seeds) < 2:
        return {}
    return {
        f"{of}_error": float(np.std([trial[name][of] for trial in of_seeds], ddof=1) / len(of_seeds) ** 0.5)
        for of in WITH_ERRORS
    }


def paired(of_seeds: list[Trial]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return by other method ours minus theirs: the mean over the seeds and its standard error."""
    if OURS not in of_seeds[0]:
        return {}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name in (name for name in of_seeds[0] if name != OURS):
        for of in PAIRED:
            differences = np.array([trial[OURS][of] - trial[name][of] for trial in of_seeds])
            error = (
                differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
            )
            found.setdefault(name, {})[of] = (float(differences.mean()), float(error))
    return found


def show(title: str, of_seeds: list[Trial]) -> None:
    against = paired(of_seeds)
    head = (
        f"{'method':12} {'Spearman':>8} {'Kendall':>8} {'±10 %':>7} {'MAPE':>7} {'cov. 90':>7} {'s/fit':>7}"
    )
    print(f"\n{title}\n  {head}" + (f"   {OURS} minus it: Spearman, ±10 %" if against else ""))
    for row in summary(of_seeds):
        line = (
            f"  {row['method']:12} {row['spearman']:8.3f} {row['kendall']:8.3f} {row['within10']:7.1%} "
            f"{row['mape']:7.1%} {row['coverage90']:7.1%} {row['seconds']:7.2f}"
        )
        if row["method"] in against:
            (rank, rank_error), (near, near_error) = against[row["method"]].values()
            line += f"   {rank:+.4f} ± {rank_error:.4f}, {near:+.2%} ± {near_error:.2%}"  # nan: one seed
        print(line, flush=True)


def finite(value: Any) -> Any:
    """Return JSON-able data with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
