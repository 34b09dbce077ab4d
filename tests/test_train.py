import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient

from fer_lib import checkpoint, data, hardware, loop, progress, record, storage, train
from fer_lib.augment import Augmentation
from fer_lib.experiments import EXPERIMENTS
from fer_lib.loop import find_best, is_finished
from fer_lib.metrics import calc_accuracy, calc_probabilities
from fer_lib.recipe import Recipe
from fer_lib.train import get_runs, main, train_run
from tests.conftest import PROJECT
from tests.test_record import write

pytestmark = pytest.mark.slow

CPU = hardware.Hardware(torch.device("cpu"), "CPU", torch.float32, torch.contiguous_format)
A1, A2 = EXPERIMENTS["a1_baseline"], EXPERIMENTS["a2_batchnorm"]


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    """A2 for two epochs of many small batches on the drawn faces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_RUNS", str(tmp_path_factory.mktemp("trained") / "runs"))
        patch.setenv("WANDB_MODE", "disabled")
        return train_run(replace(A2, epochs=2, batch_size=16), drawn, seed=0)


def test_training_on_the_drawn_faces_beats_chance_by_far(trained, drawn):
    """Always saying the commonest class is right on about a quarter; ask for 20 points more on the test split."""
    chance = np.bincount(drawn.test.labels).max() / len(drawn.test)
    assert trained.results["test_accuracy"] > chance + 0.2


def test_the_results_are_those_of_the_logits_and_the_history(trained, drawn):
    results, history = trained.results, trained.history
    best = history.iloc[results["best_epoch"] - 1]
    assert best["validation_accuracy"] == history["validation_accuracy"].max()
    assert results["validation_accuracy"] == pytest.approx(best["validation_accuracy"], abs=1e-5)
    for split in (drawn.validation, drawn.test):
        logits = trained.logits[split.name]
        assert logits.shape == (len(split), 7) and logits.dtype == np.float16
        # half precision may turn a tie or two
        assert calc_accuracy(logits, split.labels) == pytest.approx(results[f"{split.name}_accuracy"], abs=0.02)
    assert results["last_train_accuracy"] == pytest.approx(history["train_accuracy"].iloc[-1], abs=1e-5)
    assert 0 < results["train_accuracy_clean"] <= 1
    assert history["epoch"].tolist() == list(range(1, results["epochs"] + 1))
    assert trained.environment["images_per_second"] > 0 and trained.environment["hardware"]


def test_the_test_split_is_read_once(brief, small, monkeypatch):
    read = []
    predict = loop.predict_logits
    monkeypatch.setattr(
        train, "predict_logits", lambda model, split, *rest: read.append(split.name) or predict(model, split, *rest)
    )
    train_run(brief, small, seed=0)
    assert read.count("test") == 1 and read.index("test") == len(read) - 1


def test_the_same_seed_gives_the_same_run_and_another_another(brief, small, own_folders, monkeypatch):
    balanced = replace(brief, balance=True, epochs=1)
    first, other = (train_run(balanced, small, seed=seed) for seed in (0, 1))
    monkeypatch.setenv("FER_RUNS", str(own_folders / "again"))
    again = train_run(balanced, small, seed=0)
    np.testing.assert_array_equal(first.logits["test"], again.logits["test"])
    assert not np.array_equal(first.logits["test"], other.logits["test"])


def test_training_leaves_the_callers_random_numbers_alone(brief, small):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_run(brief, small, seed=0)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_what_is_freed_is_not_got_from_the_system_again_page_by_page():
    count = """
import resource, torch
from fer_lib.hardware import choose_hardware

def count_pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

choose_hardware()
before = count_pages()
for _ in range(20):
    torch.zeros(2**23)
