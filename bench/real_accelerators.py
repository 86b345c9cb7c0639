"""E2E-Perf's realistic generic paradigm against published figures of real accelerators.

    python bench/real_accelerators.py

DPU B4096 on a ZCU102: the free terms are fitted to three networks and the other two predicted, in all ten
splits. NVDLA with 32 to 2048 MACs: ResNet-50 predicted with nothing fitted. Reads $EHDNAS_REFERENCE, by
default ../shared/reference/e2e_perf. Prints tables; writes bench/results/real_accelerators.json.

The DPU's networks are recognised by their published operations: its inceptionv1 and resnetv1_50 are those of
TF-Slim (3.00 and 6.97 GOPs; as elsewhere defined they have 3.17 and 7.7 to 8.2). Which ResNet-50 NVDLA's
figures are for is not published, so both variants are given.

Choices that no document settles, made once for all rows of a device, with the rows in sight: weights get
half of the on-chip buffer (NVDLA shares its own out anew for each layer); both halves are double-buffered;
the DPU adds in a pass of its own and keeps no map on chip. The tables show what other choices would give.
"""

import csv
import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
from torch import nn
from zoo import Inception, Residual, conv, head, inception_v1, mobilenet_v1, mobilenet_v2, resnet50, vgg16

from ehdnas.core.graph.table import layer_table
from ehdnas.profilers.e2e_perf.calibrate import calibrate
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic
from ehdnas.profilers.e2e_perf.workload import Workload

ROOT = Path(__file__).parents[1]
REFERENCE = Path(os.environ.get("EHDNAS_REFERENCE", ROOT.parent / "shared" / "reference" / "e2e_perf"))
RESULT = ROOT / "bench" / "results" / "real_accelerators.json"

# PG338 (DPUCZDX8G) has: 8 pixels x 16 input x 16 output channels; depthwise convolution and pooling in an ALU
# of half as many pixels, 4 x 16; channel augmentation, which fills idle input lanes; DSP slices at twice the
# clock; 255 blocks of 36 Kbit, about 1 MB. [unverified]: that the ALU adds at the same rate, that the image
# that was measured has these options on and little RAM. The board's preset gives 17.072 GB/s (64 bits at
# 1067 MHz), of which `ddr_efficiency` is the share that one core reaches.
DPU = {
    "clock_mhz": 281, "cpf": 16, "kpf": 16, "pixel_parallel": 8, "vector_lanes": 64,
    "depthwise_macs_per_cycle": 64, "fold_kernel": True, "buffer_kb": 1024, "ddr_gbps": 17.072,
    "dsp_clock_ratio": 2,
}  # fmt: skip
# Atomic-C x atomic-K of nvdla/hw, spec/defs; of 128 and 32 MACs, which it does not have, an assumption.
# Planar throughputs are 8, 4, 2, 1, 1 elements a cycle there, that is MACs / 256. Its SDP adds as it writes,
# and image input extends channels by the kernel's width (nvdla.org, hardware architecture and data formats).
ATOMICS = {2048: (64, 32), 1024: (64, 16), 512: (32, 16), 256: (32, 8), 128: (16, 8), 64: (8, 8), 32: (8, 4)}
FREE = {
    "two terms": ("layer_overhead_us", "ddr_efficiency"),
    "three terms": ("layer_overhead_us", "ddr_efficiency", "image_overhead_us"),
}
VARIANTS = {
    "as chosen": {},
    "no channel augmentation": {"fold_kernel": False},
    "depthwise on the main array": {"depthwise_macs_per_cycle": 0},
    "maps up to 128 KiB stay on chip": {"maps_on_chip_kb": 128},
    "additions fused": {"fused_add": True},
    "no double-buffering": {"double_buffered": False},
    "weights get a quarter of the buffer": {"weight_share": 0.25},
}


VARIANTS_NVDLA = {
    "as chosen": {},
    "no channel extension": {"fold_kernel": False},
    "additions apart": {"fused_add": False},
    "no double-buffering": {"double_buffered": False},
    "weights get a quarter of the buffer": {"weight_share": 0.25},
}


class SlimBottleneck(Residual):
    """TF-Slim's ResNet v1 unit: a block's last unit has the stride, and its shortcut only subsamples."""

    def __init__(self, cin, width, stride):
        outer = 4 * width
        body = [conv(cin, width, 1), conv(width, width, 3, stride), conv(width, outer, 1, relu=False)]
        super().__init__(nn.Sequential(*body), cin, outer, 1)
        if cin == outer and stride > 1:
            self.shortcut = nn.MaxPool2d(1, stride)


def resnet_v1_50_slim():
    layers, cin = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for index in range(depth):
            stride = 2 if index == depth - 1 and stage < 3 else 1
            layers.append(SlimBottleneck(cin, 64 << stage, stride))
            cin = 4 * (64 << stage)
    return nn.Sequential(*layers, *head(cin))


def inception_v1_slim():
    """TF-Slim has 3x3 convolutions where the paper has 5x5."""
    model = inception_v1()
    for module in model.modules():
        if isinstance(module, Inception):
            large = module.five[1][0]
            module.five[1][0] = nn.Conv2d(large.in_channels, large.out_channels, 3, padding=1)
    return model


def resnet50_v1():
    """The original ResNet-50: the stride is in the first pointwise convolution, not in the 3x3."""
    model = resnet50()
    for module in model.modules():
        if isinstance(module, Residual):
            first, second = module.body[0][0], module.body[1][0]
            first.stride, second.stride = second.stride, first.stride
    return model


NETWORKS = {
    "inceptionv1": inception_v1_slim,
    "mobilenetv1_1.0": mobilenet_v1,
    "mobilenetv2_1.0": mobilenet_v2,
    "resnetv1_50": resnet_v1_50_slim,
    "vgg16": vgg16,
}


