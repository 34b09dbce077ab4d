"""All that the next epoch needs, on disk, so that an interrupted run ends with the numbers of one that was not."""

import contextlib
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import torch

from fer_lib.dataset import Dataset
from fer_lib.experiment import Experiment
from fer_lib.loop import Learner, find_best
from fer_lib.storage import RecordError, tell_failed_writes


def save_checkpoint(
    path: Path,
    experiment: Experiment,
    dataset: Dataset,
    seed: int,
    learner: Learner,
    history: list[dict],
    best: dict,
) -> None:
    """Write all that the next epoch needs; a kill at any moment leaves the old file or the new one.

    Raises StorageError if there is no room for it; the old file stays."""
    state = {
        "identity": [experiment.digest, dataset.fingerprint],
        "seed": seed,
        "teachers": learner.teachers.digests if learner.teachers else [],
        "answers": learner.teachers.answers if learner.teachers else {},
        "learner": learner.state_dict(),
        "history": history,
        "best": best,
    }
    content = io.BytesIO()  # torch's own writer hides what the system says
    torch.save(state, content)
    partial = path.with_suffix(".new")
    with tell_failed_writes(path.parent):
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


def load_checkpoint(
    path: Path, experiment: Experiment, dataset: Dataset, seed: int, learner: Learner
) -> tuple[list[dict], dict]:
    """Restore the learner from a checkpoint of this run, if there is one; return its
    history and the best epoch's weights. One of another config or data is left unused.

    Raises RecordError for a file that is damaged or no checkpoint of this run."""
    if not path.exists():
        return [], {}
    remedy, taught = "delete it to start this run afresh", learner.teachers.digests if learner.teachers else []
    try:
        state = _read_checkpoint(path, next(learner.model.parameters()).device)
        if state["identity"] != [experiment.digest, dataset.fingerprint]:
            warnings.warn(f"{path} is of another config or of other data, and is left unused", stacklevel=3)
            return [], {}
        history, best = state["history"], state["best"]
        if state.get("seed", seed) != seed:  # the first checkpoints do not say
            raise ValueError(f"of seed {state['seed']}")
        if state.get("teachers", taught) != taught:  # likewise
            raise ValueError("begun with other teachers than are at hand")
        if [row["epoch"] for row in history] != list(range(1, len(history) + 1)) or not find_best(history):
            raise ValueError("its history is not whole")
        if _list_shapes(best) != _list_shapes(learner.judged.state_dict()):
            raise ValueError("its best weights are of another network")
        learner.load_state_dict(state["learner"])
        if learner.teachers:
            learner.teachers.answers = state.get("answers", {})  # the first checkpoints keep none: they are asked again
    except pickle.UnpicklingError:  # torch's message would advise to run what is in there
        raise RecordError(path, "not written by this project, and therefore not opened", remedy) from None
    except Exception as error:  # a damaged file makes zipfile and torch raise almost anything
        raise RecordError(path, f"damaged ({type(error).__name__}: {error})", remedy) from error
    return history, best


def _read_checkpoint(path: Path, device: torch.device) -> dict:
    """What `save_checkpoint` wrote, its bytes compared with the checksums that torch leaves in the file, and does not
    compare itself."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"checksum of {damaged}")
    state = torch.load(path, map_location=device, weights_only=True)
    if any(tensor.isnan().any() for tensor in _list_tensors(state)):
        raise ValueError("it holds NaN")
    return state


def _list_shapes(state: dict) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _list_tensors(state: object) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [tensor for part in parts for tensor in _list_tensors(part)]
