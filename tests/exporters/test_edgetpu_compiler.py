"""Running the compiler: arguments there, files and reasons back, on PATH, in a container and over SSH.

The compiler itself is closed and is not here: what is tested is the handling of processes and files, with the
stand-ins of `edgetpu_programs`.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
from edgetpu_programs import COMPILER, ENGINE, install

from ehdnas.core import remote
from ehdnas.core.errors import DataError, DeviceError, ExportError, NotCompiledError, UsageError
from ehdnas.exporters.edgetpu.compiler import CompilerOptions, find_compiler

MODEL = b"\x1c\0\0\0TFL3 a network, int8 "


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a folder that is all of PATH, and empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("ARGUMENTS", str(tmp_path / "arguments.json"))
    monkeypatch.setenv("ENGINE_CALLS", str(tmp_path / "calls.jsonl"))
    return folder


@pytest.fixture
def compiler(path):
    install(path, "edgetpu_compiler", COMPILER)


@pytest.fixture
def engine(path):
    install(path, "docker", ENGINE)


@pytest.fixture
def ask(monkeypatch):
    return lambda wish: monkeypatch.setenv("STAND_IN", wish)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "net_int8.tflite").write_bytes(MODEL)
    return tmp_path / "net_int8.tflite"


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


def compile_one(model, out, **options):
    [compiled] = find_compiler(CompilerOptions(**options)).compile([model], out)
    return compiled


def arguments_given(tmp_path):
    return json.loads((tmp_path / "arguments.json").read_text())


def engine_calls(tmp_path):
    return [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("compiler", "no_remains")
@pytest.mark.parametrize("backend", ["auto", "path"])
def test_a_compiler_on_path(model, out, backend):
    compiled = compile_one(model, out, backend=backend)
    assert compiled.files == [out / "net_int8_edgetpu.tflite"] == list(out.iterdir())
    assert compiled.files[0].read_bytes().startswith(MODEL)
    report = compiled.compilation
    assert (report.input_model, report.output_model) == (model.name, "net_int8_edgetpu.tflite")
    assert (report.succeeded, report.on_tpu, report.on_cpu, report.complete) == (True, 12, 1, True)
    assert (report.compiler_version, report.input_size_bytes) == ("16.0.384591198", 1536)
    assert compiled.segments == [report] and compiled.model == model
    # The names under which models travel are nobody's business.
    assert "Input model: net_int8.tflite\n" in compiled.log and "ehdnas" not in compiled.log


@pytest.mark.usefixtures("compiler")
def test_every_option_reaches_the_compiler(model, out, tmp_path):
    compile_one(
        model,
        out,
        segments=2,
        min_runtime_version=13,
        all_operators=True,
        intermediate_tensors=("block/Relu;block/add", "logits"),
        search_delegate=True,
        delegate_step=4,
        timeout_s=12.5,
    )
    given = arguments_given(tmp_path)
    folder = given[2]
    assert given == [
        *("-s", "-o", folder, "--timeout_sec", "13", "-m", "13", "-i", "block/Relu;block/add,logits"),
        *("-n", "2", "-a", "-d", "-k", "4", f"{folder}/ehdnas_model_0.tflite"),
    ]
    compile_one(model, out)
    given = arguments_given(tmp_path)
    folder = given[2]
    assert given == ["-s", "-o", folder, "--timeout_sec", "600", f"{folder}/ehdnas_model_0.tflite"]


@pytest.mark.usefixtures("compiler", "no_remains")
def test_segments_are_files_of_one_model(model, out):
    compiled = compile_one(model, out, segments=3)
    names = [f"net_int8_segment_{index}_of_3_edgetpu.tflite" for index in range(3)]
    assert [file.name for file in compiled.files] == names == sorted(file.name for file in out.iterdir())
    assert [one.output_model for one in compiled.segments] == names
    assert all(file.read_bytes().startswith(MODEL) for file in compiled.files)
    whole = compiled.compilation
    assert (whole.segments, whole.on_tpu, whole.on_cpu, whole.total_operations) == (3, 36, 3, 39)
    assert whole.input_model == model.name


@pytest.mark.usefixtures("compiler")
def test_models_compiled_together_keep_their_names(model, out, tmp_path):
    others = [tmp_path / "net_int8_edgetpu.tflite", tmp_path / "ehdnas_model_0.tflite"]
    for index, other in enumerate(others):
        other.write_bytes(MODEL + bytes([index]))
    found = find_compiler(CompilerOptions()).compile([model, *others], out)
    assert [one.model for one in found] == [model, *others]
    assert [one.files for one in found] == [
        [out / "net_int8_edgetpu.tflite"],
        [out / "net_int8_edgetpu_edgetpu.tflite"],
        [out / "ehdnas_model_0_edgetpu.tflite"],
    ]
    assert [one.compilation.input_model for one in found] == [one.model.name for one in found]
    assert found[2].files[0].read_bytes().startswith(MODEL + b"\1")


@pytest.mark.usefixtures("compiler", "no_remains")
@pytest.mark.parametrize(
    "name", ["my net", "-o", "--help", "a;b$(touch x)", "\u7db2 'n\"", "*", "net\nInput model: x"]
)
def test_any_file_name_is_harmless(name, out, tmp_path):
    model = tmp_path / f"{name}.tflite"
    model.write_bytes(MODEL)
    compiled = compile_one(model, out)
    assert [file.name for file in out.iterdir()] == [f"{name}_edgetpu.tflite"] == [compiled.files[0].name]
    assert compiled.compilation.input_model == model.name
    assert all(word.isascii() and "-o.tflite" not in word for word in arguments_given(tmp_path))


@pytest.mark.usefixtures("compiler")
def test_operators_on_the_cpu_are_told(model, out, ask):
    ask("cpu")
    compiled = compile_one(model, out)
    assert compiled.compilation.succeeded and compiled.files[0].is_file()
    assert (compiled.compilation.on_tpu, compiled.compilation.on_cpu) == (0, 13)
    assert not any(row.mapped for row in compiled.compilation.operators)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("segments", [1, 2])
def test_rows_come_from_the_operation_log_where_the_output_has_none(model, out, ask, segments):
    ask("unlisted")
    compiled = compile_one(model, out, segments=segments)
    assert [row.count for row in compiled.compilation.operators] == [12 * segments, segments]
    assert compiled.log.count("CONV_2D") == segments


@pytest.mark.usefixtures("compiler")
def test_a_search_that_ends_well_is_a_success(model, out, ask):
    ask("search")
    assert compile_one(model, out, search_delegate=True).compilation.on_tpu == 12


@pytest.mark.usefixtures("compiler", "no_remains")
@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (
            "fail",
            "cannot compile net_int8.tflite: Didn't find op for builtin opcode 'CONV_2D' version '6' in net",
        ),
        ("crash", "it ended with exit code 134"),
        ("flood", "printed 8.6 MiB"),
        ("silent", "left no net_int8_edgetpu.tflite"),
        ("garbage", "no TensorFlow Lite file"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(model, out, ask, wish, says):
    ask(wish)
    with pytest.raises(ExportError) as caught:
        compile_one(model, out)
    message = str(caught.value)
    assert says in message and "\n" not in message and "ehdnas_model" not in message
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.usefixtures("compiler", "no_remains")
def test_one_segment_missing_leaves_none(model, out, ask):
    out.mkdir()
    (out / "net_int8_segment_0_of_2_edgetpu.tflite").write_bytes(b"of before")
    ask("half")
    with pytest.raises(ExportError, match=r"left no net_int8_segment_1_of_2_edgetpu\.tflite"):
        compile_one(model, out, segments=2)
    assert [file.read_bytes() for file in out.iterdir()] == [b"of before"]


@pytest.mark.usefixtures("compiler", "no_remains")
def test_a_compiler_that_takes_too_long_is_stopped(model, out, ask):
    ask("hang")
    with pytest.raises(ExportError, match=r"not done with net_int8\.tflite after 0\.3 s"):
        compile_one(model, out, timeout_s=0.3)
    assert not out.exists()


def test_without_a_compiler_auto_finds_none_and_a_name_says_what_to_do(path):
    assert find_compiler(CompilerOptions()) is None
    with pytest.raises(NotCompiledError, match="edgetpu_compiler is not on PATH; install it"):
        find_compiler(CompilerOptions(backend="path"))
    with pytest.raises(NotCompiledError, match="neither docker nor podman"):
        find_compiler(CompilerOptions(backend="docker:coral"))


def test_a_program_that_this_machine_cannot_start(path, model, out):
    (path / "edgetpu_compiler").write_bytes(b"\x7fELF of another machine")
    (path / "edgetpu_compiler").chmod(0o755)
    with pytest.raises(NotCompiledError, match="cannot be started here; it needs x86-64 Linux"):
        compile_one(model, out)


@pytest.mark.usefixtures("compiler", "engine", "no_remains")
def test_a_container_sees_our_folder_and_nothing_else(model, out, tmp_path):
    compiled = compile_one(model, out, backend="docker:registry.local:5000/coral:16", segments=2)
    assert [file.name for file in compiled.files] == [
        "net_int8_segment_0_of_2_edgetpu.tflite",
        "net_int8_segment_1_of_2_edgetpu.tflite",
    ]
    [given] = engine_calls(tmp_path)
    image = given.index("registry.local:5000/coral:16")
    flags, words = given[:image], given[image + 1 :]
    assert flags[:2] == ["run", "--rm"]
    pairs = dict(itertools.pairwise(flags))
    assert (pairs["--network"], pairs["--pull"], pairs["--entrypoint"]) == (
        "none",
        "never",
        "edgetpu_compiler",
    )
    assert pairs["--user"] == f"{os.getuid()}:{os.getgid()}" and "--userns" not in pairs
    assert pairs["--mount"].startswith("type=bind,source=/") and flags.count("--mount") == 1
    assert pairs["--mount"].endswith(",target=/models")
    assert not {"-v", "--volume", "--privileged"} & set(flags)
    assert words == [
        "-s",
        "-o",
        "/models",
        "--timeout_sec",
        "600",
        "-n",
        "2",
        "/models/ehdnas_model_0.tflite",
    ]
    assert "Input model: net_int8_segment_0_of_2.tflite\n" in compiled.log


@pytest.mark.usefixtures("compiler", "no_remains")
def test_podman_keeps_our_user(path, model, out, tmp_path):
    install(path, "podman", ENGINE)
    assert compile_one(model, out, backend="docker:coral").compilation.on_tpu == 12
    [given] = engine_calls(tmp_path)
    assert given[given.index("--userns") + 1] == "keep-id"


@pytest.mark.usefixtures("compiler", "engine", "no_remains")
def test_a_container_that_takes_too_long_is_killed(model, out, ask, tmp_path):
    ask("hang")
    with pytest.raises(ExportError, match="not done"):
        compile_one(model, out, backend="docker:coral", timeout_s=0.3)
    started, killed = engine_calls(tmp_path)
    assert killed == ["kill", started[started.index("--name") + 1]]


@pytest.mark.usefixtures("engine")
def test_a_container_that_cannot_compile_says_what_to_do(model, out):
    with pytest.raises(
        NotCompiledError, match=r"'absent' \(docker: .*No such image: absent\); build or pull"
    ):
        compile_one(model, out, backend="docker:absent")
    with pytest.raises(NotCompiledError, match="'bare' has no edgetpu_compiler on its PATH"):
        compile_one(model, out, backend="docker:bare")
    assert not out.exists()


@pytest.fixture
def host(monkeypatch):
    """Put this machine in the place of every host; return the addresses asked for."""
    asked = []

    def open_transport(address):
        asked.append(address)
        return remote.LocalTransport()

    monkeypatch.setattr(remote, "open_transport", open_transport)
    return asked


@pytest.mark.usefixtures("compiler", "no_remains")
def test_a_host_takes_the_same_path(model, out, host, tmp_path):
    compiled = compile_one(model, out, backend="ssh:me@build:2222")
    assert compiled.files[0].read_bytes().startswith(MODEL) and compiled.compilation.on_tpu == 12
    assert set(host) == {"me@build:2222"}
    assert arguments_given(tmp_path)[0] == "-s"


def test_a_host_without_the_compiler_says_so(path, model, out, host):
    with pytest.raises(NotCompiledError, match="me@build has no edgetpu_compiler"):
        compile_one(model, out, backend="ssh:me@build")


@pytest.mark.parametrize("at", ["put", "run", "get"])
@pytest.mark.usefixtures("compiler", "no_remains")
def test_a_host_that_is_lost_is_a_device_error(model, out, monkeypatch, at):
    def lose(*arguments):
        raise remote.ConnectionLostError("build stopped answering; see that it is up")

    monkeypatch.setattr(remote.LocalTransport, at, lose)
    monkeypatch.setattr(remote, "open_transport", lambda address: remote.LocalTransport())
    with pytest.raises(DeviceError, match="build stopped answering"):
        compile_one(model, out, backend="ssh:me@build")
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize(
    "backend",
    [
        *("", "Path", "local", "auto:", "path:/usr/bin/x", "docker", "docker:", "docker:-v", "docker:a b"),
        *(
            "podman:x",
            "ssh",
            "ssh:",
            "ssh:local",
            "ssh:-oProxyCommand=x",
            "ssh:a b",
            "ssh:u@h:x",
            "\x1b[2J\n",
        ),
    ],
)
def test_a_malformed_back_end_is_refused(backend, engine):
    with pytest.raises(UsageError) as caught:
        find_compiler(CompilerOptions(backend=backend))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "options",
    [
        *({"segments": 0}, {"segments": 65}, {"min_runtime_version": 0}, {"timeout_s": 0}, {"timeout_s": -1}),
        *({"timeout_s": float("nan")}, {"timeout_s": float("inf")}, {"delegate_step": 4}),
        {"search_delegate": True, "delegate_step": 0},
        *({"intermediate_tensors": (name,)} for name in ["", "-a", "a,b", "call:1", "a\0"]),
    ],
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError):
        CompilerOptions(**options)


@pytest.mark.usefixtures("compiler")
def test_models_that_cannot_be_are_refused(model, out, tmp_path):
    compiler = find_compiler(CompilerOptions())
    with pytest.raises(UsageError, match="no model"):
        compiler.compile([], out)
    with pytest.raises(UsageError, match="names of their own"):
        compiler.compile([model, tmp_path / "other" / model.name], out)
    with pytest.raises(DataError, match="gone"):
        compiler.compile([tmp_path / "gone.tflite"], out)
    for options in ({"segments": 2}, {"intermediate_tensors": ("a",)}):
        with pytest.raises(UsageError, match="of one model"):
            find_compiler(CompilerOptions(**options)).compile([model, tmp_path / "b.tflite"], out)
    assert not Path(out).exists()
