import re
from types import SimpleNamespace

import numpy as np
import pytest

from fer_lib.data import load_votes
from fer_lib.evaluate import tabulate_view_gains
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.ensemble import group_candidates, tabulate_pools
from fer_lib.extras.explore import collect_facts, list_choices, list_subsets
from fer_lib.record import read_published_runs
from fer_lib.report import compare
from fer_lib.report.compare import count_confusions
from fer_lib.report.published import describe_published, tabulate_published
from tests.conftest import needs_fer2013

LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 0])


def make_run(name, seed, predicted):
    return SimpleNamespace(data="small", experiment=EXPERIMENTS[name], seed=seed, logits={"test": np.eye(7)[predicted]})


@pytest.fixture
def runs():
    """A1 errs on the last four, A1b on the first; seed 1 of A1 is alone."""
    return [
        make_run("a1_baseline", 0, [0, 1, 2, 3, 0, 0, 0, 1]),
        make_run("a1_baseline", 1, LABELS),
        make_run("a1b_baseline_balanced", 0, [1, 1, 2, 3, 4, 5, 6, 0]),
    ]


def test_confusions_are_summed_over_the_runs(runs):
    counts = count_confusions(runs, LABELS)
    matrix = np.array(counts["a1_baseline"])
    assert matrix.sum() == 16 and matrix[0, 0] == 3 and matrix[4, 0] == 1 and matrix[0, 1] == 1
    recall = compare.tabulate_recall({"a1_baseline": matrix})
    assert recall.loc["A1 Baseline", "Angry"] == 75.0 and recall.loc["A1 Baseline", "Sad"] == 50.0


def test_accuracy_is_told_for_parts_of_the_test_split(runs):
    last = np.arange(8) == 7
    parts = {
        "label is the taggers' choice": ~last,
        "with a copy in training": last,
        "without a copy in either": LABELS == 0,
    }
    told = compare.judge_subsets([run for run in runs if run.seed == 0][1:], LABELS, parts)
    assert told == {
        "a1b_baseline_balanced": {
            "label is the taggers' choice": "85.7",
            "with a copy in training": "100.0",
            "without a copy in either": "50.0",
            "alike": "100.0",  # of the two, the one that is like it, which is no choice of theirs either
        }
    }


def test_answers_to_mirrored_views_are_calibrated_and_told_by_class():
    """Right in eight of ten: with logits of 0 and 5 a temperature is due that says so."""
    labels = {"validation": np.zeros(10, int), "test": np.array([0] * 9 + [1])}
    logits = 5.0 * np.eye(7)[[0] * 8 + [1, 1]]
    views = {"validation_flip": logits, "test_flip": logits}
    first = SimpleNamespace(experiment=EXPERIMENTS["s5_averaging"], logits=views)
    other = SimpleNamespace(experiment=EXPERIMENTS["a1_baseline"], logits={"validation": logits})
    ((name, told),) = compare.judge_mirrored([first, first, other], labels).items()
    share, sure = (np.exp(5 / value) / (np.exp(5 / value) + 6) for value in (told["fitted"], 1))
    assert name == "s5_averaging" and share == pytest.approx(0.8, abs=0.01) and told["temperature"] == told["fitted"]
    assert told["calibration error, validation, as it is"] == f"{100 * (sure - 0.8):.1f} ± 0.0"
    fitted = "with the fitted temperature"  # nine of ten test images are right
    assert told["calibration error, test, as it is"] == f"{100 * (sure - 0.9):.1f} ± 0.0"
    assert told[f"calibration error, test, {fitted}"] == f"{100 * (0.9 - share):.1f} ± 0.0"
    assert "so it is used" in compare.describe_temperature(told)
    assert "so it is not used" in compare.describe_temperature(told | {"temperature": 1.0})
    assert told["classes"]["Angry"] == {"recall": "88.9 ± 0.0", "precision": "100.0 ± 0.0", "F1": "94.1 ± 0.0"}
    assert told["classes"]["Disgust"] == {"recall": "100.0 ± 0.0", "precision": "50.0 ± 0.0", "F1": "66.7 ± 0.0"}


def test_ours_is_set_beside_the_highest_figure_that_no_test_image_chose():
    """Higher ones are of PublicTest, of networks together, pretrained, or chosen on PrivateTest."""
    experiment = EXPERIMENTS["s20_taught"]

    def describe(*shares):
        results = [{f"{split}_accuracy{view}": share for split in ("validation", "test")
                    for view in ("", "_flip", "_ten_crops")} for share in shares]  # fmt: skip
        return describe_published(
            [SimpleNamespace(experiment=experiment, data="small", results=row) for row in results]
        )

    table = tabulate_published()
    assert (table["reported (%)"].astype(float) > 72.7).sum() > 5 and not table.isna().any(axis=None)
    for shares, apart, where in (
        ((0.70, 0.7001), "2.7 points above", "outside"),
        ((0.72, 0.74), "0.3 points below", "inside"),
    ):
        pattern = rf"72\.7% \(Pramerdorfer and Kampel 2016\), {apart} the .*, and {where} the interval"
        assert re.search(pattern, describe(*shares))


