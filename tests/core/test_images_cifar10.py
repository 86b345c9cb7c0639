import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import DataError
from ehdnas.core.images import load_data

TRAIN = ("data_batch_1", "data_batch_2")
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="session")
def real(cifar_dir) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Three small batches of real images, as (rows, labels) by file name."""
    with (cifar_dir / "test_batch").open("rb") as stream:
        batch = pickle.load(stream)
    return {
        name: (batch[b"data"][start : start + 40].copy(), batch[b"labels"][start : start + 40])
        for name, start in (("data_batch_1", 0), ("data_batch_2", 40), ("test_batch", 80))
    }


def python_bytes(rows: np.ndarray, labels: list[int], protocol: int = 2) -> bytes:
    return pickle.dumps({b"data": rows, b"labels": labels}, protocol=protocol)


def python2_bytes(rows: np.ndarray, labels: list[int]) -> bytes:
    """The bytes that Python 2's cPickle wrote for the published files, opcode for opcode."""
    count = len(labels).to_bytes(2, "little")
    size = rows.size.to_bytes(4, "little")
    return b"".join(
        [
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(",
            *(b"K" + bytes([label]) for label in labels),
            b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t",
            b"(K\x01M" + count + b"M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + size + rows.tobytes() + b"tb",
            b"U\tfilenamesq\x0c]q\r(U\x0aleptod.pngq\x0eU\x07car.pngq\x0feu.",
        ]
    )


def binary_bytes(rows: np.ndarray, labels: list[int]) -> bytes:
    return np.column_stack([np.array(labels, np.uint8), rows]).tobytes()


def write_python(folder: Path, real, encode=python_bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, labels) in real.items():
        (folder / name).write_bytes(encode(rows, labels))
    return folder


def write_binary(folder: Path, real) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, labels) in real.items():
        (folder / f"{name}.bin").write_bytes(binary_bytes(rows, labels))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def pack(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return target


def load(path: Path):
    return load_data(f"cifar10:{path}", seed=0)


def test_the_real_thing(cifar_dir):
    data = load(cifar_dir.parent)
    with (cifar_dir / "data_batch_1").open("rb") as stream:
        batch = pickle.load(stream)
    assert data.classes == tuple(NAMES)
    assert (len(data.train), len(data.test), data.image_shape) == (10_000, 10_000, (3, 32, 32))
    assert np.array_equal(data.train.images.transpose(0, 3, 1, 2).reshape(-1, 3072), batch[b"data"])
    assert data.train.labels.tolist() == batch[b"labels"]
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    # The published figures of all 50,000 training images.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.005)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.005)
    assert "training batches not there: data_batch_2, data_batch_3, data_batch_4, data_batch_5" in data.notes
    assert data.split == {"train": ["data_batch_1"], "test": ["test_batch"]}


def test_every_layout_gives_the_same_images(real, tmp_path):
    python = write_python(tmp_path / "a" / "cifar-10-batches-py", real)
    binary = write_binary(tmp_path / "b" / "cifar-10-batches-bin", real)
    paths = [python, python.parent, binary, binary.parent]
    paths += [pack(python, tmp_path / "py.tar.gz"), pack(binary, tmp_path / "bin.tar.gz")]
    prints = {load(path).fingerprint() for path in paths}
    assert len(prints) == 1
    data = load(binary)
    assert data.train.labels.tolist() == real["data_batch_1"][1] + real["data_batch_2"][1]
    assert np.array_equal(data.test.images[5, :, :, 2].ravel(), real["test_batch"][0][5, 2048:])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_python_3_pickles(real, tmp_path, protocol):
    folder = write_python(tmp_path, real, lambda rows, labels: python_bytes(rows, labels, protocol))
    assert load(folder).test.labels.tolist() == real["test_batch"][1]


def test_python_2_pickles(real, tmp_path):
    two, three = write_python(tmp_path / "2", real, python2_bytes), write_python(tmp_path / "3", real)
    reread = pickle.loads((two / "test_batch").read_bytes(), encoding="bytes")
    assert np.array_equal(reread[b"data"], real["test_batch"][0])
    assert load(two).fingerprint() == load(three).fingerprint()


def test_fortran_order_keeps_the_pixels(real, tmp_path):
    folder = write_python(tmp_path, real, lambda rows, labels: python_bytes(np.asfortranarray(rows), labels))
    assert np.array_equal(load(folder).test.images[5, :, :, 2].ravel(), real["test_batch"][0][5, 2048:])


def test_class_names_are_read_or_noted(real, tmp_path):
    folder = write_python(tmp_path, real)
    assert "no batches.meta: the usual class names are used" in load(folder).notes
    meta = {b"label_names": [name[::-1].encode() for name in NAMES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    assert load(folder).classes[0] == "enalpria"


def test_missing_batches(real, tmp_path):
    folder = write_python(tmp_path, real)
    (folder / "test_batch").rename(tmp_path / "aside")
    with pytest.raises(DataError, match="has no test_batch; put"):
        load(folder)
    (tmp_path / "aside").rename(folder / "test_batch")
    for name in TRAIN:
        (folder / name).unlink()
    with pytest.raises(DataError, match="has no training batch; put"):
        load(folder)
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*; give the folder"):
        load(folder)


ROWS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        ({b"data": ROWS, b"labels": [0, 10]}, "a label is outside 0..9"),
        ({b"data": ROWS, b"labels": [0, -1]}, "a label is outside 0..9"),
        ({b"data": ROWS, b"labels": [0, True]}, "no list of numbers"),
        ({b"data": ROWS, b"labels": [0]}, "1 labels with images of shape"),
        ({b"data": ROWS[:, :100].copy(), b"labels": [0, 1]}, "images of shape"),
        ({b"data": ROWS.astype(np.float32), b"labels": [0, 1]}, "its pickle wants"),
        ({b"data": ROWS.tobytes(), b"labels": [0, 1]}, "no array of images"),
        ({b"labels": [0, 1]}, "no array of images"),
        ([ROWS, [0, 1]], "holds a list, not a dictionary"),
        ({7: ROWS}, "keys that are not text"),
    ],
)
def test_wrong_content_names_the_file(real, tmp_path, batch, what):
    folder = write_python(tmp_path, real)
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match=what) as caught:
        load(folder)
    assert str(folder / "data_batch_2") in str(caught.value)
    assert "get CIFAR-10 again" in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 60, 5000, -1])
