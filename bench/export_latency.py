"""Exported files against what others make of the same network: latency, conversion time, int8.

    python bench/export_latency.py [--genotypes DARTS_V1,DARTS_V2] [--rounds 40]

One process, one thread, pinned to one core. In every round each file is run a number of times in turn; a
round's figure is the median of its runs, a ratio is of two figures of one round, and the table gives the
median ratio of all rounds with its 10th and 90th percentile. Ratios below 1 mean that ours is quicker.

Sides: ours (fp32 TensorFlow Lite); litert-torch 0.10's file, made in a venv of its own in build/bench; ONNX
Runtime on our ONNX file; and on that of torch.onnx. Ours in int8 is given beside, with how XNNPACK divides
it: how many pieces it takes, and which operators it leaves to the plain kernels. `int8, ReLU convolved` says
what it would take to leave it none of the ReLUs: each that no operator has fused is a 1x1 depthwise
convolution by one, which XNNPACK knows in int8. No target is built that way: nothing says that it is quicker
on ARM, and the Edge TPU has a ReLU of its own.

Networks are DARTS at C=16 x 8 cells (32x32) and C=48 x 14 (224x224), random weights. Conversion is from
module to file, network by network ours and then theirs: the first in its process and the quickest later one.
Writes
bench/results/export_latency.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch

from ehdnas.exporters import find_exporter, run_artifact
from ehdnas.exporters.tflite import twin
from ehdnas.search.spaces.base import NetworkShape, find_space

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "export_latency.json"
VENV = ROOT / "build" / "bench" / "litert"
SHAPES = {
    32: (NetworkShape(16, 8, (3, 32, 32), 10), 20),
    224: (NetworkShape(48, 14, (3, 224, 224), 1000, "imagenet"), 5),
}


def litert_python():
    """Return the Python of the venv with litert-torch, made where it is missing."""
    python = VENV / "bin" / "python"
    if not (VENV / "installed").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        wanted = ["litert-torch==0.10.0", f"torch=={torch.__version__.split('+')[0]}"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (VENV / "installed").touch()
    return str(python)


def litert_files(networks, folder):
    """Convert every network with litert-torch; return its seconds, [first, second], by name."""
    names = []
    for name, (network, shape) in networks.items():
        image = torch.zeros(1, *shape.image)
        torch.export.save(torch.export.export(network, (image,), strict=False), folder / f"{name}.pt2")
        torch.save(image, folder / f"{name}.input.pt")
        names.append(str(folder / f"{name}.pt2"))
    script = ROOT / "bench" / "litert" / "convert.py"
    command = [litert_python(), str(script), str(folder / "litert.json"), *names]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((folder / "litert.json").read_text())


def our_files(networks, folder):
    """Export networks; return the seconds of our conversions, [first, quickest later], by name."""
    seconds = {}
    for name, (network, shape) in networks.items():
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            find_exporter("tflite").export(network, shape.image, folder / f"{name}.tflite")
            taken.append(time.perf_counter() - start)
        seconds[name] = [taken[0], min(taken[1:])]
        find_exporter("onnx").export(network, shape.image, folder / f"{name}.onnx")
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            torch.onnx.export(
                network,
                (torch.zeros(1, *shape.image),),
                folder / f"{name}.torch.onnx",
                dynamo=True,
                external_data=False,
            )
        images = np.random.default_rng(0).standard_normal((16, *shape.image)).astype(np.float32)
        int8 = find_exporter("tflite-int8")
        int8.export(network, shape.image, folder / f"{name}.int8.tflite", calibration=images)
        with patch.dict(twin._EMITTERS, {"relu": convolved_relu}):
            path = folder / f"{name}.relu.tflite"
            int8.export(network, shape.image, path, calibration=images)
    return seconds


def convolved_relu(emitter, node, image):
    alone = node.inputs[0].name in (emitter.ranges or {})
    return emitter.tf.nn.relu(twin._depthwise(emitter, image, (1, 1), (1, 1), 1.0) if alone else image)


def tflite(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    image = np.random.default_rng(0).standard_normal(source["shape"])
    interpreter.set_tensor(source["index"], image.astype(source["dtype"]))
    return interpreter.invoke


def onnx(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    feed = {source.name: np.random.default_rng(0).standard_normal(source.shape).astype(np.float32)}
    return lambda: session.run(None, feed)


def sides(folder, name):
    return {
        "ours": tflite(folder / f"{name}.tflite"),
        "litert-torch": tflite(folder / f"{name}.litert.tflite"),
        "onnxruntime, our file": onnx(folder / f"{name}.onnx"),
        "onnxruntime, torch's file": onnx(folder / f"{name}.torch.onnx"),
        "int8": tflite(folder / f"{name}.int8.tflite"),
        "int8, ReLU convolved": tflite(folder / f"{name}.relu.tflite"),
    }


def interleaved(runs, rounds, per_round):
    """Return each side's median of every round, in milliseconds."""
    for run in runs.values():
        for _ in range(5):
            run()
    medians = {side: [] for side in runs}
    for _ in range(rounds):
        for side, run in runs.items():
            taken = []
            for _ in range(per_round):
                start = time.perf_counter()
                run()
                taken.append(time.perf_counter() - start)
            medians[side].append(statistics.median(taken) * 1e3)
    return {side: np.array(values) for side, values in medians.items()}


