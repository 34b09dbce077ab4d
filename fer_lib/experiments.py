"""Every row of the two reports, of the test of their dispute and of the way to the strong model, as an experiment that
says what it changes of another one."""

import re
from dataclasses import replace

from fer_lib.augment import Augmentation
from fer_lib.experiment import Experiment


def vary(basis: Experiment, name: str, title: str, **changes) -> Experiment:
    """An experiment that is compared with its basis, from which it differs in these fields; `augmentation`, `recipe`
    and `options` may be given as dicts of what changes in them. Another model takes none of the basis's options."""
    options = {} if "model" in changes else dict(basis.options)
    fields = {"options": tuple((options | changes.pop("options", {})).items()), "reported": None, "against": basis.name}
    for group in ("augmentation", "recipe"):
        if isinstance(changes.get(group), dict):
            fields[group] = replace(getattr(basis, group), **changes.pop(group))
    step = re.sub("^[a-z]+", lambda found: found[0].upper(), name.split("_")[0])
    return replace(basis, name=name, step=step, title=title, **fields | changes)


# --- report A -----------------------------------------------------------------------------------

DROPOUT = {"conv_dropout": 0.25, "head_dropout": 0.5}  # customary; report A gives no rates
WIDER = {"filters": (32, 64, 128, 256)}
DEEPER = {"head": (512, 256, 128)}
LARGER = {"filters": (64, 128, 256, 512), "head": (1024, 512, 256)}  # report A gives no figure
DEEPEST = {"blocks": (1, 1, 1, 2), "head": (1024, 512, 256, 128)}  # a block is two convolutions
HALF_AGAIN = (1.42, 1.31, 1.5, 1.0, 1.33, 1.03, 1.35)  # from A5's first run by `preprocess.calc_upsampling_factors`
TWICE = (1.84, 1.63, 2.0, 1.0, 1.67, 1.06, 1.71)

A1 = Experiment("a1_baseline", "A", "A1", "Baseline", (0.77, 0.51), "BaselineModel")
A1B = vary(A1, "a1b_baseline_balanced", "Baseline, balanced", reported=(0.67, 0.54), balance=True)
A1C = vary(A1B, "a1c_unscaled", "Balanced, pixels 0–255", scale=False)
A2 = vary(A1B, "a2_batchnorm", "Batch norm", reported=(0.70, 0.58), model="ImprovedModel")
A2B = vary(A2, "a2b_unscaled", "Batch norm, pixels 0–255", scale=False)
A3 = vary(A2, "a3_dropout", "Dropout", reported=(0.62, 0.60), options=DROPOUT)
A4 = vary(A3, "a4_wider", "256 filters", options=WIDER)
A5 = vary(A4, "a5_deeper_head", "Deeper head", reported=(0.64, 0.61), options=DEEPER)
A5B = vary(A3, "a5b_head_alone", "Deeper head alone", options=DEEPER)
A5C = vary(A5, "a5c_larger", "Still larger", options=LARGER)
A6 = vary(A5, "a6_residual", "Residual blocks", model="GigaModel")
A6B = vary(A6, "a6b_no_skip", "The same, no skip", options={"skip": False})
A7 = vary(A6, "a7_deeper_residual", "Deeper residual", options=DEEPEST)
A8 = vary(A5, "a8_targeted_upsampling", "Weak up to ×1.5", reported=(0.61, 0.58), upsampling=HALF_AGAIN)
A8B = vary(A5, "a8b_harder_upsampling", "Weak up to ×2", upsampling=TWICE)

# --- report B: dropout and learning rates are what most of its searches chose, or the search of the family -----------

REPORT_B = Augmentation(flip=0.5, rotation=10, crop_padding=4)  # report B gives neither angle nor padding
TWO, THREE, FIVE = ({"kernels": filters} for filters in ((32, 64), (32, 64, 128), (32, 64, 128, 128, 128)))
NORM, BLOCK = {"batch_norm": True}, {"residual": True}

