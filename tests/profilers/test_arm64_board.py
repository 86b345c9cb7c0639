"""On an arm64 machine, if an emulated one: the transport, the agent, and what exported networks answer."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sshd import gone_within, until

from ehdnas.core.images.dataset import load_data, normalise
from ehdnas.core.remote import LocalTransport
from ehdnas.exporters import find_exporter
from ehdnas.profilers import agent
from ehdnas.profilers.board.reply import Output, read_answer, read_reply
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.search.spaces.base import NetworkShape, find_space

pytest_plugins = ("arm64_fixtures",)
pytestmark = pytest.mark.slow

SHAPE = NetworkShape(8, 3, (3, 32, 32), 10)
RUN_S = 250  # seconds; emulated, all is ten times slower


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="module")
def images(cifar_dir):
    """Real images [n, 3, 32, 32], normalised: (to calibrate on, to test on)."""
    data = load_data(f"cifar10:{cifar_dir}", seed=0)
    return tuple(
        normalise(part.images[:count], data.mean, data.std)
        for part, count in ((data.train, 128), (data.test, 208))
    )


@pytest.fixture(scope="module", params=["reference", "sampled"])
def network(request, images):
    """A small network of the DARTS space that tells the images apart, as far as one can without training."""
    space = find_space("darts")
    sampled = space.sample(np.random.default_rng(0))
    torch.manual_seed(0)
    model = space.network(space.reference if request.param == "reference" else sampled, SHAPE)
    seen = torch.from_numpy(images[0])
    with torch.no_grad():
        for _ in range(20):
            model.train()(seen[:64])
        logits = model.eval()(seen)
        # Each logit about zero, so that no class is the answer to everything.
        model.classifier.weight /= logits.std(0)[:, None]
        model.classifier.bias.sub_(logits.mean(0)).div_(logits.std(0))
    return model


def test_the_transport_works(arm64_board, tmp_path):
    content = np.random.default_rng(0).bytes(3 * 2**20)
    (tmp_path / "file").write_bytes(content)
    with arm64_board.transport() as transport:
        assert transport.run(["uname", "-m"], 30).stdout == b"aarch64\n"
        folder = arm64_board.root / Path(transport.put(tmp_path / "file", "file")).parent.relative_to("/")
        assert (folder / "file").read_bytes() == content
        transport.get("file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert transport.run(["sh", "-c", "exit 3"], 30).code == 3
    assert until(lambda: not folder.exists())
    assert not list((arm64_board.root / "tmp").iterdir())
    assert not gone_within(3, folder.name)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_the_agent_times_a_model(arm64_board, tmp_path, suffix):
    (tmp_path / "smoke").write_bytes(smoke_model(suffix))
    with arm64_board.transport() as transport:
        transport.put(tmp_path / "smoke", f"smoke{suffix}")
        flags = ["--threads", "1", "--runs", "5", "--min-s", "0", "--warmup-s", "0"]
        output = run_agent(transport, arm64_board.python, f"smoke{suffix}", *flags)
    reply = read_reply(output, f"smoke{suffix} on the board")
    assert output.status == 0
    assert len(reply.samples_ms) == 5
    assert reply.machine["machine"] == "aarch64"
    assert reply.interpreter.startswith("onnxruntime" if suffix == ".onnx" else "ai-edge-litert")


def run_agent(transport, python, *arguments):
    transport.put(Path(agent.__file__), "agent.py")
    done = transport.run([python, "agent.py", *arguments], RUN_S)
    return Output(done.stdout.decode(), done.stderr.decode(), done.code)


def outputs(transport, python, model, given, target):
    """What the file `model` answers on that machine to the array `given`, item by item; saved as `target`."""
    np.save(target, given)
    with transport:
        transport.put(model, model.name)
        transport.put(target, "given.npy")
        flags = ["--input", "given.npy", "--output", "made.npy"]
        read_answer(run_agent(transport, python, model.name, *flags), f"{model.name} on {target.stem}")
        transport.get("made.npy", target)
    return np.load(target, allow_pickle=False)


def as_input(images, spec):
    """The images in the layout and the type that a file takes."""
    values = images.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else images
    if spec.scale is None:
        return values
    levels = np.round(values / spec.scale) + spec.zero_point
    limits = np.iinfo(spec.dtype)
    return levels.clip(limits.min, limits.max).astype(spec.dtype)


@pytest.mark.parametrize("target", ["tflite", "onnx", "tflite-int8"])
def test_networks_answer_as_they_do_here(arm64_board, network, images, target, tmp_path):
    calibration, tested = images
    exporter = find_exporter(target)
    artifact = exporter.export(network, SHAPE.image, tmp_path / exporter.file_name(), calibration=calibration)
    given = as_input(tested, artifact.manifest.inputs[0])
    here = outputs(LocalTransport(), sys.executable, artifact.path, given, tmp_path / "here.npy")
    there = outputs(arm64_board.transport(), arm64_board.python, artifact.path, given, tmp_path / "there.npy")
    assert there.shape == here.shape == (len(tested), SHAPE.classes)
    assert len(set(here.argmax(1))) == SHAPE.classes  # a network that says one thing would prove nothing
    if target == "tflite-int8":
        assert np.mean(there.argmax(1) == here.argmax(1)) >= 0.995
    else:
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)
