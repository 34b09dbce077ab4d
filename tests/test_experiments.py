from dataclasses import asdict, replace

import pytest

from fer_lib.augment import Augmentation
from fer_lib.experiments import (
    EXPERIMENTS,
    _name_all,
    find_experiment,
    list_additions,
    list_ladder,
    list_treatments,
    vary,
)
from fer_lib.metrics import calc_confusion, calc_recall
from fer_lib.preprocess import calc_upsampling_factors
from fer_lib.record import read_run
from tests.conftest import needs_fer2013


def test_names_begin_with_the_step_and_steps_are_unique():
    for name, experiment in EXPERIMENTS.items():
        assert name == experiment.name and name.startswith(experiment.step.lower() + "_")
    assert len({experiment.step for experiment in EXPERIMENTS.values()}) == len(EXPERIMENTS)


def test_a_name_that_is_taken_is_refused():
    a1 = EXPERIMENTS["a1_baseline"]
    with pytest.raises(ValueError, match="two experiments are called a1_baseline"):
        _name_all(a1, replace(a1, batch_size=256))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no experiment 'a9'; there are a1_baseline, "):
        find_experiment("a9")


def test_a1b_differs_from_a1_in_the_balancing_alone():
    a1, a1b = EXPERIMENTS["a1_baseline"].config, EXPERIMENTS["a1b_baseline_balanced"].config
    assert {key for key in a1 if a1[key] != a1b[key]} == {"balance"}


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("a1b_baseline_balanced", "a1c_unscaled", {"scale"}),
        ("a1b_baseline_balanced", "a2_batchnorm", {"model"}),
        ("a2_batchnorm", "a2b_unscaled", {"scale"}),
        ("a2_batchnorm", "a3_dropout", {"options"}),
        ("a3_dropout", "a4_wider", {"options"}),
        ("a4_wider", "a5_deeper_head", {"options"}),
        ("a3_dropout", "a5b_head_alone", {"options"}),
        ("a5_deeper_head", "a6_residual", {"model", "options"}),
        ("a6_residual", "a6b_no_skip", {"options"}),
        ("a6_residual", "a7_deeper_residual", {"options"}),
        ("a5_deeper_head", "a8_targeted_upsampling", {"upsampling"}),
        ("a5_deeper_head", "a8b_harder_upsampling", {"upsampling"}),
    ],
)
def test_along_report_a_one_thing_changes_at_a_time(before, after, changed):
    before, after = EXPERIMENTS[before].config, EXPERIMENTS[after].config
    assert {key for key in before if before[key] != after[key]} == changed


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "NoModel"},
        {"epochs": 0},
        {"epochs": 2.5},
        {"patience": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"learning_rate": "fast"},
        {"learning_rate": True},
        {"learning_rate": float("nan")},
        {"views": ("upside_down",)},
        {"scale": False, "augmentation": Augmentation(shift=10)},
    ],
)
def test_a_value_that_cannot_be_trained_with_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        replace(EXPERIMENTS["a1_baseline"], **wrong)


def test_the_digest_follows_the_config_and_not_the_words():
    a1 = EXPERIMENTS["a1_baseline"]
    assert replace(a1, title="Other words").digest == a1.digest
    assert replace(a1, learning_rate=2e-3).digest != a1.digest
    assert replace(a1, augmentation=Augmentation(flip=0.5)).digest != a1.digest


def test_a_recorded_config_matches_itself_only_and_survives_new_fields():
    a1 = EXPERIMENTS["a1_baseline"]
    assert a1.matches(a1.config)
    assert not a1.matches(replace(a1, epochs=7).config)
    assert not a1.matches(a1.config | {"augmentation": asdict(Augmentation(rotation=5))})
    older = {key: value for key, value in a1.config.items() if key != "balance"}
    older["augmentation"] = {"flip": 0.0}
    assert a1.matches(older)
    assert not EXPERIMENTS["a1b_baseline_balanced"].matches(older)
    strong = EXPERIMENTS["s4_label_smoothing"]
    older = strong.config | {"recipe": {k: v for k, v in strong.config["recipe"].items() if k != "averaging"}}
    assert strong.matches(older) and not EXPERIMENTS["s5_averaging"].matches(older)


@pytest.mark.parametrize("basis", ["a5_deeper_head", "b3_three_layer_resnet"])
def test_in_the_dispute_only_the_treatment_changes_and_every_one_is_there(basis):
    basis = EXPERIMENTS[basis]
    family = [EXPERIMENTS[name] for name in list_treatments(basis.name)]
    assert basis in family and family[0].augmentation == Augmentation() and not family[0].balance
    for experiment in set(family) - {basis}:
        changed = {key for key, value in experiment.config.items() if value != basis.config[key]}
        assert changed and changed <= {"balance", "augmentation"}
    treatments = {(e.balance, e.augmentation) for e in family}
    everything = Augmentation(flip=0.5, rotation=10, crop_padding=4)
    single = [Augmentation(), Augmentation(0.5), Augmentation(0, 10), Augmentation(0, 0, 4), Augmentation(shift=10)]
    unbalanced = {(False, augmentation) for augmentation in (*single, everything)}
    assert treatments == unbalanced | {(True, Augmentation()), (True, everything)} and len(family) == 8


def test_a_longer_training_differs_in_its_length_alone():
    for short, longer in (("da1_plain", "da8_plain_longer"), ("da6_all", "da9_all_longer")):
        short, longer = EXPERIMENTS[short], EXPERIMENTS[longer]
        assert list_changes(short, longer) == {"epochs", "patience"} and longer.epochs == 2 * short.epochs


