"""The compiler's output, read: real shapes of it, every status and failure, damage, and hostile text."""

import json
import time

import pytest
from edgetpu_output import DONE, HEAD, MAPPED, ROWS, STATUSES, TIMER, block, compiled, log_file
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import ExportError
from ehdnas.exporters.edgetpu.log import (
    Compilation,
    OperatorRow,
    add_segments,
    parse_compilation,
    parse_compilations,
)

KIB, MIB = 1 << 10, 1 << 20
UNITS = {"B": 1, "KiB": KIB, "MiB": MIB}
OUTPUT = HEAD + compiled(block())


def test_the_reference_output():
    assert parse_compilation(OUTPUT) == Compilation(
        compiler_version="16.0.384591198",
        input_model="net_int8.tflite",
        output_model="net_int8_edgetpu.tflite",
        succeeded=True,
        compile_ms=1135,
        input_size_bytes=6 * MIB,
        output_size_bytes=round(6.11 * MIB),
        cached_bytes=round(5.9 * MIB),
        cache_remaining_bytes=round(1.16 * MIB),
        streamed_bytes=41 * KIB + 768,
        subgraphs=1,
        total_operations=143,
        on_tpu=139,
        on_cpu=4,
        complete=True,
        operators=[OperatorRow(operator=o, count=c, status=s, mapped=s == MAPPED) for o, c, s in ROWS],
    )


def test_it_goes_through_json_and_cannot_be_changed():
    found = parse_compilation(OUTPUT)
    assert Compilation.model_validate(json.loads(json.dumps(found.model_dump()))) == found
    with pytest.raises(ValueError, match="frozen"):
        found.on_tpu = 143
    with pytest.raises(ValueError, match="not permitted"):
        Compilation(succeeded=True, speed=1)


@pytest.mark.parametrize("status", [*STATUSES, "Quantum state not supported (code 7)"])
def test_every_status_is_kept_and_counts_for_the_cpu(status):
    found = parse_compilation(HEAD + compiled(block(rows=[("ADD", 5, MAPPED), ("CUSTOM", 2, status)])))
    assert (found.on_tpu, found.on_cpu, found.complete) == (5, 2, True)
    assert found.operators[1] == OperatorRow(operator="CUSTOM", count=2, status=status, mapped=False)


def test_a_status_that_says_more_is_still_mapped():
    found = parse_compilation(HEAD + compiled(block(rows=[("ADD", 5, f"{MAPPED} (in two parts)")])))
    assert found.operators[0].mapped and found.on_tpu == 5


def test_nothing_mapped_is_success_with_nothing_on_the_tpu():
    rows = [("CONV_2D", 20, STATUSES[2]), ("SOFTMAX", 1, STATUSES[0])]
    text = HEAD + compiled(block(rows=rows)).replace("subgraphs: 1", "subgraphs: 0")
    for output in (text, text.split("Operator  ")[0]):
        found = parse_compilation(output)
        assert found.succeeded and found.failure is None and found.complete
        assert (found.on_tpu, found.on_cpu, found.subgraphs) == (0, 21, 0)


def test_without_rows_on_the_output_the_operation_log_gives_them():
    output = HEAD + compiled(block(shown=False))
    assert parse_compilation(output).operators == []
    assert (parse_compilation(output).on_tpu, parse_compilation(output).on_cpu) == (139, 4)
    assert parse_compilation(output, log_file()) == parse_compilation(OUTPUT)
    assert parse_compilations(output, {"net_int8_edgetpu.log": log_file()}) == [parse_compilation(OUTPUT)]


def test_fully_mapped_output_has_no_counts_and_needs_the_rows():
    rows = [("CONV_2D", 12, MAPPED), ("ADD", 3, MAPPED)]
    assert (parse_compilation(HEAD + compiled(block(rows=rows))).on_tpu) == 15
    silent = parse_compilation(HEAD + compiled(block(rows=rows, shown=False)))
    assert (silent.on_tpu, silent.on_cpu, silent.total_operations, silent.complete) == (0, 0, 15, False)


@pytest.mark.parametrize(
    ("text", "size"), [("0.00B", 0), ("512.00B", 512), ("1.50KiB", 1536), ("7MiB", 7 * MIB)]
)
def test_units(text, size):
    assert parse_compilation(HEAD + compiled(block(sizes=[text] * 5))).cached_bytes == size


