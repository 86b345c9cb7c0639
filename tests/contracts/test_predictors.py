"""What every predictor must do, whichever method it is and whatever space its networks are of."""

import copy
import functools
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ehdnas.core.errors import DataError, UsageError
from ehdnas.search.checkpoint import load_checkpoint, save_checkpoint
from ehdnas.search.predictor import embedding, process
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import MACS, OP_LATENCY, Costs, SpaceFacts
from ehdnas.search.predictor.methods import METHODS, make_predictor
from ehdnas.search.relaxation import gumbel_softmax
from ehdnas.search.spaces.base import Space, find_space

SAMPLES = 60
OF_COST = ("flops", "op-sum")  # which can say nothing of a space whose costs are not known
KNOWN, CHAIN = ("darts", "nasbench201"), "table"
PAIRS = [(method, where) for method in METHODS for where in KNOWN]
PAIRS += [(method, CHAIN) for method in METHODS if method not in OF_COST]
each_method = pytest.mark.parametrize("method", METHODS)
each_pair = pytest.mark.parametrize(("method", "where"), PAIRS)


@dataclass(frozen=True)
class Case:
    """A space to predict in, or, with `space` None, a table of 22 decisions of which nothing is known."""

    identity: Identity
    facts: SpaceFacts
    space: Space | None

    def drawn(self, count, seed=0):
        """Architectures, one-hot."""
        rng = np.random.default_rng(seed)
        if self.space is not None:
            return self.space.encode_all([self.space.sample(rng) for _ in range(count)])
        chosen = torch.from_numpy(rng.integers(self.identity.choices, size=(count, self.identity.slots)))
        return torch.nn.functional.one_hot(chosen, self.identity.choices).float()

    def relaxed(self, logits, seed=0):
        """One-hot gates through which gradients reach the logits."""
        generator = torch.Generator().manual_seed(seed)
        if self.space is not None:
            return self.space.relax(logits, 1.0, generator)
        return gumbel_softmax(logits, 1.0, generator)

    def samples(self, count, seed=0):
        """Architectures, and what they cost: a sum over their choices, with 2 % of noise."""
        gates, size = self.drawn(count, seed), (self.identity.slots, self.identity.choices)
        each = torch.rand(size, generator=seeded(7)) + 9 * torch.linspace(0, 1, size[1]).square()
        noise = 1 + 0.02 * torch.randn(count, generator=seeded(seed))
        return gates, ((20 + (gates * each).sum((1, 2))) * noise).double()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@functools.cache
def case(where):
    if where == CHAIN:
        return Case(Identity("", CHAIN, 22, 9, "", "board", "threads 1", "latency_ms"), SpaceFacts(), None)
    space = find_space(where)
    alone = torch.linspace(0, 4, space.choices).double().expand(space.slots, -1)
    costs = Costs((MACS, OP_LATENCY), torch.stack([1e6 * alone, alone], 2), torch.tensor([5e6, 2.0]).double())
    who = Identity("", where, space.slots, space.choices, "c4x3", "board", "threads 1", "latency_ms")
    return Case(who, SpaceFacts(space.graphs, costs), space)


def make(method, where, **others):
    who = replace(case(where).identity, method=method, **others)
    return make_predictor(who, case(where).facts)


@functools.cache
def fitted(method, where):
    """A fitted predictor, the same one for every test: none of them changes it."""
    predictor = make(method, where)
    predictor.fit(*case(where).samples(SAMPLES), seed=3)
    return predictor


@pytest.fixture(scope="module", autouse=True)
def _brief():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_STEPS", 40)
        patch.setattr(process, "_ROUNDS", (10, 5, 5))
        yield


@each_pair
def test_predictions_are_positive_numbers_for_any_network(method, where):
    predictor = fitted(method, where)
    values = predictor(case(where).drawn(300, seed=1))
    assert values.shape == (300,) and values.isfinite().all() and (values > 0).all()
    _, seen = case(where).samples(SAMPLES)
    assert (values > seen.min() / 3).all() and (values < seen.max() * 3).all(), "in the unit of the samples"
    quality = predictor.quality
    assert quality.samples == SAMPLES == len(quality.predicted) and quality.mape < 0.5


