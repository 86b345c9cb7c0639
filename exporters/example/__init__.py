"""A few lines that classify one image with an exported file: in Python, and for TensorFlow Lite in C++."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ehdnas.core.artifact import Artifact, Manifest
from ehdnas.core.files import write_text

_HERE = Path(__file__).parent
_TFLITE, _ONNX = ".tflite", ".onnx"
_BY_SUFFIX = {_TFLITE: ("tflite.py", "tflite.cc"), _ONNX: ("onnx.py",)}
_NEEDED = ("mean", "std", "classes")


def write_examples(artifact: Artifact) -> list[Path]:
    """Write the examples beside the file, `<file>.py` and `<file>.cc`, and return their paths.

    There are none for a file that takes no images, for one that does not say how they are normalised, and for
    engines, which load in one version of one vendor's runtime.
    """
    values, written = _values(artifact.manifest), []
    for name in _BY_SUFFIX.get(artifact.path.suffix, ()) if values else ():
        target = artifact.path.with_name(f"{artifact.path.name}{Path(name).suffix}")
        write_text(target, _environment().get_template(f"{name}.jinja").render(values))
        written.append(target)
    return written


def _values(manifest: Manifest) -> dict[str, Any] | None:
    """Return what the templates say: numbers and the file's own name, nothing that came from outside."""
    meta, source, result = manifest.metadata, manifest.inputs, manifest.outputs
    if any(key not in meta for key in _NEEDED) or len(source) != 1 or len(source[0].shape) != 4:
        return None
    sizes = dict(zip(source[0].layout, source[0].shape, strict=True))
    return {
        "file": manifest.file,
        "edgetpu": manifest.target == "edgetpu" and "compilation" in manifest.details,
        "channels": sizes["C"],
        "height": sizes["H"],
        "width": sizes["W"],
        "classes": len(meta["classes"]),
        "mean": [float(value) for value in meta["mean"]],
        "std": [float(value) for value in meta["std"]],
        "dtype": source[0].dtype,
        "output_dtype": result[0].dtype,
        "scale": source[0].scale,
        "zero_point": source[0].zero_point or 0,
        "lowest": 0 if source[0].dtype == "uint8" else -128,
    }


def _environment() -> Environment:
    # What is filled in are numbers and file names of our own: there is no markup to escape.
    return Environment(
        loader=FileSystemLoader(_HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
