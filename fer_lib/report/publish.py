"""Write what is made from the records: reports/results.csv, the tables in reports/results.md, the summary in
README.md, and, where FER2013 is at hand, what needs its images and labels: reports/verdicts.csv, gradients.csv,
method.json, confusions.json and facts.json.

python -m fer_lib.report.publish
"""

import json
from argparse import ArgumentParser

import pandas as pd

from fer_lib.claims import QUESTIONS, REPORTS, read_claims, read_verdicts, tabulate_statements
from fer_lib.costs import format_operations, shorten_hardware
from fer_lib.data import find_data, load_data
from fer_lib.dataset import PROJECT, Dataset
from fer_lib.evaluate import collect_results, estimate_metric, format_markdown
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.ensemble import group_candidates, tabulate_pools
from fer_lib.extras.explore import collect_facts, list_choices, list_subsets
from fer_lib.extras.shift import read_shifts
from fer_lib.loop import measure_first_gradients
from fer_lib.reading.votes import load_votes
from fer_lib.record import Run, digest_sources, group_runs, read_published_runs, runs_folder
from fer_lib.report.compare import choose_runs, count_confusions, judge_mirrored, judge_subsets, judge_voted, read_bench
from fer_lib.report.judge import judge_claims, list_measured, try_method
from fer_lib.report.template import fill_in
from fer_lib.storage import RecordError

START, END = "<!-- {}: written by `make results` -->", "<!-- end of {} -->"


def tabulate_results(runs: list[Run]) -> pd.DataFrame:
    """One row an experiment: what the report gives, and what was measured, in percent."""
    rows = []
    for mine in group_runs(runs).values():
        experiment = mine[0].experiment
        reported = "—" if experiment.reported is None else " / ".join(f"{100 * v:.0f}" for v in experiment.reported)
        row = {"step": experiment.step}
        columns = {"validation_accuracy": "validation", "test_accuracy": "test", "test_macro_f1": "test F1"}
        for column, label in (columns | {"train_accuracy_clean": "train"}).items():
            row[label] = estimate_metric(mine, column).format()
        row |= {"runs": len(mine), "reported train / validation": reported}
        row["parameters"] = f"{mine[0].results['parameters']:,}"
        row["PFLOP a run"] = format_operations(mine)
        rows.append(row | {"experiment": f"`{experiment.name}`"})
    return pd.DataFrame(rows)


def tabulate_bench() -> pd.DataFrame:
    """What `make bench` measured: a row a thing and hardware."""
    rows = []
    for bench in read_bench():
        for row in bench["rows"]:
            own = {"": row["what"], "on": shorten_hardware(bench["hardware"]), "`fer_lib`": f"{row['ours']:,.4g}"}
            rows.append(own | {"usual": f"{row['usual']:,.4g}", "ratio": row["ratio"], "usual is": row["usual is"]})
    order = list(dict.fromkeys(row[""] for row in rows))
    return pd.DataFrame(sorted(rows, key=lambda row: order.index(row[""])))


def describe_bench() -> str:
    """How it was measured, in a sentence."""
    told = {f"{bench['threads']} threads, torch {bench['torch']}" for bench in read_bench()}
    return f"Medians, {' or '.join(sorted(told))}."


def fill_readme(text: str) -> str:
    """README.md with its summary made anew."""
    return _replace_parts(text, {"summary": fill_in((REPORTS / "summary.md").read_text(encoding="utf-8"), REPORTS)})


def fill_results(text: str) -> str:
    """reports/results.md with its tables made anew."""
    runs, statements = choose_runs(1), [s for s in read_claims()[1] if s.claim != QUESTIONS]
    ledger = tabulate_statements(statements, read_verdicts())[["", "statement", "verdict", "effect", "reported"]]
    parts = {
        "results": format_markdown(tabulate_results(runs)),
        "claims": format_markdown(ledger),
        "bench": f"{format_markdown(tabulate_bench())}\n\n{describe_bench()}",
    }
    return _replace_parts(text, parts)


