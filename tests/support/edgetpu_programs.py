"""Stand-ins for the Edge TPU compiler and for a container engine.

Neither compiles nor contains anything: they take arguments and answer as the real programs do, so that what
starts them, waits for them and collects their files can be tested without them.
"""

import sys

# A stand-in, not a compiler: it copies the model and prints what $STAND_IN asks for.
COMPILER = """#!{python} -SE
import json, os, sys, time
from pathlib import Path

arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("Edge TPU Compiler version 16.0.384591198")
    sys.exit(0)
asked = os.environ.get("STAND_IN", "")
flags = dict(zip(arguments, arguments[1:]))
out, segments = Path(flags["-o"]), int(flags.get("-n", 1))
models = [Path(word) for word in arguments if word.endswith(".tflite")]
if "ARGUMENTS" in os.environ:
    Path(os.environ["ARGUMENTS"]).write_text(json.dumps(arguments))
print("Edge TPU Compiler version 16.0.384591198")
if asked == "hang":
    time.sleep(60)
if asked == "fail":
    print(f"ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6' in {models[0]}.\\n")
    print("ERROR: Registration failed.\\n", file=sys.stderr)
    print(f"Invalid model: {models[0]}\\nModel could not be parsed")
    sys.exit(1)
if asked == "crash":
    os.abort()
if asked == "search":
    print("Compilation failed: Compilation failed due to large activation tensors.", file=sys.stderr)
    print("Compilation failed!\\nTry to compile segment with 13 ops")
if asked == "flood":
    print("x" * 9_000_000)
mapped = "Operation not supported" if asked == "cpu" else "Mapped to Edge TPU"
rows = "Operator                       Count      Status\\n\\n"
rows += f"CONV_2D                        12         {mapped}\\n"
on_cpu = 13 if asked == "cpu" else 1
rows += "SOFTMAX                        1          Operation not supported\\n"
print("Started a compilation timeout timer of 180 seconds.\\n")
print("Model compiled successfully in 7 ms.\\n")
for model in models:
    for index in range(segments):
        name = model.stem if segments == 1 else f"{model.stem}_segment_{index}_of_{segments}"
        print(f"Input model: {model.with_name(name)}.tflite\\nInput size: 1.50KiB")
        print(f"Output model: {out / name}_edgetpu.tflite\\nOutput size: 2.00KiB")
        print(f"Total number of operations: 13\\nOperation log: {out / name}_edgetpu.log\\n")
        print(f"Number of operations that will run on Edge TPU: {13 - on_cpu}")
        print(f"Number of operations that will run on CPU: {on_cpu}\\n")
        print(rows if asked != "unlisted" else "See the operation log file.")
        log = f"Edge TPU Compiler version 16\\nInput: {model}\\n\\n{rows}"
        (out / f"{name}_edgetpu.log").write_text(log)
        data = model.read_bytes() + name.encode()
        if asked == "garbage":
            data = b"<html>no such file</html>"
        if asked != "silent" and (asked != "half" or index == 0):
            (out / f"{name}_edgetpu.tflite").write_bytes(data)
print("Compilation succeeded!")
"""

# A stand-in, not a container engine: it notes how it was called and starts the program it was told to.
ENGINE = """#!{python} -SE
import json, os, sys

arguments = sys.argv[1:]
with open(os.environ["ENGINE_CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
if arguments[0] == "kill":
    sys.exit(0)
program = arguments.index("--entrypoint") + 1
image = arguments[program + 1]
if image == "absent":
    sys.stderr.write("docker: Error response from daemon: No such image: absent\\n\\n")
    sys.stderr.write("Run 'docker run --help' for more information\\n")
    sys.exit(125)
mount = dict(word.split("=") for word in arguments[arguments.index("--mount") + 1].split(","))
inner = [word.replace(mount["target"] + "/", mount["source"] + "/") for word in arguments[program + 2:]]
inner = [mount["source"] if word == mount["target"] else word for word in inner]
try:
    os.execvp(arguments[program], [arguments[program], *inner])
except OSError as error:
    sys.exit(127)
"""


def install(path, name, program):
    """Put a program into the folder `path`."""
    (path / name).write_text(program.replace("{python}", sys.executable))
    (path / name).chmod(0o755)
