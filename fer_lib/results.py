"""Write what is made from the records: reports/results.csv, the summary and the tables in README.md, and, where
FER2013 is at hand, reports/pairs.csv, reports/confusions.json and reports/facts.json, which need its images and labels.

python -m fer_lib.results
"""

import json

import pandas as pd

from fer_lib.compare import (
    choose_runs,
    count_confusions,
    count_pairs,
    judge_mirrored,
    judge_subsets,
    read_bench,
    read_verdicts,
    tabulate_claims,
)
from fer_lib.data import PROJECT, find_data, load_data, load_votes
from fer_lib.ensemble import group_candidates, tabulate_pools
from fer_lib.evaluate import (
    collect_results,
    describe_times,
    estimate_mean,
    format_markdown,
    shorten_hardware,
    tabulate_costs,
)
from fer_lib.explore import collect_facts, list_subsets
from fer_lib.paper import REPORTS, fill_in
from fer_lib.record import Run, read_published_runs

START, END = "<!-- {}: written by `make results` -->", "<!-- end of {} -->"


def tabulate_readme(runs: list[Run]) -> pd.DataFrame:
    """One row an experiment: what the report gives, and what was measured, in percent."""
    rows, costs = [], tabulate_costs(runs)
    for experiment in dict.fromkeys(run.experiment for run in runs):
        mine = [run for run in runs if run.experiment == experiment]
        reported = "—" if experiment.reported is None else " / ".join(f"{100 * v:.0f}" for v in experiment.reported)
        row = {
            "step": experiment.step,
            "experiment": f"`{experiment.name}`",
            "reported train / validation": reported,
            "parameters": f"{mine[0].results['parameters']:,}",
            "runs": len(mine),
        }
        for column in ("train_accuracy_clean", "validation_accuracy", "test_accuracy", "test_macro_f1"):
            label = column.removesuffix("_accuracy").removesuffix("_accuracy_clean").replace("test_macro_f1", "test F1")
            row[label] = estimate_mean([run.results[column] for run in mine]).format()
        row["min a run"] = f"{costs.loc[experiment.name, 'typical_minutes']:.1f}{costs.loc[experiment.name, 'mark']}"
        rows.append(row)
    return pd.DataFrame(rows)


def tabulate_bench() -> pd.DataFrame:
    """What `make bench` measured."""
    table = pd.DataFrame(read_bench()["rows"]).rename(
        columns={"what": "", "ours": "`fer_lib`", "usual": "usual", "ratio": "ratio"}
    )
    return table.assign(**{column: [f"{value:,.4g}" for value in table[column]] for column in ("`fer_lib`", "usual")})


def describe_bench() -> str:
    """Where it was measured, in a sentence."""
    bench = read_bench()
    return f"Medians on {shorten_hardware(bench['hardware'])}, {bench['threads']} threads, torch {bench['torch']}."


def update_readme(text: str) -> str:
    """README.md with its summary and its tables made anew."""
    runs, claims = choose_runs(), tabulate_claims(read_verdicts())
    ledger = claims[["claim", "it says", "effect", "reported", "measured", "verdict"]]
    parts = {
        "summary": fill_in((REPORTS / "summary.md").read_text(encoding="utf-8"), REPORTS),
        "results": f"{format_markdown(tabulate_readme(runs))}\n\n{describe_times(runs)}",
        "claims": format_markdown(ledger),
        "bench": f"{format_markdown(tabulate_bench())}\n\n{describe_bench()}",
    }
    for name, part in parts.items():
        start, end = START.format(name), END.format(name)
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{part.strip()}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    runs = read_published_runs()
    table = collect_results(runs).round(6)  # as the records; further digits are those of the order of sums
    table.to_csv(REPORTS / "results.csv", index=False, lineterminator="\n")
    if find_data() is None:
        print(
            "pairs.csv, confusions.json and facts.json in reports/ stay as they were: they need FER2013 (set FER_DATA)"
        )
    else:
        dataset, whole = load_data(), choose_runs()
        labels, votes = dataset.test.labels, load_votes(dataset)
        count_pairs(whole, labels).to_csv(REPORTS / "pairs.csv", index=False, lineterminator="\n")
        counts = "".join(f',\n"{name}": {matrix}' for name, matrix in count_confusions(whole, labels).items())
        (REPORTS / "confusions.json").write_text("{" + counts.removeprefix(",") + "\n}\n")
        if votes is None:
            print("reports/facts.json stays as it was: it needs FER+'s votes (set FER_VOTES)")
        else:
            facts = collect_facts(dataset, votes)
            facts["accuracies"] = judge_subsets(whole, labels, list_subsets(dataset, votes))
            both = {"validation": dataset.validation.labels, "test": labels}
            facts["mirrored"] = judge_mirrored(whole, both)
            facts["ensembles"] = tabulate_pools(group_candidates(whole), both).to_dict("index")
            facts = json.dumps(facts, indent=2, ensure_ascii=False)
            (REPORTS / "facts.json").write_text(facts + "\n")
    readme = PROJECT / "README.md"
    readme.write_text(update_readme(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(runs)} runs: what reports/ and README.md say of them is up to date")


if __name__ == "__main__":
    main()
