"""What int8 costs in accuracy, and what each way of calibrating is worth, on real CIFAR-10.

    python bench/int8_accuracy.py [--genotype DARTS_V2] [--channels 8] [--cells 5] [--epochs 6]

A network is trained (the training is kept in build/bench and resumes), then exported to every int8 target by
every method of calibration, and each *file* is run in its own interpreter on all 10,000 test images, beside
the fp32 file. Calibration sees 256 training images and no label. `plain` is min-max ranges without bias
correction, what a converter does by itself. Differences are paired: `fixed` and `broken` count the images
that int8 alone, and fp32 alone, gets right. Writes bench/results/int8_accuracy.json.
"""

import argparse
import hashlib
import json
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import cifar10
import numpy as np
import torch

from ehdnas.core.export_options import ExportOptions
from ehdnas.core.images.dataset import normalise
from ehdnas.exporters import find_exporter, run_artifact
from ehdnas.search.augment import Augmentation
from ehdnas.search.recipes import recipe_for
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.trainer import Trainer, TrainTask

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "int8_accuracy.json"
CALIBRATION = 256
FINETUNED_ON = 4096

# Name -> target and options. `auto` is what a user gets by default.
VARIANTS = {
    "fp32": ("tflite", {}),
    "plain": ("tflite-int8", {"calibration": "minmax", "bias_correction": False}),
    "minmax": ("tflite-int8", {"calibration": "minmax"}),
    "percentile": ("tflite-int8", {"calibration": "percentile"}),
    "mse": ("tflite-int8", {"calibration": "mse"}),
    "entropy": ("tflite-int8", {"calibration": "entropy"}),
    "auto": ("tflite-int8", {}),
    "auto, uint8 in and out": ("tflite-int8", {"int8_io": "uint8"}),
    "auto, edgetpu": ("edgetpu", {}),
    "auto, onnx-int8": ("onnx-int8", {}),
    "auto, fine-tuned 200 steps": ("tflite-int8", {"finetune_steps": 200}),
}


def trained(args, dataset):
    """Return the trained network, from the kept training where there is one."""
    space = find_space("darts")
    shape = NetworkShape(args.channels, args.cells, (3, 32, 32), 10)
    architecture = space.parse(args.genotype)
    recipe = recipe_for("cifar10").model_copy(
        update={
            "train_epochs": args.epochs,
            "train_batch_size": 96,
            "drop_path": 0.0,
            "auxiliary_weight": 0.0,
            "cutout": False,
        }
    )
    augmentation = Augmentation.for_size(32, True, dataset.mean, dataset.std)
    named = f"{args.genotype}-{shape}-{args.epochs}"
    checkpoint = ROOT / "build" / "bench" / f"{hashlib.sha256(named.encode()).hexdigest()[:12]}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    task = TrainTask(
        space.network(architecture, shape), dataset.train, augmentation, recipe, 0, 30.0, {"network": named}
    )
    trainer = Trainer(task, checkpoint)
    if checkpoint.is_file():
        trainer.loop.resume()
    trainer.run(lambda done, total, text: done % 100 or print(f"  {done}/{total} {text}", flush=True))
    trainer.loop.save()
    return trainer.network.eval()


def outputs(network, variant, images, calibration):
    target, options = VARIANTS[variant]
    exporter = find_exporter(target, ExportOptions(**options))
    with TemporaryDirectory() as folder:
        path = Path(folder) / exporter.file_name()
        seen = calibration if options.get("finetune_steps") else calibration[:CALIBRATION]
        start = time.perf_counter()
        artifact = exporter.export(network, (3, 32, 32), path, calibration=seen)
        seconds = time.perf_counter() - start
        return run_artifact(path, images).outputs, seconds, artifact.manifest.details.get("quantisation")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--genotype", default="DARTS_V2")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    dataset = cifar10.load()
    network = trained(args, dataset)
    images = normalise(dataset.test.images, dataset.mean, dataset.std)
    rows = np.random.default_rng(0).permutation(len(dataset.train))[:FINETUNED_ON]
    calibration = normalise(dataset.train.images[rows], dataset.mean, dataset.std)
    labels = dataset.test.labels
    reference, found = None, {}
    print(f"{'variant':28} accuracy   drop   fixed broken  agree  export s  calibrated by")
    for variant in VARIANTS:
        made, seconds, report = outputs(network, variant, images, calibration)
        right = made.argmax(1) == labels
        reference = (right, made) if reference is None else reference
        before, expected = reference
        row = {
            "accuracy": float(right.mean()),
            "drop": float(before.mean() - right.mean()),
            "fixed": int((right & ~before).sum()),
            "broken": int((before & ~right).sum()),
            "agreement": float((made.argmax(1) == expected.argmax(1)).mean()),
            "export_s": round(seconds, 2),
            "quantisation": report,
        }
        found[variant] = row
        print(
            f"{variant:28} {row['accuracy']:8.2%} {row['drop']:+7.2%} {row['fixed']:6} {row['broken']:6} "
            f"{row['agreement']:7.2%} {seconds:8.1f}  {'' if report is None else report['kept']}",
            flush=True,
        )
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "command": f"python bench/int8_accuracy.py --genotype {args.genotype} --channels {args.channels} "
        f"--cells {args.cells} --epochs {args.epochs}",
        "versions": {name: version(name) for name in ("torch", "ai-edge-litert", "onnxruntime", "numpy")},
        "test_images": len(labels),
        "variants": found,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
