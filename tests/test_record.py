import json
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from fer_lib import record, storage, train, verify
from fer_lib.experiments import EXPERIMENTS
from fer_lib.metrics import calc_probabilities
from fer_lib.reading import cache
from fer_lib.train import train_run

A1 = EXPERIMENTS["a1_baseline"]


def write(experiment, dataset, seed=0, accuracy=0.5, weights=None):
    """Record a run of one epoch that is right on this share of each split, the first images."""
    logits, results = {}, dict.fromkeys(verify.RESULTS, accuracy) | {"best_epoch": 1, "epochs": 1, "parameters": 9}
    for name in ("validation", "test"):
        labels = dataset.splits[name].labels
        right = np.arange(len(labels)) < accuracy * len(labels)
        answers = np.eye(7, dtype=np.float32)[np.where(right, labels, (labels + 1) % 7)]
        for view in ("", *(f"_{view}" for view in experiment.views)):
            logits[name + view] = answers
            results[f"{name}_accuracy{view}"] = round(right.mean(), 6)
    row = {name: results[name] for name in ("train_accuracy", "validation_accuracy", "validation_loss")}
    row |= {"epoch": 1, "seconds": 1.0}
    results["last_validation_accuracy"] = results["validation_accuracy"]
    weights = experiment.build_model().state_dict() if weights is None else weights
    with storage.claim(record.find_folder(experiment, dataset.name, seed)):
        return record.write_run(experiment, dataset, seed, results, {"seconds": 1.0}, [row], logits, weights)


def test_a_record_holds_what_was_written(small):
    written = write(A1, small, seed=3)
    read = record.read_run(A1, small, 3)
    assert read.folder == written.folder == record.runs_folder() / "a1_baseline" / "small-seed3"
    assert (
        read.results == written.results
        and read.results["test_accuracy"] == 0.5
        and read.seed == 3
        and read.data == "small"
    )
    right = read.logits["test"].argmax(1) == small.test.labels
    assert read.logits["test"].dtype == np.float16
    np.testing.assert_array_equal(right, np.arange(len(right)) < len(right) / 2)
    files = ["history.csv", "predictions.npz", "run.json", "weights.safetensors"]
    assert sorted(path.name for path in read.folder.iterdir()) == files
    assert not storage.work_folder(read.folder).exists()


def test_recorded_logits_keep_the_answers_and_nearly_the_probabilities():
    logits = np.random.default_rng(0).normal(0, 3, (2000, 7)).astype(np.float32)
    logits[:100, 3] = logits[:100].max(1) - 0.001  # close seconds
    kept = record.round_logits(logits)
    assert kept.dtype == np.float16
    np.testing.assert_array_equal(kept.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(calc_probabilities(kept), calc_probabilities(logits), atol=0.01)
    np.testing.assert_array_equal(record.round_logits(kept), kept)


def test_logits_beyond_half_precision_are_kept_as_finite_ones():
    kept = record.round_logits(np.array([[1e6, -1e6, 0, 0, 0, 0, 0]]))
    assert np.isfinite(kept).all() and kept[0].argmax() == 0


def test_the_network_of_a_run_is_kept_in_half_precision(brief, small):
    run = train_run(replace(brief, name="a2_batchnorm", model="ImprovedModel"), small, seed=0)
    model = record.load_model(run)
    with torch.inference_mode():
        logits = model(torch.from_numpy(small.test.images[:, None]) / 255)
    np.testing.assert_allclose(logits - logits.amax(1, keepdim=True), run.logits["test"], atol=0.04)
    size = (run.folder / "weights.safetensors").stat().st_size
    assert size < 2.1 * run.results["parameters"]
    (run.folder / "weights.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match="fer_lib.train a2_batchnorm --seed 0 --data small --retrain makes them"
    ):
        record.load_model(run)


def test_another_config_data_set_or_seed_is_not_read_back(small, drawn):
    write(A1, small)
    assert record.read_run(replace(A1, learning_rate=0.1), small, 0) is None
    assert record.read_run(A1, small, 1) is None
    assert record.read_run(A1, replace(small, fingerprint="0" * 16), 0) is None
    assert record.read_run(A1, drawn, 0) is None


def test_a_changed_config_goes_beside_the_published_record(small):
    published, changed = write(A1, small), write(replace(A1, learning_rate=0.1), small, accuracy=0.75)
    assert changed.folder.parent == published.folder.parent and changed.folder != published.folder
    assert record.read_run(A1, small, 0).results["test_accuracy"] == 0.5


def test_what_is_recorded_leaves_no_checkpoint_and_a_folder_without_a_record_is_none(small):
    work = storage.work_folder(record.find_folder(A1, small.name, 0))
    work.mkdir(parents=True)
    (work / "checkpoint.pt").write_text("of the finished run")
    write(A1, small)
    assert not (work / "checkpoint.pt").exists()
    record.find_folder(A1, small.name, 1).mkdir()  # as Snakemake does, before the run is trained
    assert [run.seed for run in record.read_published_runs(small.name)] == [0]


def test_a_new_record_replaces_the_old_one_of_the_same_run(small):
    write(A1, small)
    write(A1, small, accuracy=0.75)
    assert record.read_run(A1, small, 0).results["test_accuracy"] == 0.75


def test_a_record_whose_experiment_has_changed_since_is_not_read(small, monkeypatch):
    write(A1, small)
    monkeypatch.setitem(EXPERIMENTS, "a1_baseline", replace(A1, epochs=7))
    assert record.read_run(EXPERIMENTS["a1_baseline"], small, 0) is None
    with pytest.warns(UserWarning, match="small-seed0 is left out: its experiment's config has changed since"):
        assert record.read_published_runs("small") == []


def test_published_runs_are_those_of_the_experiments_own_config(small):
    for experiment, seed in ((EXPERIMENTS["a1b_baseline_balanced"], 0), (A1, 1), (A1, 0), (replace(A1, epochs=9), 0)):
        write(experiment, small, seed)
    found = [(run.experiment.name, run.seed) for run in record.read_published_runs("small")]
    assert found == [("a1_baseline", 0), ("a1_baseline", 1), ("a1b_baseline_balanced", 0)]


# --- damage -----------------------------------------------------------------------------


def forget_digests(folder):
    """Turn a record into one of before there were digests."""
    told = json.loads((folder / "run.json").read_text())
    del told["files"], told["digest"]
    (folder / "run.json").write_text(json.dumps(told, indent=2) + "\n")


def edit(folder, change):
    told = json.loads((folder / "run.json").read_text())
    change(told)
    (folder / "run.json").write_text(json.dumps(told, indent=2) + "\n")


def cut(folder, name, share=0.5):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])


