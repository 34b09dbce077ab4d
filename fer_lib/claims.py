"""What the two reports say, statement by statement, and what the records say to it.

The statements are in reports/claims.yaml, with the rules by which they are judged; the verdicts, which `make results`
writes, in reports/verdicts.csv. Everything that is told of a claim is read from there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import yaml

from fer_lib.data import PROJECT
from fer_lib.evaluate import collect_results, measure_sensitivity
from fer_lib.experiments import EXPERIMENTS
from fer_lib.record import Run
from fer_lib.search import read_trials
from fer_lib.statistics import Effect, Scatter, choose_confidence, estimate_contrast, moderate_variances, weigh

REPORTS = PROJECT / "reports"
VERDICTS = ("true", "false", "too small to matter", "undecided")
MOST_SEEDS = 100  # more are not worth saying
SETTINGS = "learning_rate_range"  # the quantity whose units are settings of a search, and not runs


@dataclass(frozen=True)
class Quantity:
    """What is measured. column: of `evaluate.collect_results`; unit: "points", of shares 0-1, or "times", of natural
    logarithms of a ratio; matters: the smallest effect that does, in the column's own unit; words: its name."""

    column: str
    unit: str
    matters: float
    words: str

    @property
    def threshold(self) -> str:
        """What matters, in words: "1 point", "×1.25"."""
        if self.unit == "points":
            return f"{100 * self.matters:g} point{'s' * (self.matters != 0.01)}"
        return f"×{np.exp(self.matters):g}"

    def format(self, value: float, sign: bool = True) -> str:
        """An effect in words: "+1.2", or "×1.2"; a dash for NaN."""
        if np.isnan(value):
            return "—"
        if self.unit == "points":
            return f"{100 * value:{'+' if sign else ''}.1f}"
        return f"×{np.format_float_positional(np.exp(value), 3, fractional=False, trim='-')}"


@dataclass(frozen=True)
class Statement:
    """One thing that a report says, and the contrast that it is judged by.

    number: "A-C6.2"; claim: "A-C6"; says: it, in English; quantity: or None where nothing was recorded that bears on
    it, which `lacks` then says; after, before: experiments; expects: "more", "less" or "no more"; reported: the
    report's own effect, in the quantity's unit, or NaN; times: what the contrast is multiplied by; at_least: how large
    the report says that the effect is, where it says so, in the quantity's unit."""

    number: str
    claim: str
    says: str
    quantity: Quantity | None = None
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    expects: str = "more"
    reported: float = np.nan
    times: float = 1.0
    at_least: float = 0.0
    lacks: str = ""

    @property
    def weights(self) -> dict[str, float]:
        return {name: self.times * weight for name, weight in weigh(self.after, self.before).items()}

    @property
    def contrast(self) -> str:
        """Which steps are compared, in words: "A4, A5 − A3, A5b"."""
        sides = [", ".join(EXPERIMENTS[name].step for name in names) for names in (self.after, self.before)]
        return " − ".join(side for side in sides if side)

    def judge(self, low: float, high: float) -> str:
        """The verdict that an interval gives, by the rules at the head of reports/claims.yaml."""
        low, high = low - self.at_least, high - self.at_least
        if self.expects == "less":
            low, high = -high, -low
        matters = self.quantity.matters
        if np.isnan(low):
            return "undecided"
        if self.expects == "no more":
            return "true" if high < matters else "false" if low > 0 else "undecided"
        if -matters < low and high < matters:
            return "too small to matter"
        return "true" if low > 0 else "false" if high < matters else "undecided"

    def is_decided(self, effect: Effect, confidence: float) -> bool:
        return self.judge(*effect.find_interval(confidence)) != "undecided"


QUESTIONS = "Q"