print((count_pages() - before) * resource.getpagesize() / 2**25)
"""
    environment = os.environ | {"FER_PRECISION": "float32"}
    done = subprocess.run([sys.executable, "-c", count], env=environment, capture_output=True, text=True)
    assert float(done.stdout) < 10, done.stderr  # times the size of one of the twenty


def test_another_precision_than_those_there_are_is_refused(monkeypatch):
    monkeypatch.setenv("FER_PRECISION", "bf16")
    with pytest.raises(ValueError, match="FER_PRECISION is 'bf16': write float32, or leave it out"):
        hardware.choose_hardware()


def test_hardware_without_fast_bfloat16_trains_in_float32_without_a_warning(brief, small, monkeypatch):
    plain = hardware.Hardware(torch.device("cpu"), "plain", torch.float32, torch.contiguous_format)
    monkeypatch.setattr(train, "choose_hardware", lambda: plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = train_run(brief, small, seed=0)
    assert run.environment["precision"] == "float32" and run.results["epochs"] == 2


def make_history(accuracies):
    return [{"epoch": place, "validation_accuracy": value} for place, value in enumerate(accuracies, start=1)]


def test_the_first_of_equally_good_epochs_counts():
    assert find_best(make_history([0.1, 0.4, 0.3, 0.4])) == 2


@pytest.mark.parametrize(
    ("accuracies", "finished"),
    [([], False), ([0.3, 0.2], False), ([0.3, 0.2, 0.2], True), ([0.1, 0.2, 0.3, 0.2], False), ([0.1] * 2, False),
     (np.linspace(0.1, 0.5, 6), True)],
)  # fmt: skip
def test_training_stops_after_patience_or_all_epochs(accuracies, finished):
    assert is_finished(make_history(accuracies), replace(A1, epochs=6, patience=2)) == finished


def test_early_stopping_ends_a_run(small):
    run = train_run(replace(A1, epochs=30, patience=1, learning_rate=1e-9), small, seed=0)
    assert run.results["epochs"] < 30


def write_teacher(name, dataset, bias):
    """The record of a run of an experiment whose network answers every image alike."""
    experiment = EXPERIMENTS[name]
    weights = experiment.build_model().state_dict()
    last = [key.removesuffix(".bias") for key in weights if key.endswith(".bias")][-1]
    weights |= {f"{last}.weight": 0 * weights[f"{last}.weight"], f"{last}.bias": torch.tensor(bias).float()}
    return write(experiment, dataset, weights=weights)


@pytest.mark.parametrize("name", [e.name for e in EXPERIMENTS.values() if e.report != "C"])
def test_every_experiment_trains_in_the_smoke_profile(name, tiny, monkeypatch):
    """One epoch: finite losses, gradients in every layer, a record that is read back."""
    experiment = replace(EXPERIMENTS[name], epochs=1)
    monkeypatch.setattr(loop, "load_votes", lambda dataset: draw_votes(36))
    for teacher in experiment.teachers:
        write(EXPERIMENTS[teacher], tiny)
    (run,) = get_runs(experiment, tiny, [0])
    row = run.history.iloc[0]
    assert np.isfinite(row.to_numpy()).all() and (row.filter(like="gradient_norm/") > 0).all()
    assert {"validation", "test"} <= set(run.logits)
    for name, logits in run.logits.items():
        assert logits.shape == (len(tiny.splits[name.split("_")[0]]), 7)
    assert get_runs(experiment, tiny, [0])[0].results == run.results


def draw_votes(rows):
    """Ten votes for each row, at random."""
    counts = np.random.default_rng(0).multinomial(10, np.full(len(data.VOTES), 1 / len(data.VOTES)), rows)
    return pd.DataFrame(counts, columns=list(data.VOTES))


def test_votes_are_what_the_network_is_to_answer(small, monkeypatch):
    experiment = EXPERIMENTS["v1_votes"]
    with pytest.raises(ValueError, match="v1_votes needs FER.'s votes: they are of FER2013's images alone"):
        loop.make_targets(experiment, small, small.train)
    votes = draw_votes(192)
    votes.iloc[small.train.rows[3]] = [0] * 7 + [5, 3, 2]  # none of the seven: the label stands
    monkeypatch.setattr(loop, "load_votes", lambda dataset: votes)
    targets = loop.make_targets(experiment, small, small.train)
    own = votes.iloc[small.train.rows[0]]
    names = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
    expected = own[names].to_numpy(float) / own[names].sum()
    np.testing.assert_allclose(targets[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(targets[3], np.eye(7)[small.train.labels[3]])


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "asked again"])  # older checkpoints keep no answers
def test_a_resumed_run_has_its_teachers_answers_and_ends_with_the_same_numbers(
    brief, small, monkeypatch, own_folders, interrupt, kept
):
    taught = replace(
        brief, epochs=5, patience=5, teachers=("a2_batchnorm",), recipe=Recipe(teaching=0.8, draws=2),
        augmentation=Augmentation(flip=0.5, window=40), model="StrongCNN", options=(("widths", (8,)), ("blocks", (1,))),
    )  # fmt: skip
    write_teacher("a2_batchnorm", small, [0, 0, 0, 0, 20, 20, 20])
    teacher = record.find_folder(EXPERIMENTS["a2_batchnorm"], small.name, 0)
    monkeypatch.setattr(train, "load_model", lambda run: EXPERIMENTS["s1_deeper"].build_model().eval())
    whole = train_run(taught, small, seed=0)
    shutil.copytree(teacher, own_folders / "again" / "a2_batchnorm" / teacher.name)
    monkeypatch.setenv("FER_RUNS", str(own_folders / "again"))
    interrupt(taught, small, epochs=4)
    if kept:  # three epochs were enough for both draws
        monkeypatch.setattr(train, "load_model", lambda run: torch.nn.Linear(3, 3))  # fails when asked
    else:
        (path,) = own_folders.rglob("checkpoint.pt")
        state = torch.load(path, weights_only=True)
        assert len(state.pop("answers")) == 2 * -(-len(small.train) // taught.batch_size)
        torch.save(state, path)
    resumed = train_run(taught, small, seed=0)
    for name, logits in whole.logits.items():
        np.testing.assert_array_equal(resumed.logits[name], logits)
    columns = whole.history.columns.drop("seconds")
    pd.testing.assert_frame_equal(resumed.history[columns], whole.history[columns], check_exact=True)


def test_a_run_begun_with_other_teachers_is_not_gone_on_with(brief, small, interrupt):
    taught = replace(brief, teachers=("a2_batchnorm",), recipe=Recipe(teaching=0.8))
    write_teacher("a2_batchnorm", small, [0, 0, 0, 0, 20, 20, 20])
    interrupt(taught, small, epochs=2)
    write_teacher("a2_batchnorm", small, [20, 0, 0, 0, 0, 0, 0])
    with pytest.raises(storage.RecordError, match="begun with other teachers than are at hand.; delete it to start"):
        train_run(taught, small, seed=0)


def test_on_other_data_every_teacher_must_be_there_too(brief, small):
    taught = replace(brief, teachers=("a2_batchnorm", "a3_dropout"))
    write_teacher("a2_batchnorm", small, [0, 0, 0, 0, 20, 20, 20])
    with pytest.raises(FileNotFoundError, match="no weights of a3_dropout .* a3_dropout --seed 0 1 2 .*makes them"):
        record.find_teachers(taught, small)
    changed = replace(EXPERIMENTS["a3_dropout"], epochs=1)
    write(changed, small, weights=changed.build_model().state_dict())
    with pytest.raises(FileNotFoundError, match="no weights of a3_dropout"):  # the one is published, this is not
        record.find_teachers(taught, small)


def test_a_teacher_that_is_no_experiment_is_told(brief, small):
    with pytest.raises(ValueError, match="no experiment 's99'; there are a1_baseline, "):
        train_run(replace(brief, teachers=("s99",)), small, seed=0)


@pytest.mark.parametrize("changes", [dict(votes=True), dict(balance=True, upsampling=(1.0, 2.0))])
def test_a_training_that_is_refused_leaves_nothing(brief, small, own_folders, changes):
    with pytest.raises(ValueError, match="needs FER\\+'s votes|2 factors, and the data has 7 classes; notebook 10"):
        train_run(replace(brief, **changes), small, seed=0, wandb_mode="offline")
    assert not list(own_folders.rglob("*.*"))


def test_on_fer2013_every_teacher_must_be_a_published_one(brief, small):
    dataset = replace(small, name="fer2013")
    taught = replace(brief, teachers=("a2_batchnorm", "a3_dropout"))
    write_teacher("a2_batchnorm", dataset, [0, 0, 0, 0, 20, 20, 20])
    changed = replace(EXPERIMENTS["a3_dropout"], epochs=1)
    write(changed, dataset, weights=changed.build_model().state_dict())
    with pytest.raises(FileNotFoundError, match=r"no weights of a3_dropout on fer2013 .* --seed 0 1 2 makes them"):
        record.find_teachers(taught, dataset)
    assert len(record.find_teachers(replace(taught, teachers=("a2_batchnorm",)), dataset)) == 1


def test_half_the_loss_is_of_what_the_teachers_say(brief, small):
    """Without a step, all but the loss stays: half of it against the labels, half against a teacher's probabilities,
    a third each of three classes."""
    still = replace(brief, learning_rate=1e-12, epochs=1)
    taught = replace(still, teachers=("a2_batchnorm",))
    with pytest.raises(
        FileNotFoundError, match="no weights of a2_batchnorm on small are at hand; python -m fer_lib.train a2_batchnorm"
    ):
        train_run(taught, small, seed=0)
    write_teacher("a2_batchnorm", small, [0, 0, 0, 0, 20, 20, 20])
    train_run(replace(EXPERIMENTS["a2_batchnorm"], epochs=1), small, seed=0)  # not the published one: it does not count
    alone, after = (train_run(experiment, small, seed=0) for experiment in (still, taught))
    likely = np.log(calc_probabilities(loop.predict_logits(record.load_model(alone), small.train, still, CPU)))
    of_labels = -likely[np.arange(len(likely)), small.train.labels].mean()
    assert alone.history["train_loss"][0] == pytest.approx(of_labels, abs=2e-3)
    assert after.history["train_loss"][0] == pytest.approx((of_labels - likely[:, 4:].mean()) / 2, abs=2e-3)
    assert after.environment["teachers"] == ["a2_batchnorm seed 0"] and "teachers" not in alone.environment


def test_a_run_on_record_is_read_back_and_retrain_trains(brief, small, monkeypatch):
    (first,) = get_runs(brief, small, [0])
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_run", lambda *args: pytest.fail("trained again"))
        (again,) = get_runs(brief, small, [0])
    pd.testing.assert_frame_equal(again.history, first.history)
    assert again.results == first.results
    trained = []
    monkeypatch.setattr(train, "train_run", lambda *args: trained.append(args) or first)
    get_runs(brief, small, [0], retrain=True)
    assert len(trained) == 1


@pytest.mark.parametrize("seeds", [[], [0, 0], [0, np.int64(0)], [-1], [2**32], [2**63], [1.5], ["0"], [True], [None]])
def test_seeds_that_tell_nothing_apart_are_refused(brief, small, seeds, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *args: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"seeds: .*one or more different whole numbers from 0 to below 2\*\*32"):
        train.get_runs(brief, small, seeds)


def test_a_seed_may_be_numpys(brief, small):
    (run,) = get_runs(replace(brief, epochs=1), small, np.arange(3, 4))
    assert type(run.seed) is int and run.folder.name.startswith("small-seed3")


def test_two_processes_cannot_train_the_same_run(brief, small):
    with storage.claim(record.find_folder(brief, small.name, 0)):
        with pytest.raises(RuntimeError, match="is being trained by another process"):
            train_run(brief, small, seed=0)


def test_a_run_that_another_is_training_is_waited_for(brief, small, monkeypatch, capsys):
    (theirs,) = get_runs(brief, small, [0])
    aside = theirs.folder.with_name("aside")
    theirs.folder.rename(aside)
    monkeypatch.setattr(train, "WAIT", 0.05)

    def finish():
        with storage.claim(theirs.folder):
            claimed.set()
            time.sleep(0.5)
            aside.rename(theirs.folder)

    claimed = threading.Event()
    other = threading.Thread(target=finish)
    other.start()
    claimed.wait()
    (run,) = get_runs(brief, small, [0])
    other.join()
    assert run.results == theirs.results and run.environment == theirs.environment  # read back, not trained again
    assert capsys.readouterr().err.count("is being trained by another process; waiting for it") == 1


def test_a_run_that_another_finishes_meanwhile_is_read_back(brief, small, monkeypatch):
    (theirs,) = get_runs(brief, small, [0])
    looks = iter([None, theirs])  # not there at first, there once the run is this process's own
    monkeypatch.setattr(train, "read_run", lambda *args: next(looks))
    monkeypatch.setattr(train, "fit", lambda *args: pytest.fail("trained"))
    assert get_runs(brief, small, [0]) == [theirs]


def test_an_unreadable_checkpoint_is_told_and_kept(brief, small):
    work = storage.work_folder(record.find_folder(brief, small.name, 0))
    work.mkdir(parents=True)
    (work / "checkpoint.pt").write_bytes(b"junk")
    with pytest.raises(RuntimeError, match=r"checkpoint.pt: damaged \(.*\); delete it to start this run afresh"):
        train_run(brief, small, seed=0)
    assert (work / "checkpoint.pt").read_bytes() == b"junk"


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def resave(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def blank(state):
    for tensor in state["learner"]["model"].values():
        tensor.fill_(torch.nan)


CHECKPOINT_DAMAGE = {
    "a flipped byte": (corrupt, "damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "damaged"),
    "an all-NaN model": (lambda path: resave(path, blank), "NaN"),
    "no history": (lambda path: resave(path, lambda state: state.pop("history")), "damaged .KeyError"),
    "a history of words": (lambda path: resave(path, lambda state: state.update(history=["a"])), "damaged"),
    "half a history": (
        lambda path: resave(path, lambda state: state.update(history=state["history"][1:])),
        "not whole",
    ),
    "a list": (lambda path: torch.save([1, 2], path), "damaged"),
    "other best weights": (lambda path: resave(path, lambda state: state.update(best={})), "of another network"),
    "another seed's": (lambda path: resave(path, lambda state: state.update(seed=7)), "of seed 7"),
    "a foreign pickle": (
        lambda path: torch.save(torch.nn.Linear(1, 1), path),
        "not written by this project, and therefore not opened",
    ),
}


@pytest.fixture(scope="module")
def half_done(small, tmp_path_factory):
    """The checkpoint of a run of four epochs after its second."""
    experiment, predict, calls = replace(A1, epochs=4, patience=4), loop.predict_logits, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_RUNS", str(tmp_path_factory.mktemp("half") / "runs"))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(train, "predict_logits", lambda *args: predict(*args) if len(calls) < 2 else 1 / 0)
        patch.setattr(train, "calc_loss", lambda *args: calls.append(1) or 1.0)
        with pytest.raises(ZeroDivisionError):
            train_run(experiment, small, seed=0)
        return experiment, storage.work_folder(record.find_folder(experiment, small.name, 0)) / "checkpoint.pt"


@pytest.mark.parametrize("case", CHECKPOINT_DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name_and_not_gone_on_from(half_done, small, monkeypatch, case):
    experiment, whole = half_done
    damage, message = CHECKPOINT_DAMAGE[case]
    path = storage.work_folder(record.find_folder(experiment, small.name, 0)) / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    shutil.copy(whole, path)
    damage(path)
    monkeypatch.setattr(train, "train_one_epoch", lambda *args: pytest.fail("went on"))
    with pytest.raises(
        storage.RecordError, match=f"checkpoint.pt: .*{message}.*; delete it to start this run"
    ) as error:
        train_run(experiment, small, seed=0)
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


def fail_to_write(*args, **options):
    raise OSError(28, "No space left on device")


def test_without_room_for_a_checkpoint_or_a_record_one_line_says_so_and_the_run_goes_on_later(
    brief, small, monkeypatch, capsys
):
    monkeypatch.setattr(train, "find_experiment", lambda name: brief)
    monkeypatch.setattr(train, "load_data", lambda data: small)
    arguments = ["a1_baseline", "--wandb", "disabled"]
    for module, function, epochs in ((checkpoint.os, "fsync", 0), (record, "write_arrays", 2)):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(module, function, fail_to_write)
            main(arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert f"cannot write to {record.find_folder(brief, small.name, 0).parent}" in line
        assert "No space left on device" in line and "goes on from the last epoch that was stored" in line
        assert not list(record.runs_folder().glob("*/*/*.new"))
        left = list(record.runs_folder().glob("*/*/checkpoint.pt"))
        assert len(torch.load(left[0], weights_only=True)["history"]) == epochs if epochs else not left
    main(arguments)
    assert "best of 2 epochs" in capsys.readouterr().out


def test_a_run_that_diverges_says_so_and_leaves_no_record(brief, small):
    with pytest.raises(train.Diverged, match=r"a1_baseline with seed 0 diverged in epoch \d: its \w+ is (nan|inf)"):
        train_run(replace(brief, learning_rate=1e30), small, seed=0)
    assert not list(record.runs_folder().glob("*/*/run.json"))


def test_one_training_image_is_told_to_be_too_few(brief, small):
    one = replace(small.train, images=small.train.images[:1], labels=small.train.labels[:1])
    with pytest.raises(ValueError, match="the train split of small has 1 image; two are the least"):
        train_run(brief, replace(small, splits=small.splits | {"train": one}), seed=0)


def test_a_missing_split_is_told_before_training(brief, small, monkeypatch):
    monkeypatch.setattr(train, "train_one_epoch", lambda *args: pytest.fail("trained"))
    incomplete = replace(small, splits={"train": small.train})
    with pytest.raises(ValueError, match="validation split .* is not in this data set"):
        train_run(brief, incomplete, seed=0)


# --- from the shell -------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "fer_lib.train", "a1_baseline", "--data", "drawn", "--epochs", "4", "--wandb"]


def run_command(runs, *arguments, blocked="", **options):
    """Train from a shell; `blocked` modules cannot be imported."""
    hide = runs.parent / "hide"
    for module in blocked.split():
        (hide / module).mkdir(parents=True, exist_ok=True)
        (hide / module / "__init__.py").write_text("raise ImportError('not installed')\n")
    environment = {**os.environ, "FER_RUNS": str(runs), "PYTHONPATH": str(hide), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, "disabled", *arguments], cwd=PROJECT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def read_record(runs):
    (folder,) = [path.parent for path in runs.glob("a1_baseline/*/run.json")]
    with np.load(folder / "predictions.npz") as arrays:
        return pd.read_csv(folder / "history.csv").drop(columns="seconds"), dict(arrays)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    runs = tmp_path_factory.mktemp("uninterrupted") / "runs"
    out, error = run_command(runs, blocked="wandb papermill jupyter IPython nbformat").communicate(timeout=300)
    assert re.search(r"a1_baseline drawn seed 0: best of 4 epochs is \d, validation \d+\.\d%, test", out), error
    return read_record(runs)


def test_a_killed_run_ends_with_the_very_numbers_of_one_that_was_not(tmp_path, uninterrupted):
    """SIGKILL as soon as a checkpoint is there, then a while into the next epoch, then run to the end."""
    runs, killed = tmp_path / "runs", 0
    for delay in (0.0, 0.35):
        process = run_command(runs)
        checkpoint = next_checkpoint(runs, process)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        process.communicate()
    assert killed, "the run ended before it could be killed"
    assert checkpoint.exists() and not list(runs.glob("a1_baseline/*/run.json"))
    run_command(runs).communicate(timeout=300)
    history, logits = read_record(runs)
    pd.testing.assert_frame_equal(history, uninterrupted[0], check_exact=True)
    for name, expected in uninterrupted[1].items():
        np.testing.assert_array_equal(logits[name], expected)
    assert not checkpoint.parent.exists()


def next_checkpoint(runs, process):
    """Wait until the process has written a new checkpoint; return its path."""

    def find():
        return {path: path.stat().st_mtime_ns for path in runs.glob("a1_baseline/*.partial/checkpoint.pt")}

    before = find()
    while process.poll() is None:
        if (now := find()) != before:
            return next(iter(now))
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a9_none"], "no experiment 'a9_none'; there are a1_baseline"),
        (["a1_baseline", "--epochs", "0"], "epochs: 0, expected a whole number of at least 1"),
        (["a1_baseline", "--data", "none.csv"], "none.csv does not exist"),
    ],
)
def test_a_wrong_command_gets_one_clear_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m fer_lib.train: ") and message in line


def test_in_a_notebook_the_progress_bar_is_one_output_however_often_it_moves(tmp_path):
    code = """
        import time
        from fer_lib.data import load_data
        from fer_lib.experiments import EXPERIMENTS
        from fer_lib.train import make_progress_bar
        with make_progress_bar(EXPERIMENTS["a1_baseline"], load_data("drawn"), 0, 0, 6400) as bar:
            bar.mininterval = 0
            for _ in range(50):
                bar.update()
                bar.refresh()
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code))])
    NotebookClient(notebook, kernel_name="python3").execute()
    assert len(notebook.cells[0].outputs) == 1