B1 = Experiment(
    "b1_two_layer", "B", "B1", "Two layers", None, "LayeredCNN",
    tuple((TWO | {"drop_threshold": 0.0}).items()), augmentation=REPORT_B,
)  # fmt: skip
B2 = vary(B1, "b2_three_layer_batchnorm", "Three layers, batch norm", options=THREE | NORM)
B2B = vary(B1, "b2b_no_batchnorm", "Three layers", options=THREE)
B2C = vary(B1, "b2c_two_layer_batchnorm", "Two layers, batch norm", options=NORM)
B3 = vary(B2, "b3_three_layer_resnet", "Residual block", options=BLOCK)
B4 = vary(B3, "b4_cnn_lstm", "Five layers, LSTM", model="LSTMCNN", options=FIVE | {"drop_threshold": 0.0})
B4B = vary(B3, "b4b_no_lstm", "Five layers", options=FIVE, learning_rate=3e-4)
B4C = vary(
    B3, "b4c_lstm_on_three", "Three layers, LSTM", model="LSTMCNN", options=THREE | {"drop_threshold": 0.25}
)  # fmt: skip
B5 = vary(
    B3, "b5_attention", "Five layers, attention", model="AttentionCNN", options=FIVE | {"drop_threshold": 0.5}
)  # fmt: skip

# --- the dispute over flips -----------------------------------------------------------------------

TREATMENTS = {
    "plain": Augmentation(),
    "flip": Augmentation(flip=0.5),
    "rotation": Augmentation(rotation=10),
    "crop": Augmentation(crop_padding=4),
    "shift": Augmentation(shift=10),
    "all": REPORT_B,
}
"""The treatments of the images that the reports disagree on: report B's one by one and together, report A's shift."""

ALL = "flip, rotation, crop"
LONGER = {"epochs": 60, "patience": 10}
PLAIN_A = vary(A5, "da1_plain", "A5, untreated", report="D", balance=False)
ALL_A = vary(PLAIN_A, "da6_all", f"A5, {ALL}", augmentation=REPORT_B)
PLAIN_B = vary(B3, "db1_plain", "B3, untreated", report="D", augmentation=TREATMENTS["plain"])
ALL_B = replace(B3, report="D", title=f"B3, {ALL}")  # what B3 is, under the name that the dispute gives it


def _treat(plain: Experiment) -> list[Experiment]:
    """The untreated network of a report with one treatment each."""
    names = ("flip", "rotation", "crop", "shift")
    title, code = plain.title.split(",")[0], plain.step.lower()[:-1]
    return [
        vary(plain, f"{code}{place}_{name}", f"{title}, {name}", augmentation=TREATMENTS[name])
        for place, name in enumerate(names, start=2)
    ]


DISPUTE = [
    PLAIN_A,
    *_treat(PLAIN_A),
    ALL_A,
    vary(PLAIN_A, "da7_balanced_all", f"A5, balanced, {ALL}", balance=True, augmentation=REPORT_B),
    vary(PLAIN_A, "da8_plain_longer", "A5, untreated, longer", **LONGER),
    vary(ALL_A, "da9_all_longer", f"A5, {ALL}, longer", **LONGER),
    *(
        vary(basis, name, f"{basis.title}, no dropout", options=dict.fromkeys(DROPOUT, 0.0))
        for basis, name in ((PLAIN_A, "da10_plain_no_dropout"), (ALL_A, "da11_all_no_dropout"))
    ),
    PLAIN_B,
    *_treat(PLAIN_B),
    vary(PLAIN_B, "db6_balanced_plain", "B3, balanced, untreated", balance=True),
    vary(PLAIN_B, "db7_balanced_all", f"B3, balanced, {ALL}", balance=True, augmentation=REPORT_B),
    *(
        vary(basis, name, f"{basis.title}, dropout", options={"drop_threshold": 0.5})
        for basis, name in ((PLAIN_B, "db8_plain_dropout"), (ALL_B, "db9_all_dropout"))
    ),
]

# --- the way to the strong model --------------------------------------------------------------------

