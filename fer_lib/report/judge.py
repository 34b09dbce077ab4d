"""From the records to the verdicts: each statement judged by its contrast, and the method tried on itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from fer_lib.claims import SETTINGS, Quantity, Statement, read_claims
from fer_lib.evaluate import collect_results
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.search import measure_sensitivity, read_trials
from fer_lib.extras.shift import summarise_shifts
from fer_lib.record import Run, group_runs
from fer_lib.statistics import Effect, Scatter, choose_confidence, estimate_contrast, moderate_variances, weigh

MOST_SEEDS = 100  # more are not worth saying
PLANNED = 3  # runs of an experiment; more were added where verdicts were open
POWER = 0.8  # the probability with which an effect is to be found


@dataclass(frozen=True)
class Evidence:
    """All runs of all experiments, as contrasts need them.

    table: of `evaluate.collect_results`, further columns joined; right: {(split, experiment): bool (runs, N)}, which
    images each run answers rightly, or nothing, where the labels are not at hand."""

    table: pd.DataFrame
    right: Mapping[tuple[str, str], np.ndarray]

    def estimate(self, weights: Mapping[str, float], column: str) -> Effect | None:
        """A contrast of a column; None if an experiment has no run that has it."""
        if column not in self.table:
            return None
        values = self.read_values(column)
        if not set(weights) <= set(values):
            return None
        split, _, what = column.partition("_")
        kin = {EXPERIMENTS[name].family for name in weights}
        alike = {n: answers for (of, n), answers in self.right.items() if of == split and EXPERIMENTS[n].family in kin}
        images = alike if what == "accuracy" and alike else None
        return estimate_contrast(weights, values, self.find_scatters(weights, column), images)

    def find_scatters(self, names: Iterable[str], column: str) -> dict[str, Scatter]:
        """How far runs lie apart in a column, for all experiments of the families of some."""
        values, scatters = self.read_values(column), {}
        for family in {EXPERIMENTS[name].family for name in names}:
            kin = {name: group for name, group in values.items() if EXPERIMENTS[name].family == family}
            scatters |= moderate_variances(kin)
        return scatters

    def read_values(self, column: str) -> dict[str, np.ndarray]:
        """The runs' values of a column, by experiment, where they have any."""
        found = self.table.dropna(subset=[column])
        return {name: group[column].to_numpy() for name, group in found.groupby("experiment", sort=False)}


def collect_evidence(
    runs: list[Run], labels: Mapping[str, np.ndarray], gradients: pd.DataFrame, shifts: pd.DataFrame
) -> Evidence:
    """labels: {"validation": int (N,), "test": int (N,)}; gradients: of `record.read_first_gradients`; shifts: of
    `shift.read_shifts`."""
    table = collect_results(runs)
    for further in (summarise_first_gradients(gradients), summarise_shifts(shifts)):
        table = table.merge(further, how="left", on=["experiment", "seed"], validate="one_to_one")
    right = {}
    for name, own in group_runs(runs).items():
        for split, truth in labels.items():
            right[split, name] = np.stack([run.logits[split].argmax(1) == truth for run in own])
    return Evidence(table, right)


def estimate_sensitivity(statement: Statement) -> Effect:
    """A contrast of how far the validation accuracy of a search's trials lies apart over the learning rates.

    There is one such range for each setting of the others that all searches have, dropout and the first filters: the
    settings, and not the seeds, are what is left to chance."""
    ranges = {name: measure_sensitivity(read_trials(name)) for name in statement.weights}
    table = pd.concat(ranges, axis=1, join="inner")
    contrast = sum(weight * table[name] for name, weight in statement.weights.items())
    return Effect(contrast.mean(), contrast.var(ddof=1) / len(contrast), freedom=len(contrast) - 1)


def judge_claims(
    runs: list[Run], labels: Mapping[str, np.ndarray], gradients: pd.DataFrame, shifts: pd.DataFrame
) -> pd.DataFrame:
    """The rows of reports/verdicts.csv. Arguments as of `collect_evidence`, of all published runs."""
    _, statements = read_claims()
    searched = [s for s in statements if s.quantity.column == SETTINGS]
    sensitivity = {statement.number: estimate_sensitivity(statement) for statement in searched}
    early = [run for run in runs if run.seed < PLANNED]
    verdicts, by_early = (
        judge_statements(statements, collect_evidence(some, labels, gradients, shifts), sensitivity)
        for some in (runs, early)
    )
    return verdicts.assign(early_verdict=by_early["verdict"])


