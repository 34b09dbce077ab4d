"""One frozen entry for every row of the two reports, of the test of their dispute and of the way to the strong
model: a model, a treatment of the data, hyperparameters."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from torch import nn

from fer_lib.augment import Augmentation
from fer_lib.dataset import EMOTIONS, SIDE
from fer_lib.models import MODELS
from fer_lib.preprocess import EVEN
from fer_lib.recipe import VIEWS, Recipe


@dataclass(frozen=True)
class Experiment:
    """What a run is made of, save for its seed and its data.

    name: the step first; report: "A", "B", "D" for the dispute over flips, "S" for the strong model, "C" for the
    reports' steps in a training that converges, "R" for what may explain report A's regime, "V" for FER+'s votes;
    step: as in the report;
    title: a few words for tables and figures; reported: the report's accuracy in training and
    on validation, 0-1, where it gives them; model: a name in `MODELS`;
    options: what the model is built with, as pairs of name and value;
    scale: divide the pixels by 255; balance: bring every class of the training split up to the largest one's size,
    or, with upsampling, to so many times that size;
    augmentation: of the training images, drawn anew whenever one is seen;
    epochs: at most; patience: stop after so many epochs without a better validation
    accuracy; batch_size: images; learning_rate: of the optimizer, at its highest; recipe: how the weights are
    found with it; views: further views of each image, in `recipe.VIEWS`, under which the trained network is judged too;
    teachers: experiments whose trained networks, those on record with their weights, are learnt from beside the labels;
    votes: learn the shares of FER+'s votes in place of FER2013's labels. It is other annotation: such a network is
    compared with none that never saw it, nor joined with any.

    Raises ValueError, naming the field, for a value that cannot be trained with.
    """

    name: str
    report: str
    step: str
    title: str
    reported: tuple[float, float] | None
    model: str
    options: tuple[tuple[str, object], ...] = ()
    scale: bool = True
    balance: bool = False
    upsampling: tuple[float, ...] = EVEN
    augmentation: Augmentation = Augmentation()
    epochs: int = 30
    patience: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    recipe: Recipe = Recipe()
    views: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    votes: bool = False

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"model: no {self.model!r}; there are {', '.join(MODELS)}")
        for field, least in (("epochs", 1), ("patience", 1), ("batch_size", 2)):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{field}: {value!r}, expected a whole number of at least {least}")
        rate = self.learning_rate
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 < rate < float("inf"):
            raise ValueError(f"learning_rate: {rate!r}, expected a number above 0")
        if self.augmentation.changes_light and not self.scale:
            raise ValueError("scale: shift, light and erasing are of pixels scaled to 0-1")
        if unknown := set(self.views) - set(VIEWS):
            raise ValueError(f"views: no {', '.join(sorted(unknown))}; there are {', '.join(VIEWS)}")

    def build_model(self, classes: int = len(EMOTIONS)) -> nn.Module:
        """The network for so many classes, with fresh weights from the default generator."""
        return MODELS[self.model](**dict(self.options), classes=classes)

    @property
    def label(self) -> str:
        """Its step; of one of the dispute, whose steps no report has, its title, which names the step it varies."""
        return self.title if self.report == "D" else self.step

    @property
    def family(self) -> str:
        """Experiments of one family can be taken to scatter about alike over seeds: a report's steps and the dispute's
        runs of its network, the way to the strong model, and so on."""
        if self.report == "D":
            return self.name[1].upper()
        return self.step[:2] if self.report == "C" else self.report

    @property
    def side(self) -> int:
        """Side in pixels of what of each image its network is shown."""
        return self.augmentation.window or SIDE

    @property
    def config(self) -> dict:
        """All that can change a result, as plain values of JSON; the words that only describe are left out."""
        described = ("name", "report", "step", "title", "reported")
        config = {key: value for key, value in asdict(self).items() if key not in described}
        return json.loads(json.dumps(config | {"options": dict(self.options)}))

    @property
    def digest(self) -> str:
        """Eight hex digits that differ where `config` differs; a new field at its default leaves them as they were."""
        chosen = _list_changes(self.config, self._defaults())
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]

    def matches(self, config: dict) -> bool:
        """Whether a recorded config is this one. A field that did not exist when the record was
        written counts as its default, which must therefore mean "as before"."""
        return _fill(config, self._defaults()) == self.config

    def has_network(self, config: dict) -> bool:
        """Whether a recorded config, however it was trained, is of this very network."""
        return all(config[key] == self.config[key] for key in ("model", "options"))

    def _defaults(self) -> dict:
        return Experiment(self.name, self.report, self.step, self.title, self.reported, self.model).config | {
            "model": ""
        }


def _list_changes(config: dict, defaults: dict) -> dict:
    """What of a config is not at its default, in the groups too."""
    changes = {key: value for key, value in config.items() if value != defaults.get(key)}
    return {
        key: _list_changes(value, defaults[key]) if isinstance(value, dict) else value for key, value in changes.items()
    }


def _fill(config: dict, defaults: dict) -> dict:
    """A config with the defaults for what it lacks, in the groups too."""
    groups = {key: _fill(config.get(key, {}), value) for key, value in defaults.items() if isinstance(value, dict)}
    return defaults | config | groups


DROPOUT = (("conv_dropout", 0.25), ("head_dropout", 0.5))  # customary; report A gives no rates
WIDER = ("filters", (32, 64, 128, 256))
DEEPER = ("head", (512, 256, 128))
LARGER = (("filters", (64, 128, 256, 512)), ("head", (1024, 512, 256)))  # report A gives no figure
DEEPEST = (("blocks", (1, 1, 1, 2)), ("head", (1024, 512, 256, 128)))  # a block is two convolutions
BEST = ("ImprovedModel", WIDER, DEEPER, *DROPOUT)  # the report's
HALF_AGAIN = (1.42, 1.31, 1.5, 1.0, 1.33, 1.03, 1.35)  # from A5's first run by `preprocess.calc_upsampling_factors`
TWICE = (1.84, 1.63, 2.0, 1.0, 1.67, 1.06, 1.71)


def _report_a(name, step, title, reported, model, *options, balance=True, scale=True, upsampling=EVEN) -> Experiment:
    return Experiment(name, "A", step, title, reported, model, options, scale, balance, upsampling)


REPORT_B = Augmentation(flip=0.5, rotation=10, crop_padding=4)  # report B gives neither angle nor padding
TWO, THREE, FIVE = ((("kernels", filters),) for filters in ((32, 64), (32, 64, 128), (32, 64, 128, 128, 128)))
NORM, BLOCK = ("batch_norm", True), ("residual", True)


def _report_b(name, step, title, model, *options, learning_rate=1e-3, drop_threshold=0.0) -> Experiment:
    # the defaults are what most of the searches chose
    options = (*options, ("drop_threshold", drop_threshold))
    return Experiment(name, "B", step, title, None, model, options, augmentation=REPORT_B, learning_rate=learning_rate)


TREATMENTS = {
    "plain": Augmentation(),
    "flip": Augmentation(flip=0.5),
    "rotation": Augmentation(rotation=10),
    "crop": Augmentation(crop_padding=4),
    "shift": Augmentation(shift=10),
    "all": REPORT_B,
}
"""The treatments of the images that the reports disagree on: report B's one by one and together, report A's shift."""


def _dispute(step: str, basis: Experiment, *longer: str) -> list[Experiment]:
    """One architecture with every treatment, and balanced, alone and with all of report B's, what is the basis
    itself left out; then some treatments with twice the epochs and the patience."""
    variants = []
    for balance, treatment in [(False, name) for name in TREATMENTS] + [(True, "plain"), (True, "all")]:
        words = {"plain": "untreated", "all": "flip, rotation, crop"}.get(treatment, treatment)
        variant = replace(
            basis,
            name=f"{step}{len(variants) + 1}_{'balanced_' * balance}{treatment}",
            report="D",
            step=f"{step.upper()}{len(variants) + 1}",
            title=f"{basis.step}, {'balanced, ' * balance}{words}",
            reported=None,
            balance=balance,
            augmentation=TREATMENTS[treatment],
        )
        if variant.config != basis.config:
            variants.append(variant)
    for treatment in longer:
        (short,) = (v for v in variants if v.augmentation == TREATMENTS[treatment] and not v.balance)
        name, code = f"{step}{len(variants) + 1}_{treatment}_longer", f"{step.upper()}{len(variants) + 1}"
        title, doubled = f"{short.title}, longer", {"epochs": 2 * short.epochs, "patience": 2 * short.patience}
        variants.append(replace(short, name=name, step=code, title=title, **doubled))
    return variants


def _vary_dropout(family: list[Experiment], basis: Experiment, words: str, **options) -> list[Experiment]:
    """The untreated one of a family of the dispute and the one with all treatments, with other dropout."""
    step, count = family[0].step[:-1], len(family)
    variants = [e for e in (basis, *family) if not e.balance and e.epochs == basis.epochs]
    chosen = [next(e for e in variants if e.augmentation == TREATMENTS[name]) for name in ("plain", "all")]
    return [
        replace(
            experiment,
            name=f"{step.lower()}{count + place}_{treatment}_{words.replace(' ', '_')}",
            report="D",
            step=f"{step}{count + place}",
            title=f"{basis.step}, {described}, {words}",
            options=tuple((dict(experiment.options) | options).items()),
        )
        for place, (experiment, treatment, described) in enumerate(
            zip(chosen, ("plain", "all"), ("untreated", "flip, rotation, crop")), start=1
        )
    ]


def _alter(basis: Experiment, name: str, title: str, changes: dict) -> Experiment:
    """A step of the way to the strong model: its basis with changed fields, in the groups too."""
    changes = dict(changes)
    options = tuple((dict(basis.options) | changes.pop("options", {})).items())
    groups = {key: replace(getattr(basis, key), **changes.pop(key, {})) for key in ("augmentation", "recipe")}
    return replace(basis, name=name, step=name.split("_")[0].upper(), title=title, options=options, **groups, **changes)


def _climb(basis: Experiment, *steps: tuple[str, str, dict]) -> list[Experiment]:
    """Steps that each have all the changes before them, and their own."""
    climbed = [basis]
    for name, title, changes in steps:
        climbed.append(_alter(climbed[-1], name, title, changes))
    return climbed[1:]


def _by_name(experiments: Iterable[Experiment]) -> dict[str, Experiment]:
    return {experiment.name: experiment for experiment in experiments}


_REPORTS = _by_name(
    (
        _report_a("a1_baseline", "A1", "Baseline", (0.77, 0.51), "BaselineModel", balance=False),
        _report_a("a1b_baseline_balanced", "A1b", "Baseline, balanced", (0.67, 0.54), "BaselineModel"),
        _report_a("a1c_unscaled", "A1c", "Balanced, pixels 0–255", None, "BaselineModel", scale=False),
        _report_a("a2_batchnorm", "A2", "Batch norm", (0.70, 0.58), "ImprovedModel"),
        _report_a("a2b_unscaled", "A2b", "Batch norm, pixels 0–255", None, "ImprovedModel", scale=False),
        _report_a("a3_dropout", "A3", "Dropout", (0.62, 0.60), "ImprovedModel", *DROPOUT),
        _report_a("a4_wider", "A4", "256 filters", None, "ImprovedModel", WIDER, *DROPOUT),
        _report_a("a5_deeper_head", "A5", "Deeper head", (0.64, 0.61), *BEST),
        _report_a("a5b_head_alone", "A5b", "Deeper head alone", None, "ImprovedModel", DEEPER, *DROPOUT),
        _report_a("a5c_larger", "A5c", "Still larger", None, "ImprovedModel", *LARGER, *DROPOUT),
        _report_a("a6_residual", "A6", "Residual blocks", None, "GigaModel"),
        _report_a("a6b_no_skip", "A6b", "The same, no skip", None, "GigaModel", ("skip", False)),
        _report_a("a7_deeper_residual", "A7", "Deeper residual", None, "GigaModel", *DEEPEST),
        _report_a("a8_targeted_upsampling", "A8", "Weak up to ×1.5", (0.61, 0.58), *BEST, upsampling=HALF_AGAIN),
        _report_a("a8b_harder_upsampling", "A8b", "Weak up to ×2", None, *BEST, upsampling=TWICE),
        _report_b("b1_two_layer", "B1", "Two layers", "LayeredCNN", *TWO),
        _report_b("b2_three_layer_batchnorm", "B2", "Three layers, batch norm", "LayeredCNN", *THREE, NORM),
        _report_b("b2b_no_batchnorm", "B2b", "Three layers", "LayeredCNN", *THREE),
        _report_b("b2c_two_layer_batchnorm", "B2c", "Two layers, batch norm", "LayeredCNN", *TWO, NORM),
        _report_b("b3_three_layer_resnet", "B3", "Residual block", "LayeredCNN", *THREE, NORM, BLOCK),
        _report_b("b4_cnn_lstm", "B4", "Five layers, LSTM", "LSTMCNN", *FIVE),
        _report_b("b4b_no_lstm", "B4b", "Five layers", "LayeredCNN", *FIVE, NORM, BLOCK, learning_rate=3e-4),
        _report_b("b4c_lstm_on_three", "B4c", "Three layers, LSTM", "LSTMCNN", *THREE, drop_threshold=0.25),
        _report_b("b5_attention", "B5", "Five layers, attention", "AttentionCNN", *FIVE, drop_threshold=0.5),
    )
)

NARROW = {"widths": (32, 64, 128), "blocks": (1, 1, 1)}  # a core climbs with it in hours, not days
WIDE = {"widths": (64, 128, 256), "blocks": (2, 2, 2)}
VIEWED = ("flip", "ten_crops")

_LADDER = _climb(
    Experiment("s0", "S", "S0", "", None, "StrongCNN", augmentation=REPORT_B),
    ("s1_deeper", "Deeper residual network", dict(batch_size=128, learning_rate=2e-3, options=NARROW)),
    ("s2_one_cycle", "One cycle of 40 epochs", dict(recipe=dict(schedule="one_cycle"), epochs=40, patience=40)),
    ("s3_weight_decay", "Weight decay", dict(recipe=dict(weight_decay=0.05))),
    ("s4_label_smoothing", "Label smoothing", dict(recipe=dict(label_smoothing=0.1))),
    ("s5_averaging", "Moving average", dict(recipe=dict(averaging=0.999), views=VIEWED)),
)
_TOP = _LADDER[-1]
_ADDITIONS = (
    ("s6_zoom", "Zoom", dict(augmentation=dict(zoom=0.2))),
    ("s7_light", "Light", dict(augmentation=dict(light=0.3))),
    ("s8_erasing", "Random erasing", dict(augmentation=dict(erasing=0.5))),
    ("s9_mixup", "Mixup", dict(recipe=dict(mixup=0.2))),
    ("s10_squeeze_excitation", "Squeeze and excitation", dict(options=dict(squeeze_excitation=True))),
    ("s11_stochastic_depth", "Stochastic depth", dict(options=dict(skip_rate=0.1))),
    ("s12_small_first", "Small images first", dict(recipe=dict(small_share=0.5))),
)
"""What a network may be too small, or its training too short, to gain by: each is tried alone on top of S5."""

_LONGER = _alter(_TOP, "s13_longer", "Twice as long", dict(epochs=80, patience=80))
_TAUGHT = _alter(_TOP, "s16_distilled", "Taught by S14", dict(teachers=("s14_wider",)))
_MOMENTUM = _alter(
    _TOP, "s17_momentum", "Momentum", dict(learning_rate=0.1, recipe=dict(optimizer="sgd", weight_decay=5e-4))
)
_WIDER = _alter(_TOP, "s14_wider", "Six times the work", dict(options=WIDE))
_KINDS = ("s6_zoom", "s7_light", "s8_erasing", "s12_small_first")
"""What the large network, which learns most of its images by heart, is given besides: more kinds of images, and small
ones first, which pay for the epochs that this asks for. The other additions cost time or, as mixup, soften the labels,
which label smoothing does already."""
_VARIED = _alter(
    _climb(_WIDER, *(addition for addition in _ADDITIONS if addition[0] in _KINDS))[-1],
    "s15_more_varied",
    "Longer, more varied",
    dict(epochs=60, patience=60),
)


_FULL_SIZE = _alter(
    replace(_VARIED, options=()),
    "s18_full_size",
    "Every pixel, longer",
    dict(
        options=dict(widths=(32, 64, 128, 256), blocks=(2, 2, 2, 2), full_size=True),
        augmentation=dict(window=40, crop_padding=0),
        recipe=dict(optimizer="sgd", weight_decay=5e-4, small_share=0.0),
        batch_size=512,
        learning_rate=0.2,
        epochs=120,
        patience=120,
    ),
)
"""Several changes at once: on a GPU each epoch takes seconds, and the way there was tried on validation."""
_PLAIN = replace(_FULL_SIZE, name="s19_plain", step="S19", title="No shortcuts", model="PlainCNN", options=())
_LEARNT = _alter(
    replace(_FULL_SIZE, teachers=("s18_full_size", "s19_plain")),
    "s20_taught",
    "Taught by S18 and S19",
    dict(recipe=dict(teaching=0.8, draws=20), epochs=100, patience=100),
)
_UNLABELLED = _alter(_LEARNT, "s21_taught_alone", "Taught, labels unseen", dict(recipe=dict(teaching=1.0)))
_SHARPNESS = _alter(_TOP, "s22_sharpness", "Sharpness-aware", dict(recipe=dict(sharpness=0.05)))
_TINY = _alter(
    replace(_TOP, teachers=("s18_full_size", "s20_taught"), augmentation=_LEARNT.augmentation),
    "s23_tiny_taught",
    "S5 taught by S18 and S20",
    dict(recipe=dict(teaching=0.8, draws=20)),
)
_VOTED = replace(_TOP, name="v1_votes", report="V", step="V1", title="S5 on FER+'s votes", votes=True)


def _converge(experiment: Experiment) -> Experiment:
    """A step of the reports in a training that ends by itself: one cycle of all its epochs, never stopped early."""
    name, step = f"c{experiment.name}", f"C{experiment.step}"
    words = {"report": "C", "title": f"{experiment.title}, one cycle", "reported": None}
    recipe = replace(experiment.recipe, schedule="one_cycle")
    return replace(experiment, name=name, step=step, **words, recipe=recipe, patience=experiment.epochs)


def _regime(name: str, basis: str, words: str, **changes) -> Experiment:
    """A try to meet report A's accuracy in training: a step of it with dropout or learning rate changed."""
    basis = _REPORTS[basis]
    options = tuple((dict(basis.options) | changes.pop("options", {})).items())
    step = name.split("_")[0].upper()
    return replace(
        basis,
        name=name,
        report="R",
        step=step,
        title=f"{basis.step}, {words}",
        options=options,
        reported=None,
        **changes,
    )