def list_changes(before, after):
    """What differs between two experiments, in the groups too: {"recipe.mixup", ...}."""
    changes = []
    for key, value in after.config.items():
        old = before.config[key]
        changes += (
            [f"{key}.{name}" for name in value | old if value.get(name) != old.get(name)]
            if isinstance(value, dict)
            else [key] * (value != old)
        )
    return set(changes) - {"views"}  # they change nothing in training


def test_the_way_to_the_strong_model_changes_one_thing_at_a_time():
    *ladder, top, wide, varied, full_size, learnt = (EXPERIMENTS[name] for name in list_ladder())
    taught, momentum = EXPERIMENTS["s16_distilled"], EXPERIMENTS["s17_momentum"]
    additions = [EXPERIMENTS[name] for name in list_additions()]
    additions = [addition for addition in additions if addition not in (taught, momentum)]
    lengths, sizes = {"epochs", "patience"}, {"options.widths", "options.blocks"}
    for before, after in [*zip(ladder, [*ladder[1:], top]), (top, wide), *((top, addition) for addition in additions)]:
        changes = list_changes(before, after)
        single = len(changes - lengths) == 1  # a cycle has its length
        assert single or changes in (sizes, lengths), (after.name, changes)
    assert list_changes(top, taught) == {"teachers"} and set(taught.teachers) <= set(EXPERIMENTS)
    assert list_changes(top, momentum) == {"recipe.optimizer", "recipe.weight_decay", "learning_rate"}
    kinds = {"augmentation.zoom", "augmentation.light", "augmentation.erasing", "recipe.small_share"}
    assert list_changes(wide, varied) == kinds | lengths
    plain, unlabelled = EXPERIMENTS["s19_plain"], EXPERIMENTS["s21_taught_alone"]
    assert list_changes(full_size, plain) == {"model", *(f"options.{name}" for name in dict(full_size.options))}
    assert list_changes(full_size, learnt) == {"teachers", "recipe.teaching", "recipe.draws"} | lengths
    assert list_changes(learnt, unlabelled) == {"recipe.teaching"}


@pytest.mark.parametrize("name", ["s23_tiny_taught", "v1_votes"])
def test_the_small_network_is_taught_and_voted_for_by_no_other_means(name):
    changes = list_changes(EXPERIMENTS["s5_averaging"], EXPERIMENTS[name])
    teaching = {"teachers", "recipe.teaching", "recipe.draws"}
    assert {change for change in changes if not change.startswith("augmentation.")} == (
        teaching if name == "s23_tiny_taught" else {"votes"}
    )


def test_a_network_that_was_not_treated_in_every_way_is_refused():
    with pytest.raises(ValueError, match="a1_baseline: not every treatment .* a5_deeper_head and b3_three"):
        list_treatments("a1_baseline")


def test_an_experiment_of_ones_own_is_told_what_is_wrong_with_it():
    own = vary(EXPERIMENTS["a1_baseline"], "x1_own", "Own", options={"filters": [16, 32, 64]})
    assert hash(own) and own == vary(own, "x1_own", "Own", against="a1_baseline", options={"filters": (16, 32, 64)})
    with pytest.raises(ValueError, match="options: .* cannot be built of .*'filter': .* unexpected keyword"):
        vary(own, "x2_own", "Own", options={"filter": 3}).build_model()
    with pytest.raises(ValueError, match="teachers: 's18_full_size', expected names in parentheses"):
        vary(own, "x2_own", "Own", teachers="s18_full_size")


@pytest.mark.parametrize(("family", "words"), [("da", "no_dropout"), ("db", "dropout")])
def test_dropout_alone_is_what_its_runs_in_the_dispute_change(family, words):
    basis = {"da": "a5_deeper_head", "db": "b3_three_layer_resnet"}[family]
    plain, *_ = list_treatments(basis)
    every = next(name for name in list_treatments(basis) if name.split("_", 1)[1] in ("all", "three_layer_resnet"))
    for name in (plain, every):
        (other,) = [
            e for e in EXPERIMENTS.values()
            if e.report == "D" and e.name.startswith(family) and e.name.endswith(words)
            and e.augmentation == EXPERIMENTS[name].augmentation
        ]  # fmt: skip
        changes = list_changes(EXPERIMENTS[name], other)
        assert changes and all("drop" in change for change in changes)


def test_in_the_second_regime_every_step_of_both_reports_converges_and_nothing_else_changes():
    steps = [e for e in EXPERIMENTS.values() if e.report in "AB"]
    assert len(steps) == len([e for e in EXPERIMENTS.values() if e.report == "C"])
    for step in steps:
        assert list_changes(step, EXPERIMENTS[f"c{step.name}"]) == {"recipe.schedule", "patience"}
        assert EXPERIMENTS[f"c{step.name}"].patience == step.epochs


@needs_fer2013
@pytest.mark.parametrize(("name", "strength"), [("a8_targeted_upsampling", 0.5), ("a8b_harder_upsampling", 1.0)])
def test_a8s_factors_are_those_of_the_recorded_confusion_matrix(name, strength, fer2013, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    run = read_run(EXPERIMENTS["a5_deeper_head"], fer2013, seed=0)
    recall = calc_recall(calc_confusion(run.logits["validation"], fer2013.validation.labels))
    assert EXPERIMENTS[name].upsampling == calc_upsampling_factors(recall, strength)
