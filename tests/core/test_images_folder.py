import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ehdnas.core.errors import DataError
from ehdnas.core.images import Dataset, load_data

CLASSES = ("bird", "cat", "dog")


@pytest.fixture(scope="session")
def pixels(cifar_dir) -> np.ndarray:
    """Real CIFAR-10 images, uint8 [36, 32, 32, 3]."""
    return load_data(f"cifar10:{cifar_dir}", seed=0).test.images[:36]


@pytest.fixture
def photos(pixels, tmp_path) -> Path:
    """Three classes of twelve real images each, as PNG."""
    root = tmp_path / "photos"
    for index, image in enumerate(pixels):
        folder = root / CLASSES[index // 12]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    return root


def load(root: Path, seed: int = 0, size: int | None = None) -> Dataset:
    return load_data(f"images:{root}", seed, size)


def only(root: Path, image: Image.Image, name: str = "x.png", **options) -> np.ndarray:
    """Decode one image: the only one of its class in train/, so its place is known."""
    for part in ("train", "val"):
        for folder in "ab":
            (root / part / folder).mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (32, 32)).save(root / part / folder / f"{index}.png")
    image.save(root / "train" / "a" / name, **options)
    data = load(root, size=32)
    return data.train.images[data.split["train"].index(f"train/a/{name}")]


