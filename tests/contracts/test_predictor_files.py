"""The files of every predictor: read back as they were written, and refused where they are damaged."""

import copy
import functools
import re
import warnings

import pytest
import torch
from predictor_cases import SAMPLES, case, each_method, each_pair, fitted, make
from safetensors.torch import save_file

from ehdnas.core.errors import DataError, UsageError
from ehdnas.search.checkpoint import load_checkpoint, save_checkpoint
from ehdnas.search.predictor.base import FORMAT

pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def kept(tmp_path):
    """Returns the file of a fitted predictor."""

    def save(method, where="nasbench201"):
        path = tmp_path / f"{method}.safetensors"
        fitted(method, where).save(path)
        return path

    return save


@each_pair
def test_the_file_reads_back(method, where, kept):
    again, gates = make(method, where), case(where).drawn(20, seed=1)
    again.restore(kept(method, where))
    assert torch.equal(again(gates), fitted(method, where)(gates))
    assert all(again.margin(one) == fitted(method, where).margin(one) for one in (0.1, 0.5, 0.9, 0.99))
    assert again.quality == fitted(method, where).quality


INTERNALS = re.compile(r"argument|invalid literal|unpack|subscript|torch|state_dict|NoneType|Error|None")


def refused(path, method, kind, **others):
    """What a new predictor says of the file, in one line, of which nothing is of the code's inside."""
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("error")
        make(method, "nasbench201", **others).restore(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not INTERNALS.search(str(caught.value).replace(str(path), "")), str(caught.value)
    return str(caught.value)


@each_method
def test_a_file_serves_no_other_purpose(method, kept):
    path = kept(method)
    for name in ("space", "shape", "device", "conditions", "metric"):
        said = refused(path, method, UsageError, **{name: "another"})
        assert said == f"{path} is of another {name} than 'another'"
    assert "another method" in refused(path, "linear" if method == "constant" else "constant", UsageError)


@each_method
def test_what_is_no_file_of_ours_is_refused(method, kept, tmp_path):
    path = kept(method)
    whole = path.read_bytes()
    for part in (b"", whole[:7], whole[:100], whole[: len(whole) // 2], whole[:-1], whole[8:], b"\xff" * 64):
        path.write_bytes(part)
        assert "not a whole checkpoint" in refused(path, method, DataError)
    save_file({"model.residuals": torch.zeros(3)}, path)
    refused(path, method, DataError)
    refused(tmp_path / "nowhere", method, DataError)
    refused(tmp_path, method, DataError)


def replaced(meta, *path):
    """The facts of a file with one of them, given last, another."""
    *names, last, value = path
    meta = copy.deepcopy(meta)
    functools.reduce(dict.__getitem__, names, meta)[last] = value
    return meta


@each_method
def test_damaged_facts_are_refused(method, kept):
    path = kept(method)
    tensors, meta = load_checkpoint(path)
    for number in (1, FORMAT - 1, FORMAT + 1, None, str(FORMAT), [FORMAT]):
        save_checkpoint(path, tensors, replaced(meta, "format", number))
        assert "is of format" in refused(path, method, DataError)
    for facts in ([], 5, None, "facts", {}):
        save_checkpoint(path, tensors, facts)
        refused(path, method, DataError)
    told = meta["quality"]
    wrong = ({**told, "more": 1}, {**told, "mape": "small"}, {**told, "measured": [1.0]})
    for quality in ([1], 5, "good", {"samples": 3}, *wrong):
        save_checkpoint(path, tensors, replaced(meta, "quality", quality))
        refused(path, method, DataError)
    for name in ("quality", "extra"):
        save_checkpoint(path, tensors, {key: meta[key] for key in meta if key != name})
        refused(path, method, DataError)
    for who in (None, [], {}, {**meta["identity"], "slots": 10**9}):
        save_checkpoint(path, tensors, replaced(meta, "identity", who))
        refused(path, method, UsageError)


def other_type(tensor):
    return tensor.to(torch.int64) if tensor.is_floating_point() else tensor.to(torch.float64)


@each_method
def test_damaged_tensors_are_refused(method, kept):
    path = kept(method)
    tensors, meta = load_checkpoint(path)
    for name, one in tensors.items():
        broken = [one[None], other_type(one), one.to(torch.complex64), None]
        if one.is_floating_point():
            broken += [] if one.dtype == torch.float32 else [one.float()]
            broken += [torch.full_like(one, bad) for bad in (float("nan"), float("inf")) if one.numel()]
        for bad in broken:
            rest = {key: value for key, value in tensors.items() if key != name}
            save_checkpoint(path, rest if bad is None else {**rest, name: bad}, meta)
            refused(path, method, DataError)
    save_checkpoint(path, {**tensors, "model.more": torch.zeros(2)}, meta)
    refused(path, method, DataError)
    save_checkpoint(path, {name.removeprefix("model."): one for name, one in tensors.items()}, meta)
    refused(path, method, DataError)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    "changed",
    [
        {"members.0.support": torch.zeros(SAMPLES, 3, dtype=torch.float64)},
        {"members.0.support": torch.zeros(7, dtype=torch.float64)},
        {"members.0.support": torch.zeros(7, 3, dtype=torch.float64)},
        # No bytes in the file, and terabytes of buffers for whoever believes it.
        {"members.1.support": torch.zeros(0, 10**13, dtype=torch.float64)},
        {"members.1.support": torch.zeros(10**13, 0, dtype=torch.float64)},
        {"members.0.names": torch.zeros(10**13, 0, dtype=torch.int64)},
        {"members.0.warp.kind": torch.tensor(99)},
        {"members.0.warp.kind": torch.tensor(-1)},
        {"members.0.warp.floor": torch.tensor(0.0, dtype=torch.float64)},
        {"members.0.warp.floor": torch.tensor(-1.0, dtype=torch.float64)},
        {"levels.logs": numbers(1, 2, 3)},
        {"levels.logs": numbers(1, 2, 3), "levels.often": numbers(1, 2)},
        {"levels.logs": numbers(1, 2), "levels.often": numbers(1, 0)},
        {"levels.logs": numbers(2, 1), "levels.often": numbers(1, 1)},
        {"levels.logs": numbers(1, 1), "levels.often": numbers(1, 1)},
        {"levels.logs": torch.arange(2), "levels.often": torch.ones(2, dtype=torch.int64)},
        {"levels.logs": torch.zeros(2).cfloat(), "levels.often": torch.ones(2).cfloat()},
        {"levels.logs": torch.arange(5000.0).double(), "levels.often": torch.ones(5000).double()},
        {"shares": torch.ones(4, 2, dtype=torch.float64)},
        {"members.3.layers.0.weight": torch.zeros(2)},
        {"residuals": numbers(1, float("nan"))},
    ],
    ids=lambda changed: " ".join(f"{name}{list(one.shape)}" for name, one in changed.items()),
)
def test_a_process_that_cannot_be_is_refused(changed, kept):
    path = kept("ehdnas")
    tensors, meta = load_checkpoint(path)
    save_checkpoint(path, {**tensors, **{f"model.{name}": one for name, one in changed.items()}}, meta)
    refused(path, "ehdnas", DataError)


@pytest.mark.parametrize("parts", [[["counts"]], [["counts", "first"]], [[1, 2, 3]], [], "parts", 5, None])
def test_processes_that_cannot_be_read_are_refused(parts, kept):
    path = kept("ehdnas")
    tensors, meta = load_checkpoint(path)
    save_checkpoint(path, tensors, replaced(meta, "extra", "parts", parts))
    assert "is damaged: " in refused(path, "ehdnas", DataError)


@pytest.mark.parametrize("by", [10**6, -(10**6)])
def test_a_process_of_features_that_there_are_not_is_refused(by, kept):
    path = kept("ehdnas")
    tensors, meta = load_checkpoint(path)
    save_checkpoint(path, {**tensors, "model.members.0.kept": tensors["model.members.0.kept"] + by}, meta)
    assert "features that there are not" in refused(path, "ehdnas", DataError)


@pytest.mark.parametrize("other", [{"slots": 10**7, "choices": 10**7}, {"slots": 7}, {"space": "other"}])
def test_a_source_of_another_space_is_refused(other, kept):
    path = kept("ehdnas")
    tensors, meta = load_checkpoint(path)
    source = {"identity": {**meta["identity"], **other}, "extra": {"parts": []}}
    inner = {name.replace("model.", "model.source.", 1): one for name, one in tensors.items()}
    save_checkpoint(path, {**tensors, **inner}, replaced(meta, "extra", "source", source))
    assert "source is of another space" in refused(path, "ehdnas", DataError)
    for bad in (None, [], "source", {}, {"identity": {}, "extra": {}}, {**source, "identity": "me"}):
        save_checkpoint(path, {**tensors, **inner}, replaced(meta, "extra", "source", bad))
        refused(path, "ehdnas", DataError)