def _replace_parts(text: str, parts: dict[str, str]) -> str:
    """A page with what stands between the marks of each part replaced."""
    for name, part in parts.items():
        start, end = START.format(name), END.format(name)
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{part.strip()}\n\n{end}{rest.split(end)[1]}"
    return text


SHOWN_BESIDE = ["a2b_unscaled"]
"""Experiments that no statement on first gradients is about, and whose a notebook shows beside theirs."""


def write_verdicts(runs: list[Run], dataset: Dataset) -> None:
    """Write reports/gradients.csv and, from it and all published runs, reports/verdicts.csv and reports/method.json."""
    tables, groups = [], group_runs(runs)
    for name in dict.fromkeys([*list_measured(read_claims()[1]), *SHOWN_BESIDE]):
        seeds = [run.seed for run in groups.get(name, ())]
        tables.append(measure_first_gradients(EXPERIMENTS[name], dataset, seeds).rename_axis("seed").reset_index())
        tables[-1].insert(0, "experiment", name)
    gradients = pd.concat(tables, ignore_index=True).round(6)
    gradients.to_csv(REPORTS / "gradients.csv", index=False, lineterminator="\n")
    labels = {"validation": dataset.validation.labels, "test": dataset.test.labels}
    verdicts = judge_claims(runs, labels, gradients, read_shifts())
    verdicts.round(6).to_csv(REPORTS / "verdicts.csv", index=False, lineterminator="\n")
    (REPORTS / "method.json").write_text(json.dumps(try_method(collect_results(runs)), indent=2) + "\n")


def main() -> None:
    dataset = None if find_data() is None else load_data()
    if dataset is not None and dataset.name != "fer2013":
        raise SystemExit(
            f"what is published is of FER2013, and FER_DATA names {dataset.name}: name FER2013's file, or leave it out"
        )
    if runs_folder() != PROJECT / "reports" / "runs":
        raise SystemExit("what is published is made from reports/runs, and FER_RUNS names another folder: leave it out")
    runs = read_published_runs()
    table = collect_results(runs).round(6)  # as the records; further digits are those of the order of sums
    table.to_csv(REPORTS / "results.csv", index=False, lineterminator="\n")
    if dataset is None:
        print("what needs FER2013 stays as it was in reports/ (set FER_DATA): verdicts, gradients, confusions, facts")
    else:
        whole, labels, votes = choose_runs(), dataset.test.labels, load_votes(dataset)
        write_verdicts(runs, dataset)
        counts = "".join(f',\n"{name}": {matrix}' for name, matrix in count_confusions(whole, labels).items())
        (REPORTS / "confusions.json").write_text("{" + counts.removeprefix(",") + "\n}\n")
        if votes is None:
            print("reports/facts.json stays as it was: it needs FER+'s votes (set FER_VOTES)")
        else:
            facts = collect_facts(dataset, votes)
            facts["accuracies"] = judge_subsets(whole, labels, list_subsets(dataset, votes))
            both = {"validation": dataset.validation.labels, "test": labels}
            facts["mirrored"] = judge_mirrored(whole, both)
            facts["voted"] = judge_voted(labels, list_choices(dataset, votes))
            facts["ensembles"] = tabulate_pools(group_candidates(whole), both).to_dict("index")
            facts = json.dumps(facts, indent=2, ensure_ascii=False)
            (REPORTS / "facts.json").write_text(facts + "\n")
        (REPORTS / "made_from.txt").write_text(digest_sources(REPORTS) + "\n")
    for path, fill in ((PROJECT / "README.md", fill_readme), (REPORTS / "results.md", fill_results)):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(runs)} runs: what reports/ and README.md say of them is up to date")


if __name__ == "__main__":
    ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    try:
        main()
    except RecordError as error:
        raise SystemExit(error) from None
