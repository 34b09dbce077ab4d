"""What the two reports say, statement by statement, and what became of it.

The statements are in reports/claims.yaml, with the rules by which they are judged; the verdicts, which `make results`
writes, in reports/verdicts.csv. Everything that is told of a claim is read from there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import yaml

from fer_lib.dataset import PROJECT
from fer_lib.experiments import EXPERIMENTS
from fer_lib.statistics import Effect, format_end, format_number, weigh

REPORTS = PROJECT / "reports"


VERDICTS = ("true", "false", "too small to matter", "undecided")


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
            return format_number(100 * value, sign=sign)
        factor = np.exp(value)
        digits = 1 - int(np.floor(np.log10(factor)))  # two that count: no factor here is known any better
        return f"×{round(factor, digits):.{max(digits, 0)}f}"

    def format_end(self, value: float) -> str:
        """An end of an interval, see `statistics.format_end`."""
        return format_end(100 * value) if self.unit == "points" else self.format(value)


@dataclass(frozen=True)
class Statement:
    """One thing that a report says, and the contrast that it is judged by.

    number: "A-C6.2"; claim: "A-C6"; says: it, in English; after, before: experiments; expects: "more", "less" or
    "no more"; reported: the report's own effect, in the quantity's unit, or NaN; times: what the contrast is multiplied
    by; at_least: how large the effect has to be to be called what the report calls it, in the quantity's unit."""

    number: str
    claim: str
    says: str
    quantity: Quantity
    after: tuple[str, ...]
    before: tuple[str, ...] = ()
    expects: str = "more"
    reported: float = np.nan
    times: float = 1.0
    at_least: float = 0.0

    @property
    def weights(self) -> dict[str, float]:
        return {name: self.times * weight for name, weight in weigh(self.after, self.before).items()}

    @property
    def threshold(self) -> str:
        """What matters, in words: "1 point", "×1.5 beyond ×10"."""
        beyond = f" beyond {self.quantity.format(self.at_least)}" if self.at_least else ""
        return self.quantity.threshold + beyond

    @property
    def contrast(self) -> str:
        """Which steps are compared, in words: "A2 − A1b", "mean of A4, A5 − mean of A3, A5b", "2 × (...)"."""
        sides = [", ".join(EXPERIMENTS[name].step for name in names) for names in (self.after, self.before)]
        words = " − ".join(f"mean of {side}" if "," in side else side for side in sides if side)
        return words if self.times == 1 else f"{self.times:g} × ({words})"

    def judge(self, low: float, high: float) -> str:
        """The verdict that an interval gives, by the rules at the head of reports/claims.yaml."""
        low, high = low - self.at_least, high - self.at_least
        if self.expects == "less":
            low, high = -high, -low
        if np.isnan(low):
            return "undecided"
        matters = self.quantity.matters
        if self.expects == "no more":
            return "true" if high < matters else "false" if low > 0 else "undecided"
        if -matters < low and high < matters and not self.at_least:
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


def read_verdicts() -> pd.DataFrame:
    """What `make results` found: the rows of `judge_statements` by the statements' numbers."""
    return pd.read_csv(REPORTS / "verdicts.csv").set_index("statement")


def read_method() -> dict:
    """What `try_method` found when `make results` last ran with FER2013 at hand."""
    return json.loads((REPORTS / "method.json").read_text())