_MORE = dict(options=dict(conv_dropout=0.4, head_dropout=0.6))
_REGIME = (
    _regime("r1_a3_more_dropout", "a3_dropout", "more dropout", **_MORE),
    _regime("r2_a3_slower", "a3_dropout", "learning rate 0.0002", learning_rate=2e-4),
    _regime("r3_a5_more_dropout", "a5_deeper_head", "more dropout", **_MORE),
    _regime("r4_a5_slower", "a5_deeper_head", "learning rate 0.0002", learning_rate=2e-4),
)
_DISPUTE_A = _dispute("da", _REPORTS["a5_deeper_head"], "plain", "all")
_DISPUTE_B = _dispute("db", _REPORTS["b3_three_layer_resnet"])


EXPERIMENTS = _by_name(
    (
        *_REPORTS.values(),
        *_DISPUTE_A,
        *_vary_dropout(_DISPUTE_A, _REPORTS["a5_deeper_head"], "no dropout", conv_dropout=0.0, head_dropout=0.0),
        *_DISPUTE_B,
        *_vary_dropout(_DISPUTE_B, _REPORTS["b3_three_layer_resnet"], "dropout", drop_threshold=0.5),
        *_LADDER,
        *(_alter(replace(_TOP, views=()), *addition) for addition in _ADDITIONS),
        _LONGER,
        _WIDER,
        _VARIED,
        _TAUGHT,
        _MOMENTUM,
        _FULL_SIZE,
        _PLAIN,
        _LEARNT,
        _UNLABELLED,
        _SHARPNESS,
        _TINY,
        _VOTED,
        *_REGIME,
        *map(_converge, _REPORTS.values()),
    )
)
"""Every experiment by name: the reports' in their order, the dispute's, the way to the strong model, FER+'s votes,
and the reports' again: what may explain report A's regime, and every step in a training that converges."""


