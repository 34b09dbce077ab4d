import io
import itertools
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from fer_lib import claims, data, plots
from fer_lib.evaluate import collect_results, summarise_costs, summarise_experiments
from fer_lib.experiments import EXPERIMENTS, vary
from fer_lib.extras.explore import (
    calc_ceilings,
    calc_eigenfaces,
    calc_mean_faces,
    find_duplicates,
    find_shared,
    measure_agreement,
    tabulate_duplicates,
)
from fer_lib.loop import measure_first_gradients
from fer_lib.preprocess import balance_classes
from fer_lib.train import get_runs


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_RUNS", str(tmp_path_factory.mktemp("plots") / "runs"))
        patch.setenv("WANDB_MODE", "disabled")
        steps = [replace(EXPERIMENTS[name], epochs=2) for name in ("a1_baseline", "a1b_baseline_balanced")]
        found = [get_runs(step, small, [0, 1]) for step in steps]
        assert all(run.logits for runs in found for run in runs)  # read while the folder is known
        return found


def check_figure(figure):
    """A title that says something, nothing drawn outside the page, no two ticks of an axis with the same label."""
    title = figure.get_suptitle()
    assert len(title.split()) >= 5 and "nan" not in title
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    box = figure.get_tightbbox(canvas.get_renderer()).transformed(figure.dpi_scale_trans)
    assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2, "something is cut off"
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
            assert len(set(labels)) == len(labels), f"the labels {labels} are rounded too far"


def draw_data_figures(dataset):
    balanced = balance_classes(dataset.train)
    face = calc_mean_faces(dataset.train)[3]
    agreement = measure_agreement(dataset, make_votes(dataset))
    return [
        plots.plot_class_counts(dataset),
        plots.plot_pixel_statistics(dataset),
        plots.plot_mean_faces(dataset.train),
        plots.plot_mean_face_differences(dataset.train),
        plots.plot_eigenfaces(dataset.train, 7),
        plots.plot_faces(dataset.train),
        plots.plot_agreement(agreement),
        plots.plot_balancing(dataset.train, balanced),
        plots.plot_balanced_faces(dataset.train, balanced),
        plots.plot_augmentations(face, 10.0, 4, "mean Happy face"),
        plots.plot_blurring(face, {"flip": face / 2, "rotation": face / 3, "crop": face, "all three": face}),
    ]


def make_votes(dataset):
    """Ten votes an image: eight for its label, two for unknown; for class 0, all for contempt."""
    from fer_lib.data import VOTE_CLASSES

    labels = np.concatenate([split.labels for split in dataset.splits.values()])
    votes = pd.DataFrame(0, index=range(len(labels)), columns=list(data.VOTES))
    for name, label in VOTE_CLASSES.items():
        votes.loc[(labels == label), name] = 8
        votes.loc[(labels == label), "unknown"] = 2
    votes.loc[labels == 0] = 0
    votes.loc[labels == 0, "contempt"] = 10
    return votes


@pytest.mark.slow
def test_a_try_at_a_steps_regime_is_drawn_in_the_panel_of_that_step(runs):
    plots.set_style()
    before, after = runs
    other = replace(after[0], experiment=vary(after[0].experiment, "r9_other", "A1b, slower", report="R"))
    figure = plots.plot_regime([before, after], [other])
    check_figure(figure)
    drawn = [[line.get_label() for line in axes.get_lines()].count("slower") for axes in figure.axes]
    assert drawn == [0, 1] and "slower" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.slow
def test_every_figure_of_the_data_is_titled_and_whole(drawn):
    plots.set_style()
    for figure in draw_data_figures(drawn):
        check_figure(figure)


