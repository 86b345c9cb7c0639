"""What the predictor says of one network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from ehdnas.core.errors import DataError, UsageError
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.profile import identity_of, predictor_path
from ehdnas.search.predictor.embedding import EmbeddingPredictor

_MAX_GENOTYPE_BYTES = 100_000


def read_genotype(text: str) -> str:
    """Return the genotype itself: `text`, or what is in the file it names.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(text)
    if len(text) > 255 or not path.is_file():
        if re.fullmatch(r"[^()\n{}]*(/[^()\n{}]*|\.(json|txt|onnx|tflite))", text):
            raise DataError(f"{text} is not a file" if path.exists() else f"no such file: {text}")
        return text
    if path.stat().st_size > _MAX_GENOTYPE_BYTES:
        raise DataError(f"{path} is too large for a genotype ({path.stat().st_size:,} bytes)")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read a genotype from {path}: {error}") from error
    if not text.strip():
        raise DataError(f"{path} is empty; a genotype was expected")
    return text


def predict_genotype(context: Context, genotype: str) -> dict[str, Any]:
    """Return the predicted latency of a network on a profiled device, and its interval.

    Raises:
        UsageError: the device has not been profiled for this network size.
    """
    path = predictor_path(context, "latency_ms")
    if not path.is_file():
        raise UsageError(
            f"device '{context.device.name}' is not profiled for {context.shape} by the "
            f"{context.settings.protocol} protocol; run `ehdnas profile --device {context.device.name}` first"
        )
    predictor = EmbeddingPredictor(identity_of(context, "latency_ms"))
    predictor.restore(path)
    gates = context.space.encode_all([context.space.parse(read_genotype(genotype))])
    confidence = context.settings.confidence
    with torch.no_grad():
        lower, upper = (float(end) for end in predictor.interval(gates, confidence))
        value = float(predictor(gates))
    promised = upper < float("inf")
    return {
        "device": context.device.name,
        "shape": str(context.shape),
        "metric": "latency_ms",
        "value": value,
        "confidence": confidence,
        "lower": lower if promised else None,
        "upper": upper if promised else None,
    }
