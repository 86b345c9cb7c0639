"""A board with an arm64 processor, emulated: Debian's userland in a chroot under QEMU, and its own sshd.

Its answers are those of arm64 machine code; its times mean nothing. The emulated sshd and what it starts
live in mount and PID namespaces of their own: whatever is mounted for them, and every process, goes with
them, however the tests end, and nothing under the root is a mount for anybody who deletes it from outside.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
import pytest
from sshd import CLIENT, SERVER, Sshd, new_key, servers_below, wait_for_banner

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"

_SUITE = "bookworm"
_PACKAGES = "bash coreutils dash grep libstdc++6 openssh-server procps python3 python3-minimal sed util-linux"
_WHEELS = ("numpy", "ai-edge-litert", "onnxruntime")  # in the versions that are tested here
_UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
_DIST_PACKAGES = "usr/local/lib/python3.11/dist-packages"
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux2014")

# What installation would have written, had anything been installed rather than unpacked.
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n"
    "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\nnobody:*:19000:0:99999:7:::\n",
    "etc/hostname": "board\n",
    "etc/hosts": "127.0.0.1 localhost board\n",
}

# QEMU shows this machine's: programs there would take the processor for what it is not.
_CPU = "cortex-a72"
_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""

# The header of an arm64 program, as the kernel is to know it. F: the interpreter is opened here and now, so
# that it need not be found in the chroot.
_HEADER = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"

_START = """\
set -e
root=$1 binfmt=$2 rule=$3
mount -t binfmt_misc binfmt "$binfmt"
printf %s "$rule" > "$binfmt/register"
mount -t proc proc "$root/proc"
mount --bind "$root/etc/cpuinfo" "$root/proc/cpuinfo"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
for name in null zero full random urandom tty; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for name in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${name#*:}" "$root/dev/${name%:*}"; done
exec chroot "$root" /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config
"""

_FORGET = 'mount -t binfmt_misc binfmt "$1"; if test -e "$1/$2"; then echo -1 > "$1/$2"; fi'


class Arm64Board(Sshd):
    """The running board. `root` is its root as seen from here, `python` the name of its Python there."""

    python = "python3"
    cpu = _CPU

    def __init__(self, folder, process, port):
        super().__init__(folder, process, port)
        self.root = folder / "root"

    def kill_sessions(self):
        """Kill the processes that serve connections, as a crash would; the listener stays."""
        for pid in servers_below(self.process.pid)[1:]:  # the first is the listener: `process` is its parent
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def require_arm64_board():
    """Skip the test where a board cannot be emulated, saying what that takes."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("an arm64 board is emulated on x86-64 Linux only")
    if os.geteuid() != 0:
        pytest.skip("an emulated arm64 board needs root, for chroot and binfmt_misc")
    needed = {
        "mmdebstrap": "mmdebstrap",
        "qemu-aarch64-static": "qemu-user-static",
        "ssh-keygen": "openssh-client",
    }
    absent = [package for program, package in needed.items() if not shutil.which(program)]
    if absent:
        pytest.skip(f"no emulated arm64 board: apt-get install {' '.join(absent)}")
    with tempfile.TemporaryDirectory() as folder:
        done = _in_namespaces('mount -t binfmt_misc binfmt "$1"; mount -t proc proc "$1"', folder)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        pytest.skip(f"no emulated arm64 board: root may not mount binfmt_misc and proc here ({reason})")


def arm64_root_tar():
    """Return the tar of the board's root, built (half a minute, and the network) where the cache lacks it."""
    usual = platformdirs.user_cache_path("ehdnas") / "test-boards"
    cache = Path(os.environ.get("EHDNAS_TEST_CACHE") or usual)
    cache.mkdir(parents=True, exist_ok=True)
    pins = [line for line in _CONSTRAINTS.read_text().splitlines() if line.split("==")[0] in _WHEELS]
    recipe = [_SUITE, _PACKAGES, *pins, *_UNUSED, *_PLATFORMS, _DIST_PACKAGES, str(_FILES), _CPUINFO]
    path = cache / f"arm64-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}.tar"
    with (cache / "arm64.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=cache, prefix="arm64-") as folder:
                _build(Path(folder, "root"))
                _run("tar", "--numeric-owner", "-cf", f"{folder}/tar", "-C", f"{folder}/root", ".")
                Path(folder, "tar").rename(path)
    return path


def _build(root):
    packages = _PACKAGES.replace(" ", ",")
    # A mirror that apt uses here for this suite, where it does; otherwise the usual one.
    ask = ("apt-get", "indextargets", "Identifier: Packages", f"Release: {_SUITE}", "--format", "$(SITE)")
    sites = subprocess.run(ask, capture_output=True, text=True).stdout.split()
    mirror = [site for site in sites if site.startswith("http")][:1]
    _run(
        *("mmdebstrap", "--quiet", "--mode=root", "--arch=arm64", "--variant=extract"),
        *(f"--include={packages}", _SUITE, str(root), *mirror),
    )
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(root / _DIST_PACKAGES)),
        *("--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=311", "--abi=cp311"),
        *(f"--platform={name}_aarch64" for name in _PLATFORMS),
        *("--constraint", str(_CONSTRAINTS), *_WHEELS),
    )
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name, text in _FILES.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(text)
    (root / "etc/shadow").chmod(0o640)
    (root / "etc/cpuinfo").write_text(_CPUINFO)
    for name in ("run/sshd", "root"):
        (root / name).mkdir(mode=0o755, exist_ok=True)
    (root / "tmp").chmod(0o1777)