@pytest.mark.slow
def test_every_figure_of_runs_is_titled_and_whole(runs, small):
    plots.set_style()
    before, after = runs
    labels = small.test.labels
    for figure in (
        plots.plot_curves(before, after),
        plots.plot_confusions(before, after, labels, "test"),
        plots.plot_gradient_norms(
            [before, after], [measure_first_gradients(runs[0].experiment, small, [0, 1]) for runs in (before, after)]
        ),
        plots.plot_accuracies([before, after]),
        plots.plot_gaps([before, after]),
        plots.plot_gains([(before, after), (after, before)]),
        plots.plot_gains([(before, after[:1])]),
        plots.plot_gaps([after[:1]]),
        plots.plot_accuracies([before[:1], after[:1]], "test_accuracy"),
        plots.plot_recall_change(before, after, labels, "test"),
        plots.plot_statements(claims.read_claims()[1], claims.read_verdicts()),
        plots.plot_method(claims.read_method()),
        plots.plot_regime([before, after]),
        plots.plot_ladder({"Report A": [before, after], "Report B": [after]}, (0.6, 0.7)),
        plots.plot_confusion_counts(
            {name: np.diag([5] * 7) + np.eye(7, k=1, dtype=int) for name in ("A5", "B3", "S14")}
        ),
        plots.plot_interaction({"A1": [before, after, after, before], "B1": [after, before, before, after]}),
        plots.plot_effects({"A1": (before, [after, before]), "B1": (after, [before, after])}),
        plots.plot_accuracy_by_agreement([before, after], labels, np.arange(len(labels)) % 11 / 10),
        plots.plot_reliability([before, after], labels, [1.5, 2.0]),
        plots.plot_reliability([before, after], labels, [1.5, 1.0]),  # none is used with the second
        plots.plot_rotations({name: np.linspace(-30, 30, 50) for name in ("train", "validation", "test")}),
        plots.plot_curves(before[:1], after[:1]),  # of one seed: no interval, and no error
        plots.plot_recall_change(before[:1], after[:1], labels, "test"),
    ):
        check_figure(figure)


@pytest.mark.parametrize("width", [0.001, 0.02, 0.3])
def test_accuracies_however_close_have_ticks_that_differ(runs, width):
    plots.set_style()
    run = runs[0][0]
    values = 0.62 + width * np.linspace(0, 1, 3)
    titled = [replace(run.experiment, title=f"{value:.4f}", reported=None) for value in values]
    results = [run.results | {"validation_accuracy": value} for value in values]
    close = [replace(run, experiment=experiment, results=result) for experiment, result in zip(titled, results)]
    check_figure(plots.plot_accuracies([[run] for run in close]))


def test_tables_of_runs(runs):
    table = collect_results(runs[0] + runs[1])
    assert len(table) == 4 and table["last_gap"].notna().all()
    summary = summarise_experiments(runs[0] + runs[1])
    assert list(summary.index) == ["A1 Baseline", "A1b Baseline, balanced"]
    mean = 100 * table["test_accuracy"][:2].mean()
    assert summary.loc["A1 Baseline", "test (%)"].startswith(f"{mean:.1f} ± ")


def test_costs_are_told_beside_the_gain_and_per_point_only_where_there_is_one(runs):
    before, after = runs
    table = summarise_costs([before, after])
    assert table["multiply-adds an image (M)"].tolist() == ["22.5", "22.5"]
    gains = table["validation, over A1 (points)"]
    assert gains.iloc[0] == "" and " ± " in gains.iloc[1]
    results = [{**run.results, "validation_accuracy": run.results["validation_accuracy"] + 0.1} for run in before]
    better = [replace(run, results=result) for run, result in zip(after, results)]
    assert summarise_costs([before, better])["extra multiply-adds (M) per point"].tolist() == ["", "0.0"]
    assert "extra multiply-adds (M) per point" not in summarise_costs([better, before])  # there is none


def test_mean_faces_and_eigenfaces_are_what_they_say(small):
    split = small.train
    np.testing.assert_allclose(calc_mean_faces(split)[3], split.images[split.labels == 3].mean(0))
    faces, shares = calc_eigenfaces(split, 5)
    flat = split.images.reshape(len(split), -1).astype(float)
    variances = np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(shares, variances[:5] / variances.sum(), rtol=1e-3)
    np.testing.assert_allclose((faces.reshape(5, -1) ** 2).sum(1), 1, rtol=1e-4)


def test_duplicates_are_counted_within_and_across_splits():
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48)).astype(np.uint8)
    images[1] = images[0]  # twice in train, same label
    images[5] = images[0]  # and once in test, with another label
    images[6] = images[3]  # in validation and test
    labels, usages = np.array([0, 0, 2, 3, 4, 6, 3, 1]), np.array([0, 0, 0, 1, 1, 2, 2, 2])
    dataset = data.build_dataset("copies", images, (4 * labels + usages).astype(np.uint8))
    duplicates = find_duplicates(dataset)
    assert sorted(duplicates["row"]) == [0, 1, 3, 5, 6] and duplicates["group"].nunique() == 2
    table = tabulate_duplicates(duplicates)
    assert table.loc["train"].tolist() == [2, 0, 2, 2]
    assert table.loc["validation"].tolist() == [0, 0, 1, 0]
    assert table.loc["test"].tolist() == [1, 1, 0, 1]
    shared = {name: found.tolist() for name, found in find_shared(dataset).items()}
    assert shared == {
        "with a copy in training": [True, False, False],
        "with a copy in validation": [False, True, False],
        "without a copy in either": [False, False, True],
    }