def read_claims() -> tuple[dict[str, str], list[Statement]]:
    """The claims, {number: what the report says}, and the statements that they consist of, in order; at the end, under
    no claim but `QUESTIONS`, what neither report says and their dispute asks.

    Raises ValueError for a statement that cannot be understood, naming it."""
    given = yaml.safe_load((REPORTS / "claims.yaml").read_text(encoding="utf-8"))
    quantities = {name: _read_quantity(fields) for name, fields in given["quantities"].items()}
    claims, statements = {}, []
    for claim, fields in given["claims"].items():
        claims[claim] = fields["says"]
        for place, statement in enumerate(fields["statements"], start=1):
            statements.append(_read_statement(claim, f"{claim}.{place}", statement, quantities))
    for place, question in enumerate(given["questions"], start=1):
        statements.append(_read_statement(QUESTIONS, f"{QUESTIONS}{place}", question, quantities))
    return claims, statements


def _read_quantity(fields: dict) -> Quantity:
    matters = fields["matters"] / 100 if fields["unit"] == "points" else np.log(fields["matters"])
    return Quantity(**fields | {"matters": float(matters)})


def _read_statement(claim: str, number: str, fields: dict, quantities: dict[str, Quantity]) -> Statement:
    if "lacks" in fields:
        return Statement(number, claim, **fields)
    try:
        fields = fields | {"quantity": quantities[fields["quantity"]]}
        fields |= {side: tuple(EXPERIMENTS[name].name for name in fields[side]) for side in ("after", "before")}
    except KeyError as error:
        raise ValueError(f"reports/claims.yaml, {number}: no {error}") from error
    if "reported" in fields:
        fields["reported"] /= 100
    if "at_least" in fields:
        fields["at_least"] = float(np.log(fields["at_least"]))
    statement = Statement(number, claim, **fields)
    if statement.expects not in ("more", "less", "no more") or not statement.after:
        raise ValueError(f"reports/claims.yaml, {number}: expects more, less or no more, of one experiment at least")
    return statement


# --- from records to verdicts -------------------------------------------------------------------


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
        values = self._read_values(column)
        if not set(weights) <= set(values):
            return None
        split, _, what = column.partition("_")
        kin = {EXPERIMENTS[name].family for name in weights}
        alike = {n: answers for (of, n), answers in self.right.items() if of == split and EXPERIMENTS[n].family in kin}
        images = alike if what == "accuracy" and alike else None
        return estimate_contrast(weights, values, self.find_scatters(weights, column), images)

    def find_scatters(self, names: Iterable[str], column: str) -> dict[str, Scatter]:
        """How far runs lie apart in a column, for all experiments of the families of some."""
        values, scatters = self._read_values(column), {}
        for family in {EXPERIMENTS[name].family for name in names}:
            kin = {name: group for name, group in values.items() if EXPERIMENTS[name].family == family}
            scatters |= moderate_variances(kin)
        return scatters

    def _read_values(self, column: str) -> dict[str, np.ndarray]:
        found = self.table.dropna(subset=[column])
        return {name: group[column].to_numpy() for name, group in found.groupby("experiment", sort=False)}


def collect_evidence(runs: list[Run], labels: Mapping[str, np.ndarray], gradients: pd.DataFrame) -> Evidence:
    """labels: {"validation": int (N,), "test": int (N,)}; gradients: of `record.read_first_gradients`."""
    table = collect_results(runs).merge(summarise_first_gradients(gradients), how="left", on=["experiment", "seed"])
    right = {}
    for name in dict.fromkeys(run.experiment.name for run in runs):
        own = [run for run in runs if run.experiment.name == name]
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


def judge_claims(runs: list[Run], labels: Mapping[str, np.ndarray], gradients: pd.DataFrame) -> pd.DataFrame:
    """The rows of reports/verdicts.csv. Arguments as of `collect_evidence`, of all published runs."""
    _, statements = read_claims()
    searched = [s for s in statements if s.quantity is not None and s.quantity.column == SETTINGS]
    sensitivity = {statement.number: estimate_sensitivity(statement) for statement in searched}
    return judge_statements(statements, collect_evidence(runs, labels, gradients), sensitivity)


