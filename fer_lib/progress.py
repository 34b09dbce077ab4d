"""How far a training is: a bar on a terminal or in a notebook, else a line a minute."""

import contextlib
import io
import os
import sys
import time
import warnings

from tqdm import tqdm

from fer_lib.dataset import Dataset
from fer_lib.experiment import Experiment

LINE = 60  # seconds between lines
TEXT = "{n:.1f} of {total:.0f} epochs, {elapsed} gone, {remaining} left at most"


def make_progress_bar(experiment: Experiment, dataset: Dataset, seed: int, epochs_done: int, images: int) -> tqdm:
    """A bar on a terminal or in a notebook; where the output goes to a file, a line a minute."""
    batches = -(-images // experiment.batch_size)
    notebook = hasattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "kernel")
    kind = NotebookBar if notebook else tqdm if sys.stderr.isatty() else Lines
    return kind(
        desc=f"{experiment.name} {dataset.name} seed {seed}",
        total=batches * experiment.epochs,
        initial=batches * epochs_done,
        unit_scale=1 / batches,
        bar_format="{desc} {bar:20} " + TEXT if kind is tqdm else "{desc}: " + TEXT,
        mininterval=LINE if kind is Lines else 0.5,
        delay=LINE if kind is Lines else 0,
        leave=False,
        file=io.StringIO() if notebook else None,
    )


def show_warnings_plainly() -> None:
    """For a shell, in which Python would show a line of its own code with each warning."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"


class Lines(tqdm):
    """A line a minute: what is written over itself on a terminal would be unreadable in a file."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:
            print(self, file=sys.stderr, flush=True)


class NotebookBar(tqdm):
    """A bar that is one output of a notebook, replaced as it moves: written out, every move would be an output.

    Under papermill or nbconvert nobody sees it before the end: the terminal they were called from gets a line a minute.
    """

    handle = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython.display import display  # here, so that training needs no notebook

        text = {"text/plain": str(self) if msg is None else msg}
        if self.handle is None:
            self.handle, self.told = display(text, raw=True, display_id=True), time.monotonic()
        else:
            self.handle.update(text, raw=True)
        if msg is None and time.monotonic() >= self.told + LINE:
            self.told = time.monotonic()
            _tell_terminal(str(self))


def _tell_terminal(text: str) -> None:
    """Write a line to the terminal that the kernel was started from, if it was, over papermill's own bar."""
    with contextlib.suppress(OSError):  # a kernel's stderr has a number only where it stands for a real file
        if os.isatty(number := sys.stderr.fileno()):
            os.write(number, f"\r\x1b[K{text}\n".encode())
