"""A stand-in for adb: a program of that name that does on this machine what adb would do on a device.

It shows that we call adb as its manual says and take its answers as adb is known to word them. It cannot show
what a real device does: Android's own shell and tools, a cable that is pulled, or how soon adbd closes the
input of a shell when adb is killed, for here the program becomes the shell itself.
"""

import os
import sys

_PROGRAM = """\
#!{python} -ISE
import os, sys

here = os.path.dirname(os.path.abspath(__file__))
arguments = sys.argv[1:]
serial = ""
if arguments[:1] == ["-s"]:
    serial, arguments = arguments[1], arguments[2:]
with open(here + "/devices") as table:
    devices = dict(line.split() for line in table)


def fail(message):
    sys.stderr.write(message + "\\n")
    sys.exit(1)


verb, *rest = arguments
if verb == "devices":
    print("List of devices attached")
    print("".join(f"{{name}}\\t{{state}}\\n" for name, state in devices.items()))
    sys.exit()
if serial and serial not in devices:
    fail(f"error: device '{{serial}}' not found")
if not devices:
    fail("error: no devices/emulators found")
if not serial and len(devices) > 1:
    fail("error: more than one device/emulator")
state = devices[serial or next(iter(devices))]
if state == "unauthorized":
    fail("error: device unauthorized.\\nThis adb server's $ADB_VENDOR_KEYS is not set")
if state == "offline":
    fail("error: device offline")
if verb == "get-state":
    print(state)
elif verb == "shell":
    if os.path.exists(here + "/old"):
        os.dup2(1, 2)  # before Android 7
    os.execvp("sh", ["sh", "-c", " ".join(rest)])
elif verb in ("push", "pull"):
    source, target = rest
    try:
        with open(source, "rb") as content:
            data = content.read()
        if os.path.exists(here + "/damaging"):
            data = data[:-1] + b"?"
        if verb == "pull" and os.path.exists(target):
            os.unlink(target)
        with open(target, "wb") as copy:
            copy.write(data)
        if verb == "push":
            mode = os.stat(source).st_mode & 0o700
            os.chmod(target, mode | mode >> 3 | mode >> 6)  # as adbd does
    except OSError as error:
        fail(f"adb: error: failed to copy '{{source}}' to '{{target}}': {{error.strerror}}")
    print(f"{{source}}: 1 file {{verb}}ed, 0 skipped. 1.0 MB/s ({{len(data)}} bytes in 0.010s)")
else:
    fail(f"adb: unknown command {{verb}}")
"""


def install(folder, monkeypatch, devices="emulator-5554 device\n"):
    """Write the program to `folder` and put that first on PATH; `devices` has a line `SERIAL STATE` for each.

    A file `damaging` beside it spoils what is copied, one called `old` mixes the output streams.
    """
    program = folder / "adb"
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    (folder / "devices").write_text(devices)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
