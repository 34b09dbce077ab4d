import json
import re
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fer_lib import claims
from fer_lib.claims import QUESTIONS, VERDICTS, Quantity, Statement, read_claims, read_verdicts
from fer_lib.evaluate import collect_results, compare_runs
from fer_lib.extras.shift import read_shifts
from fer_lib.record import group_runs, read_first_gradients, read_published_runs
from fer_lib.report import judge
from fer_lib.statistics import Effect, weigh
from tests.conftest import PROJECT, needs_fer2013

ACCURACY = Quantity("validation_accuracy", "points", 0.01, "validation accuracy")
NUMBERS, STATEMENTS = {s.number for s in read_claims()[1]}, read_claims()[1]


@pytest.mark.parametrize(
    ("expects", "low", "high", "verdict"),
    [
        ("more", 0.002, 0.03, "true"),
        ("more", -0.005, 0.005, "too small to matter"),
        ("more", 0.002, 0.008, "too small to matter"),
        ("more", -0.03, -0.002, "false"),
        ("more", -0.03, 0.008, "false"),  # whatever it is, it is no gain that matters
        ("more", -0.01, 0.03, "undecided"),
        ("less", -0.03, -0.002, "true"),
        ("less", -0.008, 0.03, "false"),
        ("no more", -0.03, 0.008, "true"),
        ("no more", 0.002, 0.008, "true"),  # a gain, but none that matters
        ("no more", 0.002, 0.03, "false"),
        ("no more", -0.002, 0.03, "undecided"),
        ("more", np.nan, np.nan, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_interval(expects, low, high, verdict):
    assert Statement("X.1", "X", "", ACCURACY, ("a1_baseline",), (), expects).judge(low, high) == verdict


def test_an_effect_that_is_there_but_not_as_large_as_said_makes_it_false():
    tenfold = Statement("X.1", "X", "", ACCURACY, ("a1_baseline",), (), "more", at_least=0.1)
    assert tenfold.judge(0.03, 0.05) == "false" and tenfold.judge(0.12, 0.15) == "true"
    assert tenfold.judge(0.05, 0.15) == "undecided"
    assert tenfold.judge(0.101, 0.105) == "true", "just beyond it is as large as said, not too small to matter"
    assert tenfold.threshold == "1 point beyond +10.0"


def test_a_statement_without_a_run_is_counted_as_undecided_and_apart():
    verdicts = pd.DataFrame({"verdict": ["true", "undecided", "undecided"], "effect": [0.1, 0.0, np.nan]})
    told = "Of the **3** statements: 1 true, 0 false, 0 too small to matter, 2 undecided"
    assert claims.count_verdicts(verdicts) == f"{told} (1 for want of a run)."
    assert claims.count_verdicts(verdicts[:2]) == f"{told.replace('3', '2').replace('2 und', '1 und')}."


def test_both_reports_are_taken_apart_into_statements_that_can_be_judged():
    numbers, statements = read_claims()
    assert list(numbers) == [f"A-C{place}" for place in range(1, 10)] + [f"B-C{place}" for place in range(1, 6)]
    assert {statement.claim for statement in statements} == {*numbers, QUESTIONS}
    for statement in statements:
        assert sum(statement.weights.values()) == pytest.approx(1 if not statement.before else 0)
    contrasts = [(s.quantity.column, s.after, s.before) for s in statements]
    assert len(set(contrasts)) == len(contrasts), "an effect is counted twice"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": "speed"}, "A-C1.1: no 'speed'"),
        ({"after": ["a99"]}, "A-C1.1: no 'a99'"),
        ({"expects": "some"}, "A-C1.1: expects more, less or no more"),
    ],
)
def test_a_statement_that_cannot_be_understood_is_named(change, message, tmp_path, monkeypatch):
    import yaml

    given = yaml.safe_load((PROJECT / "reports" / "claims.yaml").read_text())
    given["claims"]["A-C1"]["statements"][0] |= change
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setattr(claims, "REPORTS", tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_claims()


def make_evidence(shares):
    rows = [
        {"experiment": name, "seed": seed, "validation_accuracy": share, "test_accuracy": share + 0.01}
        for name, values in shares.items()
        for seed, share in enumerate(values)
    ]
    return judge.Evidence(pd.DataFrame(rows), {})


def test_statements_are_judged_with_what_would_decide_the_undecided():
    shares = {"a1_baseline": [0.50, 0.52, 0.51], "a2_batchnorm": [0.56, 0.57, 0.58], "a3_dropout": [0.57, 0.59, 0.57]}
    pairs = [("a2_batchnorm", "a1_baseline"), ("a3_dropout", "a2_batchnorm"), ("a4_wider", "a3_dropout")]
    clear, small, unknown = (
        Statement(f"X.{place}", "X", "", ACCURACY, (after,), (before,)) for place, (after, before) in enumerate(pairs)
    )
    table = judge.judge_statements([clear, small, unknown], make_evidence(shares), {}).set_index("statement")
    assert table["verdict"].tolist() == ["true", "undecided", "undecided"]
    assert table.loc["X.0", "effect"] == pytest.approx(0.06) == table.loc["X.0", "test"]
    assert table.loc["X.0", "confidence"] == pytest.approx(0.975)  # one of two is decided
    assert table.loc["X.2", "lacks"] == "no run of A4 yet"
    row = table.loc["X.1"]
    assert row["detectable"] > row["effect"] and row["seeds_needed"] > 3
    told = claims.describe_undecided(small, row)
    assert f"; if the true one is the +0.7 points measured, {row['seeds_needed']:.0f} seeds of each" in told
    assert claims.describe_undecided(unknown, table.loc["X.2"]) == "X.2: no run of A4 yet."
    lacking = replace(small, quantity=Quantity("log_shift", "times", 0.2, "shift"))  # runs, but none that has it
    row = judge.judge_statements([clear, lacking], make_evidence(shares), {}).iloc[1]
    assert claims.describe_undecided(lacking, row).startswith("X.1: no run of A3, A2 yet")
    more = {name: np.tile(values, 30) + np.tile([0, 1e-4, -1e-4], 30) for name, values in shares.items()}
    table = judge.judge_statements([small], make_evidence(more), {})
    assert table["verdict"].tolist() == ["too small to matter"]  # two thirds of a point, in ninety runs


def test_a_statement_is_judged_again_where_its_steps_were_trained_over_one_cycle_too():
    pairs = [("a2_batchnorm", "a1_baseline"), ("a3_dropout", "a2_batchnorm"), ("a4_wider", "a3_dropout")]
    statements = [
        Statement(f"X.{n}", "X", f"{n}", ACCURACY, (after,), (before,)) for n, (after, before) in enumerate(pairs)
    ]
    shares = {
        "a1_baseline": [0.50, 0.501, 0.502],
        "a2_batchnorm": [0.56, 0.561, 0.562],
        "a3_dropout": [0.57, 0.58, 0.56],
    }
    shares |= {"a4_wider": [0.60, 0.602, 0.601], "ca1_baseline": [0.60, 0.601], "ca2_batchnorm": [0.58, 0.581]}
    shares |= {"ca3_dropout": [0.62, 0.621]}
    verdicts = judge.judge_statements(statements, make_evidence(shares), {}).set_index("statement")
    assert verdicts["converged_verdict"].tolist()[:2] == ["false", "true"]
    assert verdicts.loc["X.0", "converged"] == pytest.approx(-0.02) and verdicts.loc["X.0", "converged_runs"] == 4
    assert [s.number for s in claims.list_converged(statements, verdicts)] == ["X.0", "X.1"], "CA4 has no run"
    row = verdicts.loc["X.1"]
    assert claims.describe_undecided(statements[1], row).endswith("Over one cycle that nothing stops it is *true*.")
    assert "cycle" not in claims.describe_undecided(statements[1], row.drop("converged_verdict"))
    table = claims.tabulate_converged(statements, verdicts)
    assert table["stopped by patience"][0].startswith("true, +6.0 (") and table["verdict"][0] == "**false**"
    assert table["over one cycle"][0].startswith("−2.0 (") and table["runs over the cycle"][0] == "4"
    told = claims.describe_converged(statements, verdicts)
    assert told.startswith(
        "Of 1 statements decided in both trainings 0 are judged alike; X.0 turns from *true* to *false*, −2.0 ("
    )
    assert "; X.1 turns from *undecided* to *true*, +" in told


def test_a_statement_is_tabulated_with_verdict_effect_and_interval_together():
    statement = Statement("X.1", "X", "It helps.", ACCURACY, ("a2_batchnorm",), ("a1_baseline",), reported=0.03)
    row = judge.judge_statements(
        [statement], make_evidence({"a1_baseline": [0.50, 0.52], "a2_batchnorm": [0.60, 0.61]}), {}
    )
    (told,) = claims.tabulate_statements([statement], row.set_index("statement")).to_dict("records")
    assert told["verdict"] == "**true**" and told["steps"] == "A2 − A1" and told["reported"] == "+3.0"
    assert told["runs"] == "4"
    assert re.fullmatch(r"\+9\.5 \(\+\d+\.\d to \+\d+\.\d\)", told["effect"])


def test_an_interval_shows_on_which_side_of_zero_it_ends():
    assert claims.format_effect(ACCURACY, 0.01, 0.0001, 0.02) == "+1.0 (+0.01 to +2.0)"
    assert claims.format_effect(ACCURACY, -0.008, -0.016, 0.0004, unit=" points") == "−0.8 points (−1.6 to +0.04)"
    assert claims.format_effect(ACCURACY, 0.0, -0.01, 0.0) == "0.0 (−1.0 to 0.0)"  # nothing to be shown
    assert claims.format_effect(ACCURACY, np.nan, np.nan, np.nan) == "—"


def test_verdicts_are_tallied_and_those_counted_that_hang_on_what_matters():
    statements = [Statement(f"X.{n}", "X", "", ACCURACY, (), ()) for n in range(4)]  # a point matters
    intervals = {"true": (0.015, 0.03), "too small to matter": (-0.008, 0.008), "undecided": (-0.011, 0.03)}
    rows = [{"verdict": word, "effect": 0.0, "low": low, "high": high} for word, (low, high) in intervals.items()]
    rows.append({"verdict": "undecided", "effect": np.nan, "low": np.nan, "high": np.nan})  # no run yet
    verdicts = pd.DataFrame(rows, index=[statement.number for statement in statements])
    assert claims.tally_verdicts(verdicts) == "1 true, 0 false, 1 too small to matter, 2 undecided"
    assert claims.count_verdicts(verdicts).endswith("2 undecided (1 for want of a run).")
    changed = [claims.count_other_verdicts(statements, verdicts, factor) for factor in (0.5, 1, 4)]
    assert changed == [1, 0, 2]  # the second undecided; the first and the third too small to matter


def test_halves_of_one_experiment_are_compared_as_experiments_are():
    table = pd.DataFrame(
        {"experiment": ["a1_baseline"] * 3 + ["a2_batchnorm"] * 4, "validation_accuracy": [1, 2, 3.5, 1, 2, 3, 4.0]}
    )
    halves = judge.split_seeds(table)
    assert halves["experiment"].value_counts().to_dict() == {"a1_baseline": 3, "a2_batchnorm": 7}
    expected = []
    for alone, pair in ((1, [2, 3.5]), (2, [1, 3.5]), (3.5, [1, 2])):  # what the halves have in common is not known
        variance = (np.var(pair, ddof=1) + 3 * np.var([1, 2, 3, 4], ddof=1)) / 4
        expected.append(abs(alone - np.mean(pair)) / (variance * 1.5) ** 0.5 / stats.t.ppf(0.975, 4))
    first = halves[halves["experiment"] == "a1_baseline"]["reach"]
    assert sorted(first) == pytest.approx(sorted(expected))


def test_power_rises_with_the_effect_and_with_the_runs():
    rng = np.random.default_rng(1)
    names = ["a1_baseline", "a2_batchnorm", "a3_dropout", "a4_wider", "a5_deeper_head"]
    table = pd.concat(
        pd.DataFrame({"experiment": name, "validation_accuracy": rng.normal(0.6, 0.008, 3)}) for name in names
    )
    statement = Statement("", "", "", ACCURACY, ("a5_deeper_head",), ("a4_wider",))
    few, many = (judge.simulate_power(table, statement, [0.0, 0.01, 0.03], seeds, 200) for seeds in (3, 10))
    assert few[0] < 0.1 and many[0] < 0.1 and few[1] < many[1] and few[2] > 0.9 and many[2] > 0.99


# --- what is committed ------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    return read_published_runs()


def test_every_statement_has_a_verdict_on_record():
    verdicts = read_verdicts()
    assert set(verdicts.index) == NUMBERS and set(verdicts["verdict"]) <= set(VERDICTS)


def test_a_step_over_one_of_another_family_has_one_interval_wherever_it_is_told(published):
    runs = group_runs(published)
    before, after = "b3_three_layer_resnet", "s1_deeper"
    told = compare_runs(runs[before], runs[after], "validation_accuracy")
    judged = judge.Evidence(collect_results(published), {}).estimate(weigh([after], [before]), "validation_accuracy")
    assert (told.mean, told.seeds) == pytest.approx((judged.mean, judged.seeds)) and told.freedom == judged.freedom


def test_the_method_finds_no_difference_where_there_is_none(published):
    """Of the divisions of one experiment's runs one in twenty or so; and the record of it is of these runs."""
    halves = judge.split_seeds(collect_results(published))
    method = json.loads((PROJECT / "reports" / "method.json").read_text())
    assert halves["different"].mean() <= 0.08  # they overlap, so that they are worth far fewer
    assert method["divisions"] == len(halves) and method["different"] == pytest.approx(
        halves["different"].mean(), abs=1e-4
    )
    for by_seeds in method["power"].values():
        assert by_seeds["3"][0] < 0.075 and by_seeds["10"][0] < 0.075


def test_the_statements_that_runs_beyond_three_decided_are_named():
    later = claims.list_decided_later(read_verdicts())
    assert {"B-C3.3", "B-C4.5"} <= set(later) and "A-C4.3" not in later
    for path in ("results.md", "../notebooks/21_final_comparison.ipynb"):
        assert f"which decided {', '.join(later)} and Q5" in (PROJECT / "reports" / path).read_text(), path


def test_that_the_block_is_less_steady_is_carried_by_its_first_three_runs(published):
    """13 and the write-up say so."""
    (statement,) = (s for s in read_claims()[1] if s.number == "B-C4.1")
    told, early = read_verdicts().loc["B-C4.1"], [run for run in published if run.seed < judge.PLANNED]
    own = [run for run in published if run.experiment.name in statement.weights]
    assert told["verdict"] == "false" and {run.experiment.name for run in own} <= {r.experiment.name for r in early}
    later = judge.Evidence(collect_results([run for run in published if run not in own or run not in early]), {})
    effect = later.estimate(statement.weights, statement.quantity.column)
    assert statement.judge(*effect.find_interval(told["confidence"])) == "too small to matter"


@pytest.mark.slow
@needs_fer2013
def test_the_verdicts_on_record_are_those_of_the_runs(published, fer2013):
    labels = {"validation": fer2013.validation.labels, "test": fer2013.test.labels}
    found = judge.judge_claims(published, labels, read_first_gradients(), read_shifts()).set_index("statement")
    recorded = read_verdicts()
    assert found["verdict"].tolist() == recorded["verdict"].tolist(), "run `make results`"
    pd.testing.assert_series_equal(found["effect"].astype(float), recorded["effect"], atol=1e-5)
    pd.testing.assert_series_equal(found["low"].astype(float), recorded["low"], atol=1e-5)


def list_conditions():
    """What the text of each notebook rests on: <!-- holds: A-C2.1 false; a1_baseline.last_gap > 0.1 -->; and that of
    the write-up, within {# and #}, which the template leaves out."""
    for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for conditions in re.findall(r"<!-- holds: (.*?) -->", cell.source if cell.cell_type == "markdown" else ""):
                yield from ((path.stem, condition) for condition in conditions.split("; "))
    for name in ("paper.md", "summary.md"):
        for conditions in re.findall(r"\{# holds: (.*?) -?#\}", (PROJECT / "reports" / name).read_text()):
            yield from ((name, condition) for condition in conditions.split("; "))


@pytest.mark.parametrize(("notebook", "condition"), list_conditions())
def test_words_follow_numbers(notebook, condition):
    """A sentence that states a direction says what it rests on; when a verdict or a mean parts from it, this fails."""
    verdicts = read_verdicts()
    if match := re.fullmatch(rf"(\S+) ({'|'.join(VERDICTS)})", condition):
        assert verdicts.loc[match[1], "verdict"] == match[2], f"rewrite the passage in {notebook}"
        return
    left, sign, right = re.fullmatch(r"(\S+) ([<>]) (\S+)", condition).groups()
    left, right = (_look_up(side, verdicts) for side in (left, right))
    assert left < right if sign == "<" else left > right, f"rewrite the passage in {notebook}"


def _look_up(text, verdicts):
    if re.fullmatch(r"-?[\d.]+", text):
        return float(text)
    name, column = text.rsplit(".", 1)
    if name in verdicts.index:
        return verdicts.loc[name, column]
    table = pd.read_csv(PROJECT / "reports" / "results.csv")
    (mean,) = table[table["experiment"] == name].groupby("experiment")[column].mean()
    return mean


def test_a_notebook_quotes_claims_as_they_are_judged():
    quoted = 0
    for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for number, words in re.findall(r"^> \*\*([AB]-C\d+)\*\* (.*)$", cell.source, re.M):
                assert words == read_claims()[0][number], path.stem
                quoted += 1
    assert quoted > 12


def test_an_effect_that_no_number_of_seeds_decides_says_so():
    statement = Statement("X.1", "X", "", ACCURACY, ("a1_baseline",), ("a2_batchnorm",), "more")
    effect = Effect(0.009, 1e-6, images=1e-3, freedom=10)
    counts = pd.Series({"a1_baseline": 3, "a2_batchnorm": 3})
    assert judge._count_seeds_needed(statement, effect, counts, 0.95) is None
