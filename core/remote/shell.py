"""What we have the shell over there do: hold a folder, and run a program that cannot outlive us.

Both scripts are POSIX sh on one line without single quotes, so that any login shell passes them on unharmed.
Each prints `mark` first: what start-up files print comes before it. Both watch their standard input, which
closes when the connection ends, however it ends. A link that falls silent ends nothing for hours: so whoever
holds a folder may also be asked to hear a line every so often, and to give up without.
"""

from __future__ import annotations

import math
import re
import secrets
import shlex
from collections.abc import Sequence

from ehdnas.core.remote.base import KILL_AFTER_S

# Our own clock stops a command at its limit; `timeout` over there is for when we are gone: a little later.
_BACKSTOP_S = 10

_AVAILABLE = re.compile(r"\s\d+\s+\d+\s+(\d+)\s+(?:\d+%|-)\s")

# Android has no /tmp. `timeout` ends with 124, or as the signal it sent, 143; the end of the input gives 1.
# What still ends may write a file while we remove the others, as may an upload whose last requests are read
# only now: so removing is tried until it has worked.
_HOLD = """
mark=$1; dead=$2; top=${TMPDIR:-};
for d in /tmp /data/local/tmp; do if test -z "$top" && test -w "$d"; then top=$d; fi; done;
d=$(umask 077; mktemp -d "${top:-/tmp}/ehdnas.XXXXXXXXXX") || exit 1;
clean() { trap "" HUP INT PIPE TERM; cd /; i=0;
while rm -rf -- "$d" 2>/dev/null; test -e "$d" && test "$i" -lt 6; do sleep 1; i=$((i + 1)); done; };
trap clean EXIT; trap "exit 1" HUP INT PIPE TERM;
printf %s "$mark$d$mark";
{
code=0;
if test "$dead" -gt 0 && timeout 5 true; then
while test "$code" = 0; do timeout "$dead" sh -c "read -r line"; code=$?; done;
else while read -r line; do :; done; fi;
if test "$code" = 124 || test "$code" = 143; then
for p in /proc/[0-9]*; do
if test "$p/cwd" -ef "$d"; then p=${p##*/}; kill -TERM "-$p" || kill -TERM "$p"; fi;
done;
fi;
} 2>/dev/null;
exit 0
"""

# setsid, and failing that timeout, make the program the leader of a group; signals go to all of it. What
# watches it stays in our folder, and takes TERM, which the holder sends, for the end of its input.
_RUN = """
mark=$1; limit=$2; after=$3; cd "$4" || exit 125; shift 4;
printf %s "$mark"; printf %s "$mark" >&2;
exec 3<&0;
if timeout -k 1 5 true; then set -- timeout -k "$after" "$limit" "$@"; fi 2>/dev/null;
if command -v setsid >/dev/null; then set -- setsid "$@"; fi;
"$@" </dev/null 3<&- &
p=$!;
stop() { kill "-$1" "-$p" || kill "-$1" "$p"; };
{
trap : TERM;
while read -r line; do :; done;
stop TERM; i=0;
while test "$i" -lt "$after" && stop 0; do sleep 1; i=$((i + 1)); done;
stop KILL;
} <&3 >/dev/null 2>&1 &
w=$!;
exec 3<&-;
{ wait "$p"; code=$?; kill -KILL "$w"; kill -KILL "-$p"; } 2>/dev/null;
exit "$code"
"""


def new_mark() -> str:
    """Return a text that no start-up file prints by chance, nor a program on purpose."""
    return f"ehdnas-{secrets.token_hex(8)}:"


def hold_command(mark: str, dead_s: float = 0) -> str:
    """Return the command that makes our folder, prints its path between marks, and removes it at the end.

    The end is that of its input, or `dead_s` seconds, rounded up, without a line there, which also ends what
    runs in the folder. With 0, and where there is no `timeout`, it waits for as long as its input is open.
    """
    return _command(_HOLD, [mark, str(math.ceil(dead_s))])


def run_command(mark: str, folder: str, arguments: Sequence[str], timeout_s: float) -> str:
    """Return the command that runs `arguments` in `folder`; first it prints `mark` on both streams."""
    limit = str(math.ceil(timeout_s) + _BACKSTOP_S)
    return _command(_RUN, [mark, limit, str(KILL_AFTER_S), folder, *arguments])


def held_folder(output: bytes, mark: str) -> str:
    """Return the folder in what `hold_command` printed so far; '' when it is not there yet."""
    parts = output.decode(errors="replace").split(mark)
    return parts[1] if len(parts) == 3 and parts[1].startswith("/") else ""


def after_mark(output: bytes, mark: str) -> bytes | None:
    """Return what a program printed, without what came before it; None when it never started."""
    _, found, own = output.partition(mark.encode())
    return own if found else None


def last_line(output: bytes) -> str:
    """Return the last line that says something, for an error message; '' when there is none."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def available_bytes(df_output: bytes) -> int | None:
    """Return what `df -Pk` says can still be written; None when it does not say."""
    found = _AVAILABLE.search(last_line(df_output) + " ")
    return int(found[1]) * 1024 if found else None


def _command(script: str, arguments: Sequence[str]) -> str:
    # `exec` leaves no login shell between sshd and us; it is known to sh, csh and fish alike.
    return f"exec {shlex.join(['sh', '-c', ' '.join(script.split()), 'sh', *arguments])}"