def test_truncated_python_batch(real, tmp_path, cut):
    folder = write_python(tmp_path, real)
    file = folder / "data_batch_1"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"data_batch_1 is damaged: .*; get CIFAR-10 again"):
        load(folder)


def test_damaged_binary_batches(real, tmp_path):
    folder = write_binary(tmp_path, real)
    file = folder / "data_batch_1.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_1.bin is damaged: .*3,073-byte records"):
        load(folder)
    file.write_bytes(b"\x0b" + whole[1:])
    with pytest.raises(DataError, match=r"data_batch_1.bin is damaged: a label is outside"):
        load(folder)
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"data_batch_1.bin is damaged: 0 labels"):
        load(folder)
    file.write_bytes(whole)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"batches.meta.txt is damaged: it has no 10 different class names"):
        load(folder)


def test_damaged_archives(real, tmp_path):
    archive = pack(write_python(tmp_path / "cifar-10-batches-py", real), tmp_path / "c.tar.gz")
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not gzip at all", whole[:3000] + b"\0" * 500 + whole[3500:]):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"c.tar.gz"):
            load(archive)
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        load(archive)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_archives_that_are_bombs_or_repeat_themselves(real, tmp_path, monkeypatch):
    twice, bomb, large = tmp_path / "twice.tar.gz", tmp_path / "bomb.tar.gz", tmp_path / "large.tar.gz"
    with tarfile.open(twice, "w:gz") as archive:
        for folder in "ab":
            add(archive, f"{folder}/data_batch_1", python_bytes(*real["data_batch_1"]))
    with pytest.raises(DataError, match="holds data_batch_1 twice"):
        load(twice)
    monkeypatch.setattr("ehdnas.core.images.cifar10_files.MAX_BYTES", 1_000_000)
    monkeypatch.setattr("ehdnas.core.images.cifar10_files._MAX_UNPACKED", 3_000_000)
    with tarfile.open(bomb, "w:gz") as archive:
        add(archive, "zeros", bytes(4_000_000))
    with pytest.raises(DataError, match=r"bomb.tar.gz unpacks to over 3 MB"):
        load(bomb)
    with tarfile.open(large, "w:gz") as archive:
        add(archive, "data_batch_1", bytes(1_000_001))
    with pytest.raises(DataError, match=r"data_batch_1 in .* is over 1 MB"):
        load(large)


