"""Kills at random moments, on demand (`make crash`): a run with a moving average of its weights, and with teachers."""

import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from tests.conftest import PROJECT

CRASHES = int(os.environ.get("FER_CRASHES", 0))  # `make crash` sets it
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CRASHES, reason="takes long; `make crash` runs it")]

SCRIPT = """
from dataclasses import replace
from fer_lib.augment import Augmentation
from fer_lib.data import load_data
from fer_lib.experiments import EXPERIMENTS
from fer_lib.recipe import Recipe
from fer_lib.train import get_runs

drawn, teacher = load_data("drawn"), replace(EXPERIMENTS["a2_batchnorm"], epochs=1)
taught = replace(
    EXPERIMENTS["s5_averaging"], options=(("widths", (8,)), ("blocks", (1,))), epochs=6, views=("flip",),
    augmentation=Augmentation(flip=0.5), recipe=Recipe(averaging=0.9, mixup=0.2, teaching=0.5, draws=3),
    teachers=("a2_batchnorm",),
)
for experiment in (teacher, taught):
    get_runs(experiment, drawn, [0], wandb_mode="disabled")
"""


def start(runs):
    environment = os.environ | {"FER_RUNS": str(runs), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT], env=environment, stderr=subprocess.PIPE)


def finish(runs):
    process = start(runs)
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()
    (folder,) = runs.glob("s5_averaging/*-seed0-????????")
    with np.load(folder / "predictions.npz") as arrays:
        return pd.read_csv(folder / "history.csv").drop(columns="seconds"), dict(arrays)


def test_killed_at_random_moments_a_run_ends_with_the_very_numbers_of_one_that_was_not(tmp_path):
    runs = tmp_path / "runs"
    finish(runs)  # with its teacher, which is not what is to be killed
    (done,) = runs.glob("s5_averaging/*")
    shutil.rmtree(done)
    shutil.copytree(runs, tmp_path / "teacher")
    begin = time.perf_counter()
    history, logits = finish(runs)
    lasts = time.perf_counter() - begin
    moments, places = random.Random(0), {"before the first epoch": 0, "after some": 0, "once it was on record": 0}
    for _ in range(CRASHES):
        shutil.rmtree(runs)
        shutil.copytree(tmp_path / "teacher", runs)
        process = start(runs)
        time.sleep(moments.uniform(0.2, 1) * lasts)
        process.kill()
        process.communicate()
        left, recorded = list(runs.glob("s5_averaging/*/checkpoint.pt")), list(runs.glob("s5_averaging/*/run.json"))
        places["once it was on record" if recorded else "after some" if left else "before the first epoch"] += 1
        again, answers = finish(runs)
        pd.testing.assert_frame_equal(again, history, check_exact=True)
        for name, expected in logits.items():
            np.testing.assert_array_equal(answers[name], expected)
    told = ", ".join(f"{count} {place}" for place, count in places.items())
    print(f"\n{CRASHES} kills ({told}): every run ended with the same numbers")
