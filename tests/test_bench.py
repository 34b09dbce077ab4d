import json

from fer_lib import bench


def test_the_benchmark_runs_without_fer2013_and_says_what_it_left_out(tmp_path, monkeypatch, capsys, small):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "IMAGES", 128)
    monkeypatch.setattr(bench, "PROJECT", tmp_path)
    monkeypatch.setattr(bench, "find_data", lambda: None)
    monkeypatch.setattr(bench, "load_data", lambda: small)
    (tmp_path / "reports").mkdir()
    bench.main()
    (row,) = json.loads((tmp_path / "reports" / "bench.json").read_text())["rows"]
    assert row["ours"] > 0 and row["usual"] > 0
    printed = capsys.readouterr().out
    assert row["what"] in printed and "reading was not timed: that needs FER2013" in printed
