"""Training and search steps: numbers by hand, exact resume, and failures that keep what was saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.errors import EhdnasError
from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.averaging import Average
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.search.compute import CPU, Compute, find_compute
from ehdnas.search.memory import batch_that_fits
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.selection import supernet_accuracy
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.targets import Mixing, Targets
from ehdnas.search.trainer import Trainer, TrainTask, logits_of

SPACE, SHAPE = DartsSpace(), NetworkShape(2, 3, (3, 8, 8), 4)
AUGMENTATION = Augmentation.for_size(8, True, (0.5,) * 3, (0.25,) * 3)
BF16 = find_compute("cpu", "bfloat16")
RECIPE = recipe_for("cifar10").model_copy(
    update={"search_epochs": 2, "train_epochs": 2, "batch_size": 8, "train_batch_size": 8}
)


def images(count=24, seed=0):
    rng = np.random.default_rng(seed)
    return Split(
        rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, count).astype(np.int64)
    )


def trainer(path, compute=CPU, save_every_s=0.0, **recipe):
    torch.manual_seed(0)
    network = SPACE.network(SPACE.reference, SHAPE, auxiliary=True)
    own = RECIPE.model_copy(update=recipe)
    task = TrainTask(network, images(), AUGMENTATION, own, 7, save_every_s, {"a": 1}, compute)
    return Trainer(task, path)


def searcher(path, compute=CPU, **recipe):
    own = RECIPE.model_copy(update=recipe)
    task = SearchTask(
        SPACE, SHAPE, images(), images(seed=1), AUGMENTATION, own, [None], 7, 0.0, {"a": 1}, compute
    )
    return Searcher(task, path)


class StoppedError(Exception):
    pass


def stop_after(steps):
    """A progress that ends the run as a kill would, so many steps having been saved."""

    def progress(done, total, text):
        if done > steps:
            raise StoppedError

    return progress


def ignore(done, total, text):
    pass


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_bfloat16_training_is_finite_and_keeps_float32_weights(tmp_path):
    found = trainer(tmp_path / "c", BF16)
    history = found.run(ignore)
    assert all(np.isfinite(record["loss"]) for record in history)
    assert {value.dtype for value in found.trained_state().values()} == {torch.float32, torch.int64}


def test_a_bfloat16_search_is_finite_and_moves_the_distribution(tmp_path):
    found = searcher(tmp_path / "c", BF16)
    result = found.run(ignore)
    assert all(np.isfinite(record["loss"]) for record in result.history)
    assert np.isfinite(result.history[-1]["architecture_loss"])
    assert float(result.logits.abs().sum()) > 0
    split = images()
    accuracy = supernet_accuracy(
        SPACE, result.supernet, SPACE.reference, torch.from_numpy(split.images),
        torch.from_numpy(split.labels), AUGMENTATION, BF16,
    )  # fmt: skip
    assert 0 <= accuracy <= 1
    assert accuracy * 24 == pytest.approx(round(accuracy * 24))


def test_the_average_follows_the_weights_by_its_formula():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = Average(network, decay=0.25)
    network.weight.data.fill_(2.0)
    average.update(0)  # d = 1/10
    assert average.state()["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    network.weight.data.fill_(4.0)
    average.update(100)  # d = decay
    assert average.state()["weight"].item() == pytest.approx(0.25 * 1.9 + 0.75 * 4)


def test_what_was_trained_is_the_average_where_one_is_taken(tmp_path):
    found = trainer(tmp_path / "c", ema=0.9)
    found.run(ignore)
    own, averaged = found.network.state_dict(), found.trained_state()
    assert own.keys() == averaged.keys()
    assert not torch.equal(own["classifier.weight"], averaged["classifier.weight"])
    assert not torch.equal(own["stems.0.1.running_mean"], averaged["stems.0.1.running_mean"])
    plain = trainer(tmp_path / "d")
    plain.run(ignore)
    assert same(plain.trained_state(), own), "the average must not change the training"


def test_smoothed_and_mixed_targets_are_what_a_hand_gets():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    logs = logits.log_softmax(1)
    smoothed = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    expected = -(logs * smoothed).sum(1).mean()
    assert torch.allclose(Targets(torch.tensor([0, 1])).loss(logits, smoothing=0.3), expected)
    half = Targets(torch.tensor([0, 1]), torch.tensor([2, 0]), 0.75)
    mixed_target = torch.tensor([[0.75, 0.0, 0.25], [0.25, 0.75, 0.0]])
    assert torch.allclose(half.loss(logits), -(logs * mixed_target).sum(1).mean())
    assert half.accuracy(logits).item() == 1.0
    assert replace(half, share=0.25).accuracy(logits).item() == 0.0


def test_mixup_mixes_images_in_pairs_by_one_share():
    batch, labels = torch.randn(6, 3, 4, 4), torch.arange(6)
    same_batch, targets = Mixing.draw(6, 0.0, seed=1).apply(batch, labels)
    assert same_batch is batch and targets.others is None
    blended, targets = Mixing.draw(6, 0.4, seed=1).apply(batch, labels)
    rng = np.random.default_rng(1)
    share, partners = rng.beta(0.4, 0.4), torch.from_numpy(rng.permutation(6))
    assert targets.share == share
    assert torch.equal(targets.others, partners)
    assert torch.allclose(blended, share * batch + (1 - share) * batch[partners], atol=1e-6)


def test_a_part_of_a_batch_is_mixed_as_the_whole():
    batch, labels = torch.randn(6, 3, 4, 4), torch.arange(6)
    drawn = Mixing.draw(6, 0.4, seed=1)
    whole, targets = drawn.apply(batch, labels)
    needed, mixing = drawn.among(slice(2, 4))
    part, own = mixing.apply(batch[needed], labels[needed])
    assert len(needed) <= 4
    assert torch.equal(part, whole[2:4])
    assert torch.equal(own.labels, labels[2:4]) and torch.equal(own.others, targets.others[2:4])


def test_all_options_together_train(tmp_path):
    history = trainer(tmp_path / "c", ema=0.9, mixup=0.2, label_smoothing=0.1).run(ignore)
    assert len(history) == 2 and all(np.isfinite(record["loss"]) for record in history)


@pytest.mark.parametrize("after", [1, 4])
def test_a_stopped_training_with_an_average_ends_in_the_same_weights(tmp_path, after):
    options = {"ema": 0.9, "mixup": 0.2}
    whole = trainer(tmp_path / "whole", **options)
    history = whole.run(ignore)
    with pytest.raises(StoppedError):
        trainer(tmp_path / "cut", **options).run(stop_after(after))
    resumed = trainer(tmp_path / "cut", **options)
    assert resumed.loop.resume() == after
    assert resumed.run(ignore) == history
    assert same(resumed.trained_state(), whole.trained_state())
    assert same(resumed.network.state_dict(), whole.network.state_dict())


def test_a_stopped_search_ends_in_the_same_distribution(tmp_path):
    whole = searcher(tmp_path / "whole").run(ignore)
    with pytest.raises(StoppedError):
        searcher(tmp_path / "cut").run(stop_after(4))
    resumed = searcher(tmp_path / "cut")
    assert resumed.resume() == 4
    result = resumed.run(ignore)
    assert torch.equal(result.logits, whole.logits)
    assert result.history == whole.history


def test_figures_read_now_and_then_are_those_read_every_step(tmp_path):
    often, seldom = trainer(tmp_path / "a"), trainer(tmp_path / "b", save_every_s=1e9)
    seldom.loop.look_every = 1000
    assert often.run(ignore) == seldom.run(ignore)


def test_a_checkpoint_goes_on_in_other_precision_and_layout(tmp_path):
    with pytest.raises(StoppedError):
        trainer(tmp_path / "c", BF16, ema=0.9).run(stop_after(3))
    tensors, _ = load_checkpoint(tmp_path / "c")
    assert all(value.device.type == "cpu" for value in tensors.values())
    other = trainer(
        tmp_path / "c", Compute(torch.device("cpu"), memory_format=torch.contiguous_format), ema=0.9
    )
    assert other.loop.resume() == 3
    assert len(other.run(ignore)) == 2


def test_a_gradient_that_is_no_number_stops_before_it_is_saved(tmp_path, monkeypatch):
    found = trainer(tmp_path / "c")
    step = found.step

    def spoiled(epoch, at):
        figures, gradient = step(epoch, at)
        return figures, gradient * float("nan") if (epoch, at) == (1, 1) else gradient

    monkeypatch.setattr(found, "step", spoiled)
    with pytest.raises(EhdnasError, match="training loss became nan in epoch 1, step 1"):
        found.run(ignore)
    tensors, meta = load_checkpoint(tmp_path / "c")
    assert meta["done"] == 4
    assert all(value.isfinite().all() for value in tensors.values())


def test_a_distribution_that_is_no_number_stops_before_it_is_sampled(tmp_path):
    found = searcher(tmp_path / "c")
    found.supernet.body.classifier.weight.data.fill_(torch.nan)
    with pytest.raises(EhdnasError, match="search loss became nan in epoch 0, step 0"):
        found.architecture_step(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))
    assert found.logits.isfinite().all()


def as_a_gpu_says():
    raise torch.OutOfMemoryError("CUDA out of memory")


def as_the_cpu_says():
    torch.empty(1 << 50, dtype=torch.uint8)


@pytest.mark.parametrize("too_much", [as_a_gpu_says, as_the_cpu_says])
@pytest.mark.parametrize("make", [trainer, searcher])
def test_out_of_memory_names_a_batch_that_fits(tmp_path, monkeypatch, make, too_much):
    found = make(tmp_path / "c")
    module = found.network if make is trainer else found.supernet
    forward = module.forward

    def small(batch, *gates):
        if len(batch) > 2:
            too_much()
        return forward(batch, *gates)

    monkeypatch.setattr(module, "forward", small)
    message = (
        "a batch of 8 does not fit into the memory of cpu; --batch-size 2 fits, and so does --micro-batches 4"
    )
    with pytest.raises(EhdnasError, match=message):
        found.run(ignore)
    assert found.loop.done == 0


def test_the_batch_that_fits_is_a_power_of_two_below():
    tried = []

    def attempt(size):
        tried.append(size)
        if size > 20:
            raise torch.OutOfMemoryError

    assert batch_that_fits(attempt, 96, CPU) == 16
    assert tried == [64, 32, 16]
    assert batch_that_fits(lambda size: attempt(100), 4, CPU) is None


def test_logits_come_back_to_the_cpu_in_any_batch(tmp_path):
    network = SPACE.network(SPACE.reference, SHAPE)
    batch = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    whole = logits_of(network, batch)
    assert np.allclose(whole, logits_of(network, batch, batch=2), atol=1e-5)
    assert not network.training
    assert F.softmax(torch.from_numpy(whole), 1).shape == (5, 4)