@pytest.mark.parametrize("text", ["", "1.5", "MiB", "-3.00KiB", "nanMiB", "1e9B", "٣.00MiB", "9" * 50 + "B"])
def test_a_size_that_is_none_is_none(text):
    found = parse_compilation(HEAD + compiled(block(sizes=[text] * 5)))
    assert found.succeeded and found.cached_bytes is None and found.streamed_bytes is None


def test_line_ends_of_other_systems():
    for end in ("\r\n", "\r"):
        output, log = OUTPUT.replace("\n", end), log_file().replace("\n", end)
        assert parse_compilation(output) == parse_compilation(OUTPUT)
        assert parse_compilation(HEAD + compiled(block(shown=False)), log) == parse_compilation(OUTPUT)


OPCODE = "Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version might be supported."
REGISTRATION = "ERROR: Registration failed.\n\n"
FAILURES = {
    "Internal compiler error. Aborting!\n": "Internal compiler error. Aborting!",
    f"ERROR: {OPCODE}\n\n{REGISTRATION}Invalid model: net.tflite\nModel could not be parsed\n": (
        f"{OPCODE}; Invalid model: net.tflite; Model could not be parsed"
    ),
    "Invalid model: net.tflite\n": "Invalid model: net.tflite",
    "Model could not be parsed\n": "Model could not be parsed",
    f"{TIMER}{DONE}Compilation failed! \n": "Compilation failed!",
    f"{TIMER}ERROR: Restored original execution plan after delegate application failure.\n"
    f"Compilation failed: Compilation failed due to large activation tensors in model.\n{DONE}"
    "Compilation failed! \n": "Compilation failed due to large activation tensors in model.",
    "Compilation failed due to large activation tensors in model.\n": (
        "Compilation failed due to large activation tensors in model."
    ),
    f"{TIMER}Compilation timeout. This is usually caused by large activations.\nCompilation failed! \n": (
        "Compilation timeout. This is usually caused by large activations."
    ),
    "compiler: line 3: 1531 Segmentation fault (core dumped)\n": (
        "compiler: line 3: 1531 Segmentation fault (core dumped)"
    ),
    "": "it ended with exit code 1 and gave no reason",
}


@pytest.mark.parametrize(("words", "failure"), FAILURES.items())
def test_every_failure_is_one_line_that_tells(words, failure):
    found = parse_compilation(HEAD + words, exit_code=1)
    assert found == Compilation(compiler_version="16.0.384591198", succeeded=False, failure=failure)
    assert not parse_compilation(words, exit_code=0).succeeded


def test_a_failure_counts_against_what_was_printed_before_it():
    assert not parse_compilation(OUTPUT, exit_code=1).succeeded
    assert (
        parse_compilation(OUTPUT, exit_code=-11).failure == "it ended with exit code -11 and gave no reason"
    )
    assert not parse_compilation(OUTPUT + "Internal compiler error. Aborting!\n").succeeded


def test_a_run_without_a_verdict_is_no_success():
    for output in ("", HEAD, HEAD + TIMER, block(), log_file()):
        found = parse_compilation(output)
        assert not found.succeeded and found.failure and found.on_tpu == 0


def test_models_compiled_together():
    blocks = [block("cnn"), block("rnn", rows=[("ADD", 7, MAPPED)], sizes=["2.00MiB"] * 5)]
    first, second = parse_compilations(HEAD + compiled(*blocks, compile_ms=524))
    assert (first.input_model, first.output_model) == ("cnn.tflite", "cnn_edgetpu.tflite")
    assert (second.input_model, second.output_model) == ("rnn.tflite", "rnn_edgetpu.tflite")
    assert first.compile_ms == second.compile_ms == 524
    assert (first.on_tpu, first.on_cpu, second.on_tpu, second.on_cpu) == (139, 4, 7, 0)
    assert (first.cached_bytes, second.cached_bytes) == (round(5.9 * MIB), 2 * MIB)


def test_each_of_several_models_has_its_own_log():
    blocks = [block("out dir/cnn", shown=False), block("rnn", rows=[("ADD", 7, MAPPED)], shown=False)]
    logs = {"rnn_edgetpu.log": log_file("rnn", [("ADD", 7, MAPPED)]), "cnn_edgetpu.log": log_file("cnn")}
    first, second = parse_compilations(HEAD + compiled(*blocks), logs)
    assert len(first.operators) == 5 and (second.on_tpu, second.complete) == (7, True)