class Command:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(real, tmp_path, protocol):
    folder, marker = write_python(tmp_path / "c", real), tmp_path / "ran"
    payload = pickle.dumps({b"data": Command(marker), b"labels": [0]}, protocol=protocol)
    (folder / "data_batch_1").write_bytes(payload)
    with pytest.raises(DataError, match=r"data_batch_1 is refused: its pickle wants ") as caught:
        load(folder)
    assert protocol < 2 or "the global posix.system" in str(caught.value)
    assert not marker.exists()
    pickle.loads(payload)  # and it would have
    assert marker.exists()


NESTED = b")" + b"q\x00h\x00\x86" * 64  # each tuple holds the one before twice: 2**64 leaves
TEXT = b"X\x40\x42\x0f\x00" + b"a" * 1_000_000
ENCODE = b"c_codecs\nencode\nq\x00" + TEXT + b"q\x01U\x06latin1q\x02\x87"
HOSTILE = {
    "a dictionary with keys that are not text": b"\x80\x02}(" + NESTED + b"K\x01u.",
    "a call of dtype": b"\x80\x02}(cnumpy\ndtype\n" + NESTED + b"R.",
    "a global whose name is not text": b"\x80\x04" + NESTED + b"\x8c\x01a\x93.",
    "it holds a ArrayState": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)Rr\xff\xff\xff\xff.",
    "expected 1099511627776 bytes": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
    "to encode more than 80,000,000": b"\x80\x02"
    + ENCODE
    + b"]("
    + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 99
    + b"e.",
    "the global __builtin__.bytes": b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "the global __builtin__.eval": b"\x80\x02c__builtin__\neval\nU\x011\x85R.",
    "the global numpy.load": b"\x80\x02cnumpy\nload\nU\x01f\x85R.",
    "to set the state of something": b"\x80\x02cnumpy\ndtype\n}U\x01aU\x01bsb.",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("what", "payload"), HOSTILE.items(), ids=HOSTILE)
def test_other_hostile_pickles_end_at_once(real, tmp_path, what, payload):
    folder = write_python(tmp_path, real)
    (folder / "data_batch_1").write_bytes(payload)
    with pytest.raises(DataError, match=rf"data_batch_1 is (refused|damaged): .*{what}"):
        load(folder)


def test_an_array_cannot_ask_for_more_than_its_bytes(real, tmp_path):
    folder = write_python(tmp_path, real, python2_bytes)
    file = folder / "data_batch_1"
    file.write_bytes(file.read_bytes().replace(b"M\x28\x00M\x00\x0c\x86", b"J\xff\xff\xff\x7fM\x00\x0c\x86"))
    with pytest.raises(DataError, match="an array whose shape does not fit"):
        load(folder)


@pytest.fixture(scope="session")
def corruptible(real, tmp_path_factory) -> Path:
    return write_python(tmp_path_factory.mktemp("corruptible"), real)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.one_of(st.integers(0, 250), st.integers(-250, -1), st.integers(0)), st.integers(0, 255)),
        min_size=1,
        max_size=6,
    ),
    python2=st.booleans(),
)
def test_random_corruption_loads_or_says_so(corruptible, real, changes, python2):
    rows, labels = real["data_batch_1"]
    data = bytearray((python2_bytes if python2 else python_bytes)(rows[:4].copy(), labels[:4]))
    for index, value in changes:
        data[index % len(data)] = value
    (corruptible / "data_batch_1").write_bytes(data)
    try:
        loaded = load(corruptible)
    except DataError as error:
        assert "data_batch_1" in str(error)
    else:
        assert loaded.train.images.shape[1:] == (32, 32, 3)
        assert loaded.train.labels.max() < 10
