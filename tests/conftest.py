"""What the tests share: records and caches of their own, the drawn faces, and FER2013 where it is at hand."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_lib import data
from fer_lib.experiments import EXPERIMENTS

PROJECT = data.PROJECT
REAL = Path(os.environ.get("FER_DATA", ""))

needs_fer2013 = pytest.mark.skipif(not REAL.is_file(), reason="needs FER2013: set FER_DATA to its file")


LONG = ["test_report", "test_notebooks", "test_train", "test_workflow", "test_plan", "test_recipe", "test_onnx"]


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    """Keep every test's records, caches and W&B runs out of the project's."""
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("FER_RUNS", str(folder / "reports" / "runs"))
    monkeypatch.setenv("FER_CACHE", str(folder / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", str(folder / "reports"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(folder / "reports" / "wandb"))
    return folder


@pytest.fixture(scope="session")
def drawn():
    return data.load_data("drawn")


def take_first(dataset, name, count):
    """The first so many faces of each split."""
    images = np.concatenate([split.images[:count] for split in dataset.splits.values()])
    codes = np.concatenate([4 * split.labels[:count] + usage for usage, split in enumerate(dataset.splits.values())])
    return data.build_dataset(name, images, codes.astype(np.uint8))


@pytest.fixture(scope="session")
def small(drawn):
    """64 drawn faces of each split: enough to run on, too few to learn from."""
    return take_first(drawn, "small", 64)


@pytest.fixture(scope="session")
def tiny(drawn):
    """12 drawn faces of each split, for networks of which one image takes long."""
    return take_first(drawn, "tiny", 12)


@pytest.fixture(scope="session")
def fer2013(tmp_path_factory):
    cache = tmp_path_factory.mktemp("fer2013")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(cache))
        return data.load_data(REAL)


@pytest.fixture
def brief():
    """A1, of two epochs."""
    return replace(EXPERIMENTS["a1_baseline"], epochs=2)


@pytest.fixture
def interrupt(monkeypatch):
    """Train a run, and interrupt it as soon as it has trained so many epochs, before the last of them is kept."""
    from fer_lib import train

    def run(experiment, dataset, epochs):
        predict, calls = train.predict_logits, []

        def stop(*args):
            calls.append(args)
            if len(calls) == epochs:
                raise KeyboardInterrupt
            return predict(*args)

        with monkeypatch.context() as patch:
            patch.setattr(train, "predict_logits", stop)
            with pytest.raises(KeyboardInterrupt):
                train.train_run(experiment, dataset, seed=0)

    return run