def summarise_first_gradients(table: pd.DataFrame) -> pd.DataFrame:
    """By `experiment` and `seed`, natural logarithms of the norm of the first batch's gradient: log_first_gradient over
    all layers, log_first_layer_gradient of the first. table: of `record.read_first_gradients`."""
    norms = table.filter(like="gradient_norm/")
    first = norms.bfill(axis=1).iloc[:, 0]  # layers are named differently in different networks; the first stands first
    total = np.log((norms**2).sum(axis=1)) / 2
    return table[["experiment", "seed"]].assign(log_first_gradient=total, log_first_layer_gradient=np.log(first))


def list_measured(statements: Sequence[Statement]) -> list[str]:
    """The experiments whose first gradients a statement is about, by name."""
    asked = [s for s in statements if "first" in s.quantity.column]
    return list(dict.fromkeys(name for statement in asked for name in statement.weights))


def judge_statements(
    statements: Sequence[Statement], evidence: Evidence, sensitivity: Mapping[str, Effect]
) -> pd.DataFrame:
    """A row a statement: its effect, standard error, interval and verdict, the same effect on the test split, for an
    undecided one the smallest effect that would have been found, and how many seeds of each experiment would decide
    it, if the effect is what was measured. One confidence serves all, the questions of the dispute among them.

    sensitivity: {number: effect} of the statements about the searches, whose units are settings and not seeds."""
    effects = {}
    for statement in statements:
        effect = sensitivity.get(statement.number) or evidence.estimate(statement.weights, statement.quantity.column)
        effects |= {statement: effect} if effect is not None else {}
    pairs = list(effects.items())
    confidence = choose_confidence(pairs, lambda pair, level: pair[0].is_decided(pair[1], level))
    return pd.DataFrame(
        [_tell_verdict(statement, effects.get(statement), evidence, confidence) for statement in statements]
    )


def _tell_verdict(statement: Statement, effect: Effect | None, evidence: Evidence, confidence: float) -> dict:
    row = {"statement": statement.number, "verdict": "undecided", "confidence": confidence}
    if effect is None:
        column = statement.quantity.column
        there = evidence.read_values(column) if column in evidence.table else {}
        names = [EXPERIMENTS[name].step for name in statement.weights if name not in there]
        return row | {"lacks": f"no run of {', '.join(names)} yet"}
    low, high = effect.find_interval(confidence)
    row |= {
        "effect": effect.mean,
        "low": low,
        "high": high,
        "error": effect.error,
        "verdict": statement.judge(low, high),
    }
    row["images_share"] = effect.images / (effect.seeds + effect.images) if effect.error else 0.0
    measured = evidence.table.dropna(subset=evidence.table.columns.intersection([statement.quantity.column]))
    counts = measured["experiment"].value_counts()
    if statement.quantity.column != SETTINGS:  # which no run was needed for
        row["runs"] = int(sum(counts.get(name, 0) for name in statement.weights))
    if row["verdict"] == "undecided":
        row["detectable"] = _find_detectable(effect, confidence)
        if statement.quantity.column != SETTINGS:
            row["seeds_needed"] = _count_seeds_needed(statement, effect, counts, confidence)
    if statement.quantity.column == "validation_accuracy":
        test = evidence.estimate(statement.weights, "test_accuracy")
        low, high = test.find_interval(confidence)
        row |= {"test": test.mean, "test_low": low, "test_high": high, "test_verdict": statement.judge(low, high)}
    return row | _tell_converged(statement, evidence, confidence)


def _tell_converged(statement: Statement, evidence: Evidence, confidence: float) -> dict:
    """The same contrast of the same steps in a training that converges, where all of them have runs of that; nothing
    of a statement on the untrained network, on the dispute, or on the searches, which have no such runs."""
    weights, column = {f"c{name}": weight for name, weight in statement.weights.items()}, statement.quantity.column
    effect = evidence.estimate(weights, column) if set(weights) <= set(EXPERIMENTS) else None
    if effect is None:
        return {}
    low, high = effect.find_interval(confidence)
    told = {"converged": effect.mean, "converged_low": low, "converged_high": high}
    runs = sum(len(evidence.read_values(column)[name]) for name in weights)
    return told | {"converged_verdict": statement.judge(low, high), "converged_runs": runs}


def _find_detectable(effect: Effect, confidence: float) -> float:
    """The smallest effect that such an interval would exclude zero for, with a probability of `POWER`."""
    return effect.find_half_width(confidence) + float(stats.norm.ppf(POWER)) * effect.error


