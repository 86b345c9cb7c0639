"""The command line: bad input is one line and the right exit code; help and lists are quick."""

import json
import signal
import subprocess
import sys
import time

import pytest

from ehdnas.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["search", "--data", "cifar10:/nowhere"], 1, "/nowhere"),
        (["search", "--data", "cifar"], 2, "cifar10:PATH"),
        (["search", "--device", "pi5000"], 2, "unknown device 'pi5000'"),
        (["search", "--budget", "latency <= 3 lightyears"], 2, "unknown unit 'lightyears'"),
        (["search", "--budget", "energy <= 3 mJ"], 2, "gives no energy_mj"),
        (["search", "--space", "dart"], 2, "did you mean 'darts'"),
        (["search", "--predictor", "liner"], 2, "did you mean 'linear'"),
        (["predict", "DARTS_V2", "--predictor", "liner"], 2, "did you mean 'linear'"),
        (["profile", "--predictor", "liner", "--samples", "0"], 2, "did you mean 'linear'"),
        (["profile", "--samples", "5"], 2, "--samples: should be 0, or at least 10, not 5"),
        (["profile", "--samples", "0"], 2, "nothing is stored of 'darts'"),
        (["predict", "DARTS_V2", "--metric", ","], 2, "--metric names none"),
        (["search", "--channels", "7"], 2, "even number of channels"),
        (["search", "--seed", "-1"], 2, "--seed"),
        (["search", "--confidence", "2"], 2, "--confidence: must be under 1, not 2.0"),
        (["search", "--queries", "0"], 2, "--queries: must be at least 1, not 0"),
        (["search", "--search-epochs", "many"], 2, "--search-epochs"),
        (["search", "--colour", "blue"], 2, "--colour"),
        (["train"], 2, "run `ehdnas search` first"),
        (["export"], 2, "run `ehdnas search`, then `ehdnas train`"),
        (["export", "DARTS_V2"], 2, "--untrained"),
        (["export", "--untrained"], 2, "ehdnas export GENOTYPE --untrained"),
        (["export", "--run", "../../etc"], 2, "is no run"),
        (["export", "DARTS_V9", "--untrained", "--out", "x"], 2, "did you mean"),
        (["report"], 2, "run `ehdnas search` first"),
        (["profile", "--device", "pi4"], 4, "ehdnas devices set pi4 host="),
        (["doctor", "--device", "pi4"], 4, "ehdnas devices set pi4 host="),
        (["measure", "nowhere.tflite"], 1, "nowhere.tflite"),
        (["measure", "."], 1, ". is not a file"),
        (["simulate", "DARTS_V2", "--channels", "1000000"], 2, "--channels"),
        (["simulate", "DARTS_V2", "--image-size", "1000000"], 2, "--image-size"),
        (["simulate", "/dev/null"], 1, "/dev/null is not a file"),
        (["measure", "nowhere.tflite", "--device", "ehdnas-generic"], 2, "use `ehdnas simulate`"),
        (["simulate", "DARTS_V2", "--device", "local"], 2, "ehdnas measure FILE"),
        (["simulate", "1234"], 2, "4 digits"),
        (["simulate", "RESNET"], 2, "not a DARTS genotype"),
        (["predict", "DARTS_V2"], 2, "run `ehdnas profile --device ehdnas-generic` first"),
        (["devices", "show", "lokal"], 2, "did you mean 'local'"),
        (["devices", "set", "local", "thread=4"], 2, "did you mean 'threads'"),
        (["devices", "set", "local", "threads"], 2, "write key=value"),
        (["devices", "add", "nowhere.toml"], 2, "nowhere.toml"),
        (["devices", "set", "local", "host=me@here"], 2, "which has no host"),
        (["devices", "remove", "local"], 2, "nothing to remove"),
        (["simulate", "/nowhere.json"], 1, "no such file: /nowhere.json"),
        (["simulate", '{"normal": []}'], 2, "no key 'reduce'"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_the_right_exit_code(project, ehdnas, arguments, code, says):
    result = ehdnas(*arguments)
    assert result.code == code, result.err
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert "Traceback" not in result.err
    assert result.out == ""


def test_an_unknown_key_in_the_project_file_names_the_nearest(project, ehdnas):
    (project / "ehdnas.toml").write_text('bugdet = "0.5x"\n')
    result = ehdnas("config")
    assert result.code == 2
    assert "unknown key 'bugdet'; did you mean 'budget'?" in result.err
    (project / "ehdnas.toml").write_text("seed = [\n")
    assert ehdnas("config").code == 2


def test_settings_come_from_flags_then_the_project_then_the_user(project, ehdnas, monkeypatch):
    user = project / "user"
    (user / "ehdnas").mkdir(parents=True)
    (user / "ehdnas" / "config.toml").write_text('seed = 1\nbudget = "0.9x"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    (project / "ehdnas.toml").write_text("seed = 2\n")
    shown = json.loads(ehdnas("config", "--json").out)
    assert (shown["settings"]["seed"], shown["settings"]["budget"]) == (2, "0.9x")
    assert shown["origins"]["seed"].endswith("ehdnas.toml")
    assert shown["origins"]["budget"].endswith("config.toml")
    assert shown["origins"]["data"] == "default"
    assert set(shown["settings"]) == set(Settings.model_fields)


def test_an_interrupt_exits_130_and_says_how_to_go_on(project):
    process = subprocess.Popen([sys.executable, "-m", "ehdnas", "profile"], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("profile: simulate"):
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "error: interrupted; what was finished is kept: go on with --resume"


def test_debug_adds_the_traceback(project, ehdnas):
    assert "Traceback" in ehdnas("train", "--debug").err


def test_devices_are_listed_shown_set_and_added(project, ehdnas):
    listed = ehdnas("devices")
    assert listed.code == 0
    assert "ehdnas-generic" in listed.out and "simulated" in listed.out and "no host set" in listed.out
    assert ehdnas("devices", "set", "pi4", "host=pi@board.local", "threads=2").code == 0
    shown = json.loads(ehdnas("devices", "show", "pi4", "--json").out)
    assert (shown["host"], shown["threads"], shown["kind"]) == ("pi@board.local", 2, "ssh")
    own = project / "mine.toml"
    own.write_text('kind = "local"\ntitle = "Mine"\nruntime = "onnxruntime"\n')
    assert ehdnas("devices", "add", own).code == 0
    assert "Mine" in ehdnas("devices").out
    assert "exists" in ehdnas("devices", "add", own).err
    own.write_text('kind = "local"\ntitle = "Mine"\ncommand = "rm -rf /"\n')
    assert "unknown key 'command'" in ehdnas("devices", "add", own).err


def test_what_was_set_or_added_can_be_removed(project, ehdnas):
    assert ehdnas("devices", "set", "pi4", "host=pi@board.local").code == 0
    assert "as built in" in ehdnas("devices", "remove", "pi4").out
    assert json.loads(ehdnas("devices", "show", "pi4", "--json").out)["host"] == ""
    own = project / "mine.toml"
    own.write_text('kind = "local"\ntitle = "Mine"\nruntime = "onnxruntime"\n')
    assert ehdnas("devices", "add", own).code == 0
    assert json.loads(ehdnas("devices", "remove", "mine", "--json").out)["built_in"] is False
    assert "Mine" not in ehdnas("devices").out


def test_no_command_is_the_help(project, ehdnas):
    result = ehdnas()
    assert (result.code, result.err) == (0, "")
    assert "ehdnas run" in result.out and "profile" in result.out


def test_several_profiled_devices_are_listed_not_guessed(tiny, ehdnas):
    assert ehdnas("profile", "--device", "ehdnas-generic").code == 0
    (found,) = (tiny / ".ehdnas" / "predictors").glob("*.safetensors")
    found.with_name(found.name.replace("ehdnas-generic", "another")).write_bytes(found.read_bytes())
    result = ehdnas("search")
    assert result.code == 2
    assert "several devices are profiled here: another, ehdnas-generic" in result.err


def test_simulate_gives_the_published_throughput(project, ehdnas):
    for name, fps in (("DARTS_V2", 765.3), ("EHDNAS_GENERIC", 1079.6)):
        shown = json.loads(ehdnas("simulate", name, "--device", "ehdnas-generic", "--json").out)
        assert shown["throughput_fps"] == pytest.approx(fps, abs=0.05)
        assert shown["basis"] == "simulated"


def test_measure_times_a_file_the_user_has(project, ehdnas):
    from ehdnas.profilers.board.smoke import smoke_model

    (project / "mine.onnx").write_bytes(smoke_model(".onnx"))
    result = ehdnas("measure", "mine.onnx", "--protocol", "quick", "--json")
    shown = json.loads(result.out)
    assert shown["basis"] == "measured"
    assert shown["metrics"]["latency_ms"] > 0
    assert shown["passport"]["model_sha256"]
    assert shown["device"] == "local-onnx", "the runtime follows from the file"
    assert "not known: one process" in ehdnas("measure", "mine.onnx", "--protocol", "quick").out


@pytest.mark.parametrize(("arguments", "limit_s"), [(["--help"], 0.5), (["devices"], 1.0)])
def test_light_commands_are_quick(project, arguments, limit_s):
    """The best of three: the limit is on what the command does, not on what else the machine does."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ehdnas", *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < limit_s


HEAVY = {"torch", "tensorflow", "onnx", "numpy", "sklearn"}


@pytest.mark.parametrize(
    ("arguments", "heavy"), [(["devices"], HEAVY), (["--help"], {*HEAVY, "pydantic", "rich"})]
)
def test_light_commands_load_nothing_heavy(project, arguments, heavy):
    code = (
        f"import sys; from ehdnas.cli import main; main({arguments}); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
