"""The mobile space: MobileNetV2 to the last parameter, a supernet that is every network, rules that hold."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mobile_networks import SMALL, SPACE, changed, depths, sampled

from ehdnas.core.errors import UsageError
from ehdnas.core.graph import layer_table
from ehdnas.exporters import Reference, check_parity, find_exporter, require_parity
from ehdnas.pipeline.costed import Costed
from ehdnas.search.predictor.facts import MACS, facts_of
from ehdnas.search.predictor.features import effective, whole
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.mobile import distribution
from ehdnas.search.spaces.mobile.layout import (
    LAYER_NAMES,
    LAYERS,
    SKIP,
    STAGES,
    WIDTH_NAMES,
)

PUBLISHED = NetworkShape(16, LAYERS, (3, 224, 224), 1000, "imagenet")
seeds = st.integers(0, 2**32)
names_left_out = st.sets(st.sampled_from([*LAYER_NAMES[1:], *WIDTH_NAMES[:2], "squeeze_excite"]), max_size=4)


def randomly(seed, strength=1.0):
    return strength * torch.randn(33, 7, generator=torch.Generator().manual_seed(seed))


def test_mobilenet_v2_is_the_published_network():
    """3.4 M parameters and 300 M multiply-adds in table 4 of arXiv 1801.04381; torchvision's
    `mobilenet_v2` has 3,504,872 and 300,774,272, biases and batch norms counted as it counts them."""
    network = SPACE.network(SPACE.parse("MOBILENET_V2"), PUBLISHED)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_504_872
    assert layer_table(network, PUBLISHED.image).macs == 300_774_272


def test_widths_are_multiples_of_8_at_16_channels_and_grow():
    for stage in STAGES:
        widths = [stage.channels(PUBLISHED, width) for width in range(3)]
        assert all(width % 8 == 0 for width in widths)
        assert sorted(set(widths)) == widths


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("MOBILENET_V3", "no.* genotype of the mobile space; did you mean 'MOBILENET_V2'; give a name"),
        ("1033", "4 digits: a genotype of the mobile space has 33"),
        ("3" + "0" * 32, "choice 3 in slot 0; its choices go from 0 to 2"),
        ("106" + "0" * 30, "choice 6 in slot 2; its choices go from 0 to 5"),
        ("100600" + "0" * 27, "breaks a rule of space 'mobile'"),
        ('{"stages": []}', "0 stages under the key 'stages': the mobile space has 6"),
        ('{"cells": 3}', "0 stages"),
        ('{"stages": [', "not valid JSON"),
        ("{}" + "[" * 30_000, "30002 characters: at most"),
        ("²" * 33, "is not a genotype"),
    ],
)
def test_what_is_no_genotype_is_refused_by_name(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        SPACE.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("width", "broad", "unknown choice 'broad' in stage 2; known: medium, narrow, wide"),
        ("width", ["wide"], r"unknown choice .* in stage 2"),
        ("squeeze_excite", 1, "squeeze_excite of stage 2 is 1; it must be true or false"),
        ("layers", [], "stage 2 has 0 layers; it can have 1 to 4"),
        ("layers", "mbconv", "stage 2 has 0 layers"),
        ("layers", ["skip"], "unknown choice 'skip' in stage 2"),
        ("layers", ["mbconv_e6_k4"], "did you mean 'mbconv_e6_k"),
        ("layers", ["mbconv_e6_k3"] * 5, "stage 2 has 5 layers"),
        ("layers", None, "no key 'layers' in stage 2"),
    ],
)
def test_a_wrong_stage_is_named(key, value, says):
    genotype = SPACE.genotype(SPACE.reference)
    if value is None:
        del genotype["stages"][2][key]
    else:
        genotype["stages"][2][key] = value
    with pytest.raises(UsageError, match=says) as caught:
        SPACE.parse(json.dumps(genotype))
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200) | st.from_regex(r"[0-7]{33}", fullmatch=True) | st.from_regex(r"\{.{0,80}\}"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert SPACE.is_valid(SPACE.parse(text))
    except UsageError as error:
        assert "\n" not in str(error)


def test_layers_skipped_are_a_stage_s_last_and_never_its_first():
    good = SPACE.reference
    assert depths(good) == [2, 3, 4, 3, 3, 1]
    assert SPACE.is_valid(changed(good, s3=SKIP))
    assert not SPACE.is_valid(changed(good, s2=SKIP, s3=SKIP))
    assert not SPACE.is_valid(changed(good, s5=0)), "after a layer that is skipped"
    assert not SPACE.is_valid(changed(good, s32=SKIP)), "the last stage has one layer"
    assert not SPACE.is_valid(changed(good, s0=3))


def test_samples_have_every_depth_as_often_and_so_does_the_start_of_a_search():
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    logits = SPACE.initial_logits()
    for draw in (
        lambda: SPACE.sample(rng),
        lambda: SPACE.decode(SPACE.relax(logits, generator)),
    ):
        drawn = [depths(draw())[:5] for _ in range(400)]
        counts = Counter(depth for one in drawn for depth in one)
        assert set(counts) == {1, 2, 3, 4}
        assert all(abs(count / 2000 - 0.25) < 0.04 for count in counts.values())


def test_probabilities_of_a_stage_add_up_to_one():
    """Over all 1554 ways that a stage of four layers can be."""
    log = SPACE.masked(randomly(1, 2).double()).log_softmax(1)[list(STAGES[4].layer_slots)]
    ways = [
        [*operations, *[SKIP] * (4 - depth)]
        for depth in range(1, 5)
        for operations in np.ndindex(*[6] * depth)
    ]
    assert len(ways) == 1554 and all(map(distribution.ordered, ways))
    assert sum(float(distribution.log_prob(way, log).exp()) for way in ways) == pytest.approx(1)


def test_stages_and_slots_are_drawn_independently():
    logits = randomly(2).double()
    log, slot = SPACE.masked(logits).log_softmax(1), STAGES[1].layer_slots[0]
    for changes in ({f"s{STAGES[1].width_slot}": 2}, {f"s{slot}": 5}):
        other, (at,) = changed(SPACE.reference, **changes), changes
        difference = SPACE.log_prob(other, logits) - SPACE.log_prob(SPACE.reference, logits)
        row = log[int(at[1:])]
        expected = row[changes[at]] - row[SPACE.reference.choices[int(at[1:])]]
        assert float(difference) == pytest.approx(float(expected))


@given(seed=seeds, strength=st.floats(0, 6))
@settings(max_examples=30, deadline=None)
def test_the_most_likely_is_likelier_than_all_around_it_and_than_samples(seed, strength):
    logits = randomly(seed, strength)
    best = SPACE.most_likely(logits)
    assert SPACE.is_valid(best)
    others = [*SPACE.neighbours(best), *(sampled([seed, number]) for number in range(5))]
    likely = float(SPACE.log_prob(best, logits))
    assert all(float(SPACE.log_prob(other, logits)) <= likely + 1e-4 for other in others)


@given(seed=seeds, strength=st.floats(0, 200), names=names_left_out)
@settings(max_examples=60, deadline=None)
def test_what_a_slot_has_not_or_was_left_out_is_never_drawn(seed, strength, names):
    """Not even where the search has come to like it above all; and gradients stay finite."""
    space = SPACE.without(frozenset(names))
    logits = randomly(seed)
    for slot, options in enumerate(space.options):
        logits[slot, len(options) :] += strength
        for choice, name in enumerate(options):
            logits[slot, choice] += strength * (name in names)
    logits.requires_grad_()
    gates = space.relax(logits, torch.Generator().manual_seed(seed))
    drawn = space.decode(gates.detach())
    assert torch.equal(gates.detach(), space.encode(drawn)) and space.allows(drawn)
    (gates * randomly(seed + 1)).sum().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    for slot, options in enumerate(space.options):
        assert not logits.grad[slot, len(options) :].any()
    assert torch.isfinite(space.log_prob(drawn, logits.detach()))
    for one in (space.most_likely(logits.detach()), sampled(seed, space), *space.neighbours(drawn)):
        assert space.allows(one)


def test_what_is_no_architecture_has_no_probability():
    wrong = changed(SPACE.reference, s5=0)
    assert SPACE.log_prob(wrong, torch.zeros(33, 7)) == -torch.inf
    with pytest.raises(UsageError, match="layers skipped are a stage's last"):
        SPACE.network(wrong, SMALL)


def test_neighbours_are_all_that_differ_in_one_slot():
    around = {other.choices for other in SPACE.neighbours(SPACE.reference)}
    every = {
        one.choices
        for slot in range(33)
        for choice in range(7)
        if SPACE.is_valid(one := changed(SPACE.reference, **{f"s{slot}": choice}))
    }
    assert around == every - {SPACE.reference.choices}


def test_something_must_be_left_of_every_slot():
    with pytest.raises(UsageError, match="slot 0 has only narrow, medium, wide; leave one of them"):
        SPACE.without(frozenset(WIDTH_NAMES))
    with pytest.raises(UsageError, match="no choice 'mbconv_e3_k4'; did you mean 'mbconv_e3_k"):
        SPACE.without(frozenset({"mbconv_e3_k4"}))
    deepest = SPACE.without(frozenset({"skip"}))
    assert (
        depths(sampled(0, deepest)) == depths(deepest.most_likely(deepest.initial_logits())) == [4] * 5 + [1]
    )


@pytest.mark.parametrize(
    ("image", "stem"),
    [((1, 8, 8), "cifar"), ((3, 15, 17), "cifar"), ((3, 32, 32), "cifar"), ((3, 32, 50), "imagenet")],
)
def test_networks_run_at_every_size_with_the_auxiliary_head_and_drop_path(image, stem):
    shape = NetworkShape(4, LAYERS, image, 7, stem)
    network = SPACE.network(SPACE.reference, shape, auxiliary=True)
    network.drop_path = 0.5
    logits, auxiliary = network(torch.randn(2, *image))
    assert logits.shape == auxiliary.shape == (2, 7)
    assert network.eval()(torch.randn(2, *image)).shape == (2, 7)
    stages = SPACE.cells(SPACE.reference, shape)
    for stage, after in pairwise(stages):
        (fed,), (wanted,) = stage.inputs, after.inputs
        assert stage.module.eval()(torch.randn(1, *fed)).shape == (1, *wanted)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (NetworkShape(8, LAYERS, (1, 6, 8), 10), "images of 6x8: with the cifar stem .* at least 8"),
        (NetworkShape(8, LAYERS, (3, 31, 40), 10, "imagenet"), "at least 32; set image_size"),
        (NetworkShape(7, LAYERS, (3, 32, 32), 10), "7 channels: the mobile space needs an even number"),
        (NetworkShape(8, 5, (3, 32, 32), 10), "5 cells: .* leave cells out, or set 21"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(shape, says):
    for build in (lambda: SPACE.network(SPACE.reference, shape), lambda: SPACE.supernet(shape)):
        with pytest.raises(UsageError, match=says):
            build()


@pytest.fixture(scope="module")
def costed():
    return Costed(SPACE, SMALL)


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_the_layers_of_the_network(costed, seed):
    """Every one, additions and activations too: of which tables, costs and populations are made."""
    architecture = sampled(seed)
    network = layer_table(SPACE.network(architecture, SMALL), SMALL.image)
    table = costed.table(architecture)
    assert Counter(map(described, table.layers)) == Counter(map(described, network.layers))
    population = costed.workload([SPACE.reference, architecture])
    counts = Counter()
    for layer, count in zip(population.layers, population.counts[1].tolist(), strict=True):
        counts[described(layer)] += count
    assert +counts == Counter(map(described, table.layers))


def described(layer):
    return (layer.operator, layer.cin, layer.cout, layer.h, layer.w, layer.kernel, layer.stride, layer.groups)


@pytest.mark.slow
def test_facts_know_the_work_of_every_network_and_its_gradient():
    facts = facts_of(SPACE, SMALL)
    drawn = [sampled(seed) for seed in range(3)]
    gates = SPACE.encode_all(drawn).double().requires_grad_()
    total = facts.total(gates, MACS)
    for one, macs in zip(drawn, total.tolist(), strict=True):
        assert macs == layer_table(SPACE.network(one, SMALL), SMALL.image).macs
    (gradient,) = torch.autograd.grad(total.sum(), gates)
    for stage in STAGES:
        narrow, medium, wide = gradient[0, stage.width_slot, :3].tolist()
        assert 0 < narrow < medium < wide, "a wider stage is more work"
    for features in (whole(gates, facts), effective(gates, facts)):
        widths = {stage.width_slot for stage in STAGES}
        (slope,) = torch.autograd.grad(features.values.sum(), gates, retain_graph=True)
        assert all(slope[:, slot].any() for slot in widths), "a predictor sees the widths"


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_a_network_at_224_pixels_is_exported_and_agrees_with_its_file(target, tmp_path):
    """With all that a network can have: every kernel, squeeze-and-excitation, narrow stages and wide."""
    shape = NetworkShape(8, LAYERS, (3, 224, 224), 20, "imagenet")
    torch.manual_seed(0)
    network = SPACE.network(SPACE.parse("214356013266115666204166100366215"), shape)
    with torch.no_grad():
        network(torch.randn(4, *shape.image))  # statistics that are not the initial ones
    network.eval()
    images = np.random.default_rng(0).standard_normal((4, *shape.image)).astype(np.float32)
    exporter = find_exporter(target)
    artifact = exporter.export(network, shape.image, tmp_path / f"net{exporter.suffix}", None, images)
    artifact.manifest.parity = check_parity(artifact, Reference(network, images), exporter.tolerance)
    require_parity(artifact)
