"""A progress bar, in a terminal and in a notebook."""

import io
import sys

from tqdm import tqdm

from fer_lib.dataset import Dataset
from fer_lib.experiment import Experiment


def make_progress_bar(experiment: Experiment, dataset: Dataset, seed: int, epochs_done: int, images: int) -> tqdm:
    """A bar on a terminal or in a notebook; none where the output goes to a file."""
    batches = -(-images // experiment.batch_size)
    notebook = hasattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "kernel")
    return (NotebookBar if notebook else tqdm)(
        desc=f"{experiment.name} {dataset.name} seed {seed}",
        total=batches * experiment.epochs,
        initial=batches * epochs_done,
        unit=" batches",
        mininterval=0.5,
        leave=False,
        disable=not (notebook or sys.stderr.isatty()),
        file=io.StringIO() if notebook else None,
    )


class NotebookBar(tqdm):
    """A bar that is one output of a notebook, replaced as it moves: written out, every move would be an output."""

    handle = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython.display import display  # here, so that training needs no notebook

        text = {"text/plain": str(self) if msg is None else msg}
        if self.handle is None:
            self.handle = display(text, raw=True, display_id=True)
        else:
            self.handle.update(text, raw=True)
