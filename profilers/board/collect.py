"""From the answers of several processes to one measurement, with a flag on whatever makes it doubtful."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from ehdnas.core.device import Device
from ehdnas.core.measurement import Measurement, Statistics
from ehdnas.profilers.board.reply import Reply
from ehdnas.profilers.protocol import Protocol

# Medians of processes that disagree by more than this are taken again once, then flagged.
SPREAD_LIMIT = 0.05
DRIFT_LIMIT = 0.05


def collect(device: Device, digest: str, protocol: Protocol, run: Callable[[], Reply]) -> Measurement:
    """Return the measurement of one model: `run` called once for each of the protocol's processes.

    `digest` is the model's SHA-256. When the processes disagree the round is repeated once, and the
    calmer of the two counts. Metrics: `latency_ms` (the median of the processes' medians),
    `throughput_fps` (one image a run), `load_ms`, `first_run_ms` and `peak_memory_mb`.
    """
    rounds = [_round(protocol, run)]
    if rounds[0][1].spread > SPREAD_LIMIT:
        rounds.append(_round(protocol, run))
    replies, statistics = min(rounds, key=lambda one: one[1].spread)
    first = replies[0]
    return Measurement(
        device=device.name,
        basis="measured",
        metrics={
            "latency_ms": statistics.median_ms,
            "throughput_fps": 1000 / statistics.median_ms,
            "load_ms": first.load_ms,
            "first_run_ms": first.first_ms,
            "peak_memory_mb": max(reply.peak_memory_mb for reply in replies),
        },
        statistics=statistics,
        samples_ms=[reply.samples_ms for reply in replies],
        passport={
            "model_sha256": digest,
            "interpreter": first.interpreter,
            "threads": first.threads,
            "machine": first.machine,
            "before": [reply.before for reply in replies],
            "after": [reply.after for reply in replies],
            "rounds": len(rounds),
            "protocol": asdict(protocol),
        },
        flags=_flags(replies, statistics),
    )


def _round(protocol: Protocol, run: Callable[[], Reply]) -> tuple[list[Reply], Statistics]:
    replies = [run() for _ in range(protocol.processes)]
    return replies, Statistics.over([reply.samples_ms for reply in replies])


def _flags(replies: list[Reply], statistics: Statistics) -> list[str]:
    flags = []
    if statistics.spread > SPREAD_LIMIT:
        flags.append(f"spread {100 * statistics.spread:.0f} %")
    if statistics.drift > DRIFT_LIMIT:
        flags.append(f"drift {100 * statistics.drift:+.0f} % from the first runs to the last")
    state, cores = replies[0].before, replies[0].machine.get("cores")
    load = state.get("load")
    if isinstance(load, int | float) and isinstance(cores, int) and load > cores:
        flags.append(f"busy machine (load {load:.1f} on {cores} cores)")
    governor = state.get("governor")
    if governor and governor != "performance":
        flags.append(f"governor {governor}")
    if any(is_throttled(reply.after.get("throttled")) for reply in replies):
        flags.append("throttled (see the passport)")
    return flags


def is_throttled(word: object) -> bool:
    """Return whether `vcgencmd get_throttled` says that something limits the clock now (bits 0 to 3)."""
    try:
        return bool(int(str(word), 16) & 0xF)
    except ValueError:
        return False
