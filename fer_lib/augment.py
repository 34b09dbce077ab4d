"""Random flip, rotation and crop of a whole batch at once, each image with a draw of its own.

They mean what torchvision's RandomHorizontalFlip, RandomRotation and RandomCrop mean, with
their defaults (nearest pixel, black outside the picture). torchvision's, given a batch,
treat every image in it alike; given one image at a time, they cost more than the network.

All take and return float (N, C, H, W) on any device; the generator lives on that device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image each time it is seen; the default is nothing.

    flip: probability of a mirror image, 0-1; rotation: up to so many degrees either way;
    crop_padding: black pixels added on each side before a random crop of the old size.
    """

    flip: float = 0.0
    rotation: float = 0.0
    crop_padding: int = 0

    def __post_init__(self):
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability from 0 to 1, not {self.flip}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is from 0 to 180 degrees, not {self.rotation}")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding is at least 0 pixels, not {self.crop_padding}")


def augment_batch(images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Flip, rotate and crop at random, in report B's order."""
    if augmentation.flip:
        images = flip_randomly(images, augmentation.flip, generator)
    if augmentation.rotation:
        images = rotate_randomly(images, augmentation.rotation, generator)
    if augmentation.crop_padding:
        images = crop_randomly(images, augmentation.crop_padding, generator)
    return images


def flip_randomly(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left to right with the given probability."""
    chosen = _draw(images, generator) < probability
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def rotate_randomly(images: torch.Tensor, degrees: float, generator: torch.Generator) -> torch.Tensor:
    """Rotate each image by an angle drawn uniformly from -degrees to degrees."""
    return rotate(images, (2 * _draw(images, generator) - 1) * degrees)


def rotate(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate image i counter-clockwise about its centre by degrees[i] (float (N,))."""
    cos, sin = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    zero = torch.zeros_like(cos)
    height, width = images.shape[-2:]
    # affine_grid's coordinates run from -1 to 1 on both axes, whatever the picture's shape
    theta = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), mode="nearest", align_corners=False)


def crop_randomly(images: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Pad each image with black, then cut the old size out of it at a place of its own."""
    top, left = ((_draw(images, generator) * (2 * padding + 1)).long() for _ in range(2))
    return crop(F.pad(images, [padding] * 4), top, left, *images.shape[-2:])


def crop(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut height x width out of image i, from row top[i] and column left[i] (int64 (N,))."""
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    image = torch.arange(len(images), device=images.device)
    # the channel axis stands between two index arrays, so it comes out last: put it back
    return images[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _draw(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(len(images), generator=generator, device=images.device)
