"""Run one exported file on images, in a process of its own: `python -P runner.py FILE IMAGES.npz RESULT.npz`.

A damaged file can abort the interpreter's process, so this is never imported: it stands alone, on the
standard library, numpy and an interpreter. IMAGES holds float32 arrays `0`, `1`, ... (n, C, H, W), one for
each input of the file. RESULT holds `outputs`, float32 (n, classes) or (n, C, H, W), and `facts`, JSON: the
interpreter and, for TensorFlow Lite, how its operators are divided between XNNPACK and the plain kernels.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Run = Callable[[list[np.ndarray]], np.ndarray]

# Tried in this order; the last two are what boards have that the first never reached.
_INTERPRETERS = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


def _interpreter() -> tuple[Any, str]:
    reasons = []
    for name in _INTERPRETERS:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a broken install raises anything at all; the next one may be whole
            reasons.append(f"{name}: {error}")
            continue
        package = name.split(".")[0]
        return module, f"{package} {getattr(sys.modules[package], '__version__', '')}".strip()
    raise ImportError("; ".join(reasons))


def _open_tflite(path: str) -> tuple[Run, dict[str, Any]]:
    module, name = _interpreter()
    interpreter = module.Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    # Listed in the order of their tensors; ours are numbered, input10 after input9.
    sources = sorted(interpreter.get_input_details(), key=lambda one: (len(one["name"]), one["name"]))
    result = interpreter.get_output_details()[0]

    def run(images: list[np.ndarray]) -> np.ndarray:
        for source, image in zip(sources, images, strict=True):
            interpreter.set_tensor(source["index"], _quantised(np.transpose(image, (0, 2, 3, 1)), source))
        interpreter.invoke()
        made = _real(interpreter.get_tensor(result["index"]), result)
        return np.transpose(made, (0, 3, 1, 2)) if made.ndim == 4 else made

    return run, {"interpreter": name, **_division(interpreter)}


def _division(interpreter: Any) -> dict[str, Any]:
    """Return how many pieces a delegate runs, and which operators are left to the plain kernels.

    The list of operators keeps those that a delegate replaced, so the pieces are found from the output back.
    """
    operators = interpreter._get_ops_details()
    makers: dict[int, Any] = {}
    for operator in operators:  # a delegate's entry comes after those it replaces
        makers.update(dict.fromkeys((int(index) for index in operator["outputs"]), operator))
    left, found = [int(one["index"]) for one in interpreter.get_output_details()], {}
    while left:
        operator = makers.get(left.pop())
        if operator is not None and operator["index"] not in found:
            found[operator["index"]] = str(operator["op_name"])
            left += [int(index) for index in operator["inputs"] if index >= 0]
    counts = Counter(found.values())
    return {"partitions": counts.pop("DELEGATE", 0), "plain_operators": dict(counts)}


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


def _open_onnx(path: str) -> tuple[Run, dict[str, Any]]:
    # It would report its use to its maker, and leave files for that in the home folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(images: list[np.ndarray]) -> np.ndarray:
        return np.asarray(session.run(None, dict(zip(names, images, strict=True)))[0])

    return run, {"interpreter": f"onnxruntime {onnxruntime.__version__}"}


def main(model: str, images_file: str, result_file: str) -> None:
    """Write the output for every image."""
    with np.load(images_file, allow_pickle=False) as stored:
        images = [stored[str(index)] for index in range(len(stored.files))]
    run, facts = _open_onnx(model) if model.endswith(".onnx") else _open_tflite(model)
    outputs = [run([one[i : i + 1] for one in images]).astype(np.float32) for i in range(len(images[0]))]
    np.savez(result_file, outputs=np.concatenate(outputs), facts=np.array(json.dumps(facts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