def test_png_round_trip_and_stratified_split(photos, pixels):
    data = load(photos)
    assert data.classes == CLASSES
    assert data.name == "photos"
    assert data.image_shape == (3, 32, 32)
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    names = data.split["train"] + data.split["test"]
    assert sorted(names) == [f"{CLASSES[i // 12]}/{i:02}.png" for i in range(36)]
    for part, key in ((data.train, "train"), (data.test, "test")):
        places = [int(Path(name).stem) for name in data.split[key]]
        assert np.array_equal(part.images, pixels[places])
        assert part.labels.tolist() == [place // 12 for place in places]
    assert "every class has 10 training images" in data.notes
    assert "size 32 chosen by the median shorter side of 32 pixels" in data.notes


def test_seed_fixes_the_split(photos):
    assert load(photos, seed=5).split == load(photos, seed=5).split
    assert load(photos, seed=5).split != load(photos, seed=6).split


def test_jpeg_is_close_to_what_was_saved(tmp_path, pixels):
    decoded = only(tmp_path, Image.fromarray(pixels[0]), "x.jpg", quality=95)
    assert 0 < np.abs(decoded.astype(int) - pixels[0]).mean() < 6


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_train_and_val_or_test_are_taken_as_they_are(photos, tmp_path, held_out):
    root = tmp_path / "parted"
    for part, keep in (("train", range(8)), (held_out, range(8, 12))):
        for number, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for index in keep:
                file = f"{number * 12 + index:02}.png"
                (root / part / name / file).write_bytes((photos / name / file).read_bytes())
    data = load(root)
    assert (len(data.train), len(data.test)) == (24, 12)
    assert all(name.startswith("train/") for name in data.split["train"])
    assert all(name.startswith(f"{held_out}/") for name in data.split["test"])
    (root / held_out / "dog").rename(root / held_out / "wolf")
    with pytest.raises(DataError, match="class 'dog' is in only one of"):
        load(root)


@pytest.mark.parametrize(("side", "expected"), [(20, 32), (50, 64), (170, 224)])
def test_default_size_follows_the_images(tmp_path, side, expected):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (side, 2 * side), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    assert load(tmp_path).image_shape == (3, expected, expected)


def test_shorter_side_is_resized_and_the_centre_kept(tmp_path):
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = (10, 200, 30)
    decoded = only(tmp_path, Image.fromarray(wide))
    assert (decoded[:, 1:-1] == (10, 200, 30)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    upright = Image.new("RGB", (32, 32), "red")
    upright.paste("blue", (0, 0, 16, 16))
    upright.paste("lime", (16, 0, 32, 16))
    # What a camera held that way stores: the inverse of what a viewer has to do.
    turn = Image.Transpose
    stored = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE}
    stored |= {6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = upright.transpose(stored[orientation]) if orientation > 1 else upright
    assert np.array_equal(only(tmp_path, image, exif=exif), np.asarray(upright))


def test_cmyk_becomes_rgb(tmp_path):
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    red = only(tmp_path, cmyk, "x.jpg", quality=95)
    assert np.abs(red.astype(int) - (255, 0, 0)).max() < 12


def test_grey_palette_alpha_and_16_bits(tmp_path):
    assert (only(tmp_path / "l", Image.new("L", (32, 32), 77)) == 77).all()
    assert (only(tmp_path / "1", Image.new("1", (32, 32), 1)) == 255).all()
    assert (only(tmp_path / "16", Image.fromarray(np.full((32, 32), 77 << 8, np.uint16))) == 77).all()
    assert (only(tmp_path / "a", Image.new("RGBA", (32, 32), (9, 9, 9, 0))) == 255).all()
    palette = Image.new("RGB", (32, 32), (10, 20, 30)).quantize(4)
    assert (only(tmp_path / "p", palette) == (10, 20, 30)).all()
    assert (only(tmp_path / "t", palette, transparency=bytes([0, 255, 255, 255])) == 255).all()


def test_32_bit_images_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x.tiff has 32 bits a pixel"):
        only(tmp_path, Image.new("F", (32, 32), 0.5), "x.tiff")


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("side", [8001, 10_000, 60_000])
def test_gigantic_images_are_refused_by_their_header(photos, side, size):
    # Header and no pixels: were it decoded at all, the message would be another.
    (photos / "cat" / "12.png").write_bytes(png_header(side, side) + bytes(4) + b"IDAT" + bytes(4))
    with pytest.raises(DataError, match=r"cat/12.png has over 64 million pixels; shrink or remove it"):
        load(photos, size=size)


def test_undecodable_and_truncated_images_are_named(photos):
    victim = photos / "dog" / "30.png"
    whole = victim.read_bytes()
    for damaged in (b"this is text", b"", whole[: len(whole) // 2], whole[:40], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        victim.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"dog/30.png does not decode \(.*\); replace or remove it"
        ) as caught:
            load(photos)
        assert "\n" not in str(caught.value)
    jpeg = photos / "dog" / "31.jpg"
    Image.open(photos / "cat" / "15.png").resize((200, 200)).save(jpeg)
    victim.write_bytes(whole)
    assert len(load(photos).train) > 0
    jpeg.write_bytes(jpeg.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"dog/31.jpg does not decode .*truncated"):
        load(photos, size=32)


def test_what_is_passed_over_is_counted(photos, tmp_path):
    outside = tmp_path / "outside.png"
    Image.new("RGB", (32, 32)).save(outside)
    (photos / "cat" / "linked.png").symlink_to(outside)
    (photos / "elsewhere").symlink_to(tmp_path)
    (photos / "dog" / "loop").symlink_to(photos)
    (photos / "bird" / "inside.png").symlink_to(photos / "cat" / "12.png")
    (photos / "cat" / ".DS_Store").write_bytes(b"x")
    (photos / ".cache").mkdir()
    (photos / "cat" / "labels.txt").write_text("x")
    data = load(photos)
    assert data.classes == CLASSES
    assert len(data.train) + len(data.test) == 37
    assert "skipped: 2 hidden, 3 links to folders or to files elsewhere, 1 not images" in data.notes


def test_imbalance_is_noted(photos):
    for index in range(12, 20):
        (photos / "cat" / f"{index}.png").unlink()
    assert "training images a class: 3 (cat) to 10 (bird), 8 on average" in load(photos).notes[-1]


def test_too_few_classes_or_images(photos, tmp_path):
    with pytest.raises(DataError, match="has 0 class folders"):
        load(photos / "cat")
    with pytest.raises(DataError, match="is not a folder"):
        load(photos / "cat" / "12.png")
    (photos / "lone").mkdir()
    Image.new("RGB", (32, 32)).save(photos / "lone" / "1.png")
    with pytest.raises(DataError, match="photos/lone has 1 images; put 2 or more there"):
        load(photos)


def test_more_than_half_of_the_memory_is_refused_before_decoding(photos, monkeypatch):
    monkeypatch.setattr("ehdnas.core.images.folder._machine_bytes", lambda: 200_000)
    monkeypatch.setattr("ehdnas.core.images.folder.decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"36 images at 32x32 need 0.0 GB, over half of this machine's"):
        load(photos)
