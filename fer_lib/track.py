"""The Weights & Biases mirror of a run: a second view of it, which nothing in the report reads.

A failure of W&B, its absence included, is told once and never ends a training.
"""

import contextlib
import netrc
import os
import secrets
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from fer_lib.dataset import PROJECT, Dataset
from fer_lib.experiment import Experiment

PROJECT_NAME = "fer2013"
MODES = ("auto", "online", "offline", "disabled")
PATIENCE = 15  # seconds for W&B's server to answer when a run begins
_unreachable: list[Exception] = []  # why it did not, once that has happened: this process does not wait for it again
REPORT_B_NAMES = {"train_accuracy": "train_accuracy", "validation_accuracy": "Test_accuracy"}
"""What report B's own charts are called, so that these can be laid beside them; its "test" split is PublicTest."""


class Mirror:
    """Sends a run's numbers to W&B for as long as that works.

    names: further names for columns of the history, under which they are logged too; classes: of the data."""

    def __init__(self, run=None, names: dict[str, str] | None = None, classes: tuple[str, ...] = ()):
        self.run, self.classes = run, classes
        self.names = names or {}

    def log_epoch(self, row: dict) -> None:
        """Log one row of the history, under the field's names."""
        names = {"validation_loss": "val/loss", "validation_accuracy": "val/accuracy"}
        values = {names.get(key, key.replace("train_", "train/")): value for key, value in row.items()}
        values |= {self.names[key]: value for key, value in row.items() if key in self.names}
        self._try(lambda run: run.log(values, step=row["epoch"]))

    def log_results(self, results: dict, test_labels: np.ndarray, test_logits: np.ndarray) -> None:
        """Log the test accuracy, all other results, and the confusion matrix on the test split."""

        def log(run):
            import wandb

            run.summary.update({"test/accuracy": results["test_accuracy"], **results})
            table = wandb.plot.confusion_matrix(
                y_true=test_labels.tolist(), preds=test_logits.argmax(1).tolist(), class_names=list(self.classes)
            )
            run.log({"test/confusion_matrix": table})

        self._try(log)

    def finish(self) -> None:
        self._try(lambda run: run.finish())

    def _try(self, action) -> None:
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:  # whatever W&B does, the training goes on
            warnings.warn(f"W&B failed ({error}); the run goes on without it", stacklevel=3)
            self.run = None


@contextlib.contextmanager
def mirror_run(experiment: Experiment, dataset: Dataset, seed: int, work: Path, mode: str = "auto"):
    """Yield a Mirror of this run.

    work: the run's work folder, where W&B's id of it is kept, so that one that was interrupted goes on there too;
    mode: "online", "offline", "disabled", or "auto": what $WANDB_MODE says, else online if the
    user is logged in, else offline. Offline runs lie in reports/wandb/; `wandb sync` uploads them.
    """
    names = REPORT_B_NAMES if experiment.report == "B" else {}
    with _own_folders():
        mirror = Mirror(_start(experiment, dataset, seed, work, mode), names, dataset.classes)
        try:
            yield mirror
        finally:
            mirror.finish()


@contextlib.contextmanager
def _own_folders():
    """W&B's files beside the records, for as long as the context lasts, unless the user has named other places."""
    folder = PROJECT / "reports"
    own = {
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb"),
    }  # else tables go to a folder of the user's
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _start(experiment: Experiment, dataset: Dataset, seed: int, work: Path, mode: str):
    mode = _choose_mode() if mode == "auto" else mode
    if mode == "disabled" or (mode == "online" and _unreachable):
        return None
    try:
        import wandb

        return wandb.init(
            project=PROJECT_NAME,
            group=f"{experiment.report}/{experiment.step}",
            job_type="train",
            name=f"{experiment.name}-{dataset.name}-seed{seed}",
            id=_find_id(work),
            resume="allow",
            config={**experiment.config, "experiment": experiment.name, "seed": seed, "data": dataset.name},
            mode=mode,
            settings=wandb.Settings(silent=True, init_timeout=PATIENCE, login_timeout=PATIENCE),
        )
    except Exception as error:
        if mode == "online":
            _unreachable.append(error)
        warnings.warn(f"W&B is not available ({error}); the run goes on without it", stacklevel=4)
        return None


def _find_id(work: Path) -> str:
    """W&B's id of the run that is trained in this folder: made when it begins, and gone with the folder."""
    path = work / "wandb-id"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text()


def _choose_mode() -> str:
    """$WANDB_MODE, else online where `wandb login` or the environment left a key, else offline.

    W&B's own look-up is not asked: on a terminal it would go on to ask the user for a key."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host):
            return "online"
    return "offline"
