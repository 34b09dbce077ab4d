import contextlib
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from fer_lib import storage
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras import search
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow

TRIAL = {"learning_rate": 0.003, "drop_threshold": 0.25, "kernels": "8-16", "epochs": 1}


@pytest.mark.parametrize("family", search.list_families())
def test_every_trial_of_every_grid_is_an_experiment_of_its_own(family):
    grid = search.read_grid(family)
    trials = [search.configure_trial(family, trial) for trial in grid]
    assert len(set(trials)) == len(grid) >= 18
    for trial in trials:
        assert trial.name == family and trial.augmentation.flip == 0.5
        trial.build_model()


def test_the_size_of_the_searches_is_told_as_long_as_it_is_one():
    assert search.describe_grids() == "18 trials of 4 epochs each"


@pytest.mark.parametrize("family", search.list_families())
def test_the_sweep_names_its_family_its_metric_and_the_command(family):
    sweep = yaml.safe_load((PROJECT / "sweeps" / f"{family}.yaml").read_text())
    assert sweep["name"] == family in EXPERIMENTS and sweep["method"] == "grid"
    assert sweep["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    assert sweep["command"] == ["${env}", "${interpreter}", "-m", "fer_lib.extras.search", family, "${args}"]
    assert (PROJECT / sweep["program"]).exists()


def test_a_trial_is_recorded_read_back_and_never_touches_the_test_split(small, monkeypatch):
    blind = replace(small, splits={name: split for name, split in small.splits.items() if name != "test"})
    result = search.run_trial("b1_two_layer", TRIAL, blind)
    assert result["config"]["learning_rate"] == 0.003
    assert result["config"]["options"] == {"kernels": [8, 16], "drop_threshold": 0.25}
    (path,) = search.trials_folder("b1_two_layer", "small").iterdir()
    assert path.name == "learning_rate=0.003,drop_threshold=0.25,kernels=8-16,epochs=1.json"
    with monkeypatch.context() as patch:
        patch.setattr(search, "fit", None)
        assert search.run_trial("b1_two_layer", TRIAL, blind) == json.loads(path.read_text()) == result
    table = search.read_trials("b1_two_layer", "small")
    assert "best has a learning rate of **0.003**, dropout of **0.25** and **8-16** filters" in (
        search.describe_search("b1_two_layer", table)
    )
    with pytest.raises(FileNotFoundError, match="no trial of b5_attention on small is on record; `make search`"):
        search.read_trials("b5_attention", "small")
    assert table.loc[0, "kernels"] == "8-16" and table.loc[0, "validation_accuracy"] == result["validation_accuracy"]
    storage.write_json(path, result | {"config": result["config"] | {"batch_size": 1}, "epochs": 99})
    assert search.run_trial("b1_two_layer", TRIAL, blind)["epochs"] == 1, "a trial of other settings was read back"
    path.write_text(path.read_text()[:300])
    for read in (
        lambda: search.run_trial("b1_two_layer", TRIAL, blind),
        lambda: search.read_trials("b1_two_layer", "small"),
    ):
        with pytest.raises(storage.RecordError, match="epochs=1.json: damaged or cut short .*; git restore brings"):
            read()


def test_of_fer2013_the_grids_trials_count_whatever_else_was_tried(monkeypatch):
    published = PROJECT / "reports" / "sweeps" / "b1_two_layer" / "fer2013"
    folder = search.trials_folder("b1_two_layer", "fer2013")
    shutil.copytree(published, folder)
    other = {"learning_rate": 0.1, "drop_threshold": 0.0, "kernels": "32-64", "epochs": 4}
    result = search.read_trial(next(folder.iterdir())) | {"trial": other, "validation_accuracy": 0.25}
    storage.write_json(folder / f"{search.name_trial(other)}.json", result)
    assert len(list(folder.iterdir())) == 19 and len(search.read_trials("b1_two_layer")) == 18


def test_a_trial_that_another_process_finishes_meanwhile_is_not_trained_again(small, monkeypatch):
    path = search.trials_folder("b1_two_layer", "small") / f"{search.name_trial(TRIAL)}.json"
    result = search.run_trial("b1_two_layer", TRIAL, small)
    content = path.read_text()
    path.unlink()

    @contextlib.contextmanager
    def claim(folder):
        path.write_text(content)
        yield folder

    monkeypatch.setattr(search, "claim", claim)
    monkeypatch.setattr(search, "fit", None)
    assert search.run_trial("b1_two_layer", TRIAL, small) == result


PUBLISHED = [family for family in search.list_families() if (PROJECT / "reports" / "runs" / family).exists()]


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_published_hyperparameters_are_the_best_of_the_whole_grid(family):
    trials = search.read_trials(family)
    assert len(trials) == len(search.read_grid(family)), "the search is not complete; run `make search`"
    assert "; with these the family is trained in full" in search.describe_search(family, trials)


def test_the_command_of_a_sweep_runs_a_trial(capsys):
    arguments = [
        f"--{name}={value}" for name, value in (TRIAL | {"kernels": "8-8-8"}).items()
    ]  # as a W&B agent passes them
    search.main(["b2_three_layer_batchnorm", *arguments, "--data", "drawn", "--wandb", "disabled"])
    assert "kernels=8-8-8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 0.5}, "no hyperparameter dropout here"),
        ({"learning_rate": -1}, "learning_rate: -1"),
        ({"kernels": "wide"}, "kernels: 'wide', expected numbers as in 32-64"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(wrong, message, small):
    with pytest.raises(ValueError, match=message):
        search.run_trial("b1_two_layer", TRIAL | wrong, small)


def test_snakemake_plans_the_trials_that_are_not_on_record():
    done = subprocess.run(["snakemake", "--cores", "2", "-n", "search"], cwd=PROJECT, text=True, capture_output=True)
    trials = [search.name_trial(trial) for family in search.list_families() for trial in search.read_grid(family)]
    missing = len(trials) - len(list((PROJECT / "reports" / "sweeps").glob("*/fer2013/*.json")))
    assert done.returncode == 0, done.stderr
    planned = re.search(r"^trial +(\d+)$", done.stdout, re.M)
    assert (int(planned[1]) if planned else 0) == missing
