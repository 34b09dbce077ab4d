import numpy as np

from fer_lib.reading.faces import COUNTS, SCALES, draw_dataset


def test_the_same_seed_draws_the_same_faces_another_draws_others(drawn):
    assert draw_dataset().fingerprint == drawn.fingerprint != draw_dataset(seed=1).fingerprint


def test_splits_and_classes_are_as_unequal_as_fer2013s(drawn):
    assert [len(split) for split in drawn.splits.values()] == (COUNTS // SCALES["drawn"]).sum(1).tolist()
    counts = np.bincount(drawn.train.labels, minlength=7)
    assert counts.argmax() == 3 and counts.argmin() == 1 and counts[3] > 5 * counts[1]


def test_faces_use_the_range_of_greys_and_differ(drawn):
    images = drawn.train.images
    assert images.dtype == np.uint8 and images.shape[1:] == (48, 48)
    assert images.min() == 0 and images.max() == 255
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
