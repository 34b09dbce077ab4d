"""Bytes flipped, cut and moved in every file that the project reads: what comes back is what was written, or the
project's own error, of one line, that names the file. Nothing else, and no other number."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_lib import checkpoint, data, hardware, loop, record, storage, verify
from fer_lib.data import DataError
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras import photo, search
from fer_lib.reading import votes
from fer_lib.storage import RecordError
from tests.test_data import GOOD, expected_images, pack_tar, pack_zip
from tests.test_record import forget_digests, write

pytestmark = pytest.mark.slow

SMALL = replace(
    EXPERIMENTS["s5_averaging"], options=(("widths", (4, 4, 4)), ("blocks", (0, 0, 0))), views=(), epochs=2, patience=2
)  # a network of a few hundred weights


@st.composite
def damages(draw):
    """What is done to a file's bytes: up to three parts of it flipped, cleared, cut out, cut off or moved."""
    places = st.floats(0, 1, exclude_max=True)
    kinds = st.sampled_from(["flip", "clear", "cut out", "cut off", "move"])
    length = st.sampled_from([1, 2, 16, 500])
    return draw(st.lists(st.tuples(kinds, places, places, length, st.integers(0, 7)), min_size=1, max_size=3))


def apply(content, damage):
    for kind, here, there, length, bit in damage:
        start = int(here * len(content))
        part = content[start : start + length]
        if kind == "flip" and part:
            content = content[:start] + bytes([part[0] ^ 1 << bit]) + content[start + 1 :]
        elif kind == "clear":
            content = content[:start] + bytes(len(part)) + content[start + len(part) :]
        elif kind == "cut out":
            content = content[:start] + content[start + length :]
        elif kind == "cut off":
            content = content[:start]
        elif kind == "move":
            rest = content[:start] + content[start + length :]
            place = int(there * len(rest))
            content = rest[:place] + part + rest[place:]
    return content


def check(path, read, errors, equal):
    """Damage the file at `path` in many ways; `read` must raise one of `errors` or return what is `equal`."""
    whole = path.read_bytes()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damages())
    def run(damage):
        content = apply(whole, damage)
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = read()
        except errors as error:
            assert path.name.split(".")[0] in str(error) and "\n" not in str(error)
        else:
            assert equal(found)
        finally:
            path.write_bytes(whole)

    run()


def same_run(one):
    """Whether another run, its logits read, holds the same numbers."""

    def compare(other):
        return (
            (other.results, other.environment, other.seed) == (one.results, one.environment, one.seed)
            and other.history.equals(one.history)
            and all(np.array_equal(other.logits[name], logits) for name, logits in one.logits.items())
        )

    return compare


@pytest.fixture
def run(small):
    found = record.read_run(SMALL, small, 0) if write(SMALL, small) else None
    assert found.logits
    return found


@pytest.mark.parametrize("name", ["run.json", "history.csv", "predictions.npz"])
def test_a_record(run, small, name):
    def read():
        found = record.read_run(SMALL, small, 0)
        assert found is not None, "would be trained anew"
        return found

    check(run.folder / name, read, RecordError, same_run(run))


@pytest.mark.parametrize("name", ["run.json", "history.csv", "predictions.npz"])
def test_a_record_of_before_there_were_digests_gives_no_other_error(run, small, name):
    forget_digests(run.folder)
    right = run.results["test_accuracy"]

    def agrees(found):  # a smaller change, as in the decimals of a loss, cannot be seen
        return found is None or abs(found.results["test_accuracy"] - right) * len(small.test) <= verify.TIES + 0.5

    check(run.folder / name, lambda: record.read_run(SMALL, small, 0), RecordError, agrees)


def test_weights(run):
    expected = record.load_model(run).state_dict()

    def same(model):
        return all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())

    check(run.folder / record.WEIGHTS, lambda: record.load_model(run), RecordError, same)


