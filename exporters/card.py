"""The model card: what an exported file is, for whoever finds it without the tool that made it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ehdnas.core.artifact import Artifact, Manifest, TensorSpec
from ehdnas.core.files import write_text


def card_path(path: Path) -> Path:
    """Return where the model card of an exported file lies."""
    return path.with_name(path.name + ".md")


def write_card(artifact: Artifact) -> Path:
    """Write the model card beside the file and return its path."""
    target = card_path(artifact.path)
    write_text(target, model_card(artifact.manifest))
    return target


def model_card(manifest: Manifest) -> str:
    """Return the card in Markdown; every text that came from outside is escaped."""
    meta = manifest.metadata
    lines = [
        f"# {_plain(manifest.file)}",
        "",
        f"{'A part of a network' if 'part' in meta else 'An image classifier'} for target "
        f"`{manifest.target}`, {manifest.precision}, {manifest.size_bytes:,} bytes.",
        "",
        *_section("Use", _use(manifest)),
        *_section("Accuracy", _accuracy(manifest)),
        *_section("Agreement with the network it was exported from", _parity(manifest)),
        *_section("Quantisation", _quantisation(manifest.details.get("quantisation"))),
        *_section("Edge TPU", _edge_tpu(manifest.details)),
        *_section("TensorRT", _tensorrt(manifest.details.get("tensorrt"))),
        *_section("Network", [f"- {_plain(key)}: {_plain(meta[key])}" for key in _NETWORK if key in meta]),
        *_section("Provenance", _provenance(manifest)),
    ]
    return "\n".join(lines) + "\n"


_NETWORK = ("space", "genotype", "part", "weights")


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _use(manifest: Manifest) -> list[str]:
    meta = manifest.metadata
    lines = [_tensor("input", one) for one in manifest.inputs]
    lines += [_tensor("output", one) for one in manifest.outputs]
    if "mean" in meta and "std" in meta:
        lines.append(
            f"- pre-processing, not in the file: pixels / 255, minus {_plain(meta['mean'])}, "
            f"divided by {_plain(meta['std'])}, per channel; no latency that is told of it counts that"
        )
    classes = meta.get("classes")
    if classes:
        shown = ", ".join(_plain(name) for name in classes[:20])
        lines.append(f"- classes ({len(classes)}): {shown}{', ...' if len(classes) > 20 else ''}")
    return lines


def _tensor(role: str, spec: TensorSpec) -> str:
    text = f"- {role} `{spec.name}`: {spec.dtype} {spec.layout} {spec.shape}"
    if spec.scale is None:
        return text
    zero = spec.zero_point or 0
    return f"{text}, holds round(x / {spec.scale:.9g}) {'-' if zero < 0 else '+'} {abs(zero)}"


def _accuracy(manifest: Manifest) -> list[str]:
    parity, source = manifest.parity, manifest.details.get("compiled_from")
    if parity is None and source:
        return [f"Not run here: compiled for the device from {_plain(source['file'])}; see its card."]
    if parity is None or parity.accuracy_before is None or parity.accuracy_after is None:
        return ["Not measured: the images it was checked on have no labels, or the weights are not trained."]
    return [
        f"{parity.accuracy_after:.2%} of {parity.accuracy_images:,} test images, measured on this file; "
        f"{parity.accuracy_before:.2%} by the network before export."
    ]


def _parity(manifest: Manifest) -> list[str]:
    parity, source = manifest.parity, manifest.details.get("compiled_from")
    if parity is None and source:
        return [f"Not run here: compiled for the device from {_plain(source['file'])}; see its card."]
    if parity is None:
        return ["Never checked."]
    same = "" if parity.top1_agreement is None else f"; the same class for {parity.top1_agreement:.2%}"
    verdict = "passed" if parity.passed else f"FAILED: {_plain('; '.join(parity.failures))}"
    fallback = ", ".join(f"{count} {_plain(name)}" for name, count in parity.plain_operators.items())
    what = "inputs of random features" if "part" in manifest.metadata else "images"
    return [
        f"{verdict}. {parity.images:,} {what} in {_plain(parity.interpreter)}: outputs differ by "
        f"{parity.max_difference:.3g} at most and {parity.mean_difference:.3g} on average{same}.",
        *([f"On this CPU XNNPACK leaves {fallback} to plain kernels."] if fallback else []),
    ]


def _quantisation(report: dict[str, Any] | None) -> list[str]:
    if not report:
        return []
    tried = ", ".join(f"{_plain(name)} {noise:.2g}" for name, noise in report["noise"].items())
    return [
        f"Activation ranges by {_plain(report['calibration'])} over {report['images']} inputs; "
        f"kept: {_plain(report['kept'])}. Errors, relative to what tells classes apart: {tried}."
    ]


def _edge_tpu(details: dict[str, Any]) -> list[str]:
    report = details.get("edgetpu")
    if not report:
        return []
    compiled = details.get("compilation")
    lines = [f"By the static check, {report['on_tpu']} operators map and {report['on_cpu']} stay on the CPU."]
    if not compiled:
        return [*lines, "Not compiled: this file runs on a CPU until the Edge TPU compiler has seen it."]
    return [
        *lines,
        f"By the compiler ({_plain(compiled['compiler_version'])}), {compiled['on_tpu']} run on the Edge TPU "
        f"and {compiled['on_cpu']} on the CPU.",
    ]


def _tensorrt(report: dict[str, Any] | None) -> list[str]:
    if not report:
        return []
    if report.get("version"):
        return [
            f"The engine was built by TensorRT {_plain(report['version'])} and loads in that version alone."
        ]
    return ["No engine was built. On the Jetson, run:", "", f"    {report['command']}"]


def _provenance(manifest: Manifest) -> list[str]:
    versions = ", ".join(f"{_plain(name)} {_plain(text)}" for name, text in manifest.versions.items())
    return [
        f"- SHA-256 of the file: `{manifest.sha256}`",
        f"- SHA-256 of the parameters: `{manifest.parameters_sha256}`",
        f"- made with {versions}",
    ]


def _plain(value: object) -> str:
    """Return a text on one line, with what Markdown or HTML would take for markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(str(value).split()))
