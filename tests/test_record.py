import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_lib import record
from fer_lib.evaluate import Estimate, Verdict, calc_probabilities
from fer_lib.experiments import EXPERIMENTS
from fer_lib.train import train_run

A1 = EXPERIMENTS["a1_baseline"]


def write(experiment, dataset, seed=0, accuracy=0.5):
    logits = {name: np.full((len(dataset.splits[name]), 7), 0.25, np.float32) for name in ("validation", "test")}
    weights = experiment.build_model().state_dict()
    history = [{"epoch": 1, "validation_accuracy": accuracy, "seconds": 1.0}]
    with record.claim(record.find_folder(experiment, dataset.name, seed)):
        return record.write_run(
            experiment, dataset, seed, {"test_accuracy": accuracy}, {"seconds": 1.0}, history, logits, weights
        )


def test_a_record_holds_what_was_written(small):
    written = write(A1, small, seed=3)
    read = record.read_run(A1, small, 3)
    assert read.folder == written.folder == record.runs_folder() / "a1_baseline" / "small-seed3"
    assert read.results == {"test_accuracy": 0.5} and read.seed == 3 and read.data == "small"
    expected = record.round_logits(np.full((len(small.test), 7), 0.25))
    assert read.logits["test"].dtype == np.float16
    np.testing.assert_array_equal(read.logits["test"], expected)
    files = ["history.csv", "predictions.npz", "run.json", "weights.safetensors"]
    assert sorted(path.name for path in read.folder.iterdir()) == files
    assert not record.work_folder(read.folder).exists()


def test_recorded_logits_keep_the_answers_and_nearly_the_probabilities():
    logits = np.random.default_rng(0).normal(0, 3, (2000, 7)).astype(np.float32)
    logits[:100, 3] = logits[:100].max(1) - 0.001  # close seconds
    kept = record.round_logits(logits)
    assert kept.dtype == np.float16
    np.testing.assert_array_equal(kept.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(calc_probabilities(kept), calc_probabilities(logits), atol=0.01)
    np.testing.assert_array_equal(record.round_logits(kept), kept)


def test_the_network_of_a_run_is_kept_in_half_precision(brief, small):
    run = train_run(replace(brief, name="a2_batchnorm", model="ImprovedModel"), small, seed=0)
    model = record.load_model(run)
    with torch.inference_mode():
        logits = model(torch.from_numpy(small.test.images[:, None]) / 255)
    np.testing.assert_allclose(logits - logits.amax(1, keepdim=True), run.logits["test"], atol=0.04)
    size = (run.folder / "weights.safetensors").stat().st_size
    assert size < 2.1 * run.results["parameters"]
    (run.folder / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="fer_lib.train a2_batchnorm --seed 0 --retrain makes them"):
        record.load_model(run)


def test_another_config_data_set_or_seed_is_not_read_back(small, drawn):
    write(A1, small)
    assert record.read_run(replace(A1, learning_rate=0.1), small, 0) is None
    assert record.read_run(A1, small, 1) is None
    assert record.read_run(A1, replace(small, fingerprint="0" * 16), 0) is None
    assert record.read_run(A1, drawn, 0) is None


def test_a_changed_config_goes_beside_the_published_record(small):
    published, changed = write(A1, small), write(replace(A1, learning_rate=0.1), small, accuracy=0.9)
    assert changed.folder.parent == published.folder.parent and changed.folder != published.folder
    assert record.read_run(A1, small, 0).results == {"test_accuracy": 0.5}


def test_a_new_record_replaces_the_old_one_of_the_same_run(small):
    write(A1, small)
    write(A1, small, accuracy=0.7)
    assert record.read_run(A1, small, 0).results == {"test_accuracy": 0.7}


def test_a_record_whose_experiment_has_changed_since_is_not_read(small, monkeypatch):
    write(A1, small)
    monkeypatch.setitem(EXPERIMENTS, "a1_baseline", replace(A1, epochs=7))
    assert record.read_run(EXPERIMENTS["a1_baseline"], small, 0) is None
    assert record.read_published_runs("small") == []


def test_published_runs_are_those_of_the_experiments_own_config(small):
    for experiment, seed in ((EXPERIMENTS["a1b_baseline_balanced"], 0), (A1, 1), (A1, 0), (replace(A1, epochs=9), 0)):
        write(experiment, small, seed)
    found = [(run.experiment.name, run.seed) for run in record.read_published_runs("small")]
    assert found == [("a1_baseline", 0), ("a1_baseline", 1), ("a1b_baseline_balanced", 0)]


def test_verdicts_are_kept_if_they_rest_on_all_published_runs_on_fer2013_and_no_others(small):
    verdict = Verdict("A-C2", "accuracy", 0.03, Estimate(0.01, -0.01, 0.03, 3), "not confirmed", "why")
    assert record.write_verdicts("a1_baseline", [verdict], [write(A1, small)]) is None
    real = replace(small, name="fer2013")
    runs = [write(A1, real, seed) for seed in (0, 1)]
    assert record.write_verdicts("a1_baseline", [verdict], runs[:1]) is None
    assert record.write_verdicts("a1_baseline", [verdict], [*runs, write(replace(A1, epochs=3), real)]) is None
    path = record.write_verdicts("a1_baseline", [verdict], runs)
    assert path.name == "a1_baseline.json" and json.loads(path.read_text())[0]["measured"]["mean"] == 0.01


def test_every_committed_record_is_whole():
    """What the report reads: each with the right shapes, a history, and the config of its experiment."""
    folders = [path.parent for path in (record.PROJECT / "reports" / "runs").glob("*/fer2013-seed?/run.json")]
    if not folders:
        pytest.skip("no run on record")
    for folder in folders:
        run = json.loads((folder / "run.json").read_text())
        assert EXPERIMENTS[run["experiment"]].matches(run["config"]), folder
        assert folder.name == f"fer2013-seed{run['seed']}" and folder.parent.name == run["experiment"]
        assert run["data"] == {"name": "fer2013", "fingerprint": "6abd39e37481cc88"}
        views = ["", *(f"_{view}" for view in EXPERIMENTS[run["experiment"]].views)]
        names = {f"{split}{view}_logits" for split in ("validation", "test") for view in views}
        with np.load(folder / "predictions.npz") as arrays:
            assert {name: array.shape for name, array in arrays.items()} == dict.fromkeys(names, (3589, 7))


def test_a_published_run_is_found_by_name_and_seed_or_the_lack_of_it_told(monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    run = record.find_published_run("a1_baseline", 2)
    assert (run.experiment, run.seed, run.data) == (A1, 2, "fer2013")
    with pytest.raises(FileNotFoundError, match="no run of a1_baseline with seed 99 is on record; python -m"):
        record.find_published_run("a1_baseline", 99)