@contextmanager
def running_arm64_board(folder):
    """Start the board, its root unpacked below `folder`, which holds keys and configuration as `sshd` does.

    Skips the test where it cannot be had.
    """
    require_arm64_board()
    root, binfmt = folder / "root", folder / "binfmt"
    root.mkdir()
    binfmt.mkdir()
    # A name of its own: a rule that is there already stays, and so do those of boards beside this one.
    name = f"ehdnas-arm64-{os.getpid()}"
    rule = f":{name}:M::{_HEADER}:{_MASK}:{shutil.which('qemu-aarch64-static')}:F"
    try:
        _run("tar", "--numeric-owner", "-xpf", str(arm64_root_tar()), "-C", str(root))
        port = _configure(folder, root)
        arguments = (_START, "sh", str(root), str(binfmt), rule)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _namespaces(*arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_for_banner(port, process, folder / "log")
            yield Arm64Board(folder, process, port)
        finally:
            _stop(process)
            _in_namespaces(_FORGET, str(binfmt), name)
    finally:
        shutil.rmtree(root)


def _configure(folder, root):
    """Write keys and configuration for both sides; return the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    inside = root / "etc/ssh"
    host_key, client_key = new_key(inside / "host"), new_key(folder / "client")
    settings = (f"SetEnv HOME=/root QEMU_CPU={_CPU}", SERVER.format(port=port, folder="/etc/ssh"))
    (inside / "sshd_config").write_text("\n".join(settings))
    (inside / "authorized_keys").write_text(client_key + "\n")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "config").write_text(CLIENT.format(port=port, user="root", folder=folder))
    return port


def _namespaces(script, *arguments):
    """The command of a shell in mount and PID namespaces of its own, which end with it and with us."""
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    return ["setpriv", "--pdeathsig", "KILL", *apart, "sh", "-ec", script, *arguments]


def _in_namespaces(script, *arguments):
    return subprocess.run(_namespaces(script, "sh", *arguments), capture_output=True, text=True)


def _stop(process):
    """End the first process of the namespaces, and so all: only then does `process`, its parent, end."""
    command = ["ps", "-o", "pid=", "--ppid", str(process.pid)]
    for pid in subprocess.run(command, capture_output=True, text=True).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
