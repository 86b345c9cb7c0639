"""The int8 scheme: ranges, scales, how they are chosen, and that rewrites for it leave the function alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ehdnas.core.errors import DataError, ExportError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.graph import Node, Value, batches, execute, sink_relu, trace
from ehdnas.exporters import quantise as package
from ehdnas.exporters.base import network_graph
from ehdnas.exporters.quantise import quantise, scheme
from ehdnas.exporters.quantise.calibrate import _METHODS, METHODS, Histogram, choose_ranges, observe
from ehdnas.exporters.quantise.finetune import fine_tune
from ehdnas.exporters.quantise.lower import expand_dilated, lower_for_int8
from ehdnas.exporters.quantise.scheme import Range, fixed_ranges, quantised_values, share_scales
from ehdnas.exporters.quantise.simulate import correct_bias, noise_of, simulate

IMAGES = np.random.default_rng(0).standard_normal((64, 3, 16, 16)).astype(np.float32)

ends = st.floats(-1e4, 1e4, width=32)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 5)

    def forward(self, *images):
        return self.function(self, *images)


def classified(function):
    """Return a network that classifies the mean of what `function` makes."""
    return Forward(lambda m, *images: m.linear(function(m, *images).mean((2, 3))))


def run(graph, *images):
    with torch.no_grad():
        return execute(graph, [torch.from_numpy(one) for one in images])


def noise(graph, ranges, images, network=None):
    """Return the noise of an int8 network, by default `graph` itself, against the float `graph`."""
    expected = [run(graph, *(one.numpy() for one in batch)) for batch in batches(images)]
    return noise_of(network or graph, ranges, images, expected)


@settings(deadline=None)
@given(ends, ends)
def test_a_range_has_zero_on_a_level_and_spans_what_it_was_asked_for(one, other):
    low, high = min(one, other), max(one, other)
    found = Range.around(low, high)
    step = found.scale
    assert -128 <= found.zero_point <= 127
    assert found.fake(torch.zeros(1)).item() == 0
    # The width holds; its ends are moved by half a level at most, so that zero is on one.
    assert found.high - found.low >= (max(high, 0) - min(low, 0)) * (1 - 1e-9)
    assert found.low <= min(low, 0) + step * 0.5001 and found.high >= max(high, 0) - step * 0.5001
    assert found.low == pytest.approx(-(found.zero_point + 128) * step)
    assert found.high == pytest.approx((127 - found.zero_point) * step)
    x = torch.linspace(low, high, 101)
    # In single precision, in which the scale is kept in files.
    assert (found.fake(x) - x).abs().max() <= step * 0.501 + 1e-6 * x.abs().max()


@settings(deadline=None)
@given(ends, ends)
def test_levels_are_kept_and_the_rest_is_clipped(one, other):
    found = Range.around(min(one, other), max(one, other))
    levels = torch.arange(-128, 128, dtype=torch.float64)
    real = ((levels - found.zero_point) * found.scale).float()
    torch.testing.assert_close(found.fake(real), real, rtol=1e-5, atol=1e-6 * found.scale)
    assert found.fake(torch.tensor([1e6])).item() == pytest.approx(found.high, rel=1e-5, abs=1e-6)
    assert found.fake(torch.tensor([-1e6])).item() == pytest.approx(found.low, rel=1e-5, abs=1e-6)


def test_the_gradient_passes_inside_the_range_only():
    x = torch.tensor([-2.0, -0.5, 0.3, 2.0], requires_grad=True)
    Range.around(-1, 1).fake(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def pooled(m, x):
    first = m.first(x)
    joined = torch.cat([first, torch.sigmoid(m.second(F.relu(first)))], 1)
    return F.max_pool2d(joined, 2)[:, :8] + F.avg_pool2d(F.relu(first), 2)


SHARED = trace(classified(pooled), (3, 8, 8))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_shared_scales_are_equal_and_never_narrower(data):
    graph, names = SHARED, quantised_values(SHARED)
    pair = st.tuples(st.floats(-100, 0, width=32), st.floats(0, 100, width=32))
    fixed = fixed_ranges(graph)
    before = {name: fixed.get(name) or Range.around(*data.draw(pair)) for name in names}
    after = share_scales(graph, before)
    assert set(after) == set(before) and len(fixed) == 1
    for name in names:
        assert after[name].scale >= before[name].scale * (1 - 1e-9)
        assert after[name].low <= before[name].low + after[name].scale * 0.501
        assert after[name].high >= before[name].high - after[name].scale * 0.501
    assert fixed.items() <= after.items()
    for node in graph.nodes:
        if node.op in ("max_pool", "avg_pool", "concat", "slice", "reshape"):
            tied = {after[v.name] for v in (*node.inputs, node.output) if v.name not in fixed}
            assert len(tied) == 1
    # What no such operator joins keeps its own range, and there is nothing more to share.
    last, again = graph.output.name, share_scales(graph, after)
    assert after[last].scale == pytest.approx(before[last].scale)
    assert all(again[name].scale == pytest.approx(after[name].scale) for name in names)


def test_values_before_a_fused_activation_have_no_tensor():
    graph = trace(classified(lambda m, x: F.relu6(m.second(F.relu(m.first(x)) + 1))), (3, 8, 8))
    without = {node.op for node in graph.nodes if node.output.name not in quantised_values(graph)}
    assert without == {"conv"}
    twice = trace(classified(lambda m, x: (lambda y: F.relu(y) + y)(m.first(x))), (3, 8, 8))
    every = {value.name for value in twice.inputs} | {node.output.name for node in twice.nodes}
    assert set(quantised_values(twice)) == every


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e3), st.booleans(), st.booleans())
def test_weights_rounded_by_torch_are_those_of_the_scales(seed, size, linear, dead):
    rng = np.random.default_rng(seed)
    shape = (4, 6) if linear else (4, 2, 3, 3)
    rows = rng.uniform(0.01, 1, (4, *[1] * (len(shape) - 1)))  # channels of different sizes
    weight = (rng.standard_normal(shape) * size * rows).astype(np.float32)
    if dead:
        weight[1] = 0
    value = Value("x", (1, 4))
    node = Node("linear" if linear else "conv", "x", (value,), value, params={"weight": weight})
    scales = scheme.weight_scales(node)
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    levels = np.clip(np.round(weight / column), -127, 127)
    rounded = scheme.fake_weights(torch.from_numpy(weight), per_channel=not linear).numpy()
    np.testing.assert_allclose(rounded, levels * column, atol=float(column.max()) * 1e-3)
    assert (np.abs(rounded - weight) <= column * 0.501).all()
    if linear:
        assert len(set(scales.tolist())) == 1
    elif size > 1 and not dead:  # every channel uses all of its levels
        assert (np.abs(levels).reshape(4, -1).max(1) == 127).all()


def histogram(density, reach, low=None):
    edges = np.linspace(-reach if low is None else low, reach, 1025)
    centres = (edges[1:] + edges[:-1]) / 2
    counts = density(centres)
    return Histogram(float(edges[0]), float(edges[-1]), 1e7 * counts / counts.sum())


@pytest.mark.parametrize("method", METHODS)
def test_uniform_values_are_clipped_by_nobody(method):
    low, high = _METHODS[method](histogram(np.ones_like, 1.0))
    assert low <= -0.97 and high >= 0.97


@pytest.mark.parametrize(("method", "most"), [("percentile", 1.1), ("mse", 8), ("entropy", 8)])
def test_a_lonely_outlier_is_clipped(method, most):
    counts = np.zeros(1024)
    counts[:52] = 1e6 * np.exp(-((np.arange(52) / 16) ** 2) / 2)  # half a bell, over [0, 1]
    counts[-1] = 1
    seen = Histogram(0.0, 20.0, counts)
    low, high = _METHODS[method](seen)
    assert low < 0.05 and 0.95 < high <= most
    assert _METHODS["minmax"](seen) == (0.0, 20.0)


@pytest.mark.parametrize(
    ("density", "reach", "best"),
    [(lambda x: np.exp(-np.abs(x)), 20.0, 9.89), (lambda x: np.exp(-(x**2) / 2), 8.0, 3.92)],
    ids=["Laplace", "Gauss"],
)
def test_the_least_squares_are_where_theory_has_them(density, reach, best):
    """Banner et al., Post-training 4-bit quantization (NeurIPS 2019): where to clip, at 8 bits."""
    low, high = _METHODS["mse"](histogram(density, reach))
    assert high == pytest.approx(best, rel=0.1) and low == -high


def test_percentile_gives_up_its_share():
    low, high = _METHODS["percentile"](histogram(lambda x: np.exp(-(x**2) / 2), 8.0))
    # A normal distribution holds 1e-4 of itself beyond 3.891 standard deviations.
    assert high == pytest.approx(3.891, abs=0.03) and low == pytest.approx(-3.891, abs=0.03)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("low", "high"), [(5.0, 6.0), (-6.0, -5.0), (1.0, 2.002), (0.0, 0.0), (3.0, 3.0)])
def test_values_away_from_zero_or_all_alike(method, low, high):
    counts = np.full(1024, float(low < high))
    found = Range.around(*_METHODS[method](Histogram(low, high, counts)))
    x = torch.tensor([low, high])
    assert (found.fake(x) - x).abs().max() <= 0.01 * max(abs(low), abs(high), 1e-3)
    assert found.scale > 0


@settings(max_examples=60, deadline=None)
@given(ends, st.floats(1e-3, 1e4), st.integers(0, 1000), st.sampled_from(METHODS))
def test_every_method_takes_whatever_was_seen(low, width, seed, method):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, 1024) * (rng.random(1024) < rng.random())
    counts[[0, -1]] = 1  # the extremes were seen
    below, above = _METHODS[method](Histogram(low, low + width, counts.astype(np.float64)))
    found = Range.around(below, above)
    assert np.isfinite([found.low, found.high]).all() and found.scale > 0
    widest = Range.around(low, low + width)
    assert found.low >= widest.low - widest.scale and found.high <= widest.high + widest.scale


@pytest.mark.parametrize("method", METHODS)
def test_activations_that_are_all_zero(method):
    model = classified(lambda m, x: F.relu(m.first(x)))
    model.first.bias.data[:] = -100.0
    graph = trace(model, (3, 16, 16))
    ranges = choose_ranges(graph, observe(graph, [IMAGES]), method)
    assert all(found.scale > 0 for found in ranges.values())
    made = simulate(graph, ranges, [torch.from_numpy(IMAGES)])
    torch.testing.assert_close(made, run(graph, IMAGES), atol=1e-2, rtol=1e-2)


def test_observed_extremes_and_counts_are_those_of_the_values():
    model = classified(lambda m, x: F.relu(m.first(x)))
    graph = trace(model, (3, 16, 16))
    seen = observe(graph, [IMAGES])
    (image,) = graph.inputs
    assert (seen[image.name].low, seen[image.name].high) == (IMAGES.min(), IMAGES.max())
    expected, _ = np.histogram(IMAGES, 1024, (IMAGES.min(), IMAGES.max()))
    assert np.abs(seen[image.name].counts - expected).sum() <= 0.01 * IMAGES.size  # all of it: few enough


LOWERED = {
    "a batch norm after a pool": lambda m, x: F.max_pool2d(m.first(x), 3, 1, 1) * 2 - 0.5,
    "hard sigmoid": lambda m, x: F.hardsigmoid(m.first(x)),
    "hard swish": lambda m, x: F.hardswish(m.first(x)),
    "a vector scaled and shifted": lambda m, x: F.relu(m.first(x).mean((2, 3), keepdim=True) * 3 + 1),
    "ReLU after max pools": lambda m, x: F.relu(F.max_pool2d(F.max_pool2d(m.first(x), 2), 3, 1, 1)),
    "ReLU6 after a mean": lambda m, x: F.relu6(3 * F.avg_pool2d(m.first(x), 3, 2, 1)),
    "ReLU after a shared pool": lambda m, x: (lambda y: F.relu(y) + y)(F.max_pool2d(m.first(x), 2)),
    "ReLU sunk onto a pool": lambda m, x: F.relu(torch.cat([m.first(x), F.max_pool2d(x, 3, 1, 1)], 1))[:, :8],
}


@pytest.mark.parametrize("name", LOWERED)
@pytest.mark.parametrize("hardswish", [False, True])
def test_lowering_keeps_the_function(name, hardswish):
    graph = network_graph(classified(LOWERED[name]), (3, 16, 16))
    lowered = lower_for_int8(sink_relu(graph), hardswish)
    np.testing.assert_allclose(run(lowered, IMAGES), run(graph, IMAGES), atol=1e-5)
    left = {node.op for node in lowered.nodes if len(node.output.shape) == 4}
    assert not left & {"affine", "hardsigmoid", *(["hardswish"] if hardswish else [])}
    uses, producers = lowered.uses(), lowered.producers()
    for node in lowered.nodes:
        before = producers.get(node.inputs[0].name)
        if node.op in ("relu", "relu6") and before is not None and uses[before.output.name] == 1:
            assert before.op not in ("max_pool", "avg_pool")


def test_lowering_of_whole_networks(network):
    graph = network_graph(network, (3, 16, 16))
    lowered = expand_dilated(lower_for_int8(sink_relu(graph), hardswish=True))
    np.testing.assert_allclose(run(lowered, IMAGES), run(graph, IMAGES), atol=1e-5)
    assert all(node.attrs.get("dilation", (1, 1)) == (1, 1) for node in lowered.nodes)


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 3),
    groups=st.sampled_from([1, 4]),
)
def test_expanded_kernels_are_the_dilated_ones(kernel, dilation, stride, padding, groups):
    torch.manual_seed(0)
    graph = trace(nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups), (4, 9, 9))
    expanded = expand_dilated(graph)
    images = np.random.default_rng(0).standard_normal((2, 4, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(run(expanded, images), run(graph, images), atol=1e-5)
    (node,) = expanded.nodes
    reach = tuple(step * (size - 1) + 1 for size, step in zip(kernel, dilation, strict=True))
    assert node.params["weight"].shape[2:] == reach and node.attrs["dilation"] == (1, 1)


def badly_ranged():
    """Return a network, and ranges for it that clip much of what it makes on the way to its output."""
    graph = network_graph(classified(lambda m, x: F.relu(m.second(F.relu(m.first(x))))), (3, 16, 16))
    ranges = choose_ranges(graph, observe(graph, [IMAGES]), "minmax")
    clipped = {name: Range.around(found.low / 3, found.high / 3) for name, found in ranges.items()}
    return graph, {**clipped, graph.output.name: ranges[graph.output.name]}


def test_corrected_biases_lower_the_mean_error():
    graph, ranges = badly_ranged()
    corrected = correct_bias(graph, ranges, [IMAGES])
    expected = run(graph, IMAGES)

    def mean_error(network):
        with torch.no_grad():
            made = simulate(network, ranges, [torch.from_numpy(IMAGES)])
        return (made - expected).mean(0).abs().max().item()

    assert mean_error(corrected) < 0.1 * mean_error(graph)
    assert noise(graph, ranges, [IMAGES], corrected) < 0.2 * noise(graph, ranges, [IMAGES])
    before = {node.name: node.params for node in graph.nodes}
    for node in corrected.nodes:
        if "weight" in node.params:
            np.testing.assert_array_equal(node.params["weight"], before[node.name]["weight"])


def test_fine_tuning_lowers_the_noise_and_follows_its_seed():
    graph, ranges = badly_ranged()
    tuned = fine_tune(graph, graph, ranges, [IMAGES], 60, seed=1)
    # Noise is an amplitude: 0.7 is of its power.
    assert noise(graph, ranges, [IMAGES], tuned) ** 2 < 0.7 * noise(graph, ranges, [IMAGES]) ** 2
    for seed, same in ((1, True), (2, False)):
        again = fine_tune(graph, graph, ranges, [IMAGES], 60, seed)
        pairs = zip(tuned.nodes, again.nodes, strict=True)
        weights = [(a.params["weight"], b.params["weight"]) for a, b in pairs if "weight" in a.params]
        assert all(np.array_equal(one, other) for one, other in weights) == same


def test_fine_tuning_never_sees_what_it_is_judged_on(monkeypatch):
    seen = []

    def record(graph, start, ranges, images, steps, seed):
        seen.extend(images[0])
        return start

    monkeypatch.setattr(package, "fine_tune", record)
    graph = network_graph(classified(lambda m, x: m.first(x)), (3, 16, 16))
    marked = IMAGES + np.arange(len(IMAGES), dtype=np.float32).reshape(-1, 1, 1, 1) * 100
    quantise(graph, [marked], ExportOptions(finetune_steps=1, calibration="minmax"))
    assert {round(float(image.mean()) / 100) for image in seen} == {
        index for index in range(len(IMAGES)) if index % 4
    }


def test_what_is_kept_erred_least_and_is_said():
    graph = network_graph(classified(lambda m, x: F.relu(m.first(x))), (3, 16, 16))
    quantised = quantise(graph, [IMAGES], ExportOptions(finetune_steps=3))
    report = quantised.report
    assert set(report["noise"]) == {*METHODS, "bias corrected", "fine-tuned"}
    assert report["noise"][report["kept"]] == min(report["noise"].values())
    assert report["calibration"] in METHODS and report["images"] == 64 and report["finetune_steps"] == 3
    judged = [IMAGES[::4]]
    assert noise(graph, quantised.ranges, judged) == pytest.approx(report["noise"][report["calibration"]])
    assert noise(graph, quantised.ranges, judged, quantised.graph) == pytest.approx(
        min(report["noise"].values())
    )


def test_a_single_output_has_noise_that_is_a_number():
    model = Forward(lambda m, x: m.linear(m.first(x).mean((2, 3))))
    model.linear = nn.Linear(8, 1)
    graph = network_graph(model, (3, 16, 16))
    report = quantise(graph, [IMAGES[:2]], ExportOptions()).report
    assert np.isfinite(list(report["noise"].values())).all()


WRONG = {
    "wrong shape": (lambda x: [x[:, :, :8]], r"shape \(64, 3, 8, 16\); the network takes \(n, 3, 16, 16\)"),
    "vectors": (lambda x: [x.reshape(64, -1)], r"shape \(64, 768\)"),
    "one image": (lambda x: [x[:1]], "1 calibration images are too few"),
    "all constant": (lambda x: [np.ones_like(x)], "all alike"),
    "all the same": (lambda x: [np.repeat(x[:1], 8, 0)], "all alike"),
    "no numbers": (lambda x: [np.where(x > 3, np.nan, x)], "values that are no numbers"),
    "infinite": (lambda x: [np.where(x > 3, np.inf, x)], "values that are no numbers"),
    "no inputs": (lambda x: [], "for 0 inputs; the network has 1"),
    "two inputs": (lambda x: [x, x], "for 2 inputs; the network has 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_images_that_cannot_calibrate_are_one_line(name):
    change, message = WRONG[name]
    graph = network_graph(classified(lambda m, x: m.first(x)), (3, 16, 16))
    with pytest.raises(DataError, match=message) as caught:
        quantise(graph, change(IMAGES), ExportOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_one_line(value):
    model = classified(lambda m, x: m.first(x))
    model.first.weight.data[0] = value
    with pytest.raises(ExportError, match="values that are no numbers"):
        quantise(network_graph(model, (3, 16, 16)), [IMAGES], ExportOptions())
