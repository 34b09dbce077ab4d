import json

import pytest

from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras import bench
from fer_lib.models import count_multiply_adds
from fer_lib.report import compare

pytestmark = pytest.mark.slow


def test_the_benchmark_runs_without_fer2013_and_says_what_it_left_out(tmp_path, monkeypatch, capsys, small):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "IMAGES", 128)
    monkeypatch.setattr(bench, "PROJECT", tmp_path)
    monkeypatch.setattr(bench, "find_data", lambda: None)
    monkeypatch.setattr(bench, "load_data", lambda: small)
    (tmp_path / "reports").mkdir()
    bench.main()
    (record,) = json.loads((tmp_path / "reports" / "bench.json").read_text())
    printed = capsys.readouterr().out
    assert [row["what"].split()[:2] for row in record["rows"]] == [["train", "A1"], ["train", "S14"], ["judge", "S14"],
        ["dropout,", "A5"]]  # fmt: skip
    for row in record["rows"]:
        assert row["ours"] > 0 and row["usual"] > 0 and row["what"] in printed
    assert printed.count("timing ") == len(record["rows"]) + 1  # and the peak
    assert "commit it, or git restore" in printed.splitlines()[-1]
    assert 0 < record["strong"]["share_of_peak"] < 1
    assert (
        "TFLOP/s of a product of large matrices" in printed and "reading was not timed: that needs FER2013" in printed
    )
    monkeypatch.setattr(compare, "PROJECT", tmp_path)
    said = compare.describe_speed()
    assert f"**{record['rows'][1]['ours']:,.0f} images/s**" in said and f"{record['threads']} threads" in said


def test_each_hardware_keeps_its_own_record(tmp_path):
    for hardware, value in (("one", 1), ("other", 2), ("one", 3)):
        bench.keep_record(tmp_path / "bench.json", {"hardware": hardware, "value": value})
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert kept == [{"hardware": "other", "value": 2}, {"hardware": "one", "value": 3}]


def test_the_share_of_the_peak_counts_a_pass_forward_and_two_back():
    experiment = EXPERIMENTS["a1_baseline"]
    work = 2 * count_multiply_adds(experiment.build_model())
    share = bench.share_peak({"ours": 1000.0}, experiment, peak=work * 4000 / 1e12)
    assert share["share_of_peak"] == 0.75
