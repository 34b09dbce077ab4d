from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_lib.augment import rotate
from fer_lib.extras.explore import estimate_rotations, measure_asymmetry, pick_images, tell_mirrored


@pytest.mark.parametrize("angle", [-12.0, 7.0])
def test_an_added_rotation_is_found_again(drawn, angle):
    images = torch.from_numpy(drawn.test.images[:, None]).float()
    turned = rotate(images, torch.full((len(images),), angle))[:, 0].numpy().astype(np.uint8)
    template = drawn.train.images.mean(0)
    before, after = (estimate_rotations(replace(drawn.test, images=i), template) for i in (drawn.test.images, turned))
    assert np.nanmedian(after - before) == pytest.approx(angle, abs=1.5)


def test_asymmetry_of_images_worked_out_by_hand(small):
    rng = np.random.default_rng(0)
    left = rng.integers(0, 256, (1, 48, 24))
    symmetrical = np.concatenate([left, left[:, :, ::-1]], 2)
    opposite = np.concatenate([left, 255 - left[:, :, ::-1]], 2)
    anything = rng.integers(0, 256, (1, 48, 48))
    images = np.concatenate([symmetrical, opposite, anything, np.full((1, 48, 48), 7)]).astype(np.uint8)
    asymmetry = measure_asymmetry(replace(small.train, images=images))
    assert asymmetry[:3].tolist() == pytest.approx([0, 1, 0.5], abs=0.05) and np.isnan(asymmetry[3])


def test_mirror_images_are_told_apart_where_light_falls_from_one_side_and_else_not(drawn):
    rng = np.random.default_rng(0)

    def mirror_some(split):
        chosen = rng.random(len(split)) < 0.5
        images = np.where(chosen[:, None, None], split.images[:, :, ::-1], split.images)
        return replace(split, images=images)

    def light_from_the_left(split):
        light = np.linspace(40, 0, 48)
        return replace(split, images=np.clip(split.images + light, 0, 255).astype(np.uint8))

    train, test = (mirror_some(split) for split in (drawn.train, drawn.test))
    assert abs(tell_mirrored(train, test).mean() - 0.5) < 0.15
    assert tell_mirrored(light_from_the_left(train), light_from_the_left(test)).mean() > 0.8


def test_the_first_images_of_each_class_are_picked(drawn):
    few = pick_images(drawn.test, 2)
    assert np.bincount(few.labels).tolist() == [2] * 7 and (np.diff(few.rows) > 0).all()
    places = np.searchsorted(drawn.test.rows, few.rows)
    assert np.array_equal(few.images, drawn.test.images[places])
    assert places[few.labels == 2].tolist() == np.flatnonzero(drawn.test.labels == 2)[:2].tolist()
    assert len(pick_images(drawn.test, 10**6)) == len(drawn.test)
    with pytest.raises(ValueError, match="pick at least 1"):
        pick_images(drawn.test, 0)
