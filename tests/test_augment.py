import pytest
import torch
import torchvision.transforms.functional as tv
from torchvision.transforms import RandomCrop, RandomHorizontalFlip, RandomRotation

from fer_lib.augment import (
    Augmentation,
    augment_batch,
    crop,
    crop_randomly,
    erase_randomly,
    flip_randomly,
    relight_randomly,
    rotate,
    rotate_randomly,
    shift_randomly,
    warp_randomly,
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
        warp_randomly(same, 0, 0.2, generate()),
        shift_randomly(same, 10, generate()),
        relight_randomly(same, 0.2, generate()),
        erase_randomly(same, 0.5, generate()),
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


def test_a_window_is_cut_out_anywhere_within_the_image():
    """Of 9 x 9 places each; the pixel at the window's corner tells which."""
    places = torch.arange(48.0)[:, None] * 48 + torch.arange(48.0)
    cut = augment_batch(places.expand(5000, 1, 48, 48), Augmentation(window=40), generate())
    assert cut.shape == (5000, 1, 40, 40)
    top, left = cut[:, 0, 0, 0] // 48, cut[:, 0, 0, 0] % 48
    assert set(top.tolist()) == set(left.tolist()) == set(range(9))
    expected = places[None, :40, :40] + cut[:, 0, :1, :1]  # as if the corner were moved there
    torch.testing.assert_close(cut[:, 0], expected)


def test_draws_come_from_the_generator_alone():
    images, everything = make_batch(), Augmentation(0.5, 10, 4, 0.2, 10, 0.2, 0.5)
    first, same, other = (augment_batch(images, everything, generate(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_nothing_is_the_default():
    images = make_batch()
    assert augment_batch(images, Augmentation(), generate()) is images


def test_zoom_enlarges_and_shrinks_about_the_centre():
    disc = ((torch.arange(48) - 23.5)[:, None] ** 2 + (torch.arange(48) - 23.5) ** 2 < 100).float()
    areas = warp_randomly(disc.expand(500, 1, 48, 48), 180, 0.2, generate()).sum((1, 2, 3)) / disc.sum()
    assert 0.62 < areas.min() < 0.7 and 1.38 < areas.max() < 1.46  # of 0.8 and 1.2 squared


def test_without_zoom_a_warp_is_a_rotation():
    images = torch.nn.functional.avg_pool2d(make_batch(8), 9, 1, 4)  # smooth, so that the nearest pixel is near
    warped, rotated = warp_randomly(images, 15, 0.0, generate()), rotate_randomly(images, 15, generate())
    assert (warped - rotated)[..., 8:-8, 8:-8].abs().max() < 0.05


def test_a_shift_is_ten_grey_levels_up_or_down():
    images = 0.25 + make_batch(400) / 2
    change = 255 * (shift_randomly(images, 10, generate()) - images).flatten(1)
    up = change.mean(1) > 0
    torch.testing.assert_close(change, torch.where(up, 10.0, -10.0)[:, None].expand_as(change), rtol=0, atol=1e-3)
    assert 0.4 < up.float().mean() < 0.6
    assert shift_randomly(make_batch(), 200, generate()).aminmax() == (0, 1)


def test_light_changes_contrast_and_brightness_within_bounds():
    images = 0.4 + make_batch(500) / 5
    lit = relight_randomly(images, 0.3, generate())
    contrast = lit.std((1, 2, 3)) / images.std((1, 2, 3))
    brightness = lit.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert 0.69 < contrast.min() < 0.72 and 1.28 < contrast.max() < 1.31
    assert -0.151 < brightness.min() < -0.14 and 0.14 < brightness.max() < 0.151
    assert abs(torch.corrcoef(torch.stack([contrast, brightness]))[0, 1]) < 0.15


def test_an_erased_box_is_one_grey_and_of_a_size_within_bounds():
    images = make_batch(400)
    erased = erase_randomly(images, 0.6, generate())
    changed = (erased != images)[:, 0]
    some = changed.flatten(1).any(1)
    assert 0.5 < some.float().mean() < 0.7
    for mask, image in zip(changed[some], erased[some, 0]):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert mask.sum() == box.numel() and len(box.unique()) == 1
        assert 0.01 < mask.float().mean() < 0.28 and 0.4 < len(rows) / len(columns) < 2.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5},
        {"rotation": -1},
        {"crop_padding": -1},
        {"zoom": 2},
        {"shift": 300},
        {"light": -0.1},
        {"erasing": 1.1},
        {"window": 49},
        {"window": 3},
    ],
)
def test_senseless_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)
