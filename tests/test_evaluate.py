from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fer_lib import evaluate
from fer_lib.costs import (
    count_operations,
    describe_precisions,
    measure_cost,
    name_hardware,
    tabulate_costs,
    tabulate_milestones,
)
from fer_lib.evaluate import (
    compare_runs,
    describe_aim,
    describe_changes,
    estimate_metric,
    measure_course,
    measure_gradients,
    tabulate_views,
)
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.reliability import (
    choose_temperature,
    describe_errors,
    estimate_matched_accuracy,
    tabulate_calibration,
    tabulate_judges,
    tabulate_sides,
    tabulate_subset_changes,
    tabulate_subsets,
)
from fer_lib.extras.search import measure_sensitivity
from fer_lib.metrics import (
    calc_accuracy,
    calc_calibration_error,
    calc_confusion,
    calc_macro_f1,
    calc_probabilities,
    calc_recall,
    calc_reliability,
    fit_temperature,
)
from fer_lib.models import count_multiply_adds
from fer_lib.statistics import Effect, estimate_difference, estimate_mean

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 3])
LOGITS = np.eye(7)[PREDICTED]


def test_metrics_of_a_case_worked_out_by_hand():
    assert calc_accuracy(LOGITS, LABELS) == 4 / 6
    confusion = calc_confusion(LOGITS, LABELS)
    assert confusion.sum() == 6 and confusion[0, 1] == 1 and confusion[2, 3] == 1
    recall = calc_recall(confusion)
    np.testing.assert_allclose(recall[:3], [2 / 3, 1, 0])
    assert np.isnan(recall[3:]).all()
    # F1: 0.8 for class 0, 0.8 for class 1, 0 for classes 2 and 3; classes 4-6 do not occur
    assert calc_macro_f1(confusion) == pytest.approx((0.8 + 0.8) / 4)


def test_an_interval_over_seeds_is_students():
    """Mean 2, standard deviation 1, t of 2 degrees of freedom at 97.5%: 4.3027."""
    estimate = estimate_mean([1, 2, 3])
    assert estimate.mean == 2
    assert estimate.high - 2 == pytest.approx(4.3027 / np.sqrt(3), abs=1e-4)
    assert estimate.low == pytest.approx(4 - estimate.high)


def test_one_run_has_no_interval():
    estimate = estimate_mean([0.5])
    assert np.isnan(estimate.low) and estimate.format() == "50.0"


def test_a_difference_of_the_same_things_is_paired():
    estimate = estimate_difference([0.1, 0.5, 0.9], [0.2, 0.6, 1.0])
    assert estimate.mean == pytest.approx(0.1) and estimate.high - estimate.low < 1e-9


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [e.low < 0 < e.high for e in (estimate_mean(rng.normal(size=3)) for _ in range(2000))]
    assert 0.935 < np.mean(covered) < 0.965


def test_gradients_are_measured_as_logarithms():
    """Norms (3, 4) and (6, 2): over all layers 5 and 6.3; the largest over the smallest 4/3 and 3. An attention's
    positions are no layer."""
    norms = {"gradient_norm/places": [9, 9], "gradient_norm/a.weight": [3, 6], "gradient_norm/b.in_proj_weight": [4, 2]}
    history = pd.DataFrame({"epoch": [1, 2]} | norms)
    measured = measure_gradients(SimpleNamespace(history=history))
    assert np.exp(measured["log_gradient_peak"]) == pytest.approx(40**0.5)
    assert np.exp(measured["log_gradient_spread"]) == pytest.approx((4 / 3 * 3) ** 0.5)
    assert measured["log_gradient_of_layer_1"] == pytest.approx(np.log([3, 6]).mean())
    assert measure_gradients(SimpleNamespace(history=history[["epoch"]])) == {}


def test_formats():
    assert Effect(0.512, (0.008 / 1.96) ** 2).format() == "51.2 ± 0.8"
    assert Effect(0.012, (0.008 / 1.96) ** 2).format(sign=True) == "+1.2 ± 0.8"