def test_segments_are_added_up():
    names = ["net_segment_0_of_2", "net_segment_1_of_2"]
    output = HEAD + "".join(compiled(block(name), compile_ms=100) for name in names)
    parts = parse_compilations(output)
    assert [part.input_model for part in parts] == [f"{name}.tflite" for name in names]
    whole = parse_compilation(output)
    assert whole == add_segments(parts)
    assert (whole.segments, whole.compile_ms, whole.on_tpu, whole.on_cpu) == (2, 200, 278, 8)
    assert whole.cached_bytes == 2 * round(5.9 * MIB) and whole.cache_remaining_bytes == round(1.16 * MIB)
    assert whole.complete and [row.count for row in whole.operators] == [6, 272, 2, 4, 2]
    unshown = HEAD + "".join(compiled(block(name, shown=False), compile_ms=100) for name in names)
    assert parse_compilation(unshown, "".join(log_file(name) for name in names)) == whole


def test_a_segment_that_fails_fails_the_model():
    reason = "Compilation failed due to large activation tensors in model."
    failed = f"{TIMER}Compilation failed: {reason}\n{DONE}Compilation failed! \n"
    output = HEAD + compiled(block("net_segment_0_of_2")) + failed
    whole = parse_compilation(output, exit_code=1)
    assert not whole.succeeded and whole.failure == reason and whole.streamed_bytes is None
    assert [part.succeeded for part in parse_compilations(output, exit_code=1)] == [True, False]


def test_a_search_for_a_delegate_is_judged_by_its_last_try():
    failed = (
        f"Try to compile segment with 340 ops\nIntermediate tensors: Reshape,a;b;c\n{TIMER}"
        f"Compilation failed: Compilation failed due to large activation tensors in model.\n{DONE}"
        "Compilation failed! \n"
    )
    start = HEAD + "Searching for valid delegate with step 10\n" + failed
    found = parse_compilation(start + "Try to compile segment with 143 ops\n" + compiled(block()))
    assert found == parse_compilation(OUTPUT)
    internal = failed.replace(
        "Compilation failed due to large activation tensors in model.", "Internal error."
    )
    assert parse_compilation(start + internal, exit_code=1).failure == "Internal error."


@pytest.mark.parametrize("kept", range(OUTPUT.count("\n") + 1))
def test_a_log_cut_after_any_line(kept):
    lines = OUTPUT.splitlines(keepends=True)
    output = "".join(lines[:kept])
    found = parse_compilation(output)
    assert found.succeeded == ("compiled successfully" in output)
    if found.complete:
        assert (found.on_tpu, found.on_cpu) == (139, 4)
    assert found.complete == ("will run on CPU:" in output)
    # The operation log is written by then, and whole.
    assert parse_compilation(output, log_file()).complete == ("Total number" in output)


@pytest.mark.parametrize("kept", range(log_file().count("\n") + 1))
def test_an_operation_log_cut_after_any_line(kept):
    log = "".join(log_file().splitlines(keepends=True)[:kept])
    found = parse_compilation(HEAD + compiled(block(shown=False)), log)
    assert found.succeeded and (found.on_tpu, found.on_cpu, found.complete) == (139, 4, True)
    assert len(found.operators) == max(0, kept - 6)


HOSTILE = {
    "spaces": "Operator Count Status\n" + "A " * 500_000,
    "digits": "Total number of operations: " + "9" * 500_000,
    "decimals": "Input size: " + "1." * 300_000 + "MiB",
    "version": "Edge TPU Compiler version " + "x" * 500_000,
    "colons": ":" * 1_000_000,
    "errors": "ERROR: x\n" * 100_000,
    "blank lines": "\n" * 300_000,
    "successes": "Model compiled successfully in 1 ms.\n" * 200,
    "controls": OUTPUT.replace("ADD ", "\x1b[2J\u202e\ud800\0 "),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_read_in_bounded_time(text):
    started = time.monotonic()
    for found in (parse_compilation(OUTPUT + text, text), parse_compilation(text, exit_code=1)):
        assert len(found.model_dump_json()) < 100_000
        assert found.failure is None or "\n" not in found.failure
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x" * (9 << 20), r"9\.0 MiB"),
        ("Operator Count Status\n" + "A 1 x\n" * 10_001, "10000 rows"),
        ("Input model: x\n" * 257, "256 models"),
        ("Model compiled successfully in 1 ms.\n" * 258, "256 models"),
    ],
)
def test_absurd_amounts_are_refused(text, says):
    for arguments in ((text,), (OUTPUT, text)):
        with pytest.raises(ExportError, match=says) as caught:
            parse_compilation(*arguments)
        assert "\n" not in str(caught.value)


