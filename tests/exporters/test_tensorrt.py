"""The TensorRT target: an engine from wherever trtexec is, or the command to run there.

trtexec is closed and wants a GPU: `TRTEXEC` is a stand-in that copies the network and prints what the real
one prints. What is tested is how it is started, waited for and understood, here and over a real sshd.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgetpu_programs import install

from ehdnas.core import remote
from ehdnas.core.artifact import read_artifact
from ehdnas.core.errors import DeviceError, ExportError, NotCompiledError, UsageError
from ehdnas.core.files import sha256
from ehdnas.exporters import ExportOptions, export_network, run_artifact, tensorrt

pytest_plugins = ("sshd_fixtures",)

ONNX, ENGINE = "model_tensorrt.onnx", "model_tensorrt.engine"
BY_HAND = f"/usr/src/tensorrt/bin/trtexec --onnx={ONNX} --saveEngine={ENGINE} --fp16"

# A stand-in, not TensorRT: it copies the network and prints what $STAND_IN asks for.
TRTEXEC = """#!{python} -SE
import json, os, sys, time
from pathlib import Path

flags = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
asked = os.environ.get("STAND_IN", "")
if "ARGUMENTS" in os.environ:
    Path(os.environ["ARGUMENTS"]).write_text(json.dumps(sys.argv[1:]))
banner = "TensorRT.trtexec [TensorRT v8502] # trtexec " + " ".join(sys.argv[1:])
print("&&&& RUNNING", banner)
if asked == "hang":
    time.sleep(60)
if asked == "refuse":
    print("[05/24/2023-16:26:51] [I] Finish parsing network model")
    for line in (
        "Error[10]: [optimizer.cpp::computeCosts::1855] Error Code 10 (no node \\x1b[31mConv_56)",
        "Error[2]: [builder.cpp::buildSerializedNetwork::417] Error Code 2 (Assertion enginePtr != nullptr)",
        "Engine could not be created from network",
        "Engine set up failed",
    ):
        print("[05/24/2023-16:26:52] [E]", line, file=sys.stderr)
    print("&&&& FAILED", banner)
    sys.exit(1)
if asked == "mute":
    os._exit(3)
if asked == "line":
    print("[05/24/2023-16:26:52] [I] TensorRT version: 8.5.2")
if asked != "empty":
    Path(flags["--saveEngine"]).write_bytes(b"engine of " + Path(flags["--onnx"]).read_bytes())
print("&&&& PASSED", banner)
"""


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Return a folder that is all of PATH, and empty."""
    if Path(tensorrt._PLACES[-1]).exists():
        pytest.skip("TensorRT is installed here, and would be found")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("ARGUMENTS", str(tmp_path / "arguments.json"))
    return folder


@pytest.fixture
def trtexec(path):
    install(path, "trtexec", TRTEXEC)