def summarise_first_gradients(table: pd.DataFrame) -> pd.DataFrame:
    """By `experiment` and `seed`, natural logarithms of the norm of the first batch's gradient: log_first_gradient over
    all layers, log_first_layer_gradient of the first. table: of `record.read_first_gradients`."""
    norms = table.filter(like="gradient_norm/")
    first = norms.bfill(axis=1).iloc[:, 0]  # layers are named differently in different networks; the first stands first
    total = np.log((norms**2).sum(axis=1)) / 2
    return table[["experiment", "seed"]].assign(log_first_gradient=total, log_first_layer_gradient=np.log(first))


def list_measured(statements: Sequence[Statement]) -> list[str]:
    """The experiments whose first gradients a statement is about, by name."""
    asked = [s for s in statements if s.quantity is not None and "first" in s.quantity.column]
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
        if statement.quantity is not None:
            effect = sensitivity.get(statement.number) or evidence.estimate(
                statement.weights, statement.quantity.column
            )
            effects |= {statement: effect} if effect is not None else {}
    pairs = list(effects.items())
    confidence = choose_confidence(pairs, lambda pair, level: pair[0].is_decided(pair[1], level))
    return pd.DataFrame(
        [_tell_verdict(statement, effects.get(statement), evidence, confidence) for statement in statements]
    )


def _tell_verdict(statement: Statement, effect: Effect | None, evidence: Evidence, confidence: float) -> dict:
    row = {"statement": statement.number, "verdict": "undecided", "confidence": confidence, "lacks": statement.lacks}
    if effect is None:
        names = [EXPERIMENTS[name].step for name in statement.weights if name not in set(evidence.table["experiment"])]
        return row | ({"lacks": f"no run of {', '.join(names)} yet"} if names else {})
    low, high = effect.find_interval(confidence)
    row |= {
        "effect": effect.mean,
        "low": low,
        "high": high,
        "error": effect.error,
        "verdict": statement.judge(low, high),
    }
    row["images_share"] = effect.images / (effect.seeds + effect.images) if effect.error else 0.0
    counts = evidence.table["experiment"].value_counts()
    row["runs"] = int(sum(counts.get(name, 0) for name in statement.weights))
    if row["verdict"] == "undecided":
        row["detectable"] = _find_detectable(effect, confidence)
        if statement.quantity.column != SETTINGS:
            row["seeds_needed"] = _count_seeds_needed(statement, effect, counts, confidence)
    if statement.quantity.column == "validation_accuracy":
        test = evidence.estimate(statement.weights, "test_accuracy")
        low, high = test.find_interval(confidence)
        row |= {"test": test.mean, "test_low": low, "test_high": high, "test_verdict": statement.judge(low, high)}
    return row


def _find_detectable(effect: Effect, confidence: float, power: float = 0.8) -> float:
    """The smallest effect that such an interval would exclude zero for, with this probability."""
    from scipy import stats

    return effect.find_half_width(confidence) + float(stats.norm.ppf(power)) * effect.error


def _count_seeds_needed(statement: Statement, effect: Effect, counts: pd.Series, confidence: float) -> int | None:
    """How many seeds of each experiment, if each has as many, would decide the statement; None if no number would,
    on so many images."""
    harmonic = len(statement.weights) / sum(1 / counts[name] for name in statement.weights)
    for seeds in range(3, MOST_SEEDS + 1):
        more = replace(effect, seeds=effect.seeds * harmonic / seeds, freedom=effect.freedom * max(1, seeds / harmonic))
        if statement.is_decided(more, confidence):
            return seeds
    return None


# --- the method, tried on itself ----------------------------------------------------------------


