"""Checkpoints: one safetensors file for tensors and the JSON that goes with them. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ehdnas.core.errors import DataError
from ehdnas.core.files import atomic_path, sha256

State = dict[str, Any]
_MODEL = "model."


def save_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    """Write tensors and JSON-able `meta` to `path` atomically; return the file's SHA-256."""
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # Written by Python, so that a full disk is the OSError that atomic_path puts in one line.
        temporary.write_bytes(save(owned, metadata={"ehdnas": json.dumps(meta)}))
    return sha256(path)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, meta) of a checkpoint.

    Raises:
        DataError: the file is absent, truncated, or not one of ours.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {})["ehdnas"])
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"no checkpoint at {path}") from error
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        raise DataError(
            f"{path} is not a whole checkpoint of ehdnas ({error}); delete it to start again"
        ) from error


def flatten_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return an optimizer's per-parameter tensors under flat names `prefix.index.key`."""
    return {
        f"{prefix}.{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Give an optimizer back the tensors that `flatten_optimizer` took from it.

    They come to be where and as the parameters lie: files hold them contiguous, and on a GPU an optimizer
    takes all parameters at once only where what belongs to each lies alike.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, State] = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            _, index, key = name.rsplit(".", 2)
            parameter = parameters[int(index)].detach()
            own = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
            state.setdefault(int(index), {})[key] = own
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def restore_module(module: torch.nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Load the tensors named `model.*` into a module.

    Raises:
        DataError: they belong to another network.
    """
    try:
        module.load_state_dict(tensors_of_module(tensors))
    except RuntimeError as error:
        raise DataError(
            f"{where} holds the weights of another network: {str(error).splitlines()[-1]}"
        ) from error


def tensors_of_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return those of a file's tensors that are a module's, by their names within it."""
    return {name.removeprefix(_MODEL): one for name, one in tensors.items() if name.startswith(_MODEL)}


def module_tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers under names `model.*`."""
    return {f"{_MODEL}{name}": value for name, value in module.state_dict().items()}