def tabulate_statements(statements: Sequence[Statement], verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row a statement, as text: verdict, effect with its interval on validation and on the test split, what the
    report gives, the smallest effect that matters, and on how many runs it rests."""
    return pd.DataFrame([_tabulate_statement(statement, verdicts.loc[statement.number]) for statement in statements])


def _tabulate_statement(statement: Statement, verdict: pd.Series) -> dict:
    row = {"": statement.number, "statement": statement.says, "verdict": f"**{verdict['verdict']}**"}
    quantity = statement.quantity
    row |= {"effect": "not run yet", "test": "—", "reported": quantity.format(statement.reported)}
    if not pd.isna(verdict["effect"]):
        row["effect"] = format_effect(quantity, verdict["effect"], verdict["low"], verdict["high"])
        row["test"] = format_effect(quantity, verdict["test"], verdict["test_low"], verdict["test_high"])
    runs = "—" if pd.isna(verdict["runs"]) else f"{verdict['runs']:.0f}"
    return row | {"matters": statement.threshold, "measured": quantity.words, "steps": statement.contrast, "runs": runs}


def list_converged(statements: Sequence[Statement], verdicts: pd.DataFrame) -> list[Statement]:
    """Those statements whose steps were trained in the second way too, over one cycle that no patience stops."""
    return [s for s in statements if not pd.isna(verdicts.loc[s.number].get("converged"))]


def tabulate_converged(statements: Sequence[Statement], verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row a statement of `list_converged`, as text: verdict, effect with its interval and number of runs over one
    cycle, and verdict and effect as the reports' steps were trained."""
    rows = []
    for statement in list_converged(statements, verdicts):
        row = verdicts.loc[statement.number]
        told = {"": statement.number, "statement": statement.says, "verdict": f"**{row['converged_verdict']}**"}
        told["over one cycle"] = _format_converged(statement, row)
        effect = format_effect(statement.quantity, row["effect"], row["low"], row["high"])
        told["stopped by patience"] = f"{row['verdict']}, {effect}"
        rows.append(told | {"matters": statement.threshold, "runs over the cycle": f"{row['converged_runs']:.0f}"})
    return pd.DataFrame(rows)


def describe_converged(statements: Sequence[Statement], verdicts: pd.DataFrame) -> str:
    """In a sentence, how many verdicts one cycle leaves as they are, and what becomes of the others."""
    there = list_converged(statements, verdicts)
    table = verdicts.loc[[statement.number for statement in there]]
    before, after = table["verdict"], table["converged_verdict"]
    decided = (before != "undecided") & (after != "undecided")
    others = [
        f"{statement.number} turns from *{row['verdict']}* to *{row['converged_verdict']}*, "
        f"{_format_converged(statement, row)}"
        for statement, (_, row) in zip(there, table.iterrows())
        if row["verdict"] != row["converged_verdict"]
    ]
    alike = (decided & (before == after)).sum()
    told = f"Of {decided.sum()} statements decided in both trainings {alike} are judged alike"
    return f"{'; '.join([told, *others])}."


def _format_converged(statement: Statement, row: pd.Series) -> str:
    return format_effect(statement.quantity, *row[["converged", "converged_low", "converged_high"]])


def format_effect(quantity: Quantity, mean: float, low: float, high: float, unit: str = "") -> str:
    """ "+1.2 (−0.1 to +2.4)", or, with " points" for its unit, "+1.2 points (−0.1 to +2.4)"; a dash for none."""
    if np.isnan(mean):
        return "—"
    ends = (quantity.format_end(value) for value in (low, high))
    return f"{quantity.format(mean)}{unit if quantity.unit == 'points' else ''} ({' to '.join(ends)})"


def describe_undecided(statement: Statement, verdict: pd.Series) -> str:
    """What would decide an undecided statement, in a sentence; and in another, if it is decided there, what it is over
    one cycle."""
    if pd.isna(verdict["effect"]):
        return f"{statement.number}: {verdict['lacks']}."
    quantity = statement.quantity
    unit = " points" if quantity.unit == "points" else ""
    shown, measured = (quantity.format(verdict["detectable"], sign=False), quantity.format(verdict["effect"]))
    found = f"{statement.number}: an effect of {shown}{unit} or more would have been found four times in five"
    if statement.quantity.column == SETTINGS:
        return f"{found}; more settings of the searches would have to decide it, seeds cannot."
    if pd.isna(verdict["seeds_needed"]):
        fate = "no number of seeds decides it on these images"
    else:
        fate = f"{verdict['seeds_needed']:.0f} seeds of each experiment decide it four times in five too"
    told = f"{found}; if the true one is the {measured}{unit} measured, {fate}."
    other = verdict.get("converged_verdict")
    if other in VERDICTS and other != "undecided":
        told += f" Over one cycle that nothing stops it is *{other}*."
    return told


def tally_verdicts(verdicts: pd.DataFrame) -> str:
    """ "8 true, 6 false, 1 too small to matter, 5 undecided"."""
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"{counts.get(word, 0)} {word}" for word in VERDICTS)


def count_other_verdicts(statements: Sequence[Statement], verdicts: pd.DataFrame, factor: float) -> int:
    """How many statements would be judged otherwise if what matters were so many times as large."""
    count = 0
    for statement in statements:
        row, quantity = verdicts.loc[statement.number], statement.quantity
        other = replace(statement, quantity=replace(quantity, matters=factor * quantity.matters))
        count += not pd.isna(row["effect"]) and other.judge(row["low"], row["high"]) != row["verdict"]
    return count


def list_decided_later(verdicts: pd.DataFrame) -> list[str]:
    """The numbers of those statements that the first three runs of each experiment leave undecided, and all decide."""
    later = (verdicts["early_verdict"] == "undecided") & (verdicts["verdict"] != "undecided")
    return verdicts.index[later].to_list()


def compare_splits(verdicts: pd.DataFrame) -> str:
    """Of how many verdicts the test split gives the same: "all 23", or "22 of 23"."""
    judged = verdicts[verdicts["test_verdict"].notna()]
    same = int((judged["test_verdict"] == judged["verdict"]).sum())
    return f"all {same}" if same == len(judged) else f"{same} of {len(judged)}"


def compare_reported(statements: Sequence[Statement], verdicts: pd.DataFrame) -> str:
    """How many of the effects that a report gives lie in the interval measured: "none of 8 lies", or "2 of 8 lie"."""
    given = [statement for statement in statements if not np.isnan(statement.reported)]
    rows = [verdicts.loc[statement.number] for statement in given]
    inside = sum(row["low"] <= statement.reported <= row["high"] for statement, row in zip(given, rows))
    return f"{inside or 'none'} of {len(given)} {'lies' if inside < 2 else 'lie'}"


def count_verdicts(verdicts: pd.DataFrame) -> str:
    """A sentence, in Markdown: how many statements are what."""
    found = tally_verdicts(verdicts)
    unseen = int(verdicts["effect"].isna().sum())
    return f"Of the **{len(verdicts)}** statements: {found}{f' ({unseen} for want of a run)' if unseen else ''}."
