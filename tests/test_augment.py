import pytest
import torch
import torchvision.transforms.functional as tv
from torchvision.transforms import RandomCrop, RandomHorizontalFlip, RandomRotation

from fer_lib.augment import (
    Augmentation,
    augment_batch,
    crop,
    crop_randomly,
    flip_randomly,
    rotate,
    rotate_randomly,
)


def make_batch(count=64, height=48, width=48):
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(0))


def generate(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (20, 31)])
def test_rotation_equals_torchvisions_image_by_image(height, width):
    images = make_batch(48, height, width)
    degrees = torch.linspace(-180, 180, 48)
    expected = torch.stack([tv.rotate(image, angle) for image, angle in zip(images, degrees.tolist())])
    agree = (rotate(images, degrees) == expected).float().mean()
    assert agree > 0.999  # a pixel on the very edge between two may fall to either side


def test_crop_equals_torchvisions_image_by_image():
    images = torch.nn.functional.pad(make_batch(81), [4] * 4)
    top, left = torch.arange(9).repeat_interleave(9), torch.arange(9).repeat(9)
    expected = torch.stack([tv.crop(*args, 48, 48) for args in zip(images, top.tolist(), left.tolist())])
    torch.testing.assert_close(crop(images, top, left, 48, 48), expected, rtol=0, atol=0)


def test_each_flipped_image_is_itself_or_its_mirror_image_at_the_given_rate():
    images = make_batch(2000)
    flipped = flip_randomly(images, 0.3, generate())
    mirrored = (flipped == tv.hflip(images)).flatten(1).all(1)
    assert (mirrored | (flipped == images).flatten(1).all(1)).all()
    assert 0.25 < mirrored.float().mean() < 0.35


def test_every_image_has_a_draw_of_its_own():
    same = make_batch(1).expand(256, -1, -1, -1)
    for transformed in (
        flip_randomly(same, 0.5, generate()),
        rotate_randomly(same, 15, generate()),
        crop_randomly(same, 4, generate()),
    ):
        distinct = len(torch.unique(transformed.flatten(1), dim=0))
        assert distinct > 1
    assert len(torch.unique(crop_randomly(same, 4, generate()).flatten(1), dim=0)) > 70  # of 81 places


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Augmentation(flip=0.5), RandomHorizontalFlip(0.5)),
        (Augmentation(rotation=15), RandomRotation(15)),
        (Augmentation(crop_padding=4), RandomCrop(48, padding=4)),
    ],
    ids=["flip", "rotation", "crop"],
)
def test_the_mean_over_many_draws_is_torchvisions(ours, theirs):
    torch.manual_seed(0)
    image = make_batch(1)
    mine = augment_batch(image.expand(4000, -1, -1, -1), ours, generate()).mean(0)
    expected = torch.stack([theirs(image[0]) for _ in range(4000)]).mean(0)
    assert (mine - expected).abs().mean() < 0.01  # of grey levels 0-1
    assert (mine - image[0]).abs().mean() > 0.05  # and neither left the image as it was


def test_draws_come_from_the_generator_alone():
    images, everything = make_batch(), Augmentation(0.5, 10, 4)
    first, same, other = (augment_batch(images, everything, generate(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_nothing_is_the_default():
    images = make_batch()
    assert augment_batch(images, Augmentation(), generate()) is images


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"rotation": -1}, {"crop_padding": -1}])
def test_senseless_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)
