from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_lib.data import Split
from fer_lib.experiments import EXPERIMENTS
from fer_lib.preprocess import balance_classes, calc_upsampling_factors, cut_middle, scale_pixels
from fer_lib.recipe import make_views


def make_split(name="train"):
    labels = np.repeat([0, 1, 3], [5, 2, 9])
    images = np.random.default_rng(0).integers(0, 256, (16, 48, 48)).astype(np.uint8)
    images[6] = 3  # darker than the shift
    images[7] = 250
    return Split(name, images, labels, np.arange(100, 116))


def test_scaling_maps_bytes_to_0_1():
    images = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    torch.testing.assert_close(scale_pixels(images), torch.tensor([[0.0, 0.2, 1.0]]))
    assert images.tolist() == [[0, 51, 255]]


def test_the_middle_of_an_image_is_the_first_of_a_windows_views():
    images = make_split().images
    (view,) = make_views(torch.from_numpy(images[:, None]), "plain", 40)
    assert (cut_middle(images, 40) == view[:, 0].numpy()).all() and (cut_middle(images, 48) == images).all()


def test_every_class_present_reaches_the_largest():
    balanced = balance_classes(make_split())
    assert np.bincount(balanced.labels).tolist() == [9, 9, 0, 9]
    assert len(balanced.images) == len(balanced.rows) == 27 and balanced.name == "train"


def test_each_class_can_have_a_factor_of_its_own_and_one_that_has_enough_stays():
    factors = [0.75, 4 / 3, 2, 0.5, 1, 1, 1]  # of 9 images; classes 2, 4, 5 and 6 have none to copy
    assert np.bincount(balance_classes(make_split(), factors).labels).tolist() == [7, 12, 0, 9]


def test_the_less_of_a_class_is_recognised_the_more_it_is_upsampled():
    recall = np.array([0.5, 0.8, 0.3, 0.8, 0.4, 0.7, 0.6])
    assert calc_upsampling_factors(recall, 0.5) == (1.3, 1, 1.5, 1, 1.4, 1.1, 1.2)
    assert calc_upsampling_factors(np.full(7, 0.5), 0.5) == (1,) * 7


def test_a_class_without_images_is_not_upsampled_and_factors_are_finite_numbers():
    assert calc_upsampling_factors(np.array([0.5, np.nan, 0.9]), 1.0) == (2.0, 1.0, 1.0)
    for factor in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="upsampling: .*, expected finite factors of at least 0"):
            replace(EXPERIMENTS["a8_targeted_upsampling"], upsampling=(factor,) * 7)


def test_originals_stay_first_and_copies_are_shifted_by_ten_and_clipped():
    before = make_split()
    after = balance_classes(before, seed=3)
    np.testing.assert_array_equal(after.images[:16], before.images)
    source = before.images[after.rows[16:] - 100].astype(int)
    copies = after.images[16:].astype(int)
    lighter = np.array([np.array_equal(c, np.clip(s + 10, 0, 255)) for c, s in zip(copies, source)])
    darker = np.array([np.array_equal(c, np.clip(s - 10, 0, 255)) for c, s in zip(copies, source)])
    assert (lighter ^ darker).all() and lighter.any() and darker.any()
    np.testing.assert_array_equal(after.labels[16:], before.labels[after.rows[16:] - 100])


def test_copies_come_from_the_seed():
    first, same, other = (balance_classes(make_split(), seed=seed).images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_a_balanced_split_stays_as_it_is():
    split = balance_classes(make_split())
    assert len(balance_classes(split)) == len(split)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_splits_are_refused(name):
    with pytest.raises(ValueError, match=f"not the {name} split"):
        balance_classes(make_split(name))
