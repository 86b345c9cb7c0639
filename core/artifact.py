"""An artifact: an exported file and the manifest that says what it is and how far it was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.errors import DataError
from ehdnas.core.files import read_json, write_json


class TensorSpec(BaseModel):
    """An input or output of an exported file; `layout` names the axes, for example `NHWC`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: list[int]
    dtype: str
    layout: str


class Parity(BaseModel):
    """How the file in its own interpreter compares with the torch network, on real images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    max_difference: float
    mean_difference: float
    top1_agreement: float
    threshold: float
    passed: bool


class Manifest(BaseModel):
    """What an exported file is. Written beside it as `<file>.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    file: str
    target: str
    precision: str
    size_bytes: int
    sha256: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    versions: dict[str, str]
    parity: Parity | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


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