NARROW = {"widths": (32, 64, 128), "blocks": (1, 1, 1)}  # a core climbs with it in hours, not days
WIDE = {"widths": (64, 128, 256), "blocks": (2, 2, 2)}

S1 = vary(
    B3, "s1_deeper", "Deeper residual network", report="S", model="StrongCNN", options=NARROW, batch_size=128,
    learning_rate=2e-3,
)  # fmt: skip
S2 = vary(S1, "s2_one_cycle", "One cycle of 40 epochs", recipe=dict(schedule="one_cycle"), epochs=40, patience=40)
S3 = vary(S2, "s3_weight_decay", "Weight decay", recipe=dict(weight_decay=0.05))
S4 = vary(S3, "s4_label_smoothing", "Label smoothing", recipe=dict(label_smoothing=0.1))
S5 = vary(S4, "s5_averaging", "Moving average", recipe=dict(averaging=0.999), views=("flip", "ten_crops"))

S14 = vary(S5, "s14_wider", "Six times the work", options=WIDE)
S15 = vary(
    S14,
    "s15_more_varied",
    "Longer, more varied",
    augmentation=dict(zoom=0.2, light=0.3, erasing=0.5),
    recipe=dict(small_share=0.5),
    epochs=60,
    patience=60,
)
"""The large network learns most of its images by heart: it is given more kinds of images, and small ones first, which
pay for the epochs that this asks for. The other additions cost time or, as mixup, soften the labels, which label
smoothing does already."""
S18 = replace(  # its options are S15's no more, to which `vary` would add
    vary(
        S15,
        "s18_full_size",
        "Every pixel, longer",
        augmentation=dict(window=40, crop_padding=0),
        recipe=dict(optimizer="sgd", weight_decay=5e-4, small_share=0.0),
        batch_size=512,
        learning_rate=0.2,
        epochs=120,
        patience=120,
    ),
    options=(("widths", (32, 64, 128, 256)), ("blocks", (2, 2, 2, 2)), ("full_size", True)),
)
"""Several changes at once: on a GPU each epoch takes seconds, and the way there was tried on validation."""
S19 = vary(S18, "s19_plain", "Eight plain convolutions", model="PlainCNN")
S20 = vary(
    S18, "s20_taught", "Taught by S18 and S19", teachers=("s18_full_size", "s19_plain"),
    recipe=dict(teaching=0.8, draws=20), epochs=100, patience=100,
)  # fmt: skip
S21 = vary(S20, "s21_taught_alone", "Taught, labels unseen", recipe=dict(teaching=1.0))

ADDITIONS = [
    *(
        vary(S5, name, title, views=(), **changes)
        for name, title, changes in (
            ("s6_zoom", "Zoom", dict(augmentation=dict(zoom=0.2))),
            ("s7_light", "Light", dict(augmentation=dict(light=0.3))),
            ("s8_erasing", "Random erasing", dict(augmentation=dict(erasing=0.5))),
            ("s9_mixup", "Mixup", dict(recipe=dict(mixup=0.2))),
            ("s10_squeeze_excitation", "Squeeze and excitation", dict(options=dict(squeeze_excitation=True))),
            ("s11_stochastic_depth", "Stochastic depth", dict(options=dict(skip_rate=0.1))),
            ("s12_small_first", "Small images first", dict(recipe=dict(small_share=0.5))),
        )
    ),
    vary(S5, "s13_longer", "Twice as long", epochs=80, patience=80),
    vary(S5, "s16_distilled", "Taught by S14", teachers=("s14_wider",)),
    vary(S5, "s17_momentum", "Momentum", learning_rate=0.1, recipe=dict(optimizer="sgd", weight_decay=5e-4)),
    vary(S5, "s22_sharpness", "Sharpness-aware", recipe=dict(sharpness=0.05)),
]
"""What a small network may gain by, or be too small for: each is tried alone on top of S5."""
S23 = vary(
    S5, "s23_tiny_taught", "S5 taught by S18 and S20", teachers=("s18_full_size", "s20_taught"),
    augmentation=S20.augmentation, recipe=dict(teaching=0.8, draws=20),
)  # fmt: skip