@each_pair
def test_the_better_methods_rank_networks_that_they_have_not_seen(method, where):
    found = fitted(method, where).evaluate(*case(where).samples(300, seed=1))
    assert 0 <= found.within10 <= 1 and found.coverage90 > 0.8
    if method in ("ehdnas", "linear"):
        assert found.spearman > (0.7 if method == "ehdnas" else 0.4)
        assert found.within10 > found.constant_within10


@each_pair
@pytest.mark.parametrize("form", ["one-hot", "soft"])
def test_gradients_reach_the_gates(method, where, form):
    gates = case(where).drawn(5, seed=2)
    if form == "soft":
        gates = torch.randn(gates.shape, generator=seeded(2)).softmax(2)
    gates.requires_grad_()
    values = fitted(method, where)(gates)
    assert values.isfinite().all() and (values > 0).all()
    values.sum().backward()
    assert gates.grad.isfinite().all()
    assert (gates.grad.abs().sum((1, 2)) > 0).all() != (method == "constant")


@each_pair
def test_gradients_go_through_a_relaxed_sample_to_its_logits(method, where):
    logits = torch.zeros(fitted(method, where).identity.slots, fitted(method, where).identity.choices)
    logits.requires_grad_()
    gates = torch.stack([case(where).relaxed(logits, seed) for seed in range(3)])
    fitted(method, where)(gates).sum().backward()
    assert logits.grad.isfinite().all()
    assert bool(logits.grad.abs().sum() > 0) != (method == "constant")


@each_pair
def test_one_network_and_many_are_predicted_alike(method, where):
    predictor, gates = fitted(method, where), case(where).drawn(20, seed=1)
    singly = torch.cat([predictor(gates[at : at + 1]) for at in range(20)])
    assert torch.allclose(singly, predictor(gates), rtol=1e-5)
    assert predictor(gates[:0]).shape == (0,)


@each_pair
def test_float32_stays_float32(method, where):
    predictor, gates = fitted(method, where), case(where).drawn(3)
    assert gates.dtype == torch.float32
    for values in (predictor(gates), predictor.log_value(gates), *predictor.interval(gates, 0.9)):
        assert values.dtype == torch.float32


@each_pair
def test_the_seed_alone_decides_the_fit(method, where):
    torch.manual_seed(99)
    again = make(method, where)
    quality = again.fit(*case(where).samples(SAMPLES), seed=3)
    gates = case(where).drawn(20, seed=1)
    assert torch.equal(again(gates), fitted(method, where)(gates))
    assert quality == again.quality == fitted(method, where).quality
    assert torch.equal(again.residuals, fitted(method, where).residuals)


@each_pair
def test_intervals_hold_the_value_and_widen_with_confidence(method, where):
    predictor, gates = fitted(method, where), case(where).drawn(20, seed=1)
    values, before = predictor(gates), None
    for confidence in (0.0, 0.5, 0.9):
        lower, upper = predictor.interval(gates, confidence) if confidence else (values, values)
        assert (lower > 0).all() and (lower <= values).all() and (values <= upper).all()
        assert before is None or ((lower <= before[0]).all() and (upper >= before[1]).all())
        before = lower, upper
    assert upper.isfinite().all()
    assert predictor.margin(0.999) == float("inf")


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


