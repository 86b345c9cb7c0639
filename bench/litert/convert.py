"""Convert exported programs with litert-torch, in a venv of its own: `convert.py OUT.json NET.pt2 ...`.

Each NET.pt2 becomes NET.litert.tflite, channels last in and out; OUT.json gets the seconds, the first
conversion of the process apart, since it pays for what is loaded on the way.
"""

import json
import sys
import time
from pathlib import Path

import litert_torch
import torch


def main(out, *programs):
    seconds = {}
    for name in programs:
        path = Path(name)
        module = torch.export.load(path).module()
        image = torch.load(path.with_suffix(".input.pt"), weights_only=True)
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            wrapped = litert_torch.to_channel_last_io(module, args=[0])
            model = litert_torch.convert(wrapped, (image.permute(0, 2, 3, 1).contiguous(),))
            taken.append(time.perf_counter() - start)
        model.export(str(path.with_suffix(".litert.tflite")))
        seconds[path.stem] = taken
    Path(out).write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