def test_what_a_step_brings_is_told_for_each_view_and_split(published):
    groups = compare.choose_groups(["s18_full_size", "s99_unheard_of", "s20_taught"])
    assert list(groups) == ["s18_full_size", "s20_taught"]
    before, after = groups.values()
    table = tabulate_view_gains([(before, after)])
    assert list(table.index) == ["S18 to S20, plain", "S18 to S20, flip", "S18 to S20, ten crops"]
    means = (np.mean([run.results["test_accuracy_flip"] for run in runs]) for runs in (after, before))
    assert table.loc["S18 to S20, flip", "test"].startswith(f"{100 * np.subtract(*means):+.1f} ± ")


def test_experiments_with_few_runs_are_left_out_and_the_rest_grouped_by_report(monkeypatch):
    names = ["a1_baseline"] * 3 + ["a2_batchnorm"] * 2 + ["b1_two_layer"] * 3 + ["da1_plain"] * 3
    runs = [make_run(name, seed, LABELS) for seed, name in enumerate(names)]
    monkeypatch.setattr(compare, "read_published_runs", lambda data: runs)
    chosen = compare.choose_runs(3)
    assert [run.experiment.name for run in chosen] == [name for name in names if name != "a2_batchnorm"]
    groups = compare.group_by_report(chosen)
    assert list(groups) == ["Report A", "Report B"]  # the dispute's have a figure of their own
    assert [[run.experiment.step for run in step] for step in groups["Report A"]] == [["A1"] * 3]


def test_without_the_projects_own_counts_it_is_said_whose_runs_are_compared(own_folders):
    with pytest.raises(FileNotFoundError, match="confusions.json is missing: .* leave FER_RUNS out"):
        compare.read_confusions()


def test_of_an_experiment_that_was_not_counted_it_is_said(monkeypatch):
    monkeypatch.setattr(compare, "read_confusions", lambda: {"a1_baseline": np.eye(7)})
    assert list(compare.choose_confusions(["a1_baseline"])) == ["A1"]
    with pytest.raises(ValueError, match="nothing is counted of s23_tiny_taught: too few runs, or `make results`"):
        compare.choose_confusions(["a1_baseline", "s23_tiny_taught"])


# --- what is committed ------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    return read_published_runs()


@pytest.mark.slow
@needs_fer2013
def test_the_counts_on_record_are_those_of_the_recorded_logits(published, fer2013):
    runs, labels = compare.choose_runs(), fer2013.test.labels
    counts = {name: matrix.tolist() for name, matrix in compare.read_confusions().items()}
    assert counts == count_confusions(runs, labels)


@pytest.mark.slow
@needs_fer2013
def test_the_facts_on_record_are_those_of_the_data(published, fer2013):
    if (votes := load_votes(fer2013)) is None:
        pytest.skip("needs FER+'s votes beside FER2013, or in FER_VOTES")
    facts, runs = compare.read_facts(), compare.choose_runs()
    subsets = list_subsets(fer2013, votes)
    assert facts.pop("accuracies") == compare.judge_subsets(runs, fer2013.test.labels, subsets)
    labels = {"validation": fer2013.validation.labels, "test": fer2013.test.labels}
    assert facts.pop("mirrored") == compare.judge_mirrored(runs, labels)
    assert facts.pop("voted") == compare.judge_voted(fer2013.test.labels, list_choices(fer2013, votes))
    assert facts.pop("ensembles") == tabulate_pools(group_candidates(runs), labels).to_dict("index")
    assert facts == collect_facts(fer2013, votes)


def test_the_regime_is_shown_of_what_a_report_gives_accuracies_of_and_of_what_varies_that(published):
    groups, tries = compare.group_regime(published)
    steps = [runs[0].experiment for runs in groups]
    assert all(step.reported for step in steps) and "A5" in [step.step for step in steps]
    assert {run.experiment.against for run in tries} <= {step.name for step in steps}
    told = compare.describe_tries(groups, tries).splitlines()
    assert len(told) == len(tries) and told[0].startswith("- A3, more dropout, one run: ")
    assert told[0].endswith(" in the mean and the report 60%.")


def test_the_table_has_every_experiment_on_record(published):
    table = compare.tabulate_experiments([run for run in published if run.experiment.step in ("A1", "A2")])
    assert table.index.tolist() == ["A1 Baseline", "A2 Batch norm"]
    assert table.loc["A1 Baseline", "parameters"] == "683,527" and "±" in table.loc["A2 Batch norm", "test"]