def published(name):
    with (REFERENCE / name).open() as file:
        return list(csv.DictReader(file))


def table_of(builder):
    return layer_table(builder().eval(), (3, 224, 224))


def held_out(model, rows, free):
    """Return relative errors on the two rows left out, for each of the ten splits."""
    everything = Workload.of_networks([table for table, _ in rows])
    measured = np.array([latency for _, latency in rows])
    splits = []
    for kept in combinations(range(len(rows)), 3):
        fitted = calibrate(model, [rows[at] for at in kept], free)
        errors = fitted.model.figures(everything).latency_s * 1e3 / measured - 1
        left = [at for at in range(len(rows)) if at not in kept]
        splits.append({"left_out": left, "errors": [float(errors[at]) for at in left],
                       "undetermined": fitted.undetermined})  # fmt: skip
    return splits


def dpu():
    """Print and return how well the DPU's latencies are predicted."""
    given = published("dpu_b4096_zcu102.csv")
    names = [row["network"] for row in given]
    tables = [table_of(NETWORKS[name]) for name in names]
    rows = [(table, float(row["latency_ms_1thread"])) for table, row in zip(tables, given, strict=True)]
    print("DPU B4096, one core at 281 MHz, int8\n")
    print("network            GOPs  published")
    for name, table, row in zip(names, tables, given, strict=True):
        print(f"{name:17}{2 * table.macs / 1e9:6.2f}{row['gops']:>11}")
    result = {"networks": names, "fits": {}, "variants": {}}
    for label, free in FREE.items():
        result["fits"][label] = report_fit(label, GenericRealistic(**DPU), names, rows, free)
    print("\nheld-out error of other choices, %      two terms  three terms")
    for label, change in VARIANTS.items():
        model = GenericRealistic(**DPU | change)
        means = {name: mean_error(held_out(model, rows, free)) for name, free in FREE.items()}
        result["variants"][label] = means
        print(f"{label:38}" + "".join(f"{100 * mean:11.1f}" for mean in means.values()))
    return result


def mean_error(splits):
    return float(np.mean([abs(error) for split in splits for error in split["errors"]]))


def report_fit(label, model, names, rows, free):
    """Print and return one fit to all rows, and the ten splits."""
    whole, splits = calibrate(model, rows, free), held_out(model, rows, free)
    terms = {term: getattr(whole.model, term) for term in free}
    worst = max(abs(error) for split in splits for error in split["errors"])
    print(
        f"\n{label}, fitted to all five: " + ", ".join(f"{term} {value:.3g}" for term, value in terms.items())
    )
    print("error of that fit, %: " + ", ".join(
        f"{name} {100 * error:+.1f}" for name, error in zip(names, whole.residuals, strict=True)
    ))  # fmt: skip
    print("left out                              errors, %    not settled by the other three")
    for split in splits:
        pair = ", ".join(names[at] for at in split["left_out"])
        errors = "".join(f"{100 * error:+8.1f}" for error in split["errors"])
        print(f"{pair:34}{errors}   {', '.join(split['undetermined'])}")
    print(f"held-out mean absolute error {100 * mean_error(splits):.1f} %, worst {100 * worst:.1f} %")
    return {"terms": terms, "errors": whole.residuals.tolist(), "splits": splits,
            "held_out_mape": mean_error(splits), "held_out_worst": worst}  # fmt: skip


def nvdla_errors(row, tables, change):
    """Return relative errors of throughput for each table, and the external bytes of the first."""
    macs = int(row["macs"])
    cpf, kpf = ATOMICS[macs]
    options = {
        "clock_mhz": 1000, "cpf": cpf, "kpf": kpf, "vector_lanes": max(1, macs // 256), "fold_kernel": True,
        "fused_add": True, "buffer_kb": float(row["cbuf_KB"]), "ddr_gbps": float(row["sdram_GBs"]),
    }  # fmt: skip
    found = [GenericRealistic(**options | change).simulate(table) for table in tables.values()]
    errors = [one.throughput_fps / float(row["resnet50_int8_fps"]) - 1 for one in found]
    return dict(zip(tables, errors, strict=True)), sum(layer.dram_bytes for layer in found[0].layers)


def nvdla():
    """Print and return how well NVDLA's throughput is predicted, with nothing fitted."""
    tables = {"v1.5": table_of(resnet50), "v1": table_of(resnet50_v1)}
    rows = published("nvdla_resnet50.csv")
    print("\nNVDLA at 1 GHz, ResNet-50, int8, nothing fitted: error of throughput, %\n")
    print(f"{'':44}" + "".join(f"{row['macs']:>7}" for row in rows) + "  MACs")
    print(f"{'published, frames/s':44}" + "".join(f"{row['resnet50_int8_fps']:>7}" for row in rows))
    result = {}
    for label, change in VARIANTS_NVDLA.items():
        found = [nvdla_errors(row, tables, change) for row in rows]
        for network in tables:
            errors = [errors[network] for errors, _ in found]
            result[f"{label}, {network}"] = errors
            print(f"{label + ', ' + network:44}" + "".join(f"{100 * error:+7.1f}" for error in errors))
        if not change:
            moved = [moved / 1e6 for _, moved in found]
            print(f"{'  external MB an image, v1.5':44}" + "".join(f"{one:7.1f}" for one in moved))
    return {"macs": [int(row["macs"]) for row in rows], "errors": result}


def main():
    if not REFERENCE.is_dir():
        print(f"no published figures in {REFERENCE}: set EHDNAS_REFERENCE; nothing compared")
        return
    result = {"dpu_b4096_zcu102": dpu(), "nvdla_resnet50": nvdla()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