def test_the_course_of_a_run_worked_out_by_hand():
    """Steps of 0.2, 0.1 and 0.3 in accuracy; the best is the second epoch."""
    history = pd.DataFrame({"validation_accuracy": [0.4, 0.6, 0.5, 0.2]})
    course = measure_course(SimpleNamespace(history=history, results={"best_epoch": 2}))
    assert course == pytest.approx({"wobble": 0.2, "log_epochs_to_best": np.log(2)})


def make_runs(name, accuracies, data="small"):
    """Runs of two epochs that differ in their accuracies alone."""
    environment = {"hardware": "CPU", "threads": 1, "seconds": 20.0, "images_per_second": 60}
    history = pd.DataFrame({"validation_accuracy": [0.5, 0.5], "seconds": [10.0, 10.0]})
    return [
        SimpleNamespace(
            experiment=EXPERIMENTS[name], seed=seed, data=data, environment=environment, history=history,
            results={
                "best_epoch": 1, "validation_accuracy": share, "test_accuracy": share, "last_train_accuracy": 0.6,
                "last_train_accuracy_clean": 0.6, "last_validation_accuracy": 0.5,
            },
        )
        for seed, share in enumerate(accuracies)
    ]  # fmt: skip


def test_runs_that_are_not_published_are_compared_by_their_own_scatter_unpaired():
    before, after = make_runs("a1_baseline", [0.50, 0.52, 0.54]), make_runs("a2_batchnorm", [0.60, 0.58, 0.56])
    change = compare_runs(before, after, "validation_accuracy")
    expected = stats.ttest_ind([0.60, 0.58, 0.56], [0.50, 0.52, 0.54]).confidence_interval()
    assert change.mean == pytest.approx(0.06) and (change.low, change.high) == pytest.approx(expected)
    assert "From A1 to A2 validation accuracy changes by **+6.0 ± 4.5 points**" in describe_changes((before, after))


def forget_families():
    for cached in (evaluate._tabulate_family, evaluate._group_family):
        cached.cache_clear()


def test_published_runs_are_compared_by_the_scatter_of_their_family(monkeypatch):
    family = {"a1_baseline": [0.50, 0.52], "a2_batchnorm": [0.60], "a3_dropout": [0.60, 0.62], "b1_two_layer": [0, 1]}
    runs = {name: make_runs(name, shares, "fer2013") for name, shares in family.items()}
    monkeypatch.setattr(evaluate, "read_published_runs", lambda names: sum((runs[n] for n in names if n in runs), []))
    forget_families()
    change = compare_runs(runs["a1_baseline"], runs["a2_batchnorm"], "validation_accuracy")
    single = estimate_metric(runs["a2_batchnorm"], "validation_accuracy")
    forget_families()
    half = stats.t.ppf(0.975, 2) * (2e-4 * (1 / 2 + 1)) ** 0.5  # report A's pooled variance, of two degrees of freedom
    assert change.mean == pytest.approx(0.09) and change.high - change.mean == pytest.approx(half)
    assert single.high - 0.6 == pytest.approx(half / 1.5**0.5)  # one run alone has no scatter of its own
    own = estimate_metric(make_runs("a1_baseline", [0.50, 0.52, 0.54]), "validation_accuracy")
    assert own.format() == estimate_mean([0.50, 0.52, 0.54]).format() == "52.0 ± 5.0"  # not published: Student's


def make_trials(filters, spread):
    rows = [
        {"learning_rate": rate, "drop_threshold": drop, "kernels": f"{width}-{filters}", "validation_accuracy": value}
        for drop in (0.0, 0.5)
        for width in (16, 32)
        for rate, value in ((0.001, 0.5), (0.003, 0.5 + spread * (1 + drop)), (0.0003, 0.5 + spread / 2))
    ]
    return pd.DataFrame(rows)


def test_sensitivity_is_the_range_over_the_learning_rates():
    measured = measure_sensitivity(make_trials("64", 0.02))
    assert len(measured) == 4 and measured[0.0, 16] == pytest.approx(0.02) and measured[0.5, 32] == pytest.approx(0.03)