@pytest.fixture
def ask(monkeypatch):
    return lambda wish: monkeypatch.setenv("STAND_IN", wish)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def no_remains(monkeypatch, tmp_path):
    """Check that nothing is left in the folder for temporary files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    yield
    assert list((tmp_path / "tmp").iterdir()) == []


def export(model, out, images, **options):
    return export_network(model, "tensorrt", out, images, options=ExportOptions(**options))


def the_onnx_file_is_whole(out, images):
    artifact = read_artifact(out / ONNX)
    assert artifact.manifest.sha256 == sha256(out / ONNX) and artifact.manifest.parity.passed
    assert run_artifact(out / ONNX, images).outputs.shape == (5, 10)
    return artifact.manifest


def test_without_trtexec_the_exact_command_is_said_and_kept(darts_like, images, out):
    with pytest.raises(NotCompiledError) as caught:
        export(darts_like, out, images)
    message = str(caught.value)
    assert message.endswith(f"run: {BY_HAND}") and "--compiler ssh:USER@JETSON" in message
    assert "\n" not in message and caught.value.exit_code == 6
    assert sorted(file.name for file in out.iterdir()) == [ONNX, f"{ONNX}.json", f"{ONNX}.md"]
    manifest = the_onnx_file_is_whole(out, images)
    assert (manifest.target, manifest.precision) == ("tensorrt", "fp32")
    assert manifest.details["tensorrt"] == {"version": None, "command": BY_HAND}
    assert f"No engine was built. On the Jetson, run:\n\n    {BY_HAND}\n" in (out / f"{ONNX}.md").read_text()


@pytest.mark.usefixtures("trtexec", "no_remains")
@pytest.mark.parametrize("compiler", ["auto", "path"])
def test_an_engine_is_built_here(darts_like, images, out, tmp_path, compiler):
    artifact = export(darts_like, out, images, compiler=compiler)
    assert artifact.path == out / ENGINE and read_artifact(artifact.path) == artifact
    source = the_onnx_file_is_whole(out, images)
    assert artifact.path.read_bytes() == b"engine of " + (out / ONNX).read_bytes()
    manifest = artifact.manifest
    assert (manifest.file, manifest.precision, manifest.target) == (ENGINE, "fp16", "tensorrt")
    assert (manifest.sha256, manifest.size_bytes) == (sha256(artifact.path), artifact.path.stat().st_size)
    assert manifest.versions == {**source.versions, "tensorrt": "8502"}
    assert manifest.details["tensorrt"] == {"version": "8502", "command": BY_HAND}
    assert manifest.details["compiled_from"] == {"file": ONNX, "sha256": source.sha256}
    assert "tensorrt" not in source.details
    assert "built by TensorRT 8502 and loads in that version" in (out / f"{ENGINE}.md").read_text()
    given = json.loads((tmp_path / "arguments.json").read_text())
    assert [word.partition("=")[0] for word in given] == ["--onnx", "--saveEngine", "--fp16"]


@pytest.mark.usefixtures("trtexec")
def test_the_version_is_taken_from_its_own_line_where_there_is_one(darts_like, images, out, ask):
    ask("line")
    assert export(darts_like, out, images).manifest.versions["tensorrt"] == "8.5.2"


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=a", "8502"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b26] # trtexec", "100300"),
        ("&&&& RUNNING TensorRT.trtexec # trtexec\n[I] TensorRT version: 7.1.3\n", "7.1.3"),
        ("&&&& RUNNING TensorRT.trtexec # trtexec --onnx=TensorRT-8.onnx", "unknown"),
        ("", "unknown"),
    ],
)
def test_versions_as_releases_print_them(printed, version):
    assert tensorrt._version(remote.Completed(0, printed.encode(), b"")) == version


@pytest.mark.usefixtures("trtexec", "no_remains")
@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ("refuse", r"refuses model_tensorrt\.onnx: .*computeCosts::1855.*\(no node \[31mConv_56\)$"),
        ("mute", "refuses model_tensorrt.onnx: it ended with exit code 3"),
        ("empty", "left no engine of model_tensorrt.onnx; to see why, run /usr/src/tensorrt/bin/trtexec"),
        ("hang", "not done with model_tensorrt.onnx after 0.5 s"),
    ],
)
def test_a_failure_is_one_line_and_leaves_the_onnx_file(darts_like, images, out, ask, wish, says):
    """The first error is told, which is the cause; what comes after it is only that nothing came of it."""
    ask(wish)
    with pytest.raises(ExportError, match=says) as caught:
        export(darts_like, out, images, compile_timeout_s=0.5 if wish == "hang" else 60)
    assert str(caught.value).isprintable()
    the_onnx_file_is_whole(out, images)
    assert not (out / ENGINE).exists()


def test_jetpack_has_it_off_the_path(darts_like, images, out, tmp_path, monkeypatch):
    (tmp_path / "jetpack").mkdir()
    install(tmp_path / "jetpack", "trtexec", TRTEXEC)
    monkeypatch.setattr(tensorrt, "_PLACES", ("trtexec", str(tmp_path / "jetpack" / "trtexec")))
    assert export(darts_like, out, images).path == out / ENGINE


@pytest.mark.parametrize("compiler", ["docker:coral", "docker:", "ssh:", "ssh", "ssh:local", "trtexec", ""])
def test_a_compiler_that_cannot_build_engines_is_refused(darts_like, images, out, compiler):
    with pytest.raises(
        UsageError, match="cannot build a TensorRT engine; give auto, path or ssh:USER@JETSON"
    ):
        export(darts_like, out, images, compiler=compiler)
    the_onnx_file_is_whole(out, images)


@pytest.fixture
def board(own_sshd, path, tmp_path, monkeypatch):
    """A function that starts an sshd, called board in ~/.ssh/config, whose commands have an environment."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    @contextmanager
    def start(**environment):
        monkeypatch.setenv("PATH", os.defpath)  # what starts an sshd is on the usual one
        there = {"PATH": f"{path}:{os.defpath}", "ARGUMENTS": str(tmp_path / "arguments.json")}
        with own_sshd(**{**there, **environment}) as server:
            (tmp_path / "home" / ".ssh").mkdir(parents=True)
            (tmp_path / "home" / ".ssh" / "config").write_text(server.config.read_text())
            monkeypatch.setenv("HOME", str(tmp_path / "home"))
            yield server

    return start


def test_an_engine_is_built_over_ssh_and_fetched(darts_like, images, out, path, board, tmp_path):
    with board():
        with pytest.raises(NotCompiledError, match=r"no trtexec; give --compiler ssh:USER@JETSON, or copy"):
            export(darts_like, out, images, compiler="ssh:board")
        install(path, "trtexec", TRTEXEC)
        artifact = export(darts_like, out, images, compiler="ssh:board")
    assert artifact.path == out / ENGINE
    assert artifact.path.read_bytes() == b"engine of " + (out / ONNX).read_bytes()
    assert artifact.manifest.sha256 == sha256(out / ENGINE)
    assert artifact.manifest.versions["tensorrt"] == "8502"
    there = json.loads((tmp_path / "arguments.json").read_text())[0].removeprefix("--onnx=")
    assert Path(there).is_absolute() and not Path(there).parent.exists()  # nothing is left on the board


@pytest.mark.usefixtures("trtexec")
def test_a_refusal_over_ssh_is_one_line(darts_like, images, out, board):
    with board(STAND_IN="refuse"), pytest.raises(ExportError, match="computeCosts::1855") as caught:
        export(darts_like, out, images, compiler="ssh:board")
    assert str(caught.value).isprintable()
    the_onnx_file_is_whole(out, images)


def test_a_board_that_is_off_is_a_device_error(darts_like, images, out, board):
    with board() as server:
        pass
    assert server.process.poll() is not None
    with pytest.raises(DeviceError, match="Connection refused") as caught:
        export(darts_like, out, images, compiler="ssh:board")
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    the_onnx_file_is_whole(out, images)
