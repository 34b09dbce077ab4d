import numpy as np
import pytest
from scipy import stats

from fer_lib.statistics import Effect, choose_confidence, estimate_contrast, format_number, moderate_variances, weigh


def draw_groups(deviations, runs, seed=0):
    rng = np.random.default_rng(seed)
    return {f"e{place}": rng.normal(0, deviation, runs) for place, deviation in enumerate(deviations)}


def test_a_number_has_a_true_minus_sign_and_zero_none():
    assert [format_number(value, sign=True) for value in (1.26, -1.26, -0.04, 0.0)] == ["+1.3", "−1.3", "0.0", "0.0"]
    assert format_number(-0.04) == "0.0" and Effect(-0.0001, 0.0).format() == "0.0 ± 0.0"


def test_a_change_and_its_half_interval_show_whether_zero_lies_within():
    error = 0.0053 / stats.norm.ppf(0.975)
    assert Effect(0.0054, error**2).format(sign=True) == "+0.54 ± 0.53", "rounded they would be the same"
    assert Effect(0.0064, error**2).format(sign=True) == "+0.6 ± 0.5"
    assert Effect(0.0054, error**2).format() == "0.5 ± 0.5", "a mean is not asked whether it is zero"


def test_experiments_that_scatter_alike_share_the_pooled_variance():
    groups = {"a": [1.0, 3.0], "b": [0.0, 2.0, 4.0], "alone": [5.0]}  # variances 2 and 4, of 1 and 2 degrees of freedom
    scatters = moderate_variances(groups)
    assert [scatter.variance for scatter in scatters.values()] == pytest.approx([(2 + 2 * 4) / 3] * 3)
    assert {scatter.freedom for scatter in scatters.values()} == {3}


def test_experiments_that_scatter_unlike_keep_much_of_their_own():
    quiet, loud = [0.01] * 10, [1.0] * 10
    groups = draw_groups(quiet + loud, 10)
    scatters = moderate_variances(groups)
    variances = np.array([scatters[name].variance for name in groups])
    assert variances[:10].max() < 0.05 < 0.2 < variances[10:].min()
    assert all(9 < scatter.freedom < 20 for scatter in scatters.values())


def test_without_two_runs_of_anything_there_is_no_interval():
    (scatter,) = moderate_variances({"a": [1.0]}).values()
    assert scatter.freedom == 0
    effect = estimate_contrast({"a": 1.0}, {"a": [1.0]}, {"a": scatter})
    assert effect.mean == 1.0 and np.isnan(effect.find_half_width())


def test_with_two_groups_alike_the_interval_is_students():
    groups = {"a": [1.0, 2.0, 4.0], "b": [2.0, 3.0, 7.0, 8.0]}
    pooled = stats.ttest_ind(groups["b"], groups["a"]).confidence_interval()
    effect = estimate_contrast(weigh(["b"], ["a"]), groups, moderate_variances(groups))
    assert effect.find_interval() == pytest.approx((pooled.low, pooled.high))


def test_a_main_effect_is_the_mean_of_both_simple_ones():
    groups = {"neither": [0.0, 0.2], "one": [1.0, 1.2], "other": [3.0, 3.2], "both": [5.0, 5.2]}
    scatters = moderate_variances(groups)
    effect = estimate_contrast(weigh(["one", "both"], ["neither", "other"]), groups, scatters)
    simple = estimate_contrast(weigh(["one"], ["neither"]), groups, scatters)
    assert effect.mean == pytest.approx((1 + 2) / 2) and effect.error == pytest.approx(simple.error / 2**0.5)


def test_the_choice_of_images_counts_only_as_far_as_runs_do_not_explain_it():
    """The same images easy for all runs of one network: all of the difference hangs on the images. Errors that fall on
    other images in each run: none of it does."""
    rng = np.random.default_rng(0)
    easy = rng.random(4000) < 0.7
    same = {"a": np.tile(easy, (3, 1)), "b": np.ones((3, 4000), bool)}
    values = {name: right.mean(1) for name, right in same.items()}
    scatters = moderate_variances({"a": [0.7, 0.71, 0.69], "b": [1.0, 1.0, 1.0]})
    weights = weigh(["b"], ["a"])
    effect = estimate_contrast(weights, values, scatters, same)
    assert effect.images == pytest.approx((~easy).var(ddof=1) / 4000)
    random = {name: rng.random((30, 4000)) < 0.7 for name in "ab"}
    effect = estimate_contrast(weights, {name: right.mean(1) for name, right in random.items()}, scatters, random)
    assert effect.images < 0.2 * 2 * 0.21 / 4000 / 30
    alone = random | {"a": random["a"][:1]}
    effect = estimate_contrast({"a": 1.0}, {"a": alone["a"].mean(1)}, scatters, alone)
    assert effect.images < 0.1 * 0.21 / 4000


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Forty experiments of three runs and one of one, as uneven as a report's; no difference is real."""
    misses, rounds = 0, 400
    for seed in range(rounds):
        groups = draw_groups([0.5, 0.8, 1.0, 1.0, 1.2, 0.7, 0.9, 1.1] * 2, 3, seed)
        effect = estimate_contrast(weigh(["e0"], ["e5"]), groups, moderate_variances(groups))
        low, high = effect.find_interval()
        misses += low > 0 or high < 0
    assert misses / rounds < 0.075


def test_the_confidence_is_that_which_the_decided_bear_out():
    """Of four effects two are clear, one is at the edge: at 97.5% two are decided, and three would need 96.25%."""
    effects = [Effect(mean, 1.0) for mean in (9.0, -8.0, 2.1, 0.3)]

    def decide(effect, confidence):
        low, high = effect.find_interval(confidence)
        return low > 0 or high < 0

    confidence = choose_confidence(effects, decide)
    assert confidence == pytest.approx(0.9625) and sum(decide(effect, confidence) for effect in effects) == 3
    effects[2] = Effect(1.97, 1.0)
    assert choose_confidence(effects, decide) == pytest.approx(0.975)
    assert choose_confidence(effects[3:], decide) == pytest.approx(0.95)