def test_agreement_counts_votes_for_the_label(small):
    table = measure_agreement(small, make_votes(small))
    other = table["label"] != 0
    assert table.loc[other, "agrees"].all() and (table.loc[other, "share"] == 0.8).all()
    assert not table.loc[~other, "agrees"].any() and (table.loc[~other, "choice"] == -1).all()
    ceilings = calc_ceilings(table)
    assert ceilings["choice where there is one"] == 1 and ceilings["choice"] == other.mean()
    assert ceilings["tagger"] == pytest.approx(0.8 * other.mean())


@pytest.fixture(scope="module")
def trials():
    """A grid of trials: accuracy rises with the learning rate most, and the best has the widest filters."""
    rows = [
        {"learning_rate": rate, "drop_threshold": drop, "kernels": kernels, "seconds": 60.0,
         "validation_accuracy": 0.4 + 20 * rate + 0.1 * drop + 0.001 * len(kernels)}
        for rate in (0.0003, 0.001, 0.003) for drop in (0.0, 0.5) for kernels in ("8-16", "64-128", "16-32")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_every_figure_of_a_search_is_titled_and_whole(trials):
    plots.set_style()
    figures = [
        plots.plot_search(trials),
        plots.plot_search_interactions(trials),
        plots.plot_search_budget(trials),
        plots.plot_learning_rates({"B1 Two layers": trials, "B2 Three": trials}),
    ]
    for figure in figures:
        check_figure(figure)
    assert "Most hangs on learning rate: 5.4 points" in figures[0].get_suptitle()
    assert "5.4 points in B1 and 5.4 points in B2" in figures[3].get_suptitle()
    told = " ".join(figures[1].get_suptitle().split())
    assert "dropout 0.5 at a learning rate of 0.003 (51.5%) and filters 64-128 at a learning rate of 0.003" in told
    assert [text.get_text() for text in figures[0].axes[2].get_xticklabels()] == ["8-16", "16-32", "64-128"]


def test_the_attention_figure_names_the_place_that_is_looked_at():
    maps = np.full((7, 6, 6), 0.5 / 35)
    maps[:, 4, 2] = 0.5  # the mouth
    figure = plots.plot_maps(maps, np.full((7, 48, 48), 128.0))
    check_figure(figure)
    assert "The lower central ninth of the picture has 54% of the attention" in figure.get_suptitle()


def test_the_figures_of_ensemble_and_masking_tell_what_the_tables_do():
    plots.set_style()
    members = pd.DataFrame(
        {
            "member": ["S1, seed 0", "S1, seed 1", "S2, seed 0"],
            "validation_alone": [0.70, 0.69, 0.70],
            "validation_together": [0.70, 0.72, 0.71],
            "test_alone": [0.71, 0.70, 0.72],
            "test_together": [0.71, 0.73, 0.74],
        },
        index=[1, 2, 3],
    )
    figure = plots.plot_members(members, 2)
    check_figure(figure)
    assert "alone is right on 71.0% of the test split, 2 together on 73.0%" in figure.get_suptitle()
    masking = pd.DataFrame(
        {"most": [0.7, 0.2, 0.1], "random": [0.7, 0.5, 0.3], "least": [0.7, 0.7, 0.6]}, [0, 0.25, 0.5]
    )
    figure = plots.plot_masking(masking)
    check_figure(figure)
    assert "accuracy is 20% where the map marks most, 50% at random" in figure.get_suptitle()


@pytest.mark.parametrize("tight", [False, True])
def test_a_figures_hints_lie_on_its_marks(tight):
    """On a picture cut to what is drawn, as a notebook's is, and on a whole one."""
    plots.set_style()
    statements, verdicts = claims.read_claims()[1], claims.read_verdicts()
    figure = plots.plot_statements(statements, verdicts)
    told = plots.describe_figure(figure, tight)
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight" if tight else None)
    file.seek(0)
    picture = plt.imread(file)[..., :3]
    assert told["alt"] == figure.get_suptitle().replace("\n", " ") and len(told["hints"]) > 20
    for x, y, text in told["hints"]:
        verdict = verdicts.loc[text.split()[0], "verdict"]
        found = picture[int(y * picture.shape[0]), int(x * picture.shape[1])]
        np.testing.assert_allclose(found, to_rgb(plots.VERDICT_COLOURS[verdict]), atol=0.02, err_msg=text)


def test_the_best_of_a_few_trials_is_what_drawing_them_gives():
    """Of 6 trials, 3 drawn: against all 20 ways of drawing them."""
    best = [max(drawn) for drawn in itertools.combinations(range(6), 3)]
    np.testing.assert_allclose(plots.searches._chance_of_best(6, 3), np.bincount(best, minlength=6) / len(best))