def test_a_checkpoint(small, tmp_path):
    learner = loop.make_learner(SMALL, hardware.choose_hardware())
    row, path = {"epoch": 1, "validation_accuracy": 0.5}, tmp_path / "checkpoint.pt"
    best = learner.judged.state_dict()
    checkpoint.save_checkpoint(path, SMALL, small, 0, learner, [row], best)
    expected = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}

    def read():
        fresh = loop.make_learner(SMALL, hardware.choose_hardware())
        return fresh, *checkpoint.load_checkpoint(path, SMALL, small, 0, fresh)

    def same(found):
        fresh, history, found_best = found
        models = zip((fresh.model.state_dict(), found_best), (expected, best))
        return history == [row] and all(torch.equal(a[name], b[name]) for a, b in models for name in b)

    check(path, read, RecordError, same)


def test_a_trial(tmp_path, own_folders):
    trial = {"learning_rate": 0.001, "drop_threshold": 0.0, "kernels": "8-8", "epochs": 1}
    path = search.trials_folder("b1_two_layer", "small") / f"{search.name_trial(trial)}.json"
    path.parent.mkdir(parents=True)
    config, told = search.configure_trial("b1_two_layer", trial).config, {"name": "small", "fingerprint": "0" * 16}
    results = {"validation_accuracy": 0.5, "best_epoch": 1, "epochs": 1, "environment": {"seconds": 1.0}}
    storage.write_json(path, {"trial": trial, "data": told, "config": config, **results})
    expected = search.read_trials("b1_two_layer", "small")
    check(path, lambda: search.read_trials("b1_two_layer", "small"), RecordError, expected.equals)


@pytest.mark.parametrize("content", [GOOD, pack_zip(GOOD), pack_tar(GOOD)], ids="plain zip tar.gz".split())
def test_the_data(tmp_path, monkeypatch, content):
    path = tmp_path / "icml_face_data.csv"
    path.write_bytes(content)
    with pytest.warns(UserWarning):
        monkeypatch.setitem(data.FINGERPRINTS, data.load_data(path).fingerprint, "published")

    def same(found):  # what is well formed and yet another is called another
        return found.name.startswith("custom-") or same_faces(found)

    check(path, lambda: data.load_data(path), DataError, same)


def same_faces(found):
    splits = (found.train, found.validation, found.test)
    images = np.concatenate([split.images for split in splits])
    labels = np.concatenate([split.labels for split in splits]).tolist()
    return np.array_equal(images, expected_images()[[0, 3, 1, 4, 2, 5]]) and labels == [0, 3, 6, 1, 3, 5]


def test_the_cache(tmp_path, own_folders):
    path = tmp_path / "icml_face_data.csv"
    path.write_bytes(GOOD)
    with pytest.warns(UserWarning):
        data.load_data(path)
    (cached,) = (own_folders / "cache").iterdir()
    check(cached, lambda: data.load_data(path), (), same_faces)


def test_the_votes(tmp_path, small, monkeypatch):
    usages = [data.USAGES[data.SPLITS.index(name)] for name, split in small.splits.items() for _ in split.labels]
    counts = np.random.default_rng(0).multinomial(10, [0.1] * 10, len(usages))
    table = pd.DataFrame(counts, columns=list(data.VOTES))
    table.insert(0, "Image name", [f"fer{row:07d}.png" for row in range(len(table))])
    table.insert(0, "Usage", usages)
    path = tmp_path / "votes.csv"
    table.to_csv(path, index=False)
    monkeypatch.setattr(votes, "VOTES_FINGERPRINT", votes.calc_votes_fingerprint(table))
    check(path, lambda: data.load_votes(small, path), DataError, table[list(data.VOTES)].equals)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif"])
def test_a_picture_is_read_or_refused(tmp_path, name):
    """Its bytes are nobody's but the reader's: another picture is no damage that could be seen."""
    path = tmp_path / name
    photo.Image.fromarray(photo.draw_picture(["Happy"])).save(path)
    check(path, lambda: photo.read_picture(path), ValueError, lambda found: found.dtype == np.uint8 and found.ndim == 2)


def test_files_of_another_run_are_not_taken_for_its_own(run, small):
    other = write(SMALL, small, seed=1, accuracy=0.75)
    for name in ("run.json", "history.csv", "predictions.npz", record.WEIGHTS):
        kept = (run.folder / name).read_bytes()
        shutil.copy(other.folder / name, run.folder / name)
        with pytest.raises(RecordError, match=name):
            record.load_model(record.read_run(SMALL, small, 0))
        (run.folder / name).write_bytes(kept)