def list_ladder() -> list[str]:
    """The way to the strong model, each step on top of the one before: five with a small network, two with a large
    one, and with one that sees every pixel, and is then taught."""
    return [experiment.name for experiment in (*_LADDER, _WIDER, _VARIED, _FULL_SIZE, _LEARNT)]


def list_additions() -> list[str]:
    """What is tried on top of the ladder's fifth step, one thing each: additions to the images, the recipe or the
    network, then more epochs, a teacher, and another optimizer."""
    return [*(name for name, _, _ in _ADDITIONS), *(e.name for e in (_LONGER, _TAUGHT, _MOMENTUM))]


def list_treatments(name: str) -> list[str]:
    """An experiment and its variants in the dispute, as many epochs each: untreated first, then one treatment each,
    then all together, then balanced."""
    basis = find_experiment(name)
    kin = [e for e in EXPERIMENTS.values() if e.report == "D" and e.title.startswith(f"{basis.step}, ")]
    kin = [basis, *(e for e in kin if (e.epochs, e.options) == (basis.epochs, basis.options))]
    order = list(TREATMENTS.values())
    return [e.name for e in sorted(kin, key=lambda e: (e.balance, order.index(e.augmentation)))]


def find_experiment(name: str, **changes) -> Experiment:
    """The experiment of that name, with some of its fields changed.

    Raises ValueError for an unknown name, listing the names there are, and for senseless values."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return replace(EXPERIMENTS[name], **changes)
