"""Predictors compared on networks measured on this machine, the sum of single operations' times among them.

    ehdnas profile --device local --samples 200 --all && ehdnas profile --device local --ops
    python bench/predictor_local.py --project DIR [--set channels=16 ...] [--no-write]

DIR is the folder where the two commands before have run; what they were told by flags is told here by
`--set`, what they read from DIR/ehdnas.toml is read again. The networks are shuffled once a seed and cut
into five folds; every method is fitted to four of them and judged on the fifth, and its figures are the means
over the five. Methods, intervals and what is printed are those of bench/predictor.py, and op-sum besides: a
line through the sum of what each operation takes alone, which ours and the rivals are told too. Writes
bench/results/predictor_local.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from predictor import (
    FIGURES,
    Parser,
    judged,
    methods_for,
    one_thread,
    paired,
    predictor_of,
    show,
    summary,
    write,
)
from torch import Tensor

from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.ops import with_operation_times
from ehdnas.pipeline.predictors import identity_of, open_records, samples
from ehdnas.pipeline.reporter import Silent
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import OP_LATENCY, SpaceFacts
from ehdnas.settings import load_settings
from ehdnas.workspace import find_workspace

METRIC = "latency_ms"
FOLDS = 5
AT_LEAST = 50  # 40 to fit to, and 10 in a fold


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--project", type=Path, help="the folder that was profiled in")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--device", default="local")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", help="a list with commas; all unless said otherwise")
    parser.add_argument("--no-write", action="store_true", help="write no result file")
    try:
        arguments = parser.parse_args()
        if arguments.project is None:  # `make bench` runs every script, and has nothing profiled
            print("skipped: profile 200 networks and the operations first, and give --project DIR")
            return 0
        compare(arguments)
    except EhdnasError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def compare(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.seeds <= 100:
        raise UsageError(f"--seeds {arguments.seeds}: from 1 to 100")
    context = opened(arguments.project, {**settings_of(arguments.set), "device": arguments.device})
    records = open_records(context)
    gates, values = samples(records, METRIC)
    if len(values) < AT_LEAST:
        raise UsageError(f"{len(values)} networks are measured; five folds need at least {AT_LEAST}")
    facts = with_operation_times(records, context.facts)
    timed = facts.costs is not None and OP_LATENCY in facts.costs.names
    if not timed:
        print("op-sum is left out: not every operation is timed; `ehdnas profile --ops`", file=sys.stderr)
    methods = methods_for(arguments.methods, facts, op_times=timed)
    who = identity_of(context, METRIC)
    with one_thread():
        of_seeds = [
            {name: in_folds(replace(who, method=name), facts, gates, values, seed) for name in methods}
            for seed in range(arguments.seeds)
        ]
    show(f"{len(values)} networks on {arguments.device}, {FOLDS} folds, {arguments.seeds} seeds", of_seeds)
    if not arguments.no_write:
        figures = {
            "device": arguments.device, "space": who.space, "shape": who.shape, "networks": len(values),
            "latency_ms": [float(one) for one in np.percentile(values, (0, 10, 50, 90, 100))],
            "folds": FOLDS, "seeds": arguments.seeds,
            "rows": summary(of_seeds), "ours_minus": paired(of_seeds),
        }  # fmt: skip
        write("predictor_local", figures, ["--project", "DIR"])  # where that is on this machine is nobody's


def settings_of(texts: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set '{text[:40]}': write KEY=VALUE")
        found[key.strip()] = int(value) if value.strip().isdecimal() else value.strip()
    return found


def opened(project: Path, flags: dict[str, object]) -> Context:
    workspace = find_workspace(project)
    if not workspace.database.is_file():
        raise UsageError(f"{project}: nothing was profiled here; `ehdnas profile --device local` does")
    return Context(load_settings(flags, workspace.project).settings, workspace, Silent())


def in_folds(who: Identity, facts: SpaceFacts, gates: Tensor, values: Tensor, seed: int) -> dict[str, float]:
    """Return a method's figures on networks it was not fitted to, the means over the folds."""
    order = np.random.default_rng(seed).permutation(len(values))
    found = []
    for fold in np.array_split(order, FOLDS):
        others = np.setdiff1d(order, fold)
        train, test = (gates[others], values[others]), (gates[fold], values[fold])
        found.append(judged(predictor_of(who, facts), train, test, seed))
    return {of: float(np.mean([figures[of] for figures in found])) for of in FIGURES}


if __name__ == "__main__":
    sys.exit(main())
