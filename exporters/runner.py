"""Run one exported file on images, in a process of its own: `python -P runner.py FILE IMAGES.npy LOGITS.npy`.

A damaged file can abort the interpreter's process, so this is never imported: it stands alone, on the
standard library, numpy and the interpreter. Images are float32 (n, C, H, W), logits float32 (n, classes).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def _open_tflite(path: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], _quantised(np.transpose(image, (0, 2, 3, 1)), source))
        interpreter.invoke()
        return _real(interpreter.get_tensor(result["index"]), result)

    return run


def _quantised(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    scale, zero = tensor["quantization"]
    if not scale:
        return values
    limits = np.iinfo(tensor["dtype"])
    levels = np.clip(np.round(values / scale) + zero, limits.min, limits.max)
    return np.asarray(levels, dtype=tensor["dtype"])


def _real(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    scale, zero = tensor["quantization"]
    return np.asarray((values.astype(np.float32) - zero) * scale if scale else values)


def _open_onnx(path: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {name: image})[0])

    return run


def main(model: str, images_file: str, logits_file: str) -> None:
    """Write the logits of every image."""
    images = np.load(images_file, allow_pickle=False)
    run = _open_onnx(model) if model.endswith(".onnx") else _open_tflite(model)
    np.save(logits_file, np.concatenate([run(images[i : i + 1]) for i in range(len(images))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