def check_hostile(output, log, exit_code):
    try:
        found = parse_compilation(output, log, exit_code)
    except ExportError:
        return
    assert found.succeeded == (found.failure is None)
    assert found.succeeded <= (exit_code == 0)
    assert found.failure is None or found.failure.splitlines() == [found.failure]
    assert found.on_tpu >= 0 and found.on_cpu >= 0
    assert Compilation.model_validate_json(found.model_dump_json()) == found


ANY_TEXT = st.text(st.characters(), max_size=200)


@settings(max_examples=150, deadline=2000)
@example("\ud800", "", 0)
@given(ANY_TEXT, ANY_TEXT, st.integers(-64, 255))
def test_any_text_is_read_or_refused(output, log, exit_code):
    check_hostile(output, log, exit_code)


@st.composite
def mutated(draw, texts):
    """Return one of the texts with lines dropped, repeated, swapped, cut short or filled with other text."""
    lines = draw(st.sampled_from(texts)).splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 6))):
        if not lines:
            break
        at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        cut = draw(st.integers(0, len(lines[at])))
        change = draw(st.sampled_from(["drop", "repeat", "swap", "cut", "fill"]))
        if change == "drop":
            del lines[at]
        elif change == "repeat":
            lines[at] *= 3
        elif change == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        else:
            filling = draw(ANY_TEXT) if change == "fill" else ""
            lines[at] = lines[at][:cut] + filling + (lines[at][cut:] if filling else "\n")
    return "".join(lines)


REAL = [OUTPUT, HEAD + compiled(block("a"), block("b")), log_file(), *(HEAD + words for words in FAILURES)]


@settings(max_examples=250, deadline=2000)
@given(mutated(REAL), mutated([log_file()]), st.sampled_from([0, 0, 1, 139]))
def test_a_damaged_log_is_read_or_refused(output, log, exit_code):
    check_hostile(output, log, exit_code)


SIZES = st.builds(
    lambda hundredths, unit: f"{hundredths / 100:.2f}{unit}",
    st.integers(0, 102_399),
    st.sampled_from([*UNITS]),
)
OPERATORS = st.from_regex(r"[A-Z][A-Z0-9_]{0,29}", fullmatch=True)
ANY_STATUS = st.sampled_from([MAPPED, *STATUSES]) | st.from_regex(
    r"[A-Z][a-z]{1,9}( [a-z,]{1,9}){0,5}", fullmatch=True
)
ANY_ROWS = st.lists(st.tuples(OPERATORS, st.integers(0, 10_000), ANY_STATUS), max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)


def size_bytes(text):
    number = text.rstrip("BKMi")
    return round(float(number) * UNITS[text.removeprefix(number)])


@settings(max_examples=60, deadline=2000)
@given(
    st.lists(
        st.tuples(NAMES, ANY_ROWS, st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES)), min_size=1, max_size=4
    ),
    st.integers(0, 10**7),
    st.booleans(),
)
def test_what_is_printed_is_read_back(models, compile_ms, shown):
    models = [(f"{index}_{name}", rows, sizes) for index, (name, rows, sizes) in enumerate(models)]
    output = HEAD + compiled(*(block(n, r, s, shown) for n, r, s in models), compile_ms=compile_ms)
    logs = {f"{name}_edgetpu.log": log_file(name, rows) for name, rows, _ in models}
    found = parse_compilations(output, logs)
    assert len(found) == len(models)
    for one, (name, rows, sizes) in zip(found, models, strict=True):
        assert (one.input_model, one.output_model) == (f"{name}.tflite", f"{name}_edgetpu.tflite")
        assert one.succeeded and one.complete and one.compile_ms == compile_ms
        assert [(row.operator, row.count, row.status) for row in one.operators] == rows
        assert one.on_tpu == sum(count for _, count, status in rows if status == MAPPED)
        assert one.on_tpu + one.on_cpu == one.total_operations
        figures = (one.input_size_bytes, one.output_size_bytes, one.cached_bytes)
        figures += (one.cache_remaining_bytes, one.streamed_bytes)
        assert figures == tuple(size_bytes(text) for text in sizes)
