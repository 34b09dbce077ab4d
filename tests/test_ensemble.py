from types import SimpleNamespace

import numpy as np
import pytest

from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.ensemble import (
    choose_members,
    choose_size,
    combine_runs,
    describe_ensemble,
    describe_student,
    group_candidates,
    read_probabilities,
    tabulate_members,
    tabulate_pools,
    tabulate_teams,
)
from fer_lib.metrics import calc_accuracy, calc_probabilities

LABELS = np.arange(600) % 7


def make_run(seed, wrong, sure=2.0, **views):
    """A run that errs on these images, and is as sure of itself everywhere."""
    logits = sure * np.eye(7)[np.where(np.isin(np.arange(600), wrong), (LABELS + 1) % 7, LABELS)]
    logits = {"validation": logits, "test": logits} | views
    return SimpleNamespace(
        data="small", experiment=EXPERIMENTS["a1_baseline"], seed=seed, logits=logits,
        results={"parameters": 2_000_000, "test_accuracy": calc_accuracy(logits["test"], LABELS)},
    )  # fmt: skip


@pytest.fixture
def runs():
    """The best; its twin; one that is worse, but errs elsewhere."""
    return [make_run(0, range(100)), make_run(1, range(100)), make_run(2, range(100, 210))]


def test_a_worse_network_that_errs_elsewhere_is_taken_before_a_twin(runs):
    members = choose_members(runs, LABELS, most=3)
    assert [run.seed for run in members] == [0, 2, 1]
    assert len(choose_members(runs, LABELS, most=2)) == 2


def test_together_they_answer_by_the_mean_of_their_probabilities(runs):
    together = combine_runs(runs[:2], "test")
    assert np.allclose(together, calc_probabilities(runs[0].logits["test"])) and np.allclose(together.sum(1), 1)


def test_the_table_tells_what_each_member_brings(runs):
    """The surer one is believed where the two differ: together they err on its 110 images, then on the twins' 100."""
    surer = make_run(2, range(100, 210), sure=2.5)
    table = tabulate_members([runs[0], surer, runs[1]], {"validation": LABELS, "test": LABELS})
    assert table["member"].tolist() == ["A1, seed 0", "A1, seed 2", "A1, seed 1"]
    assert table["validation_alone"].tolist() == [1 - 100 / 600, 1 - 110 / 600, 1 - 100 / 600]
    assert table["test_together"].tolist() == [1 - 100 / 600, 1 - 110 / 600, 1 - 100 / 600]
    assert choose_size(table) == 1  # the smallest of equals
    table.loc[2, ["validation_together", "test_together"]] = 0.9
    missed, reached = (describe_ensemble(table, aim, images=900) for aim in (0.92, 0.9))
    assert "**2** networks" in missed and "**90.0 ± 2.0%**" in missed and "missed by 2.0 points" in missed
    assert "A1, seed 0, alone on 83.3%" in missed and "90.0% is reached" in reached


def test_the_most_views_that_a_run_was_judged_by_count():
    other = 3.0 * np.eye(7)[(LABELS + 2) % 7]
    run = make_run(0, [], test_flip=other)
    assert np.array_equal(read_probabilities(run, "test"), calc_probabilities(other))
    run = make_run(0, [], test_flip=other, test_ten_crops=2 * other)
    assert np.array_equal(read_probabilities(run, "test"), calc_probabilities(2 * other))
    assert np.array_equal(read_probabilities(run, "validation"), calc_probabilities(run.logits["validation"]))


def test_each_reports_networks_and_all_are_weighed_against_one_another(runs):
    other = make_run(3, range(300, 330))
    other.experiment = EXPERIMENTS["b1_two_layer"]
    voted = make_run(4, [])
    voted.experiment = EXPERIMENTS["v1_votes"]  # learnt other annotation
    pools = group_candidates([*runs, other, voted])
    assert {name: len(pool) for name, pool in pools.items()} == {
        "report A's": 3,
        "report B's": 1,
        "both reports'": 4,
        "all": 4,
    }
    table = tabulate_pools(pools, {"validation": LABELS, "test": LABELS})
    assert table.loc["report B's", ["candidates", "members"]].tolist() == [1, 1]
    assert table.loc["report A's", "best alone, test (%)"] == f"{100 * (1 - 100 / 600):.1f}"
    assert float(table.loc["all", "together, test (%)"]) >= float(table.loc["report B's", "together, test (%)"])


def test_what_a_team_brings_is_told_beside_how_much_it_differs(runs):
    """The twins always agree; the third answers otherwise on the 210 images on which it or they err."""
    labels = {"validation": LABELS, "test": LABELS}
    table = tabulate_teams({"twins": runs[:2], "all": runs, "one": runs[:1]}, labels)
    assert table["two differ on (%)"].tolist() == ["0.0", f"{100 * (2 / 3) * 210 / 600:.1f}", "—"]
    assert table["parameters (M)"].tolist() == ["4.0", "6.0", "2.0"]
    assert table.loc["twins", "together, test (%)"] == table.loc["twins", "alone, test (%)"] == "83.3"


def test_a_network_is_set_beside_the_ensemble_that_taught_it(runs):
    told = describe_student(runs[2:], [runs[0], runs[1]], LABELS)
    assert "The 2 teachers together are right on **83.3%**" in told and "A1 alone on **81.7%**, −1.7 points" in told
    assert told.endswith("with 50% of their parameters.")