def flip(folder, name, place=0.5):
    content = bytearray((folder / name).read_bytes())
    content[int(len(content) * place)] ^= 1
    (folder / name).write_bytes(content)


def take_predictions(folder, rows=None):
    """Put the predictions of another run in, or the first rows of its own."""
    with np.load(folder / "predictions.npz") as arrays:
        other = {name: array[:rows] if rows else np.roll(array, 1, 1) for name, array in arrays.items()}
    np.savez_compressed(folder / "predictions.npz", **other)


DAMAGE = {
    "an edited accuracy": (lambda f: edit(f, lambda t: t["results"].update(test_accuracy=0.99)), "run.json|rows"),
    "a result that is NaN": (
        lambda f: edit(f, lambda t: t["results"].update(test_macro_f1=float("nan"))),
        "NaN is no number",
    ),
    "a result that is a word": (lambda f: edit(f, lambda t: t["results"].update(test_macro_f1="x")), "is 'x'"),
    "a share over 1": (lambda f: edit(f, lambda t: t["results"].update(test_macro_f1=1.5)), "a share from 0 to 1"),
    "an edited seed": (lambda f: edit(f, lambda t: t.update(seed=4)), "with seed 4, which its folder is not"),
    "no results": (lambda f: edit(f, lambda t: t.pop("results")), "without results"),
    "a list": (lambda f: (f / "run.json").write_text("[]"), "run.json: not what was recorded"),
    "an empty run.json": (lambda f: (f / "run.json").write_text(""), "run.json: damaged or cut short"),
    "half a run.json": (lambda f: cut(f, "run.json"), "run.json: damaged or cut short"),
    "no run.json": (lambda f: (f / "run.json").unlink(), "run.json: missing"),
    "no history": (lambda f: (f / "history.csv").unlink(), "history.csv: missing"),
    "a history cut in a row": (lambda f: cut(f, "history.csv", 0.97), "history.csv: cut short"),
    "a history without a row": (
        lambda f: (f / "history.csv").write_text("".join((f / "history.csv").read_text().splitlines(True)[:-1])),
        "history.csv: damaged",
    ),
    "another's predictions": (take_predictions, "by the logits"),
    "ten rows of predictions": (lambda f: take_predictions(f, 10), "has 10 rows"),
    "half the predictions": (lambda f: cut(f, "predictions.npz"), "predictions.npz: damaged or cut short"),
    "a flipped byte of the predictions": (lambda f: flip(f, "predictions.npz", 0.2), "predictions.npz: damaged"),
    "no predictions": (lambda f: (f / "predictions.npz").unlink(), "predictions.npz: missing"),
}


