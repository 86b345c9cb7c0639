"""Every exporter on many networks: how far the files are from torch, and of what operators they are made.

    python bench/export_parity.py [--random 50] [--images 16] [--targets tflite,onnx,tflite-int8]

Random DARTS architectures at C=16 x 8 (32x32), and the published genotypes at that size and at C=48 x 14
(224x224), weights random and batch norms with statistics that are not the identity's. Images are real
CIFAR-10 (at 224x224, enlarged). For each network: the largest difference of the fp32 TensorFlow Lite and
ONNX files, the share of images for which int8 answers as torch does, and any operator that must not be there.
Writes bench/results/export_parity.json.
"""

import argparse
import json
import platform
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import cifar10
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.export_options import ExportOptions
from ehdnas.core.images.dataset import normalise
from ehdnas.exporters import Reference, check_parity, find_exporter
from ehdnas.exporters.tflite.file import read_tflite
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.spaces.darts.genotype import published

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "export_parity.json"
SMALL = NetworkShape(16, 8, (3, 32, 32), 10)
LARGE = NetworkShape(48, 14, (3, 224, 224), 1000, "imagenet")
UNWANTED = {"TRANSPOSE", "PADV2"}
CALIBRATION = {32: 64, 224: 8}


def network_of(space, architecture, shape, seed):
    torch.manual_seed(seed)
    network = space.network(architecture, shape).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network


def scaled(images, side):
    return images if side == 32 else F.interpolate(torch.from_numpy(images), size=(side, side)).numpy()


def one(network, shape, images, count, targets):
    side = shape.image[1]
    judged, seen = scaled(images[:count], side), scaled(images[-CALIBRATION[side] :], side)
    reference = Reference(network, judged)
    found = {}
    for target in targets:
        exporter = find_exporter(target, ExportOptions(calibration="minmax"))
        with TemporaryDirectory() as folder:
            path = Path(folder) / exporter.file_name()
            artifact = exporter.export(network, shape.image, path, calibration=seen)
            parity = check_parity(artifact, reference, exporter.tolerance)
            row = {
                "max_difference": parity.max_difference,
                "noise": parity.noise,
                "agreement": parity.top1_agreement,
                "passed": parity.passed,
            }
            if path.suffix == ".tflite":
                row |= operators(path)
        if "edgetpu" in artifact.manifest.details:
            row["left_to_cpu"] = artifact.manifest.details["edgetpu"]["on_cpu"]
        found[target] = row
    return found


def operators(path):
    file = read_tflite(path)
    names = Counter(operator.name for operator in file.operators)
    unwanted = [
        name
        for name in names
        if name in UNWANTED or name.startswith(("CUSTOM", "FLEX", "STABLEHLO")) or "Flex" in name
    ]
    floats = sum(tensor.dtype.startswith("float") for tensor in file.tensors)
    return {"operators": sum(names.values()), "unwanted": unwanted, "float_tensors": floats}


def summary(found, targets):
    """Return the worst of each target over all networks."""
    table = {}
    for target in targets:
        rows = [networks[target] for networks in found.values()]
        table[target] = {
            "networks": len(rows),
            "max_difference": max(row["max_difference"] for row in rows),
            "noise": max(row["noise"] for row in rows),
            "agreement": min(row["agreement"] for row in rows),
            "passed": sum(row["passed"] for row in rows),
            "unwanted": sorted({name for row in rows for name in row.get("unwanted", [])}),
            "float_tensors": max(row.get("float_tensors", 0) for row in rows),
            "left_to_cpu": max(row.get("left_to_cpu", 0) for row in rows),
        }
    return table


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=50)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--targets", default="tflite,onnx,tflite-int8,edgetpu,onnx-int8")
    args = parser.parse_args()
    targets = args.targets.split(",")
    dataset = cifar10.load("1")
    images = normalise(dataset.test.images[:512], dataset.mean, dataset.std)
    space, rng = find_space("darts"), np.random.default_rng(2026)
    jobs = [(f"random-{i}", space.sample(rng), SMALL) for i in range(args.random)]
    for name in published():
        jobs += [(f"{name}-32", space.parse(name), SMALL), (f"{name}-224", space.parse(name), LARGE)]
    found = {}
    for number, (name, architecture, shape) in enumerate(jobs):
        start = time.perf_counter()
        network = network_of(space, architecture, shape, number)
        found[name] = one(network, shape, images, args.images, targets)
        figures = ", ".join(f"{target} {row['max_difference']:.1e}" for target, row in found[name].items())
        print(f"{name:24} {figures}  {time.perf_counter() - start:.0f} s", flush=True)
    table = summary(found, targets)
    titles = "networks passed  max diff    noise  agreement  float tensors  left to CPU  unwanted"
    print(f"\n{'target':12} {titles}")
    for target, row in table.items():
        print(
            f"{target:12} {row['networks']:8} {row['passed']:6} {row['max_difference']:9.1e} "
            f"{row['noise']:8.4f} {row['agreement']:9.1%} {row['float_tensors']:14} "
            f"{row['left_to_cpu']:12}  {row['unwanted']}"
        )
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "command": f"python bench/export_parity.py --random {args.random} --images {args.images} "
        f"--targets {args.targets}",
        "versions": {
            name: version(name)
            for name in ("torch", "tensorflow-cpu", "ai-edge-litert", "onnx", "onnxruntime", "numpy")
        },
        "worst": table,
        "networks": found,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
