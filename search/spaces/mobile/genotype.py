"""Genotypes of the mobile space: a stage's width, its squeeze-and-excitation and the layers it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.mobile.layout import (
    LAYER_NAMES,
    SKIP,
    SQUEEZED,
    STAGES,
    WIDTH_NAMES,
    Stage,
)
from ehdnas.search.spaces.reading import option

PUBLISHED = {
    # Table 2 of arXiv 1801.04381: the published network at 16 channels, 224x224 pixels and 1000 classes.
    "MOBILENET_V2": "103366103336103333103336103336103",
}
"""Networks of papers, by name, one digit a slot."""
EXAMPLE = (
    'a name such as MOBILENET_V2, 33 digits, or {"stages": [{"width": "medium", "squeeze_excite": false, '
    '"layers": ["mbconv_e6_k3", ...]}, ...]}'
)


def to_stages(choices: Sequence[int]) -> list[dict[str, Any]]:
    """Return what each stage is, in words."""
    return [
        {
            "width": WIDTH_NAMES[choices[stage.width_slot]],
            "squeeze_excite": choices[stage.squeeze_slot] == SQUEEZED,
            "layers": [LAYER_NAMES[choices[slot]] for slot in stage.layer_slots if choices[slot] != SKIP],
        }
        for stage in STAGES
    ]


def from_stages(stages: Any) -> tuple[int, ...]:
    """Return the choices of what `to_stages` gives.

    Raises:
        UsageError: it is something else; the message says in which stage.
    """
    if not isinstance(stages, list) or len(stages) != len(STAGES):
        count = len(stages) if isinstance(stages, list) else 0
        raise UsageError(
            f"genotype of {count} stages under the key 'stages': the mobile space has {len(STAGES)}"
        )
    return tuple(
        choice for stage, given in zip(STAGES, stages, strict=True) for choice in _from_stage(stage, given)
    )


def _from_stage(stage: Stage, given: Any) -> tuple[int, ...]:
    where = f"stage {stage.number}"
    needed = ("width", "squeeze_excite", "layers")
    missing = [key for key in needed if not isinstance(given, dict) or key not in given]
    if missing:
        raise UsageError(f"genotype: no key '{missing[0]}' in {where}; it needs {', '.join(needed)}")
    squeeze, layers = given["squeeze_excite"], given["layers"]
    if not isinstance(squeeze, bool):
        raise UsageError(
            f"genotype: squeeze_excite of {where} is {str(squeeze)[:40]}; it must be true or false"
        )
    if not isinstance(layers, list) or not 1 <= len(layers) <= stage.layers:
        count = len(layers) if isinstance(layers, list) else 0
        raise UsageError(f"genotype: {where} has {count} layers; it can have 1 to {stage.layers}")
    operations = [option(name, LAYER_NAMES[:SKIP], where) for name in layers]
    skipped = [SKIP] * (stage.layers - len(layers))
    return (option(given["width"], WIDTH_NAMES, where), int(squeeze), *operations, *skipped)