def test_probabilities_are_the_softmax_whatever_the_logits_size():
    np.testing.assert_allclose(calc_probabilities(np.array([[0.0, np.log(3)]])), [[0.25, 0.75]])
    np.testing.assert_allclose(calc_probabilities(np.array([[0.0, np.log(9)]]), temperature=2), [[0.25, 0.75]])
    np.testing.assert_allclose(calc_probabilities(np.array([[1e4, 0.0]], np.float16)), [[1, 0]])


def test_calibration_of_a_case_worked_out_by_hand():
    """Three images at 90% of which two are right, one at 60% that is right."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    table = calc_reliability(probabilities, labels)
    assert table["images"].tolist() == [1, 3] and table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    assert calc_calibration_error(probabilities, labels) == pytest.approx((0.4 + 3 * (0.9 - 2 / 3)) / 4)


def test_the_temperature_that_made_the_labels_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 7))
    chances = calc_probabilities(logits).cumsum(1)
    labels = (rng.random((len(logits), 1)) > chances).sum(1).clip(max=6)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.03)
    assert calc_calibration_error(calc_probabilities(logits), labels) < 0.015
    assert calc_calibration_error(calc_probabilities(3 * logits), labels) > 0.1


def test_a_temperature_is_used_only_where_it_mends_the_calibration_on_validation():
    """One network is too sure throughout. Of the other the surest tenth, at three in four, is always right and the rest
    as often as it says: dividing its logits by less than 1 makes the labels likelier, and spoils the rest."""
    labels = np.zeros(1000, int)
    sure = 4.0 * np.eye(7)[[0] * 800 + [1] * 200]
    fitted, chosen = choose_temperature([sure, sure], labels)
    assert chosen == fitted > 1
    right, sharpest = np.arange(1000) % 2 == 0, np.arange(1000) < 150
    heights = np.where(sharpest, np.log(6 * 0.75 / 0.25), np.log(6 * 0.5 / 0.5))
    mixed = heights[:, None] * np.eye(7)[np.where(right | sharpest, 0, 1)]
    fitted, chosen = choose_temperature([mixed], labels)
    assert fitted < 0.99 and chosen == 1
    run = SimpleNamespace(experiment=EXPERIMENTS["a1_baseline"], logits={"validation": mixed, "test": mixed})
    row = tabulate_calibration([[run]], {"validation": labels, "test": labels}).loc["A1"]
    assert (
        row["temperature used"] == "no"
        and row["error as trained, test"] == row["error as trained, validation"] == "3.8"
    )
    assert float(row["error with it, validation"]) > 3.8


def test_the_threads_of_a_gpus_run_say_nothing_of_its_times():
    assert name_hardware({"hardware": "NVIDIA H200", "threads": 2}) == "NVIDIA H200"
    assert name_hardware({"hardware": "AMD EPYC Processor", "threads": 2}) == "AMD EPYC, 2 threads"


def test_what_changes_on_parts_of_the_split_and_whose_side_is_taken():
    """Before, one of three zeros is missed, after none; on two images most taggers chose another class."""
    before, after = (
        SimpleNamespace(data="small", logits={"test": np.eye(7)[predicted]}, experiment=EXPERIMENTS[name])
        for name, predicted in (("a1_baseline", PREDICTED), ("a2_batchnorm", LABELS))
    )
    parts = {"zeros": LABELS == 0, "ones": LABELS == 1}
    table = tabulate_subset_changes([([before] * 2, [after] * 2)], LABELS, parts)
    assert table["A1 to A2 (points)"].tolist() == ["+33.3 ± 0.0", "0.0 ± 0.0"]
    choices = np.array([0, 0, 1, 4, 1, -1])
    sides = tabulate_sides([[before], [after]], LABELS, choices)
    assert sides.loc["A1 Baseline"].tolist() == ["2", "50.0", "50.0"]
    assert sides.loc["A2 Batch norm"].tolist() == ["2", "100.0", "0.0"]


def test_it_is_told_how_many_errors_lie_where_the_label_is_doubtful():
    """Of the one's two errors one lies there, of the other's single one none; there are two such images of six."""
    first, second = LABELS.copy(), LABELS.copy()
    first[[0, 5]] = (LABELS[[0, 5]] + 1) % 7
    second[3] = (LABELS[3] + 1) % 7
    groups = [
        [SimpleNamespace(logits={"test": np.eye(7)[answers]}, experiment=EXPERIMENTS[name])]
        for name, answers in (("a1_baseline", first), ("a2_batchnorm", second))
    ]
    told = describe_errors(groups, LABELS, np.arange(6) >= 4)
    assert "lies on the 33% of the test images" in told and told.endswith("choice: A1 **50%**, A2 **0%**.")


def test_a_network_is_judged_by_the_label_and_by_the_taggers():
    labelled = SimpleNamespace(data="small", logits={"test": np.eye(7)[LABELS]}, experiment=EXPERIMENTS["s5_averaging"])
    choices = np.array([0, 0, 1, 4, 1, -1])  # two of five are not the label, one image has no choice
    voted = SimpleNamespace(
        data="small", logits={"test": np.eye(7)[[0, 0, 1, 4, 1, 5]]}, experiment=EXPERIMENTS["v1_votes"]
    )
    table = tabulate_judges([[labelled] * 2, [voted] * 2], LABELS, choices)
    assert table["images"].tolist() == ["6", "5", "5"]
    assert table["S5 (%)"].tolist() == ["100.0 ± 0.0", "100.0 ± 0.0", "60.0 ± 0.0"]
    assert table["V1 (%)"].tolist() == ["50.0 ± 0.0", "60.0 ± 0.0", "100.0 ± 0.0"]
    assert table["S5 to V1 (points)"].tolist() == ["−50.0 ± 0.0", "−40.0 ± 0.0", "+40.0 ± 0.0"]


def test_accuracy_on_parts_of_the_test_split():
    run = SimpleNamespace(data="small", logits={"test": LOGITS}, experiment=EXPERIMENTS["a1_baseline"])
    parts = {"all": LABELS >= 0, "zeros": LABELS == 0}
    table = tabulate_subsets([[run, run]], LABELS, parts)
    assert table["images"].tolist() == ["6", "3"] and table["A1 (%)"].tolist() == ["66.7 ± 0.0", "66.7 ± 0.0"]
    parts = {"twos": LABELS == 2, "none": LABELS == 9}  # of a user's own images none may be a copy
    assert tabulate_subsets([[run]], LABELS, parts)["A1 (%)"].to_dict() == {"twos": "0.0"}


def test_milestones_are_the_minutes_until_an_accuracy_is_first_reached():
    def make_run(seed, accuracies, seconds):
        history = pd.DataFrame({"validation_accuracy": accuracies, "seconds": seconds})
        environment = {"hardware": "Intel(R) Xeon(R) Processor with AMX", "threads": 1}
        return SimpleNamespace(
            experiment=EXPERIMENTS["a1_baseline"], seed=seed, history=history, environment=environment
        )

    runs = [make_run(0, [0.5, 0.62, 0.60, 0.66], [60.0] * 4), make_run(1, [0.61, 0.6, 0.6], [999.0, 60.0, 60.0])]
    row = tabulate_milestones([runs]).loc["A1 Baseline"]
    assert row.tolist() == ["2.0", "4.0 (1 of 2 runs)", "—", "Intel Xeon with AMX"]


def test_views_are_told_beside_the_plain_image():
    def make_run(seed, step, results, data="small"):
        return SimpleNamespace(experiment=EXPERIMENTS[step], seed=seed, results=results, data=data)

    plain = {"validation_accuracy": 0.6, "test_accuracy": 0.5}
    seen = {f"{split}_accuracy_{view}": share for split in ("validation", "test") for view, share in
            (("flip", 0.62), ("ten_crops", 0.61))}  # fmt: skip
    strong = [make_run(seed, "s5_averaging", plain | seen) for seed in (0, 1)]
    table = tabulate_views([[make_run(0, "a1_baseline", plain)], strong])
    assert list(table.index) == ["S5, plain", "S5, flip", "S5, ten crops"]
    assert table.loc["S5, flip"].tolist() == ["62.0 ± 0.0", "+2.0 ± 0.0", "62.0 ± 0.0", "+12.0 ± 0.0"]
    # the view is the one that is best on validation
    missed, reached = describe_aim(strong, 0.625), describe_aim(strong, 0.62)
    assert "shown flip" in missed and "**62.0 ± 0.0%**" in missed and "missed by 0.5 points" in missed
    assert "the aim of 62.0% is reached" in reached and "ten crops" not in reached
    own = [make_run(seed, "s5_averaging", plain | seen, "custom-0123abcd") for seed in (0, 1)]
    assert describe_aim(own, 0.62).endswith("(62.0 ± 0.0% on validation).")


def test_other_images_are_weighted_to_the_kinds_of_the_chosen_ones():
    """Of the others kind 0 is right in one of two, kind 1 in both; three of the chosen are of kind 0, one of kind 1."""
    labels, kinds = np.array([0, 0, 0, 1, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 0, 1, 1])
    chosen = np.arange(8) < 4
    answers = np.eye(7)[[3, 3, 3, 3, 0, 2, 1, 1]]
    run = SimpleNamespace(data="small", logits={"test": answers}, experiment=EXPERIMENTS["a1_baseline"])
    assert estimate_matched_accuracy([run], labels, chosen, ~chosen, kinds).mean == 0.75 * 0.5 + 0.25 * 1


def test_a_pause_does_not_count_as_cost():
    """Three epochs of 10 s, one with a pause of a quarter of an hour: 400 images an epoch are 40 a second."""
    run = SimpleNamespace(
        experiment=EXPERIMENTS["a1_baseline"],
        history=pd.DataFrame({"seconds": [10.0, 910.0, 10.0]}),
        environment={"seconds": 930.0, "images_per_second": 1200 / 930},
    )
    assert measure_cost(run) == pytest.approx({"typical_minutes": 0.5, "typical_speed": 40})
    # the first half on smaller images, in half the time: three of 5 s and three of 10 s, 2400 images in 45 s
    run.experiment = replace(EXPERIMENTS["s12_small_first"], epochs=6)
    run.history = pd.DataFrame({"seconds": [5.0, 5.0, 905.0, 910.0, 10.0, 10.0]})
    run.environment = {"seconds": 1845.0, "images_per_second": 2400 / 1845}
    expected = {"typical_minutes": 0.75, "typical_speed": 2400 / 45}
    assert measure_cost(run) == pytest.approx(expected)
    # teachers asked in the first two of four epochs
    run.experiment = replace(
        EXPERIMENTS["s20_taught"], epochs=4, recipe=replace(EXPERIMENTS["s20_taught"].recipe, draws=2)
    )
    run.history = pd.DataFrame({"seconds": [6.0, 6.0, 3.0, 3.0]})
    assert measure_cost(run)["typical_minutes"] == 0.3


def test_operations_are_those_worked_out_by_hand():
    """A way forward is two operations a multiply-add, the way back twice that; 100 images an epoch."""

    def make_run(name, seen, teachers=(), **changes):
        experiment = replace(EXPERIMENTS[name], **changes)
        environment = {"seconds": 2.0 * seen, "images_per_second": 50, "teachers": teachers}
        return SimpleNamespace(experiment=experiment, history=range(seen), environment=environment)

    model = EXPERIMENTS["s5_averaging"].build_model()
    small, large = (count_multiply_adds(model, side) for side in (32, 48))
    assert count_operations(make_run("s5_averaging", 3)) == 3 * 100 * 6 * large
    assert count_operations(make_run("s12_small_first", 3, epochs=4)) == 100 * 6 * (2 * small + large)
    assert count_operations(make_run("s22_sharpness", 3)) == 2 * 3 * 100 * 6 * large
    taught = make_run("s16_distilled", 3, ["s5_averaging seed 0", "s12_small_first seed 1"])
    assert count_operations(taught) == 3 * 100 * (6 + 2 * 2) * large
    recipe = replace(EXPERIMENTS["s23_tiny_taught"].recipe, draws=2)
    drawn = make_run("s23_tiny_taught", 3, ["s5_averaging seed 0"], recipe=recipe)
    window = count_multiply_adds(model, drawn.experiment.side)
    assert count_operations(drawn) == 100 * (3 * 6 * window + 2 * 2 * large)


def test_what_computed_in_another_precision_is_told():
    made = [("a1_baseline", "bfloat16")] * 2 + [("a2_batchnorm", "bfloat16")] * 2
    runs = [SimpleNamespace(experiment=EXPERIMENTS[n], environment={"precision": p}) for n, p in made]
    assert describe_precisions(runs) == "All runs computed in bfloat16."
    for name in ("a2_batchnorm", "a3_dropout", "a3_dropout"):
        runs.append(SimpleNamespace(experiment=EXPERIMENTS[name], environment={"precision": "float32"}))
    told = "Most runs computed in bfloat16, 3 in float32, among these all of A3."
    assert describe_precisions(runs) == told


def test_costs_are_compared_on_one_machine():
    """One experiment has a run on the machine of the others, and counts by it; another has none there, and says so."""

    def make_run(step, seed, hardware, seconds, threads=1):
        results = {"last_train_accuracy": 0.6, "last_train_accuracy_clean": 0.6, "last_validation_accuracy": 0.5}
        return SimpleNamespace(
            experiment=EXPERIMENTS[step],
            seed=seed,
            data="fer2013",
            results=results | {"best_epoch": 1},
            history=pd.DataFrame({"validation_accuracy": [0.5, 0.5], "seconds": [seconds, seconds]}),
            environment={
                "seconds": 2 * seconds,
                "images_per_second": 1200 / seconds,
                "hardware": hardware,
                "threads": threads,
            },
        )

    usual, other = "Intel(R) Xeon(R) Processor with AMX", "AMD EPYC with AVX-512"
    runs = [make_run("a1_baseline", seed, usual, 30.0) for seed in range(3)]
    runs += [make_run("a2_batchnorm", 0, usual, 60.0), *(make_run("a2_batchnorm", s, other, 90.0) for s in (1, 2))]
    runs += [make_run("a3_dropout", seed, other, 120.0) for seed in range(3)]  # more runs there, of fewer experiments
    table = tabulate_costs(runs)
    assert table["typical_minutes"].tolist() == [1, 2, 4]
    assert table["note"].tolist() == ["", "", " (AMD EPYC with AVX-512)"]
    assert table["hardware"].tolist() == ["Intel Xeon with AMX"] * 2 + ["AMD EPYC with AVX-512"]
    quick = [make_run("a1_baseline", 3, usual, 15.0, threads=2), make_run("a4_wider", 0, usual, 40.0, threads=2)]
    table = tabulate_costs(runs + quick)
    assert table["typical_minutes"].tolist() == [1, 2, 4, pytest.approx(4 / 3)]
    assert table.loc["a4_wider", "note"] == " (Intel Xeon with AMX, 2 threads)"


def test_a_report_lies_above_the_runs_only_where_it_is_above_every_one_at_its_own_training_accuracy():
    step = replace(EXPERIMENTS["a3_dropout"], reported=(0.6, 0.58))

    def climb(validation):
        history = pd.DataFrame({"train_accuracy": [0.5, 0.7], "validation_accuracy": validation})
        return SimpleNamespace(experiment=step, history=history)

    low, high = climb([0.5, 0.6]), climb([0.5, 0.7])  # at a training accuracy of 0.6: 0.55 and 0.60
    assert evaluate.lies_above([low]) and not evaluate.lies_above([low, high])
    near = climb([0.53, 0.62])  # 0.575 at 0.6, 0.577 at 0.605; and 0.58 may be 0.575 rounded
    assert not evaluate.lies_above([near])
