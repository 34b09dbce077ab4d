"""What others did: results that were published on FER2013, and tries from before the records."""

import pandas as pd

from fer_lib.dataset import PROJECT
from fer_lib.evaluate import choose_view, estimate_view
from fer_lib.experiments import EXPERIMENTS
from fer_lib.record import Run

PRIVATE = "PrivateTest"  # the challenge's own test split


def read_tries() -> pd.DataFrame:
    """What was tried before S18 was settled on, reports/tries.csv: a row a try, one run each on validation alone."""
    return pd.read_csv(PROJECT / "reports" / "tries.csv", dtype=str, index_col="tried")


def tabulate_published() -> pd.DataFrame:
    """Results that others published on FER2013, each with its protocol, reports/published.csv, all as text, a dash for
    what is not known: system; networks that answer together; reported (%); split, the one that it is of in truth;
    chosen on, the split that chose epoch or learning rate; pretrained; note; source."""
    return pd.read_csv(PROJECT / "reports" / "published.csv", dtype=str).fillna("—")


def describe_published(runs: list[Run]) -> str:
    """A sentence, in Markdown, that sets a step's accuracy beside the highest published one of a single network that
    was trained from scratch and chosen without the test split. runs: of the step."""
    clean = tabulate_published().query("networks == '1' and pretrained == 'no' and split == @PRIVATE")
    clean = clean[~clean["chosen on"].isin(["—", PRIVATE])]
    best = clean.loc[clean["reported (%)"].astype(float).idxmax()]
    view, theirs = choose_view(runs), float(best["reported (%)"]) / 100
    validation, test = (estimate_view(runs, split, view) for split in ("validation", "test"))
    teachers = " and ".join(EXPERIMENTS[name].step for name in runs[0].experiment.teachers)
    taught = f"; taught by networks of {teachers}, which saw the same images alone" if teachers else ""
    return (
        f"Of the figures for one network from scratch that are known to have chosen nothing on {PRIVATE}, the highest "
        f"is {best['reported (%)']}% ({best['system']}), {100 * abs(test.mean - theirs):.1f} points "
        f"{'below' if test.mean > theirs else 'above'} the **{test.format()}%** of **{runs[0].experiment.step}** "
        f"({view.replace('_', ' ')}; chosen on PublicTest, {validation.format()}% there{taught}), and "
        f"{'inside' if test.low <= theirs <= test.high else 'outside'} the interval that seeds alone give it."
    )
