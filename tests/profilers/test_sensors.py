"""What the agent reads of a machine, from trees of the files that real boards have."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ehdnas.profilers import agent
from ehdnas.profilers.board.collect import is_throttled
from ehdnas.profilers.board.smoke import smoke_model

PI_4 = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48686\n",
    "proc/meminfo": "MemAvailable: 3145728 kB\nSwapTotal: 102400 kB\nSwapFree: 51200 kB\n",
}
ORIN_INA3221 = "sys/class/hwmon/hwmon1/"
ORIN_NANO = {
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\nlast\n",
    "proc/device-tree/model": "NVIDIA Orin Nano Developer Kit\0",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n",
    "sys/class/devfreq/17000000.ga10b/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.ga10b/max_freq": "624750000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "729600000\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    ORIN_INA3221 + "name": "ina3221\n",
    ORIN_INA3221 + "in1_label": "VDD_IN\n",
    ORIN_INA3221 + "in1_input": "5000\n",
    ORIN_INA3221 + "curr1_input": "900\n",
    ORIN_INA3221 + "in2_label": "VDD_CPU_GPU_CV\n",
    ORIN_INA3221 + "in2_input": "5000\n",
    ORIN_INA3221 + "curr2_input": "200\n",
    ORIN_INA3221 + "in7_label": "sum of shunt voltages\n",
    ORIN_INA3221 + "in7_input": "3\n",
}
NANO_INA3221 = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
NANO = {
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n",
    "sys/class/devfreq/57000000.gpu/cur_freq": "76800000\n",
    "sys/class/devfreq/57000000.gpu/max_freq": "921600000\n",
    NANO_INA3221 + "rail_name_0": "POM_5V_IN\n",
    NANO_INA3221 + "in_power0_input": "2500\n",
    NANO_INA3221 + "in_voltage0_input": "5000\n",
    NANO_INA3221 + "in_current0_input": "500\n",
    NANO_INA3221 + "rail_name_1": "POM_5V_GPU\n",
    NANO_INA3221 + "in_voltage1_input": "5000\n",
    NANO_INA3221 + "in_current1_input": "100\n",
}
USB = "sys/bus/usb/devices/"
CORAL_STICK = {
    USB + "usb2/idVendor": "1d6b\n",
    USB + "usb2/idProduct": "0003\n",
    USB + "usb2/speed": "5000\n",
    USB + "2-1/idVendor": "18d1\n",
    USB + "2-1/idProduct": "9302\n",
    USB + "2-1/speed": "480\n",
}


@pytest.fixture
def tree(tmp_path):
    def make(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / "root [1]" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / "root [1]")

    return make


def timed(tmp_path: Path, root: str, *flags: str) -> dict:
    path = tmp_path / "relu.tflite"
    path.write_bytes(smoke_model(".tflite"))
    command = [sys.executable, "-I", agent.__file__, path, "--warmup-s", "0", "--min-s", "0.3"]
    done = subprocess.run([*command, "--root", root, *flags], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.partition(agent.MARKER)[2])


def test_a_raspberry_pi(tree):
    root = tree(PI_4)
    facts, state = agent.machine(root), agent.machine_state(root)
    assert facts["model"] == "Raspberry Pi 4 Model B Rev 1.5" and facts["bits"] == 64
    assert facts["os_release"] == "Debian GNU/Linux 12 (bookworm)"
    assert not facts.keys() & {"jetpack", "edgetpu_usb_mbps", "edgetpu_pcie", "power_rails"}
    assert state["throttled"] == "0x50005" and is_throttled(state["throttled"])
    assert (state["cpus_online"], state["free_memory_mb"], state["swap_used_mb"]) == ("0-3", 3072, 50)
    assert state["temperature_c"] == {"0:cpu-thermal": 48.686}
    assert not state.keys() & {"jetson_clocks", "power_mode", "gpu_freq_mhz"}


def test_a_raspberry_pi_with_vcgencmd_alone(tree, tmp_path, monkeypatch):
    tool = tmp_path / "vcgencmd"
    tool.write_text("#!/bin/sh\necho throttled=0x20002\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    tool.write_text("#!/bin/sh\necho throttled=0x20002\n")
    assert agent.machine_state(tree({}))["throttled"] == "0x20002"
    tool.write_text("#!/bin/sh\necho VCHI initialization failed\nexit 255\n")
    assert "throttled" not in agent.machine_state(tree({}))


def test_a_jetson_orin_nano(tree):
    root = tree(ORIN_NANO)
    facts, state = agent.machine(root), agent.machine_state(root)
    assert facts["jetpack"] == "R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref"
    assert facts["power_rails"] == ["VDD_CPU_GPU_CV", "VDD_IN"]
    assert (state["gpu_freq_mhz"], state["gpu_max_freq_mhz"]) == (306.0, 624.75)
    assert state["power_mode"] == "1 7W" and "jetson_clocks" not in state


@pytest.mark.parametrize(("lowest", "fixed"), [("1510400", True), ("115200", False)])
def test_whether_jetson_clocks_are_fixed(tree, lowest, fixed):
    files = dict(NANO)
    for cpu in range(4):
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq/"
        low = lowest if cpu == 3 else "1510400"
        files |= {folder + "scaling_min_freq": low, folder + "scaling_max_freq": "1510400"}
        files[folder + "cpuinfo_max_freq"] = "1510400"
    assert agent.machine_state(tree(files))["jetson_clocks"] is fixed


@pytest.mark.parametrize(
    ("files", "flags", "watts"),
    [
        (ORIN_NANO, (), 4.5),
        (ORIN_NANO, ("--power-rail", ""), 4.5),
        (ORIN_NANO, ("--power-rail", "VDD_CPU_GPU_CV"), 1.0),
        (NANO, (), 2.5),
        (NANO, ("--power-rail", "POM_5V_GPU"), 0.5),
    ],
)
def test_energy_is_the_mean_power_over_the_timed_runs(tree, tmp_path, files, flags, watts):
    answer = timed(tmp_path, tree(files), *flags)
    assert answer["power_w"] == pytest.approx(watts) and answer["power_samples"] >= 3
    assert answer["energy_mj"] == pytest.approx(watts * answer["timing_ms"] / answer["runs"])


@pytest.mark.parametrize(
    ("files", "rail", "rails"),
    [(ORIN_NANO, "VDD_OUT", ["VDD_CPU_GPU_CV", "VDD_IN"]), (PI_4, "VDD_IN", []), (PI_4, "auto", None)],
)
def test_without_the_rail_energy_is_absent(tree, tmp_path, files, rail, rails):
    answer = timed(tmp_path, tree(files), "--power-rail", rail)
    assert not answer.keys() & {"energy_mj", "power_w", "power_samples"}
    assert answer["machine"].get("power_rails") == rails


@pytest.mark.parametrize("reading", ["", "N/A", "0"])
def test_a_rail_that_reads_nothing_gives_no_energy(tree, tmp_path, reading):
    answer = timed(tmp_path, tree({**ORIN_NANO, ORIN_INA3221 + "curr1_input": reading}))
    assert "energy_mj" not in answer and answer["runs"] > 0


def test_an_edge_tpu_on_usb_and_on_pcie(tree):
    assert agent.machine(tree({}))["bits"] == 64
    root = tree(CORAL_STICK)
    assert agent.machine(root)["edgetpu_usb_mbps"] == 480
    fresh = {USB + "2-1/idVendor": "1a6e", USB + "2-1/idProduct": "089a", USB + "2-1/speed": "5000"}
    assert agent.machine(tree(fresh))["edgetpu_usb_mbps"] == 5000
    assert "edgetpu_pcie" not in agent.machine(root)
    assert agent.machine(tree({"sys/class/apex/apex_0/temp": "40000"}))["edgetpu_pcie"] is True


def test_windows_tell_the_hottest_zone(tree, tmp_path):
    zones = {
        "sys/class/thermal/thermal_zone1/temp": "61000",
        "sys/class/thermal/thermal_zone2/temp": "-256000",
    }
    windows = timed(tmp_path, tree({**PI_4, **zones}), "--window-s", "0.1", "--cpus", "0")["windows"]
    assert [one["temperature_c"] for one in windows] == [61.0] * len(windows)
    assert windows[0]["freq_mhz"] == 600.0


def test_a_machine_that_tells_nothing_leaves_everything_out(tree, tmp_path):
    answer = timed(tmp_path, tree({"empty": ""}))
    assert not answer.keys() & {"other_cpu", "energy_mj", "windows"}
    assert answer["before"].keys() == {"load", "affinity"}
