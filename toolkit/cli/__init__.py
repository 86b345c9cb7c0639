"""The command line: parse, call, print. No logic lives here, and nothing heavy is imported early."""

from __future__ import annotations

import os
import sys
from functools import partial

from ehdnas.core.errors import EhdnasError

INTERRUPTED = 130
RESUMABLE = {"run", "profile", "search", "sweep", "train"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one line, and `--debug` adds the traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    # Threads that wait must sleep, not spin: where another process wants a core, spinning ones cost several
    # times the work. It only counts before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # ONNX Runtime would report its use to its maker, and leave files for that in the home folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from ehdnas.cli.app import UsageProblem
    from ehdnas.cli.interrupt import heeded

    try:
        with heeded():
            code = _run(arguments)
        # typer turns Ctrl-C into this exit code before it can be seen here.
        return _interrupted(arguments) if code == INTERRUPTED else code if isinstance(code, int) else 0
    except EhdnasError as error:
        return _fail(str(error), error.exit_code, debug)
    except UsageProblem as error:
        return _fail(error.format_message(), 2, debug)
    except (KeyboardInterrupt, EOFError):
        return _interrupted(arguments)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or 'the output'}", 1, debug)


def _run(arguments: list[str]) -> object:
    """Run a command, together with the other processes where torchrun started several."""
    from ehdnas.cli.app import app

    command = partial(app, args=arguments, prog_name="ehdnas", standalone_mode=False)
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return command()
    from ehdnas.pipeline.following import shared

    return shared(command)


def _interrupted(arguments: list[str]) -> int:
    if RESUMABLE & set(arguments[:1]):
        return _fail("interrupted; what was finished is kept: go on with --resume", INTERRUPTED, debug=False)
    return _fail("interrupted; nothing was left half-written", INTERRUPTED, debug=False)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"error: {message}\n")
    return code
