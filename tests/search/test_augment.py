import numpy as np
import pytest
import torch

from ehdnas.core.images import load_data, normalise
from ehdnas.search.augment import Augmentation, to_batch

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


@pytest.fixture(scope="module")
def images(cifar_dir) -> torch.Tensor:
    return torch.from_numpy(load_data(f"cifar10:{cifar_dir}", seed=0).test.images[:64])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw(pad: int = 0, flip: bool = False, cutout: int = 0) -> Augmentation:
    """An augmentation whose output is the pixel value itself."""
    return Augmentation(pad, flip, cutout, (0.0,) * 3, (1 / 255,) * 3)


def test_to_batch_agrees_with_numpy(images):
    batch = to_batch(images, MEAN, STD)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(batch.numpy(), normalise(images.numpy(), MEAN, STD), atol=1e-5)
    assert torch.equal(raw(4, True, 16).evaluate(images), to_batch(images, (0.0,) * 3, (1 / 255,) * 3))


def test_the_usual_figures_scale_with_the_size():
    assert Augmentation.for_size(32, True, MEAN, STD) == Augmentation(4, True, 16, MEAN, STD)
    assert Augmentation.for_size(8, False, (0.3,), (0.4,)) == Augmentation(1, False, 4, (0.3,), (0.4,))


def test_the_generator_decides_everything(images):
    augment = Augmentation.for_size(32, True, MEAN, STD)
    state = torch.get_rng_state()
    first, again, other = augment(images, seeded(1)), augment(images, seeded(1)), augment(images, seeded(2))
    assert first.shape == (64, 3, 32, 32)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_input_is_left_alone(images):
    before = images.clone()
    Augmentation.for_size(32, True, MEAN, STD)(images, seeded())
    assert torch.equal(images, before)


def test_every_crop_is_a_shift_with_black_around_it(images):
    shifts = set()
    padded = torch.nn.functional.pad(images, (0, 0, 4, 4, 4, 4)).permute(0, 3, 1, 2).float()
    for image, crop in zip(padded, raw(pad=4)(images, seeded()), strict=True):
        places = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if torch.allclose(image[:, y : y + 32, x : x + 32], crop)
        ]
        assert places
        shifts.add(places[0])
    assert len(shifts) > 20


def test_flip_mirrors_about_half_of_the_images(images):
    flipped = raw(flip=True)(images, seeded())
    plain = raw()(images, seeded())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, plain, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48
    assert torch.equal(raw(flip=False)(images, seeded()), plain)


def test_cutout_zeroes_one_square_after_normalisation():
    grey = torch.full((64, 32, 32, 3), 200, dtype=torch.uint8)
    batch = Augmentation(0, False, 16, MEAN, STD)(grey, seeded())
    holes = (batch == 0).all(dim=1)
    assert torch.equal((batch == 0).any(dim=1), holes)
    areas = holes.sum(dim=(1, 2))
    assert areas.max() <= 16 * 16
    assert areas.min() >= 8 * 8  # centred on a corner, a quarter is left
    for hole in holes:
        rows, columns = hole.any(dim=1), hole.any(dim=0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])
        assert 8 <= rows.sum() <= 16
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) > 40


def test_one_channel_and_other_shapes():
    digits = torch.randint(0, 256, (5, 8, 8, 1), dtype=torch.uint8, generator=seeded())
    batch = Augmentation.for_size(8, False, (0.3,), (0.4,))(digits, seeded())
    assert batch.shape == (5, 1, 8, 8)
    wide = torch.zeros(2, 10, 20, 3, dtype=torch.uint8)
    assert raw(pad=2, flip=True, cutout=4)(wide, seeded()).shape == (2, 3, 10, 20)
