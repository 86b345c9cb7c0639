"""From the answers of several processes to one measurement, with a flag on whatever makes it doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ehdnas.core.device import Device
from ehdnas.core.measurement import Measurement, Statistics
from ehdnas.profilers.board.reply import Reply, one_line
from ehdnas.profilers.protocol import Protocol

# Medians of processes that disagree by more than this are taken again once, then flagged.
SPREAD_LIMIT = 0.05
DRIFT_LIMIT = 0.05
# The share of all cores that other programs may use.
BUSY_LIMIT = 0.10
_SINCE_BOOT = 0xF0000  # of `vcgencmd get_throttled`, bits 16 to 19
_OVERHEADS = ("start_ms", "import_ms", "load_ms", "first_ms", "warmup_ms", "timing_ms")


@dataclass(frozen=True)
class _Round:
    replies: list[Reply]
    statistics: Statistics
    doubts: list[str]


def collect(device: Device, digest: str, protocol: Protocol, run: Callable[[], Reply]) -> Measurement:
    """Return the measurement of one model: `run` called once for each of the protocol's processes.

    `digest` is the model's SHA-256. A doubtful round (the processes disagree or drift, the clock was
    limited, other programs were busy) is repeated once, and the less doubtful of the two counts; one of a
    single process (the quick protocol, and the long ones in windows) is only marked. Metrics: `latency_ms`
    (the median of the processes' medians) and `throughput_fps` (one image a run); where they are known
    `load_ms`, `first_run_ms`, `peak_memory_mb`, `memory_mb` (of the model alone), `energy_mj` a run,
    `gpu_latency_ms`, and `sustained_ms`, the median over the last quarter of the windows.
    """
    rounds = [_round(protocol, run)]
    if rounds[0].doubts and protocol.processes > 1:
        rounds.append(_round(protocol, run))
    best = min(rounds, key=lambda one: (len(one.doubts), one.statistics.spread))
    return Measurement(
        device=device.name,
        basis="measured",
        metrics=_metrics(best.replies, best.statistics.median_ms),
        statistics=best.statistics,
        samples_ms=[reply.samples_ms for reply in best.replies],
        passport={
            "model_sha256": digest,
            **_passport(best.replies),
            "rounds": len(rounds),
            "protocol": asdict(protocol),
        },
        flags=[*best.doubts, *_notes(best.replies)],
    )


def is_throttled(word: object) -> bool:
    """Return whether `vcgencmd get_throttled` says that something limits the clock now (bits 0 to 3)."""
    return bool(_word(word) & 0xF)


def _word(text: object) -> int:
    try:
        return int(str(text), 16)
    except ValueError:
        return 0


def _round(protocol: Protocol, run: Callable[[], Reply]) -> _Round:
    replies = [run() for _ in range(protocol.processes)]
    statistics = Statistics.over([reply.samples_ms for reply in replies])
    return _Round(replies, statistics, _doubts(replies, statistics, drifts=bool(protocol.window_s)))


def _metrics(replies: list[Reply], median_ms: float) -> dict[str, float]:
    first, peaks = replies[0], _known(reply.peak_memory_mb for reply in replies)
    above = [
        reply.peak_memory_mb - reply.base_memory_mb
        for reply in replies
        if reply.peak_memory_mb is not None and reply.base_memory_mb is not None
    ]
    energies = _known(reply.energy_mj for reply in replies)
    windows = [window.median_ms for reply in replies for window in reply.windows]
    metrics = {
        "latency_ms": median_ms,
        "throughput_fps": 1000 / median_ms,
        "load_ms": first.load_ms,
        "first_run_ms": first.first_ms,
        "peak_memory_mb": max(peaks, default=None),
        "memory_mb": max(0.0, *above) if above else None,
        "energy_mj": median(energies) if len(energies) == len(replies) else None,
        "gpu_latency_ms": _median(median(reply.gpu_ms) for reply in replies if reply.gpu_ms),
        "sustained_ms": _median(windows[-max(1, len(windows) // 4) :]),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _passport(replies: list[Reply]) -> dict[str, Any]:
    first = replies[0]
    overheads = {name: _median(_known(getattr(reply, name) for reply in replies)) for name in _OVERHEADS}
    power_w = _median(_known(reply.power_w for reply in replies))
    windows = [window.model_dump(exclude_none=True) for reply in replies for window in reply.windows]
    optional = {"power_w": power_w, "windows": windows or None, "cpus": first.before.get("affinity")}
    return {
        "interpreter": first.interpreter,
        "threads": first.threads,
        "machine": first.machine,
        "before": [reply.before for reply in replies],
        "after": [reply.after for reply in replies],
        "start_ms": [reply.start_ms for reply in replies],
        "import_ms": [reply.import_ms for reply in replies],
        "overheads": {name: value for name, value in overheads.items() if value is not None},
        **{key: value for key, value in optional.items() if value is not None},
    }


def _doubts(replies: list[Reply], statistics: Statistics, drifts: bool) -> list[str]:
    doubts = []
    if statistics.spread > SPREAD_LIMIT:
        doubts.append(f"spread {100 * statistics.spread:.0f} %")
    if statistics.drift > DRIFT_LIMIT and not drifts:
        doubts.append(f"drift {100 * statistics.drift:+.0f} % from the first runs to the last")
    doubts += _busy(replies)
    if any(_throttled(reply) for reply in replies):
        doubts.append("throttled (see the passport)")
    return doubts


def _throttled(reply: Reply) -> bool:
    before, after = reply.before.get("throttled"), reply.after.get("throttled")
    # The bits that stay until the next start tell of what came and went while nobody looked.
    came = _word(after) & ~_word(before) & _SINCE_BOOT
    return is_throttled(before) or is_throttled(after) or bool(came)


def _busy(replies: list[Reply]) -> list[str]:
    share = _median(_known(reply.other_cpu for reply in replies))
    if share is not None:
        used = f"other programs used {100 * share:.0f} % of the CPU"
        return [f"busy machine ({used})"] if share > BUSY_LIMIT else []
    load, cores = replies[0].before.get("load"), replies[0].machine.get("cores")
    if isinstance(load, int | float) and isinstance(cores, int) and load > cores:
        return [f"busy machine (load {load:.1f} on {cores} cores)"]
    return []


def _notes(replies: list[Reply]) -> list[str]:
    governor = replies[0].before.get("governor")
    return [f"governor {one_line(governor, 64)}"] if governor and governor != "performance" else []


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None