def split_seeds(table: pd.DataFrame, column: str = "validation_accuracy") -> pd.DataFrame:
    """Each experiment's runs divided in two in every way, and the halves compared as two experiments would be: a row a
    division, with the `experiment`, its `family`, `reach`, the difference in half-widths of its 95% interval, and
    `different`, whether it is more than one. No difference is real, so one in twenty should."""
    rows, groups = [], {name: group[column].to_numpy() for name, group in table.groupby("experiment", sort=False)}
    families = {name: EXPERIMENTS[name].family for name in groups}
    for family in dict.fromkeys(families.values()):
        scatters = moderate_variances({name: groups[name] for name in groups if families[name] == family})
        for name, scatter in scatters.items():
            for part in _divide(len(groups[name])):
                mean = groups[name][part].mean() - groups[name][~part].mean()
                effect = Effect(mean, scatter.variance * (1 / part.sum() + 1 / (~part).sum()), 0.0, scatter.freedom)
                reach = abs(mean) / effect.find_half_width()
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
    return {
        "divisions": int(len(halves)),
        "different": round(float(halves["different"].mean()), 4),
        "by_family": {name: [int(part.sum()), int(len(part))] for name, part in by_family},
        "reach": [round(float(value), 3) for value in halves["reach"]],
        "effects": effects,
        "power": power,
    }


# --- told ---------------------------------------------------------------------------------------


def read_verdicts() -> pd.DataFrame:
    """What `make results` found: the rows of `judge_statements` by the statements' numbers."""
    return pd.read_csv(REPORTS / "verdicts.csv").set_index("statement")


def read_method() -> dict:
    """What `try_method` found when `make results` last ran with FER2013 at hand."""
    return json.loads((REPORTS / "method.json").read_text())


def tabulate_statements(statements: Sequence[Statement], verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row a statement, as text: verdict, effect with its interval on validation and on the test split, what the
    report gives, and the smallest effect that matters."""
    return pd.DataFrame([_tabulate_statement(statement, verdicts.loc[statement.number]) for statement in statements])


def _tabulate_statement(statement: Statement, verdict: pd.Series) -> dict:
    row = {"": statement.number, "statement": statement.says, "verdict": f"**{verdict['verdict']}**"}
    quantity = statement.quantity
    if quantity is None:
        return (
            row | {"effect": "not recorded"} | dict.fromkeys(("test", "reported", "matters", "measured", "steps"), "—")
        )
    row |= {"effect": "not run yet", "test": "—", "reported": quantity.format(statement.reported)}
    if not pd.isna(verdict["effect"]):
        row["effect"] = format_effect(quantity, verdict["effect"], verdict["low"], verdict["high"])
        row["test"] = format_effect(quantity, verdict["test"], verdict["test_low"], verdict["test_high"])
    return row | {"matters": quantity.threshold, "measured": quantity.words, "steps": statement.contrast}


def format_effect(quantity: Quantity, mean: float, low: float, high: float) -> str:
    """ "+1.2 (−0.1 to +2.4)"; a dash for none."""
    if np.isnan(mean):
        return "—"
    return f"{quantity.format(mean)} ({quantity.format(low)} to {quantity.format(high)})"


def describe_undecided(statement: Statement, verdict: pd.Series) -> str:
    """What would decide an undecided statement, in a sentence."""
    if statement.quantity is None or pd.isna(verdict["effect"]):
        return f"{statement.number}: {verdict['lacks']}."
    words = f"an effect of {statement.quantity.format(verdict['detectable'], sign=False)} would have been found"
    if statement.quantity.column == SETTINGS:
        return f"{statement.number}: {words}; more settings of the searches would have to decide it, seeds cannot."
    if pd.isna(verdict["seeds_needed"]):
        return (
            f"{statement.number}: {words}; if it is what was measured, no number of seeds decides it on these images."
        )
    return (
        f"{statement.number}: {words}; if it is what was measured, {verdict['seeds_needed']:.0f} seeds would decide it."
    )


def count_verdicts(verdicts: pd.DataFrame) -> str:
    """A sentence, in Markdown: how many statements are what."""
    counts = verdicts["verdict"].value_counts()
    found = ", ".join(f"{counts.get(word, 0)} {word}" for word in VERDICTS)
    return f"Of the **{len(verdicts)}** statements: {found}."
