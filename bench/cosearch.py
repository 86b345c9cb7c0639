"""Co-search against network-then-accelerator and accelerator-then-network, at equal board and proxy.

    python bench/cosearch.py [--devices NAME ...] [--seeds 5]

The accuracy proxy is the number of weights: every network has at least 0.8 x those of DARTS_V2 (C=16 x 8,
32x32). All searches draw the same 2,000 random networks and descend from the best of them, one after
another, over neighbours that keep the proxy, until 20,000 networks were looked at. They differ in what they
descend:

- network, then accelerator: the network's MACs, which know no hardware; then the board is explored for it;
- accelerator, then network: the board is explored for DARTS_V2; then the throughput on that accelerator;
- co-search: the throughput on the accelerator explored for each network, as `ehdnas search --codesign` labels
  it, going on from the network of the search before: it cannot lose to that, and has looked at twice as many;
- co-search from scratch: the same, from the random networks alone, with as many looked at as the others.

A pipeline has stages of its own for every network; what is fixed of it in the second search is DNNBuilder's
rule and how often the pipeline is copied. Prints throughput for each seed and the ratios; writes
bench/results/cosearch.json.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from ehdnas.pipeline.costed import Costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import find_profiler
from ehdnas.search.spaces.base import NetworkShape, find_space

RESULT = Path(__file__).parent / "results" / "cosearch.json"
SHAPE = NetworkShape(16, 8, (3, 32, 32), 10)
OTHERS = ("network, then accelerator", "accelerator, then network", "co-search from scratch")
KEPT, DRAWN, BUDGET = 0.8, 2_000, 20_000


class Bench:
    """One device and the space, with what is looked at counted."""

    def __init__(self, name):
        self.space = find_space("darts")
        self.costed = Costed(self.space, SHAPE)
        self.accelerator = find_profiler(find_device(name)).accelerator
        self.least = KEPT * self.proxy([self.space.reference])[0]

    def proxy(self, networks):
        """Return the weights of each network."""
        workload = self.costed.workload(networks)
        return workload.counts @ workload.columns.weights

    def macs(self, networks):
        """Return the MACs of each network."""
        workload = self.costed.workload(networks)
        return workload.counts @ workload.columns.macs

    def interval(self, accelerator):
        """Return the function that gives each network's seconds an image; infinite where it does not fit."""

        def seconds(networks):
            fps = accelerator.figures(self.costed.workload(networks)).throughput_fps
            return np.where(np.isnan(fps), np.inf, 1 / fps)

        return seconds

    def search(self, score, drawn, first=()):
        """Return the best network of descents from `first`, then from the best of `drawn`, within BUDGET."""
        looked, found = 0, []
        for current in [*first, *(drawn[at] for at in np.argsort(score(drawn)))]:
            if looked >= BUDGET:
                break
            value = score([current])[0]
            while looked < BUDGET:
                around = list(self.space.neighbours(current))
                kept = [
                    one for one, size in zip(around, self.proxy(around), strict=True) if size >= self.least
                ]
                looked += len(around)
                if not kept or (values := score(kept)).min() >= value:
                    break
                current, value = kept[int(values.argmin())], values.min()
            found.append((value, current))
        return min(found, key=lambda pair: pair[0])[1]

    def explored(self, network):
        """Return (the accelerator explored for one network, its throughput there)."""
        simulation = self.accelerator.explored(self.costed.table(network))
        names = type(self.accelerator).model_fields
        design = {key: value for key, value in simulation.design.items() if key in names and key != "board"}
        return self.accelerator.model_copy(update=design), simulation.throughput_fps

    def run(self, seed):
        """Return the throughput that each search ends with."""
        rng = np.random.default_rng(seed)
        drawn = [self.space.sample(rng) for _ in range(DRAWN)]
        drawn = [one for one, size in zip(drawn, self.proxy(drawn), strict=True) if size >= self.least]
        first = self.search(self.macs, drawn)
        fixed, _ = self.explored(self.space.reference)
        second = self.search(self.interval(fixed), drawn)
        free = self.accelerator.model_copy(update=self.accelerator.free_options)
        third = self.search(self.interval(free), drawn, [second])
        alone = self.search(self.interval(free), drawn)
        return {
            "network, then accelerator": self.explored(first)[1],
            "accelerator, then network": fixed.simulate(self.costed.table(second)).throughput_fps,
            "co-search": self.explored(third)[1],
            "co-search from scratch": self.explored(alone)[1],
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--devices", nargs="+", default=["zcu102-generic", "pynq-z2-generic", "zcu102-pipeline"]
    )
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    results = {}
    for device in arguments.devices:
        bench, rows = Bench(device), []
        for seed in range(arguments.seeds):
            rows.append(bench.run(seed))
            print(
                f"{device:18} seed {seed}  "
                + "  ".join(f"{name} {fps:9.1f}" for name, fps in rows[-1].items())
            )
        results[device] = {"fps": rows, "ratios": {}}
        for other in OTHERS:
            ratios = [row["co-search"] / row[other] for row in rows]
            results[device]["ratios"][other] = ratios
            print(
                f"{device:18} co-search / {other}: median {statistics.median(ratios):.3f}, "
                f"{min(ratios):.3f} to {max(ratios):.3f}, n={len(ratios)}"
            )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
