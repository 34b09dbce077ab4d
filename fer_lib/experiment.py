"""What a run is made of, save for its seed and its data."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache

from torch import nn

from fer_lib.augment import Augmentation
from fer_lib.dataset import EMOTIONS, SIDE
from fer_lib.models import MODELS
from fer_lib.preprocess import EVEN
from fer_lib.recipe import VIEWS, Recipe


@dataclass(frozen=True)
class Experiment:
    """What a run is made of, save for its seed and its data.

    Raises ValueError, naming the field, for a value that cannot be trained with."""

    name: str  # its step first
    report: str  # A, B; D the dispute, S the strong model, C converging, R report A's regime, V FER+'s votes
    step: str  # as in the report
    title: str  # a few words, for tables and figures
    reported: (
        tuple[float, float] | None
    )  # the report's accuracy in training and on validation, 0-1, where it gives them
    model: str  # a name in `models.MODELS`
    options: tuple[tuple[str, object], ...] = ()  # what the model is built with: names and values
    scale: bool = True  # divide the pixels by 255
    balance: bool = False  # bring every class of the training split up to the largest one's size,
    upsampling: tuple[float, ...] = EVEN  # or to so many times that size
    augmentation: Augmentation = Augmentation()  # of the training images, drawn anew whenever one is seen
    epochs: int = 30  # at most
    patience: int = 5  # epochs without a better validation accuracy, after which training stops
    batch_size: int = 64  # images
    learning_rate: float = 1e-3  # of the optimizer, at its highest
    recipe: Recipe = Recipe()  # how the weights are found with it
    views: tuple[str, ...] = ()  # further views of each image that the trained network is judged by: `recipe.VIEWS`
    teachers: tuple[str, ...] = ()  # experiments whose networks, on record with weights, are learnt from beside labels
    votes: bool = False  # learn FER+'s votes in place of the labels; compared with, and joined to, none that did not
    against: str | None = None  # the experiment that it is compared with, from which it differs in what it is about

    def __post_init__(self):
        options = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in self.options)
        object.__setattr__(self, "options", options)  # a list would be no key of a cache
        if self.model not in MODELS:
            raise ValueError(f"model: no {self.model!r}; there are {', '.join(MODELS)}")
        for field, least in (("epochs", 1), ("patience", 1), ("batch_size", 2)):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{field}: {value!r}, expected a whole number of at least {least}")
        rate = self.learning_rate
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 < rate < float("inf"):
            raise ValueError(f"learning_rate: {rate!r}, expected a number above 0")
        if not all(0 <= factor < float("inf") for factor in self.upsampling):
            raise ValueError(f"upsampling: {self.upsampling}, expected finite factors of at least 0")
        if self.augmentation.changes_light and not self.scale:
            raise ValueError("scale: shift, light and erasing are of pixels scaled to 0-1")
        if isinstance(self.teachers, str):
            raise ValueError(f"teachers: {self.teachers!r}, expected names in parentheses, a comma after each")
        if unknown := set(self.views) - set(VIEWS):
            raise ValueError(f"views: no {', '.join(sorted(unknown))}; there are {', '.join(VIEWS)}")

    def build_model(self, classes: int = len(EMOTIONS)) -> nn.Module:
        """The network for so many classes, with fresh weights from the default generator."""
        try:
            return MODELS[self.model](**dict(self.options), classes=classes)
        except TypeError as error:  # of an option that it does not have
            raise ValueError(f"options: {self.model} cannot be built of {dict(self.options)}: {error}") from error

    @property
    def label(self) -> str:
        """Its step; of one of the dispute, whose steps no report has, its title, which names the step it varies."""
        return self.title if self.report == "D" else self.step

    @property
    def family(self) -> str:
        """Experiments of one family can be taken to scatter about alike over seeds: a report's steps with the
        dispute's runs of its network, and the tries at report A's regime; the way to the strong model with what
        learnt other labels there; and so on."""
        if self.report == "D":
            return self.name[1].upper()
        return self.step[:2] if self.report == "C" else {"V": "S", "R": "A"}.get(self.report, self.report)

    @property
    def side(self) -> int:
        """Side in pixels of what of each image its network is shown."""
        return self.augmentation.window or SIDE

    @property
    def config(self) -> dict:
        """All that can change a result, as plain values of JSON; the words that only describe are left out."""
        described = ("name", "report", "step", "title", "reported", "against")
        config = {key: value for key, value in asdict(self).items() if key not in described}
        return json.loads(json.dumps(config | {"options": dict(self.options)}))

    @property
    def digest(self) -> str:
        """Eight hex digits that differ where `config` differs; a new field at its default leaves them as they were."""
        chosen = _list_changes(self.config, _find_defaults())
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]

    def matches(self, config: dict) -> bool:
        """Whether a recorded config is this one. A field that did not exist when the record was
        written counts as its default, which must therefore mean "as before"."""
        return _fill(config, _find_defaults()) == self.config

    def has_network(self, config: dict) -> bool:
        """Whether a recorded config, however it was trained, is of this very network."""
        return all(config[key] == self.config[key] for key in ("model", "options"))


@cache
def _find_defaults() -> dict:
    """The config of an experiment of which nothing is said; no model is the usual one."""
    return Experiment("", "", "", "", None, next(iter(MODELS))).config | {"model": ""}


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
