"""`ehdnas calibrate`: free terms from the user's own measurements, and bad files answered."""

import json

import pytest

HEAD = "model,latency_ms\n"


def latency(ehdnas, model, device="dpu-b4096"):
    return json.loads(ehdnas("simulate", model, "--device", device, "--json").out)["latency_ms"]


def test_terms_are_recovered_saved_and_undone(project, ehdnas):
    names = ("DARTS_V1", "DARTS_V2")
    before = latency(ehdnas, names[0])
    assert ehdnas("devices", "show", "dpu-b4096").code == 0
    # What a board would measure whose every layer takes 20 us longer to launch than the built-in device's.
    rows, launched = [], {}
    for name in names:
        found = json.loads(ehdnas("simulate", name, "--device", "dpu-b4096", "--json").out)
        launched[name] = sum(row["operator"] not in ("relu", "concat") for row in found["layers"])
        rows.append(f"{name},{found['latency_ms'] + 0.020 * launched[name]}")
    (project / "mine.csv").write_text(HEAD + "\n".join(rows) + "\n")
    flags = ["mine.csv", "--device", "dpu-b4096", "--fit", "layer_overhead_us", "--save", "--json"]
    fitted = json.loads(ehdnas("calibrate", *flags).out)
    assert fitted["terms"]["layer_overhead_us"] == pytest.approx(28.9, rel=1e-3)
    assert all(abs(row["error"]) < 1e-3 for row in fitted["rows"])
    assert latency(ehdnas, names[0]) == pytest.approx(before + 0.020 * launched[names[0]], rel=1e-3)
    assert ehdnas("devices", "remove", "dpu-b4096").code == 0
    assert latency(ehdnas, names[0]) == before


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        (HEAD + "DARTS_V2,abc\n", [], "line 2: latency_ms 'abc' is not a number"),
        (HEAD + "DARTS_V2,-3\n", [], "line 2"),
        (HEAD + "DARTS_V9,3\n", [], "line 2"),
        ("name,ms\nDARTS_V2,3\n", [], "no column 'model'"),
        ("", [], "no column 'model'"),
        (HEAD + "DARTS_V2,3\n", [], "1 measured networks cannot settle 2 free terms"),
        (HEAD + "DARTS_V2,3\n", ["--fit", "layer_overhead"], "did you mean 'layer_overhead_us'"),
        (HEAD + "DARTS_V2,3\n", ["--device", "ehdnas-generic"], "has no free terms"),
    ],
)
def test_bad_files_are_one_line(project, ehdnas, text, flags, says):
    (project / "mine.csv").write_text(text)
    result = ehdnas("calibrate", "mine.csv", "--device", "dpu-b4096", *flags)
    assert result.code != 0
    assert says in result.err.strip().splitlines()[-1]
    assert "Traceback" not in result.err


def test_what_is_far_off_is_not_saved_and_what_is_saved_is_undone_by_what_is_printed(project, ehdnas):
    assert ehdnas("devices", "add", "mine", "--from", "dpu-b4096").code == 0
    before, names = latency(ehdnas, "DARTS_V2", "mine"), ("DARTS_V1", "DARTS_V2", "EHDNAS_GENERIC")
    flags = ("rows.csv", "--device", "mine", "--fit", "layer_overhead_us", "--save")
    (project / "rows.csv").write_text(HEAD + "".join(f"{name},0.001\n" for name in names))
    refused = ehdnas("calibrate", *flags)
    assert refused.code == 2 and "not saved" in refused.err and "in milliseconds" in refused.err
    assert latency(ehdnas, "DARTS_V2", "mine") == before
    rows = [f"{name},{1.2 * latency(ehdnas, name, 'mine')}\n" for name in names]
    (project / "rows.csv").write_text(HEAD + "".join(rows))
    saved = ehdnas("calibrate", *flags)
    assert saved.code == 0 and latency(ehdnas, "DARTS_V2", "mine") > before
    undo = " ".join(saved.out.split()).partition("undo with `ehdnas ")[2].partition("`")[0]
    assert ehdnas(*undo.split()).code == 0
    assert latency(ehdnas, "DARTS_V2", "mine") == before