def rows(medians):
    ours = medians["ours"]
    for side, values in medians.items():
        ratio = ours / values
        yield {
            "side": side,
            "ms": float(np.median(values)),
            "ours_over_it": float(np.median(ratio)),
            "p10": float(np.percentile(ratio, 10)),
            "p90": float(np.percentile(ratio, 90)),
            "rounds": len(values),
        }


def divisions(folder, name, shape):
    image = np.zeros((1, *shape.image), np.float32)
    return {
        kind: run_artifact(folder / f"{name}{ending}", image).facts
        for kind, ending in (
            ("fp32", ".tflite"),
            ("litert-torch", ".litert.tflite"),
            ("int8", ".int8.tflite"),
            ("int8, ReLU convolved", ".relu.tflite"),
        )
    }


def measure(folder, name, shape, args, seconds):
    _, per_round = SHAPES[shape.image[1]]
    table = list(rows(interleaved(sides(folder, name), args.rounds, per_round)))
    print(f"\n{name}: {shape}")
    print(f"{'side':26} {'ms':>8} {'ours / it':>10}   p10    p90   n={args.rounds}")
    for row in table:
        print(
            f"{row['side']:26} {row['ms']:8.3f} {row['ours_over_it']:10.3f} "
            f"{row['p10']:6.3f} {row['p90']:6.3f}"
        )
    ours, theirs = seconds["ours"][name], seconds["litert-torch"][name]
    print(
        f"conversion: ours {ours[0]:.1f} s first, {ours[1]:.2f} s after; litert-torch {theirs[0]:.1f} and "
        f"{theirs[1]:.1f} s; {theirs[1] / ours[1]:.1f} x"
    )
    division = divisions(folder, name, shape)
    for kind, facts in division.items():
        print(
            f"XNNPACK on {kind}: {facts['partitions']} pieces, left to plain kernels "
            f"{facts['plain_operators']}"
        )
    return {"rows": table, "conversion_s": {"ours": ours, "litert-torch": theirs}, "xnnpack": division}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--genotypes", default="DARTS_V1,DARTS_V2")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    space = find_space("darts")
    networks = {}
    for genotype in args.genotypes.split(","):
        for size, (shape, _) in SHAPES.items():
            torch.manual_seed(0)
            networks[f"{genotype}-{size}"] = (space.network(space.parse(genotype), shape).eval(), shape)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seconds = {"ours": {}, "litert-torch": {}}
        for name, network in networks.items():
            seconds["ours"] |= our_files({name: network}, folder)
            seconds["litert-torch"] |= litert_files({name: network}, folder)
        found = {name: measure(folder, name, shape, args, seconds) for name, (_, shape) in networks.items()}
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, one thread pinned to one core",
        "command": f"python bench/export_latency.py --genotypes {args.genotypes} --rounds {args.rounds}",
        "versions": {
            name: version(name) for name in ("torch", "tensorflow-cpu", "ai-edge-litert", "onnxruntime")
        }
        | {"litert-torch": "0.10.0"},
        "networks": found,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
