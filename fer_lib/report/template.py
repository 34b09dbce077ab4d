"""What the write-up, the model card and the README's summary can ask for, filled in from the records."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from fer_lib import __version__, claims, plots
from fer_lib.costs import count_image, describe_precisions, measure_cost, shorten_hardware, tabulate_costs
from fer_lib.dataset import EMOTIONS, PROJECT
from fer_lib.evaluate import (
    choose_view,
    collect_results,
    compare_runs,
    estimate_metric,
    estimate_view,
    format_markdown,
    judge_aim,
)
from fer_lib.experiment import Experiment
from fer_lib.experiments import find_experiment, list_treatments
from fer_lib.extras.search import describe_grids
from fer_lib.record import WEIGHTS, Run, read_published_runs
from fer_lib.report import compare, judge, published, settings
from fer_lib.statistics import bound_share


class Records:
    """What the text can ask for: all that is public here, and nothing else; most of it as Markdown. Every method raises
    KeyError for what is not on record, so that no sentence is printed with a gap in it."""

    def __init__(self, folder: Path):
        """folder: where figures are put."""
        self._folder = folder
        self._all_runs = read_published_runs()
        self._runs = compare.keep_repeated(self._all_runs)
        self._statements = claims.read_claims()[1]
        self._verdicts = claims.read_verdicts()
        self.facts = compare.read_facts()
        self.method = claims.read_method()
        self.version = __version__

    def get_runs(self, name: str) -> list[Run]:
        found = [run for run in self._runs if run.experiment.name == name]
        if not found:
            raise KeyError(f"{name} has too few runs on record")
        return found

    def _get_all(self, name: str) -> list[Run]:
        """The same of an experiment of any number of runs."""
        found = [run for run in self._all_runs if run.experiment.name == name]
        if not found:
            raise KeyError(f"{name} has no run on record")
        return found

    def accuracy(self, name: str, metric: str = "test_accuracy") -> str:
        """Mean over the seeds ± half its 95% interval, in percent: "63.5 ± 1.1"."""
        return estimate_metric(self.get_runs(name), metric).format()

    def gain(self, control: str, name: str, metric: str = "validation_accuracy") -> str:
        """What an experiment is above another, in points ± half the 95% interval: "+0.4 ± 0.9"."""
        return compare_runs(self._get_all(control), self._get_all(name), metric).format(sign=True)

    def _find_statement(self, number: str) -> claims.Statement:
        found = [statement for statement in self._statements if statement.number == number]
        if not found or pd.isna(self._verdicts.loc[number, "effect"]):
            raise KeyError(f"{number} is no statement that was measured")
        return found[0]

    def effect(self, number: str, split: str = "validation") -> str:
        """The effect that a statement was judged by, with its interval: "+1.2 points (+0.1 to +2.3)"; split: "test"
        for the same on the test split, "converged" for validation over one cycle."""
        quantity, row = self._find_statement(number).quantity, self._verdicts.loc[number]
        columns = ("effect", "low", "high") if split == "validation" else (split, f"{split}_low", f"{split}_high")
        return claims.format_effect(quantity, *row[list(columns)], unit=" points")

    def verdict(self, number: str) -> str:
        """ "*true*", "*false*", "*too small to matter*" or "*undecided*"."""
        return f"*{self._verdicts.loc[number, 'verdict']}*"

    def list_own(self, asked: bool = False) -> list[claims.Statement]:
        """The reports' statements, or the questions that their dispute asks."""
        return [statement for statement in self._statements if (statement.claim == claims.QUESTIONS) == asked]

    def count_statements(self) -> str:
        told = claims.count_verdicts(self._verdicts.loc[[statement.number for statement in self.list_own()]])
        return told.replace("**", "")

    def tally(self, report: str) -> str:
        own = [statement.number for statement in self.list_own() if statement.number.startswith(report)]
        return claims.tally_verdicts(self._verdicts.loc[own]).replace(" ", " are ", 1)

    def count_other_verdicts(self, factor: float) -> int:
        return claims.count_other_verdicts(self.list_own(), self._verdicts, factor)

    def describe_converged(self) -> str:
        return claims.describe_converged(self.list_own(), self._verdicts)

    def show_statements(self, asked: bool = False) -> str:
        columns = {"": 9, "statement": 50, "verdict": 13, "effect": 23, "test": 20}
        columns |= {} if asked else {"reported": 10, "matters": 10}
        return _format_table(claims.tabulate_statements(self.list_own(asked), self._verdicts), columns)

    def show_crossing(self) -> str:
        """Both reports' networks with and without dropout, untreated and with all treatments, in a table."""
        table = compare.tabulate_crossing(self._all_runs)
        return _format_table(table, {"network": 20, "untreated": 14, "flip, rotation, crop": 20, "runs": 10})

    def list_decided_later(self) -> str:
        return ", ".join(claims.list_decided_later(self._verdicts))

    def contrast(self, number: str, metric: str) -> str:
        """Of another metric what a statement asks, in points ± half the 95% interval for the chance in seeds."""
        evidence = judge.Evidence(collect_results(self._all_runs), {})
        return evidence.estimate(self._find_statement(number).weights, metric).format(sign=True)

    def compare_splits(self) -> str:
        return claims.compare_splits(self._verdicts)

    def compare_reported(self) -> str:
        return claims.compare_reported(self.list_own(), self._verdicts)

    def confidence(self) -> str:
        """Of the statements' intervals: "96.8%"."""
        return f"{self._verdicts['confidence'].iloc[0]:.1%}"

    def show_networks(self) -> str:
        widths = {"step": 5, "network": 60, "parameters": 11, "multiply-adds (M)": 13}
        return _format_table(compare.tabulate_networks(), widths)

    def show_climb(self) -> str:
        """The way beyond both reports in a table."""
        widths = {"step": 5, "change": 24, "over": 5, "gain": 12, "validation (%)": 14, "test (%)": 12, "runs": 5}
        return _format_table(compare.tabulate_climb(self._all_runs), widths)

    def show_experiments(self, reports: str) -> str:
        """Every experiment of some reports ("A", "B"; "C" their steps over one cycle, "D" the dispute, "R" tries at
        report A's regime, "S" beyond both, "V" the votes) in a table."""
        table = compare.tabulate_experiments([run for run in self._all_runs if run.experiment.report in reports])
        widths = dict.fromkeys(table.columns, 10) | {"runs": 5, "parameters": 11}
        return _format_table(table.reset_index(names="step"), {"step": 24} | widths)

    def count_experiments(self) -> int:
        return len({run.experiment.name for run in self._all_runs})

    def count_runs(self) -> int:
        return len(self._all_runs)

    def count_hours(self) -> int:
        return round(sum(measure_cost(run)["typical_minutes"] for run in self._all_runs) / 60)

    def describe_precisions(self) -> str:
        return describe_precisions(self._all_runs)

    def describe_searches(self) -> str:
        return describe_grids()

    def list_hardware(self) -> str:
        """What the runs were trained on, the commonest first: "Intel Xeon with AMX (60), AMD EPYC with AVX-512 (8)"."""
        counts = Counter(shorten_hardware(run.environment["hardware"]) for run in self._all_runs)
        return ", ".join(f"{name} ({count})" if len(counts) > 1 else name for name, count in counts.most_common())

    def find_best(self, report: str) -> str:
        """Of what a report did ("A", "B"; "S": beyond), the one with the highest mean validation accuracy, by name."""
        names = {run.experiment.name for run in self._runs if run.experiment.report == report}
        if report in "AB":  # not what is varied here
            names &= set(compare.NETWORKS)
        return max(names, key=lambda name: estimate_metric(self.get_runs(name), "validation_accuracy").mean)

    def setting(self, name: str) -> Experiment:
        return find_experiment(name)

    def judge_aim(self, name: str, aim: float) -> str:
        """Whether an experiment's test accuracy, under the view that is best on validation, is what was aimed at (0-1),
        in words: "the aim of 74.1% is missed by 1.1 points"."""
        runs = self.get_runs(name)
        return judge_aim(estimate_view(runs, "test", choose_view(runs)).mean, aim)

    def ensemble(self, pool: str) -> str:
        """Test accuracy of an ensemble of `ensemble.POOLS`, in percent, ± half the 95% interval that the number of
        images gives: "74.0 ± 1.4"."""
        told = self.facts["ensembles"][pool]["together, test (%)"]
        return f"{told} ± {100 * bound_share(float(told) / 100, compare.TEST_IMAGES):.1f}"

    def judge_ensemble(self, aim: float) -> str:
        """Whether the ensemble of all candidates is what was aimed at, in the same words."""
        return judge_aim(float(self.facts["ensembles"]["all"]["together, test (%)"]) / 100, aim)

    def describe_published(self, name: str) -> str:
        return published.describe_published(self.get_runs(name)).replace("**", "")

    def show_published(self) -> str:
        widths = {"system": 19, "networks": 10, "reported (%)": 10, "split": 12, "chosen on": 12, "pretrained": 14}
        return _format_table(published.tabulate_published(), widths | {"note": 40, "source": 20})

    def bound(self, name: str, emotion: str | None = None) -> str:
        """Half the 95% interval, in points, that the number of test images alone gives an experiment's accuracy, or its
        recall of a class."""
        counts = compare.read_confusions()[name]
        place = EMOTIONS.index(emotion) if emotion else slice(None)
        share = counts.diagonal()[place].sum() / counts[place].sum()
        images = self.facts["classes"]["test"][emotion] if emotion else compare.TEST_IMAGES
        return f"{100 * bound_share(share, images):.{0 if emotion else 1}f}"

    # --- the model card -------------------------------------------------------------------------

    def get_run(self, name: str, seed: int) -> Run:
        return next(run for run in self.get_runs(name) if run.seed == seed)

    def count_multiply_adds(self, name: str) -> str:
        """Of an image's way through the network, in millions."""
        return f"{count_image(find_experiment(name)) / 1e6:.0f}"

    def weights(self, run: Run) -> str:
        """The file of a run's weights, from the project's root."""
        return (run.folder / WEIGHTS).relative_to(PROJECT).as_posix()

    def measure_weights(self, run: Run) -> int:
        """Its size in bytes. Raises FileNotFoundError if it is not kept."""
        return (run.folder / WEIGHTS).stat().st_size

    def describe_temperature(self, name: str) -> str:
        return compare.describe_temperature(self.facts["mirrored"][name])

    def find_weakest(self, name: str) -> tuple[str, str]:
        """The class that an experiment recognises least on the test split, and what it is most often taken for."""
        counts = compare.read_confusions()[name]
        place = int(np.argmin(counts.diagonal() / counts.sum(1)))
        counts[place, place] = 0
        return EMOTIONS[place], EMOTIONS[int(np.argmax(counts[place]))]

    def minutes(self, name: str) -> str:
        """What a run of an experiment takes, at its median epoch's pace."""
        return f"{tabulate_costs(self._runs).loc[name, 'typical_minutes']:.0f}"

    def hardware(self, name: str) -> str:
        return tabulate_costs(self._runs).loc[name, "hardware"]

    def list_means(self, name: str) -> str:
        return settings.list_means(find_experiment(name))

    def list_treatments(self, name: str) -> str:
        return settings.list_treatments(find_experiment(name))

    # --- figures --------------------------------------------------------------------------------

    def draw_ladder(self, caption: str) -> str:
        return self._draw("ladder", caption, plots.plot_ladder, compare.group_by_report(self._runs), compare.PEOPLE)

    def draw_statements(self, caption: str) -> str:
        return self._draw("statements", caption, plots.plot_statements, self.list_own(), self._verdicts)

    def draw_method(self, caption: str) -> str:
        return self._draw("method", caption, plots.plot_method, self.method)

    def draw_regime(self, caption: str) -> str:
        return self._draw("regime", caption, plots.plot_regime, *compare.group_regime(self._all_runs))

    def count_above(self) -> str:
        return compare.count_above(self._all_runs)

    def draw_confusions(self, caption: str, *names: str) -> str:
        counts = compare.read_confusions()
        chosen = {find_experiment(name).step: counts[name] for name in names}
        return self._draw("confusions", caption, plots.plot_confusion_counts, chosen)

    def draw_gaps(self, caption: str, *names: str) -> str:
        return self._draw("gaps", caption, plots.plot_gaps, [self.get_runs(name) for name in names])

    def draw_effects(self, caption: str, *names: str) -> str:
        """What each treatment in the dispute changes in these networks."""
        families = {find_experiment(name).step: [self.get_runs(kin) for kin in list_treatments(name)] for name in names}
        groups = {step: (family[0], family[1:]) for step, family in families.items()}
        return self._draw("effects", caption, plots.plot_effects, groups)

    def _draw(self, name: str, caption: str, plot: Callable, *args) -> str:
        with plt.rc_context({"svg.hashsalt": name}):  # else the file differs each time
            plots.set_style()
            figure = plot(*args)
            figure.savefig(self._folder / f"{name}.svg", metadata={"Date": None})
        (self._folder / f"{name}.json").write_text(json.dumps(plots.describe_figure(figure)), encoding="utf-8")
        return f"![{caption}]({name}.svg)"


def _format_table(table: pd.DataFrame, widths: dict[str, int]) -> str:
    """The table in Markdown, of these columns, aligned at the left; pandoc takes their widths from the dashes."""
    first, _, *rest = format_markdown(table[list(widths)]).splitlines()
    return "\n".join([first, f"| {' | '.join(':' + '-' * width for width in widths.values())} |", *rest])


def fill_in(text: str, folder: Path) -> str:
    """The write-up's Markdown, with true minus signs, its figures in the folder.

    Raises KeyError or jinja2's UndefinedError for what is not on record."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(text)
    records = Records(folder)
    asked = {name: getattr(records, name) for name in dir(records) if not name.startswith("_")}
    filled = template.render(**asked, dict=dict).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return re.sub(r"(?<!\w)-(?=\d)", "−", filled) + "\n"
