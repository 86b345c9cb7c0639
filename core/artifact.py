"""An artifact: an exported file and the manifest that says what it is and how far it was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.errors import DataError
from ehdnas.core.files import read_json, write_json


class TensorSpec(BaseModel):
    """An input or output of an exported file.

    `layout` names the axes, for example `NHWC`. A quantised tensor holds `round(x / scale) + zero_point`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: list[int]
    dtype: str
    layout: str
    scale: float | None = None
    zero_point: int | None = None


class Tolerance(BaseModel):
    """How far a file may differ from its network; what is None is reported and not judged.

    `max_difference` is of the outputs, absolute; where the largest is over 10, in tenths of the largest.
    `noise` is the root mean square of the differences over that of the outputs, each image's mean taken
    off. `accuracy_drop` is a share, judged where labels are known, a few images allowed for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_difference: float | None = None
    noise: float | None = None
    accuracy_drop: float | None = None


class Parity(BaseModel):
    """How the file in its own interpreter compares with the torch network, on real images.

    `accuracy_before` is the network's and `accuracy_after` the file's, on `accuracy_images` labelled
    images; None without labels. In TensorFlow Lite XNNPACK runs the file in `partitions` pieces and leaves
    `plain_operators`, by count, to the interpreter's own kernels. `failures` says which bounds are broken,
    in words; empty on a pass. `fault` is the layer where file and network part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    interpreter: str
    partitions: int | None = None
    plain_operators: dict[str, int] = Field(default_factory=dict)
    max_difference: float
    mean_difference: float
    largest_output: float
    noise: float
    top1_agreement: float | None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    accuracy_images: int = 0
    tolerance: Tolerance
    passed: bool
    failures: list[str] = Field(default_factory=list)
    fault: str | None = None


class Manifest(BaseModel):
    """What an exported file is. Written beside it as `<file>.json`.

    `metadata` is what the caller said of the network; the file itself carries it too. `details` is what
    the target adds: how it was quantised, what a compiler or a static check said.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 2
    file: str
    target: str
    precision: str
    size_bytes: int
    sha256: str
    parameters_sha256: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    versions: dict[str, str]
    parity: Parity | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)


class Artifact(BaseModel):
    """An exported file together with its manifest."""

    model_config = ConfigDict(frozen=True)

    path: Path
    manifest: Manifest

    def save(self) -> Path:
        """Write the manifest beside the file and return its path."""
        target = manifest_path(self.path)
        write_json(target, self.manifest.model_dump())
        return target


def manifest_path(path: Path) -> Path:
    """Return where the manifest of an exported file lies."""
    return path.with_name(path.name + ".json")


def read_artifact(path: Path) -> Artifact:
    """Return the artifact at `path`, from the manifest beside it.

    Raises:
        DataError: there is no manifest, or it is damaged.
    """
    try:
        return Artifact(path=path, manifest=Manifest.model_validate(read_json(manifest_path(path))))
    except ValidationError as error:
        raise DataError(f"{manifest_path(path)} is not a manifest: {error.errors()[0]['msg']}") from error