def test_in_a_file_training_says_how_far_it_is(small, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE", 0.01)
    with progress.make_progress_bar(EXPERIMENTS["a1_baseline"], small, 3, 0, 640) as bar:
        for _ in range(50):
            time.sleep(0.01)
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    pattern = rf"a1_baseline {small.name} seed 3: \d+\.\d of 30 epochs, 00:0\d gone, \d\d:\d\d left at most"
    assert len(lines) > 2 and all(re.fullmatch(pattern, line) for line in lines)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals")
def test_while_papermill_trains_its_terminal_says_how_far_it_is(tmp_path):
    """And the notebook keeps nothing of it."""
    code = """
        import time
        from fer_lib import progress
        from fer_lib.data import load_data
        from fer_lib.experiments import EXPERIMENTS
        progress.LINE = 0.1
        with progress.make_progress_bar(EXPERIMENTS["a1_baseline"], load_data("drawn-few"), 0, 0, 640) as bar:
            for _ in range(30):
                time.sleep(0.1)
                bar.update()
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code))])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    reader, terminal = os.openpty()
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", tmp_path / "in.ipynb", tmp_path / "out.ipynb"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    subprocess.run(command, stderr=terminal, check=True, env=environment)  # under pytest a kernel leaves stderr alone
    assert "a1_baseline drawn-few seed 0: " in os.read(reader, 100_000).decode()
    (output,) = nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs
    assert output.output_type == "display_data"


def test_the_first_gradients_are_those_of_the_untrained_network(small):
    """Against autograd by hand."""
    experiment, images = EXPERIMENTS["a2_batchnorm"], 64
    table = loop.measure_first_gradients(experiment, small, [3, 4], images)
    torch.manual_seed(3)
    model = experiment.build_model()
    chosen = np.random.default_rng(3).permutation(len(small.train))[:images]
    logits = model(torch.from_numpy(small.train.images[chosen])[:, None] / 255)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(small.train.labels[chosen])).backward()
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    assert list(table.columns) == [f"gradient_norm/{name}" for name in weights] and list(table.index) == [3, 4]
    for name, weight in weights.items():
        assert table.loc[3, f"gradient_norm/{name}"] == pytest.approx(weight.grad.norm().item(), rel=1e-2), name


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("AMD EPYC", "AMD EPYC (family 25, model 17)"),  # a virtual machine's
        ("AMD EPYC 9654 96-Core Processor", "AMD EPYC 9654 96-Core Processor"),
    ],
)
def test_processors_of_different_speed_have_different_names(told, name):
    text = f"processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {told}\n"
    assert hardware.name_processor(text) == name