def _count_seeds_needed(statement: Statement, effect: Effect, counts: pd.Series, confidence: float) -> int | None:
    """How many seeds of each experiment, if each has as many, would decide the statement with a probability of `POWER`,
    were the effect what was measured; None if no number would, on so many images."""
    harmonic = len(statement.weights) / sum(1 / counts[name] for name in statement.weights)
    chances = stats.norm.ppf((np.arange(200) + 0.5) / 200)  # what so many seeds would measure scatters around it
    for seeds in range(3, MOST_SEEDS + 1):
        more = replace(effect, seeds=effect.seeds * harmonic / seeds)
        measured = (replace(more, mean=effect.mean + chance * more.error) for chance in chances)
        if np.mean([statement.is_decided(one, confidence) for one in measured]) >= POWER:
            return seeds
    return None


def split_seeds(table: pd.DataFrame, column: str = "validation_accuracy") -> pd.DataFrame:
    """Each experiment's runs divided in two in every way, and the halves compared as two experiments of the family
    would be: a row a division, with the `experiment`, its `family`, `reach`, the difference in half-widths of its 95%
    interval, and `different`, whether it is more than one. No difference is real, so one in twenty should."""
    rows, groups = [], Evidence(table, {}).read_values(column)
    for name, own in groups.items():
        family = EXPERIMENTS[name].family
        others = {other: groups[other] for other in groups if EXPERIMENTS[other].family == family and other != name}
        for part in _divide(len(own)):
            halves = {"one": own[part], "other": own[~part]}
            effect = estimate_contrast(weigh(["one"], ["other"]), halves, moderate_variances(others | halves))
            if half := effect.find_half_width():  # of runs that all have the same, there is nothing to compare
                reach = abs(effect.mean) / half
                rows.append({"experiment": name, "family": family, "reach": reach, "different": reach > 1})
    return pd.DataFrame(rows)


def _divide(count: int, most: int = 50) -> list[np.ndarray]:
    """The ways to divide so many things in two, bool (count,) each; if there are more than `most`, some at random."""
    ways = np.arange(1, 2 ** (count - 1)) if count > 1 else np.arange(0)
    if len(ways) > most:
        ways = np.random.default_rng(0).choice(ways, most, replace=False)
    return [(way >> np.arange(count)) % 2 == 1 for way in ways]


def simulate_power(
    table: pd.DataFrame, statement: Statement, effects: Sequence[float], seeds: int, rounds: int = 1000
) -> list[float]:
    """How often the interval of a statement's contrast leaves zero out, if it truly is so large: for each of `effects`.

    The contrast is within one family. Runs are drawn from normal distributions with the variances seen, `seeds` of
    each experiment of the contrast and as many of the others as are on record, and judged as the records are."""
    rng, column, found = np.random.default_rng(0), statement.quantity.column, np.zeros(len(effects))
    scatters = Evidence(table, {}).find_scatters(statement.weights, column)
    counts = table["experiment"].value_counts()
    sizes = {name: seeds if name in statement.weights else counts[name] for name in scatters}
    for _ in range(rounds):
        drawn = {name: rng.normal(0, scatters[name].variance ** 0.5, size) for name, size in sizes.items()}
        effect = estimate_contrast(statement.weights, drawn, moderate_variances(drawn))
        found += np.abs(effect.mean + np.asarray(effects)) > effect.find_half_width()
    return (found / rounds).tolist()


def try_method(table: pd.DataFrame) -> dict:
    """What `split_seeds` and `simulate_power` find, as plain values of JSON. table: of `evaluate.collect_results`.

    The power is that of the steps A4 to A5 and B2 to B3, one experiment against one, for effects from none to four
    points: with three runs of each, and with ten."""
    halves, effects, power = split_seeds(table), [0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04], {}
    quantity = Quantity("validation_accuracy", "points", 0.01, "validation accuracy")
    for after, before in (("a5_deeper_head", "a4_wider"), ("b3_three_layer_resnet", "b2_three_layer_batchnorm")):
        statement = Statement("", "", "", quantity, (after,), (before,))
        words = f"{EXPERIMENTS[before].step} to {EXPERIMENTS[after].step}"
        power[words] = {str(seeds): simulate_power(table, statement, effects, seeds) for seeds in (3, 10)}
    by_family = halves.groupby("family")["different"]
    others = {column: split_seeds(table, column)["different"].mean() for column in ("test_accuracy", "last_gap_clean")}
    return {
        "divisions": int(len(halves)),
        "different": round(float(halves["different"].mean()), 4),
        "others": {column: round(float(share), 4) for column, share in others.items()},
        "by_family": {name: [int(part.sum()), int(len(part))] for name, part in by_family},
        "reach": [round(float(value), 3) for value in halves["reach"]],
        "effects": effects,
        "power": power,
    }
