import json
import subprocess
import sys

import numpy as np
import pytest

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.images import Dataset, Split, load_data, normalise
from ehdnas.core.images.dataset import make_dataset
from ehdnas.core.images.split import stratified_split


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", seed=0)


def made(images: np.ndarray, labels: list[int], classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    part = Split(images, np.array(labels, np.int64))
    return make_dataset("made", classes, part, part, (), "made", {"train": [], "test": []})


def test_digits_are_scikit_learns_own(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert digits.image_shape == (1, 8, 8)
    assert digits.num_classes == 10
    assert len(digits.train) + len(digits.test) == 1797
    for part, indices in ((digits.train, digits.split["train"]), (digits.test, digits.split["test"])):
        assert np.array_equal(part.labels, bunch.target[indices])
        assert np.array_equal(np.rint(part.images[..., 0] / 255 * 16), bunch.images[indices])
    assert digits.train.images.max() == 255


def test_digits_split_is_disjoint_complete_and_stratified(digits):
    train, test = digits.split["train"], digits.split["test"]
    assert sorted(train + test) == list(range(1797))
    share = np.bincount(digits.test.labels) / np.bincount(np.r_[digits.train.labels, digits.test.labels])
    assert np.all(np.abs(share - 0.2) < 0.01)


def test_same_seed_same_split_other_seed_another(digits):
    again, other = load_data("digits", seed=0), load_data("digits", seed=1)
    assert again.split == digits.split
    assert again.fingerprint() == digits.fingerprint()
    assert other.split != digits.split
    assert other.fingerprint() != digits.fingerprint()


def test_halves_share_nothing_and_cover_the_training_images(digits):
    weights, architecture = digits.halves(seed=3)
    assert len(weights) + len(architecture) == len(digits.train)
    difference = np.bincount(weights.labels) - np.bincount(architecture.labels)
    assert set(difference) <= {0, 1}
    whole = sorted(image.tobytes() for image in digits.train.images)
    halves = sorted(image.tobytes() for half in (weights, architecture) for image in half.images)
    assert halves == whole
    again, _ = digits.halves(seed=3)
    other, _ = digits.halves(seed=4)
    assert np.array_equal(again.images, weights.images)
    assert not np.array_equal(other.images, weights.images)


def test_halves_need_two_images_a_class():
    data = made(np.zeros((3, 8, 8, 1), np.uint8), [0, 0, 1])
    with pytest.raises(DataError, match="class 'b' has 1 training images"):
        data.halves(0)


@pytest.mark.parametrize("second", [0.2, 0.5])
def test_small_classes_appear_on_both_sides(second):
    labels = np.array([0, 0, 1, 1, 1, 2, 2], np.int64)
    first, other = stratified_split(labels, second, seed=0)
    assert set(labels[first]) == set(labels[other]) == {0, 1, 2}
    assert sorted([*first, *other]) == list(range(7))


def test_fingerprint_sees_one_pixel_one_label_and_one_name():
    images = np.zeros((4, 8, 8, 1), np.uint8)
    base = made(images, [0, 0, 1, 1]).fingerprint()
    changed = images.copy()
    changed[2, 3, 4, 0] = 1
    assert made(images.copy(), [0, 0, 1, 1]).fingerprint() == base
    assert made(changed, [0, 0, 1, 1]).fingerprint() != base
    assert made(images, [0, 1, 1, 1]).fingerprint() != base
    assert made(images, [0, 0, 1, 1], ("a", "c")).fingerprint() != base


def test_split_record_is_json(digits):
    record = json.loads(json.dumps(digits.split_record()))
    assert record["source"] == "digits"
    assert record["sha256"] == digits.fingerprint()
    assert record["test"] == digits.split["test"]


def test_normalise_gives_zero_mean_and_unit_deviation(digits):
    batch = normalise(digits.train.images, digits.mean, digits.std)
    assert batch.dtype == np.float32
    assert batch.shape == (len(digits.train), 1, 8, 8)
    assert abs(batch.mean()) < 1e-4
    assert abs(batch.std() - 1) < 1e-4


def test_statistics_are_per_channel_and_never_divide_by_zero():
    images = np.zeros((300, 8, 8, 3), np.uint8)
    images[..., 1] = 255
    images[::2, ..., 2] = 51
    data = made(images, [0, 1] * 150)
    assert data.mean == pytest.approx((0.0, 1.0, 0.1))
    assert data.std == pytest.approx((1 / 255, 1 / 255, 0.1))
    assert np.isfinite(normalise(images, data.mean, data.std)).all()


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("cifar", "did you mean 'cifar10'"),
        ("cifar10", "write cifar10:PATH"),
        ("cifar10:", "write cifar10:PATH"),
        ("images", "write images:PATH"),
        ("folder:/x", "images:PATH"),
        ("digits:/x", "takes no path"),
        ("/home/me/photos", "images:PATH"),
        ("", "images:PATH"),
    ],
)
def test_mistyped_specs_say_what_is_meant(spec, hint):
    with pytest.raises(UsageError, match=hint):
        load_data(spec, seed=0)


@pytest.mark.parametrize(
    ("spec", "size"), [("digits", 32), ("cifar10:/x", 16), ("images:/x", 7), ("images:/x", 1025)]
)
def test_sizes_that_cannot_be_are_refused(spec, size):
    with pytest.raises(UsageError, match=str(size)):
        load_data(spec, seed=0, size=size)


@pytest.mark.parametrize("kind", ["cifar10", "images"])
def test_nothing_at_the_path(kind, tmp_path):
    with pytest.raises(DataError, match=r"nothing at .*/absent; check the path"):
        load_data(f"{kind}:{tmp_path}/absent", seed=0)


def test_import_stays_light():
    code = "import sys, ehdnas.core.images; print({'torch', 'sklearn', 'PIL'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