def refused(path, method, kind, **others):
    """What a new predictor says of the file, in one line."""
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("error")
        make(method, "nasbench201", **others).restore(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@each_method
def test_a_file_serves_no_other_purpose(method, kept):
    path = kept(method)
    for name in ("space", "shape", "device", "conditions", "metric"):
        said = refused(path, method, UsageError, **{name: "another"})
        assert "is a predictor for" in said
    refused(path, "linear" if method == "constant" else "constant", UsageError)


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
    for number in (1, 2, 4, None, "3", [3]):
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
    source = {"identity": {**meta["identity"], **other}, "extra": {"scale": "value"}}
    inner = {name.replace("model.", "model.source.", 1): one for name, one in tensors.items()}
    save_checkpoint(path, {**tensors, **inner}, replaced(meta, "extra", "source", source))
    assert "source is of another space" in refused(path, "ehdnas", DataError)
    for bad in (None, [], "source", {}, {"identity": {}, "extra": {}}, {**source, "identity": "me"}):
        save_checkpoint(path, {**tensors, **inner}, replaced(meta, "extra", "source", bad))
        refused(path, "ehdnas", DataError)


@each_method
def test_too_few_samples_are_refused(method):
    gates, values = case("nasbench201").samples(9)
    with pytest.raises(UsageError, match=r"^9 samples: a predictor needs at least 10"):
        make(method, "nasbench201").fit(gates, values, 0)


@each_method
@pytest.mark.parametrize("bad", [float("nan"), 0.0, -1.0, float("inf"), -float("inf")])
def test_values_that_are_no_positive_numbers_are_named(method, bad):
    gates, values = case("nasbench201").samples(20)
    values[[3, 7]] = bad
    with pytest.raises(UsageError, match=r"^samples \[3, 7\] are not positive numbers"):
        make(method, "nasbench201").fit(gates, values, 0)


@each_method
def test_networks_of_another_space_are_refused(method):
    _, values = case("nasbench201").samples(20)
    for gates in (case("darts").drawn(20), case("nasbench201").drawn(20)[:, :, :4], torch.zeros(20, 30)):
        with pytest.raises(UsageError, match="space 'nasbench201'"):
            make(method, "nasbench201").fit(gates, values, 0)


@each_method
def test_as_many_values_as_networks_are_asked_for(method):
    gates, values = case("nasbench201").samples(20)
    with pytest.raises(UsageError, match="19 architectures but 20 values"):
        make(method, "nasbench201").fit(gates[:19], values, 0)
    with pytest.raises(UsageError, match="20 architectures but 19 values"):
        fitted(method, "nasbench201").evaluate(gates, values[:19])


@each_method
def test_values_that_are_all_the_same_are_nothing_to_learn_from(method):
    gates, values = case("nasbench201").samples(20)
    with pytest.raises(UsageError, match=r"^all 20 values are the same \(7\.5\)"):
        make(method, "nasbench201").fit(gates, torch.full_like(values, 7.5), 0)
    predictor = make(method, "nasbench201")
    predictor.fit(gates, torch.full_like(values, 7.5).index_fill_(0, torch.tensor([4]), 7.6), 0)
    found = predictor(gates)
    assert found.isfinite().all() and (found > 5).all() and (found < 10).all()


@each_method
def test_one_network_measured_over_and_over_is_predicted_as_it_was(method, tmp_path):
    gates, values = case("nasbench201").drawn(1).expand(20, -1, -1), torch.linspace(9, 11, 20).double()
    predictor = make(method, "nasbench201")
    predictor.fit(gates, values, 0)
    assert predictor(gates[:1]).item() == pytest.approx(10, rel=0.1)
    others = case("nasbench201").drawn(50, seed=1)
    assert predictor(others).isfinite().all()
    predictor.save(tmp_path / "p.safetensors")
    again = make(method, "nasbench201")
    again.restore(tmp_path / "p.safetensors")
    assert torch.equal(again(others), predictor(others))


@pytest.mark.parametrize("method", OF_COST)
def test_what_needs_costs_says_so_where_there_are_none(method):
    with pytest.raises(UsageError, match=f"predictor '{method}'"):
        make(method, CHAIN).fit(*case(CHAIN).samples(20), 0)


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match=r"no predictor 'embeding'.*did you mean 'embedding'"):
        make("embeding", CHAIN)