STRONG = [
    *sorted((S1, S2, S3, S4, S5, *ADDITIONS, S14, S15, S18, S19, S20, S21, S23), key=lambda step: int(step.step[1:])),
    vary(S5, "v1_votes", "S5 on FER+'s votes", report="V", votes=True),
]

# --- the reports' steps once more ---------------------------------------------------------------------

REPORTS = [A1, A1B, A1C, A2, A2B, A3, A4, A5, A5B, A5C, A6, A6B, A7, A8, A8B, B1, B2, B2B, B2C, B3, B4, B4B, B4C, B5]
MORE = {"conv_dropout": 0.4, "head_dropout": 0.6}
REGIME = [
    vary(A3, "r1_a3_more_dropout", "A3, more dropout", report="R", options=MORE),
    vary(A3, "r2_a3_slower", "A3, learning rate 0.0002", report="R", learning_rate=2e-4),
    vary(A5, "r3_a5_more_dropout", "A5, more dropout", report="R", options=MORE),
    vary(A5, "r4_a5_slower", "A5, learning rate 0.0002", report="R", learning_rate=2e-4),
]
"""Tries to meet report A's accuracy in training."""


def _converge(step: Experiment) -> Experiment:
    """A step of the reports in a training that ends by itself: one cycle of all its epochs, never stopped early."""
    cycle = dict(recipe=dict(schedule="one_cycle"), patience=step.epochs)
    return vary(step, f"c{step.name}", f"{step.title}, one cycle", report="C", **cycle)


def _name_all(*experiments: Experiment) -> dict[str, Experiment]:
    """Each by its name. Raises ValueError for one that two have, of which the one would take the other's place."""
    named: dict[str, Experiment] = {}
    for experiment in experiments:
        if experiment.name in named:
            raise ValueError(f"two experiments are called {experiment.name}")
        named[experiment.name] = experiment
    return named


EXPERIMENTS = _name_all(*REPORTS, *DISPUTE, *STRONG, *REGIME, *map(_converge, REPORTS))
"""Every experiment by name: the reports' in their order, the dispute's, the way to the strong model, FER+'s votes,
and the reports' again: what may explain report A's regime, and every step in a training that converges."""


def find_experiment(name: str, **changes) -> Experiment:
    """The experiment of that name, with some of its fields changed.

    Raises ValueError for an unknown name, listing the names there are, and for senseless values."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return replace(EXPERIMENTS[name], **changes)


def list_ladder() -> list[str]:
    """The way to the strong model, each step compared with the one before: five with a small network, two with a larger
    one, then one that sees every pixel, and the same, taught."""
    steps = [S20]
    while steps[0].against in EXPERIMENTS and (before := EXPERIMENTS[steps[0].against]).report == "S":
        steps.insert(0, before)
    return [step.name for step in steps]


def list_additions() -> list[str]:
    """What is tried on top of the ladder's fifth step, one thing each: additions to the images, the recipe or the
    network, then more epochs, a teacher, another optimizer, and sharpness-aware minimisation."""
    return [step.name for step in ADDITIONS]


def list_treatments(name: str) -> list[str]:
    """An experiment and those that differ from it in balance and augmentation alone: untreated first, then one
    treatment each, then all together, then balanced.

    Raises ValueError for a network that not all of these were made of."""

    def strip(experiment: Experiment) -> dict:
        return experiment.config | {"balance": None, "augmentation": None}

    order = list(TREATMENTS.values())
    kin = [e for e in EXPERIMENTS.values() if strip(e) == strip(find_experiment(name)) and e.augmentation in order]
    if len(kin) < len(order) + 2:
        raise ValueError(
            f"{name}: not every treatment was set for its network, as for those of {A5.name} and {B3.name}"
        )
    return [e.name for e in sorted(kin, key=lambda e: (e.balance, order.index(e.augmentation)))]