@pytest.mark.parametrize("digests", [True, False], ids=["with digests", "without"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_refused_by_name_and_never_trained_anew(small, monkeypatch, case, digests):
    damage, message = DAMAGE[case]
    folder = write(A1, small).folder
    if not digests:
        forget_digests(folder)
        record.read_run(A1, small, 0)
    damage(folder)
    monkeypatch.setattr(train, "fit", lambda *args: pytest.fail("trained"))
    with pytest.raises(storage.RecordError) as error:
        train.get_runs(A1, small, [0])
    told = str(error.value)
    assert told.startswith(str(folder)) and "git restore" in told and "--retrain" in told and "\n" not in told
    assert digests or re.search(message, told), told


def test_a_byte_changed_anywhere_in_a_record_is_noticed(small):
    folder = write(A1, small).folder
    for name in ("run.json", "history.csv", "predictions.npz"):
        whole = (folder / name).read_bytes()
        for place in (0.3, 0.7):
            flip(folder, name, place)
            with pytest.raises(storage.RecordError):
                record.read_published_runs("small")
        (folder / name).write_bytes(whole)
    run = record.read_run(A1, small, 0)
    flip(folder, record.WEIGHTS, 0.7)
    with pytest.raises(storage.RecordError, match="weights.safetensors: not what was recorded"):
        record.load_model(run)


def test_weights_without_digests_are_refused_if_they_are_another_networks_or_no_numbers(small):
    folder = write(A1, small).folder
    forget_digests(folder)
    run, whole = record.read_run(A1, small, 0), (folder / record.WEIGHTS).read_bytes()
    for content, message in (
        (whole[:1000], "damaged, or of another network"),
        (save(EXPERIMENTS["b1_two_layer"].build_model().state_dict()), "damaged, or of another network"),
        (save({name: tensor * np.nan for name, tensor in load(whole).items()}), "not finite"),
    ):
        (folder / record.WEIGHTS).write_bytes(content)
        with pytest.raises(storage.RecordError, match=f"weights.safetensors.*{message}"):
            record.load_model(run)


def test_a_bad_record_stops_only_those_who_read_it(small):
    write(A1, small)
    (write(EXPERIMENTS["a2_batchnorm"], small).folder / "history.csv").unlink()
    assert len(record.read_published_runs("small", names=["a1_baseline"])) == 1
    with pytest.raises(storage.RecordError):
        record.read_published_runs("small")


def test_a_published_record_is_replaced_only_if_that_is_asked_for(brief, small, monkeypatch):
    real = replace(small, name="fer2013")
    folder = write(A1, real).folder
    monkeypatch.setitem(EXPERIMENTS, "a1_baseline", brief)  # whose record is another's by now
    with pytest.raises(storage.RecordError, match="the record is of another config or of other data"):
        train.get_runs(brief, real, [0])
    assert json.loads((folder / "run.json").read_text())["config"]["epochs"] == A1.epochs
    (run,) = train.get_runs(brief, real, [0], retrain=True)
    assert run.folder == folder and run.results["epochs"] == 2


def test_killed_at_any_moment_of_the_writing_a_run_has_its_old_record_or_the_new_one(small, monkeypatch):
    """An exception stands in for the kill, before each rename and each deletion of a folder."""
    (old, new), total = (0.5, 0.75), 0
    for moment in range(20):
        write(A1, small, accuracy=old)
        steps = iter(range(moment, -1, -1))

        def stop(action, steps=steps):
            def act(*args, **options):
                if next(steps, 1) == 0:
                    raise KeyboardInterrupt
                return action(*args, **options)

            return act

        with monkeypatch.context() as patch:
            patch.setattr(record.Path, "replace", stop(record.Path.replace))
            patch.setattr(record.shutil, "rmtree", stop(record.shutil.rmtree))
            try:
                write(A1, small, accuracy=new)
                break
            except KeyboardInterrupt:
                total += 1
        with storage.claim(record.find_folder(A1, small.name, 0)):
            assert record.read_run(A1, small, 0).results["test_accuracy"] in (old, new)
    assert total >= 4


def test_a_run_is_released_without_a_quarrel_however_often_others_ask(tmp_path):
    """Four threads claim the same run by turns, as fast as they can: one at a time, and nothing fails."""
    held, failures, turns = [], [], []

    def work():
        while len(turns) < 150 and not failures:
            try:
                with storage.claim(tmp_path / "run") as folder:
                    held.append(folder)
                    (folder / "checkpoint.pt").touch()
                    if len(held) > 1:
                        failures.append("two at once")
                    held.pop()
                turns.append(1)
            except storage.Claimed:
                pass
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures and list(tmp_path.iterdir()) == []


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


def test_where_runs_go_begins_like_all_paths_where_the_shell_is(tmp_path, monkeypatch):
    """Not in the folder that a notebook's kernel starts in."""
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for named, folder in (("mine", tmp_path / "mine"), ("~/mine", tmp_path / "home" / "mine")):
        monkeypatch.setenv("FER_RUNS", named)
        monkeypatch.setenv("FER_CACHE", named)
        assert record.runs_folder() == cache.find_cache() == folder


def test_a_published_run_is_found_by_name_and_seed_or_the_lack_of_it_told(monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    run = record.find_published_run("a1_baseline", 2)
    assert (run.experiment, run.seed, run.data) == (A1, 2, "fer2013")
    with pytest.raises(FileNotFoundError, match="no run of a1_baseline with seed 99 is on record; python -m"):
        record.find_published_run("a1_baseline", 99)


def test_a_published_network_is_found_where_records_of_ones_own_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_RUNS", str(tmp_path))
    assert record.find_published_run("a1_baseline", 2).folder.is_relative_to(record.PROJECT / "reports" / "runs")
