"""Several trained networks that answer together: chosen on validation, from their recorded logits."""

from itertools import combinations

import numpy as np
import pandas as pd

from fer_lib.evaluate import estimate_view, judge_aim
from fer_lib.metrics import calc_accuracy, calc_probabilities
from fer_lib.record import Run
from fer_lib.statistics import bound_share, format_number


def read_probabilities(run: Run, split: str) -> np.ndarray:
    """A run's probabilities on "validation" or "test", float64 (N, 7), under the most views that it was judged by."""
    names = [f"{split}_ten_crops", f"{split}_flip", split]
    return calc_probabilities(next(run.logits[name] for name in names if name in run.logits))


def combine_runs(runs: list[Run], split: str) -> np.ndarray:
    """The mean of their probabilities, float64 (N, 7)."""
    return np.mean([read_probabilities(run, split) for run in runs], 0)


def choose_members(candidates: list[Run], labels: np.ndarray, most: int = 10) -> list[Run]:
    """Runs in the order in which each, added to those before it, brings the mean of the probabilities closest to
    the validation labels (Caruana et al. 2004, doi:10.1145/1015330.1015432), beginning with the best alone.

    labels: of the validation split, int (N,). Closeness is the mean log-likelihood, which moves with every
    image; accuracy, which moves with few, decides in `tabulate_members` how many members it takes."""
    rows = np.arange(len(labels))
    likely = np.stack([read_probabilities(run, "validation")[rows, labels] for run in candidates])
    chosen, total = [], np.zeros(len(labels))
    while len(chosen) < min(most, len(candidates)):
        scores = np.log((total + likely) / (len(chosen) + 1) + 1e-12).mean(1)
        scores[chosen] = -np.inf
        chosen.append(int(scores.argmax()))
        total += likely[chosen[-1]]
    return [candidates[place] for place in chosen]


def tabulate_members(members: list[Run], labels: dict[str, np.ndarray]) -> pd.DataFrame:
    """What each member brings: a row for each number of members, the index, with the `member` that comes in, and
    for each split <split>_alone, its own accuracy, and <split>_together, that of all so far (0-1).

    labels: {"validation": int (N,), "test": int (N,)}."""
    rows = []
    for count, run in enumerate(members, start=1):
        row = {"member": f"{run.experiment.step}, seed {run.seed}"}
        for split, truth in labels.items():
            row[f"{split}_alone"] = calc_accuracy(read_probabilities(run, split), truth)
            row[f"{split}_together"] = calc_accuracy(combine_runs(members[:count], split), truth)
        rows.append(row)
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(members) + 1, name="members"))


def choose_size(table: pd.DataFrame) -> int:
    """The number of members with the best validation accuracy, the smallest of equals; of `tabulate_members`."""
    return int(table["validation_together"].idxmax())


POOLS = {"report A's": "A", "report B's": "B", "both reports'": "AB", "all": "ABDS"}


def group_candidates(candidates: list[Run]) -> dict[str, list[Run]]:
    """The candidates by the report that their experiments are of; a group without any is left out.

    In none of them are the tries at report A's regime, which repeat its steps, these steps trained over one cycle, and
    what learnt FER+'s votes, which are other annotation than FER2013's."""
    groups = {name: [run for run in candidates if run.experiment.report in reports] for name, reports in POOLS.items()}
    return {name: runs for name, runs in groups.items() if runs}


def tabulate_pools(pools: dict[str, list[Run]], labels: dict[str, np.ndarray], most: int = 20) -> pd.DataFrame:
    """What the best ensemble of each pool reaches, chosen on validation: a row a pool, with the number of candidates
    and of members, and accuracies in percent, together and of the one that is best alone on validation.

    labels: as of `tabulate_members`; most: members at most."""
    rows = {}
    for name, candidates in pools.items():
        table = tabulate_members(choose_members(candidates, labels["validation"], most), labels)
        size, best = choose_size(table), table["validation_alone"].idxmax()
        row = {"candidates": len(candidates), "members": size}
        for split in labels:
            row[f"best alone, {split} (%)"] = f"{100 * table.loc[best, f'{split}_alone']:.1f}"
            row[f"together, {split} (%)"] = f"{100 * table.loc[size, f'{split}_together']:.1f}"
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def measure_disagreement(runs: list[Run], split: str) -> float:
    """On what share of a split's images, 0-1, two of these networks answer differently, in the mean over the pairs of
    them."""
    answers = [read_probabilities(run, split).argmax(1) for run in runs]
    return float(np.mean([np.mean(one != other) for one, other in combinations(answers, 2)]))


def tabulate_teams(teams: dict[str, list[Run]], labels: dict[str, np.ndarray]) -> pd.DataFrame:
    """What several networks bring together, and how much they differ: a row a team, with its networks and their
    parameters in millions, how often two of them answer differently on validation, and for each split the mean
    accuracy alone and that together, in percent. labels: as of `tabulate_members`."""
    rows = {}
    for name, runs in teams.items():
        row = {
            "networks": len(runs),
            "parameters (M)": f"{sum(run.results['parameters'] for run in runs) / 1e6:.1f}",
            "two differ on (%)": f"{100 * measure_disagreement(runs, 'validation'):.1f}" if len(runs) > 1 else "—",
        }
        for split, truth in labels.items():
            alone = np.mean([calc_accuracy(read_probabilities(run, split), truth) for run in runs])
            row[f"alone, {split} (%)"] = f"{100 * alone:.1f}"
            row[f"together, {split} (%)"] = f"{100 * calc_accuracy(combine_runs(runs, split), truth):.1f}"
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def describe_student(students: list[Run], teachers: list[Run], labels: np.ndarray) -> str:
    """A sentence, in Markdown, that sets single networks beside the ensemble whose answers they learnt.

    labels: of the test split, int (N,)."""
    together = combine_runs(teachers, "test")
    ensemble = calc_accuracy(together, labels)
    single = estimate_view(students, "test", ("plain", *students[0].experiment.views)[-1])
    apart = format_number(100 * (single.mean - ensemble), sign=True)
    size = students[0].results["parameters"] / sum(run.results["parameters"] for run in teachers)
    return (
        f"The {len(teachers)} teachers together are right on **{ensemble:.1%}** of the test images, "
        f"{students[0].experiment.step} alone on **{single.format()}%**, {apart} points, "
        f"with {size:.0%} of their parameters."
    )


def describe_ensemble(table: pd.DataFrame, aim: float, images: int) -> str:
    """A sentence, in Markdown: how many members validation chooses of `tabulate_members`, what they reach together,
    with the 95% interval that so many test images give by themselves, and whether that is the aim (0-1) set before."""
    size = choose_size(table)
    chosen, best = table.loc[size], table["validation_alone"].idxmax()
    share = chosen["test_together"]
    half = bound_share(share, images)
    many = f"**{size}** networks together are" if size > 1 else "**1** network alone is"
    return (
        f"{many} right on **{100 * share:.1f} ± {100 * half:.1f}%** of the test images "
        f"({chosen['validation_together']:.1%} on validation); the best of them on validation, "
        f"{table.loc[best, 'member']}, alone on {table.loc[best, 'test_alone']:.1%}; {judge_aim(share, aim)}."
    )
