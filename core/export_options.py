"""How an export is made: what a user may choose, for every target in one place."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Method = Literal["minmax", "percentile", "mse", "entropy"]


class ExportOptions(BaseModel):
    """Choices of an export; a target reads those that concern it.

    `int8_io`: type of the input and output of an int8 TensorFlow Lite file.
    `calibration`: how ranges of activations are chosen; `auto` tries all and keeps what errs least.
    `bias_correction`: take out the mean error that rounding leaves in each channel.
    `finetune_steps`: steps of quantisation-aware fine-tuning, 0 for none.
    `dilated`: for the Edge TPU, `expand` dilated kernels with zeros, which maps, or `keep` them.
    `compiler`: where a vendor's compiler is: `auto`, `path`, `docker:IMAGE` or `ssh:USER@HOST`.
    `segments`: pieces the Edge TPU compiler cuts the network into, one a device.
    `min_runtime_version`: the oldest Edge TPU runtime the compiled file must load in.
    `all_operators`: let the Edge TPU compiler map operators after one that stays on the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    int8_io: Literal["int8", "uint8"] = "int8"
    calibration: Literal["auto", Method] = "auto"
    bias_correction: bool = True
    finetune_steps: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    dilated: Literal["expand", "keep"] = "expand"
    compiler: str = "auto"
    segments: int = Field(default=1, ge=1, le=64)
    min_runtime_version: int | None = Field(default=None, ge=1, le=1000)
    all_operators: bool = False
    compile_timeout_s: float = Field(default=600.0, gt=0)
