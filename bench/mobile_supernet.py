"""Whether the mobile supernet learns, and whether gradients by its gates say what becomes of the loss.

    python bench/mobile_supernet.py [--steps 500] [--networks 6] [--no-write]

Trains the supernet of the mobile space on digits, every step on a path drawn anew. Then, for a few networks,
compares the first-order change of the loss that the gates' gradients give for each decision made differently
with the change itself, on images that no weight was trained on. Prints the correlation for each kind of
decision and writes bench/results/mobile_supernet.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from common import write_result
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.core.images.dataset import Split, load_data
from ehdnas.search.augment import Augmentation
from ehdnas.search.spaces.base import Architecture, NetworkShape, Supernet
from ehdnas.search.spaces.mobile.layout import LAYERS, SKIP, STAGES
from ehdnas.search.spaces.mobile.space import MobileSpace

SPACE = MobileSpace()
BATCH = 32
DRAWS = 15  # of the choice that each layer is compared with
IMAGES = 400  # that losses are compared on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = load_data("digits", 0, None)
    augmentation = Augmentation.for_size(data.image_shape[1], False, data.mean, data.std)
    weights, held_out = data.halves(0)
    supernet = SPACE.supernet(NetworkShape(8, LAYERS, data.image_shape, data.num_classes))
    losses = train(supernet, *tensors(augmentation, weights), args.steps)
    print(f"loss of sampled paths, mean of 50 steps: {', '.join(f'{loss:.2f}' for loss in losses)}")
    images, labels = tensors(augmentation, held_out)
    rows = compare(supernet, images[:IMAGES], labels[:IMAGES], args.networks)
    for kind, row in rows.items():
        print(f"{kind:18} n={row['n']:4}  Pearson {row['pearson']:.2f}  Spearman {row['spearman']:.2f}")
    if not args.no_write:
        write_result("mobile_supernet", {"steps": args.steps, "losses": losses, "decisions": rows})


def tensors(augmentation: Augmentation, split: Split) -> tuple[Tensor, Tensor]:
    """Return images as networks are fed them, and their labels."""
    return augmentation.evaluate(torch.from_numpy(split.images)), torch.from_numpy(split.labels)


def train(supernet: Supernet, images: Tensor, labels: Tensor, steps: int) -> list[float]:
    """Train on paths drawn as a search first draws them; return the mean loss of every 50 steps."""
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    logits, losses = SPACE.initial_logits(), []
    for _ in range(steps):
        rows = torch.randint(len(labels), (BATCH,))
        loss = F.cross_entropy(supernet(images[rows], SPACE.relax(logits)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(supernet.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    return [float(np.mean(losses[start : start + 50])) for start in range(0, steps, 50)]


def compare(supernet: Supernet, images: Tensor, labels: Tensor, networks: int) -> dict[str, dict[str, float]]:
    """Return by kind of decision how the changes that gradients give go with those of the loss."""
    rng, found = np.random.default_rng(1), {}
    for _ in range(networks):
        network = SPACE.sample(rng)
        for kind, predicted, true in changes(supernet, network, images, labels):
            found.setdefault(kind, []).append((predicted, true))
    rows = {}
    for kind, pairs in sorted(found.items()):
        predicted, true = np.array(pairs).T
        rows[kind] = {
            "n": len(pairs),
            "pearson": float(np.corrcoef(predicted, true)[0, 1]),
            "spearman": float(spearmanr(predicted, true).statistic),
        }
    return rows


def changes(
    supernet: Supernet, network: Architecture, images: Tensor, labels: Tensor
) -> Iterator[tuple[str, float, float]]:
    """Yield for every network one decision away: its kind, and the change of the loss, predicted and true."""
    gradient = torch.zeros(SPACE.slots, SPACE.choices)
    for _ in range(DRAWS):
        gates = SPACE.encode(network).requires_grad_()
        loss = F.cross_entropy(supernet(images, gates), labels)
        gradient += torch.autograd.grad(loss, gates)[0] / DRAWS
    for other in SPACE.neighbours(network):
        pairs = enumerate(zip(network.choices, other.choices, strict=True))
        ((slot, before, after),) = [(slot, a, b) for slot, (a, b) in pairs if a != b]
        with torch.no_grad():
            changed = F.cross_entropy(supernet(images, SPACE.encode(other)), labels)
        yield (
            kind_of(slot, before, after),
            float(gradient[slot, after] - gradient[slot, before]),
            float(changed - loss.detach()),
        )


def kind_of(slot: int, before: int, after: int) -> str:
    """Return what a decision is about."""
    stage = [stage for stage in STAGES if stage.first_slot <= slot][-1]
    if slot == stage.width_slot:
        return "width"
    if slot == stage.squeeze_slot:
        return "squeeze-excite"
    if SKIP in (before, after):
        return "depth"
    return "first operation" if slot == stage.layer_slots[0] else "later operation"


if __name__ == "__main__":
    main()
