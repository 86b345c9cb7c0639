"""The settings of gpu_search.py, and what it ran on."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import torch

from ehdnas.search.compute import Compute

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder for what need not be kept; by default OUT-work")
    parser.add_argument(
        "--stage", choices=["search", "choose", "train", "all", "probe", "one"], default="all"
    )
    parser.add_argument("--epochs-search", type=int, default=40)
    parser.add_argument("--epochs-tried", type=int, default=2)
    parser.add_argument("--epochs-train", type=int, default=40)
    parser.add_argument("--seeds-train", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batch-search", type=int, help="as --batch, unless given")
    parser.add_argument("--rate-search", type=float, default=0.1)
    parser.add_argument("--rate-train", type=float, default=0.1)
    parser.add_argument("--rate-architecture", type=float, default=6e-3)
    parser.add_argument("--weight-decay", type=float, default=3e-4)
    parser.add_argument("--ema", type=float, default=0.0)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop cleanly before so many are over")
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--layout", choices=["auto", *LAYOUTS], default="auto")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--limit", type=int, help="images of each file to take, for a try-out")
    parser.add_argument("--probe-steps", type=int, default=10)
    parser.add_argument("--genotype", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--tried", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work = args.work or args.out.with_name(f"{args.out.name}-work")
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def machine(compute: Compute) -> dict:
    cuda = compute.device.type == "cuda"
    return {
        "gpu": torch.cuda.get_device_name(compute.device) if cuda else None,
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "precision": compute.precision,
    }
