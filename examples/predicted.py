"""What the predictor says of networks, beside what the device does: for tables and figures of your own."""

from pathlib import Path

import numpy as np
import torch

from ehdnas.pipeline.context import Context
from ehdnas.pipeline.profile import open_meter, profile
from ehdnas.pipeline.reporter import Silent
from ehdnas.settings import Settings
from ehdnas.workspace import Workspace


def predicted_and_true(settings: Settings, folder: Path, count: int) -> list[tuple[str, float, float]]:
    """Return the genotype, the predicted and the measured or simulated latency in ms of random networks."""
    context = Context(settings, Workspace(folder), Silent())
    space, rng = context.space, np.random.default_rng(1)
    networks = [space.sample(rng) for _ in range(count)]
    predictor = profile(context).predictor
    with torch.no_grad():
        predicted = predictor(space.encode_all(networks)).tolist()
    meter = open_meter(context)
    true = [meter.measure(one).metric("latency_ms") for one in networks]
    return list(zip(map(space.text, networks), predicted, true, strict=True))


if __name__ == "__main__":
    for row in predicted_and_true(Settings(device="ehdnas-generic", samples=300), Path.cwd(), 20):
        print(*row)
