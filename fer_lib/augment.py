"""Random treatment of a whole batch at once, each image with a draw of its own.

Flip, rotation and crop mean what torchvision's RandomHorizontalFlip, RandomRotation and RandomCrop mean, with
their defaults (nearest pixel, black outside the picture). torchvision's, given a batch,
treat every image in it alike; given one image at a time, they cost more than the network.
The shift is report A's; the others are for the strong model.

All take and return float (N, C, H, W) on any device, those that change the light in 0-1;
the generator lives on that device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fer_lib.dataset import SIDE


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image each time it is seen; the default is nothing.

    flip: probability of a mirror image, 0-1; rotation: up to so many degrees either way;
    crop_padding: black pixels added on each side before a random crop of the old size;
    zoom: enlarged or shrunk by up to this share, together with the rotation, between the pixels;
    shift: grey levels of 0-255 added to or taken from all pixels, which, a coin decides: what report A
    does to its copies; light: contrast and brightness changed by up to this share;
    erasing: probability of a grey box over a part of the image (Zhong et al. 2020, arXiv:1708.04896);
    window: side in pixels of the square that the random crop cuts out, all that the network then sees; 0 is the whole.
    """

    flip: float = 0.0
    rotation: float = 0.0
    crop_padding: int = 0
    zoom: float = 0.0
    shift: int = 0
    light: float = 0.0
    erasing: float = 0.0
    window: int = 0

    def __post_init__(self):
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability from 0 to 1, not {self.flip}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is from 0 to 180 degrees, not {self.rotation}")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding is at least 0 pixels, not {self.crop_padding}")
        if not 0 <= self.shift <= 255:
            raise ValueError(f"shift is from 0 to 255 grey levels, not {self.shift}")
        if not (self.window == 0 or 8 <= self.window <= SIDE):
            raise ValueError(f"window is 0, or a side from 8 to {SIDE} pixels, not {self.window}")
        for name in ("zoom", "light", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")

    @property
    def changes_light(self) -> bool:
        """Whether any of it is meant for pixels of 0-1 alone."""
        return bool(self.shift or self.light or self.erasing)


def augment_batch(images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Flip, rotate and crop at random, in report B's order, then change the light."""
    if augmentation.flip:
        images = flip_randomly(images, augmentation.flip, generator)
    if augmentation.zoom:
        images = warp_randomly(images, augmentation.rotation, augmentation.zoom, generator)
    elif augmentation.rotation:
        images = rotate_randomly(images, augmentation.rotation, generator)
    if augmentation.crop_padding or augmentation.window:
        images = crop_randomly(images, augmentation.crop_padding, generator, augmentation.window)
    if augmentation.shift:
        images = shift_randomly(images, augmentation.shift, generator)
    if augmentation.light:
        images = relight_randomly(images, augmentation.light, generator)
    if augmentation.erasing:
        images = erase_randomly(images, augmentation.erasing, generator)
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
    return _resample(images, torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin(), "nearest")


def warp_randomly(images: torch.Tensor, degrees: float, zoom: float, generator: torch.Generator) -> torch.Tensor:
    """Rotate each image as `rotate_randomly` does and enlarge it by a factor drawn uniformly from 1 - zoom to
    1 + zoom, in one bilinear resampling."""
    angle = torch.deg2rad((2 * _draw(images, generator) - 1) * degrees)
    factor = 1 + (2 * _draw(images, generator) - 1) * zoom
    return _resample(images, angle.cos() / factor, angle.sin() / factor, "bilinear")


def _resample(images: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mode: str) -> torch.Tensor:
    """Take each pixel from where the rotation with this cosine and sine, each over an enlargement, brings it from."""
    zero = torch.zeros_like(cos)
    height, width = images.shape[-2:]
    # affine_grid's coordinates run from -1 to 1 on both axes, whatever the picture's shape
    theta = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), mode=mode, align_corners=False)


def crop_randomly(images: torch.Tensor, padding: int, generator: torch.Generator, window: int = 0) -> torch.Tensor:
    """Pad each image with black, then cut out of it, at a place of its own, the old size, or a square window."""
    size = (window, window) if window else images.shape[-2:]
    padded = F.pad(images, [padding] * 4)
    places = (whole - part + 1 for whole, part in zip(padded.shape[-2:], size))
    top, left = ((_draw(images, generator) * count).long() for count in places)
    return crop(padded, top, left, *size)


def crop(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut height x width out of image i, from row top[i] and column left[i] (int64 (N,))."""
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    image = torch.arange(len(images), device=images.device)
    # the channel axis stands between two index arrays, so it comes out last: put it back
    return images[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def shift_randomly(images: torch.Tensor, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Add so many of 255 grey levels to all pixels of each image, or take them from it; cut off at 0 and 1."""
    signs = torch.where(_draw(images, generator) < 0.5, -shift / 255, shift / 255)
    return (images + signs[:, None, None, None]).clamp(0, 1)


def relight_randomly(images: torch.Tensor, light: float, generator: torch.Generator) -> torch.Tensor:
    """Scale each image's departures from its mean by a factor from 1 - light to 1 + light, and add up to half
    of light to it or take that from it; cut off at 0 and 1."""
    contrast, brightness = ((2 * _draw(images, generator) - 1)[:, None, None, None] * light for _ in range(2))
    means = images.mean((1, 2, 3), keepdim=True)
    return (means + (1 + contrast) * (images - means) + brightness / 2).clamp(0, 1)


def erase_randomly(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Cover, with the given probability, a box of each image with one random grey: a box of 2 to 25 percent
    of the area, between half and twice as high as wide."""
    height, width = images.shape[-2:]
    chosen, grey, place_y, place_x = (_draw(images, generator)[:, None] for _ in range(4))
    area, shape = 0.02 + 0.23 * _draw(images, generator)[:, None], 2 ** (2 * _draw(images, generator)[:, None] - 1)
    tall, wide = (area * shape).sqrt() * height, (area / shape).sqrt() * width
    rows = torch.arange(height, device=images.device) - place_y * (height - tall)
    columns = torch.arange(width, device=images.device) - place_x * (width - wide)
    inside = ((0 <= rows) & (rows < tall))[:, None, :, None] & ((0 <= columns) & (columns < wide))[:, None, None, :]
    return torch.where(inside & (chosen < probability)[:, :, None, None], grey[:, :, None, None], images)


def _draw(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(len(images), generator=generator, device=images.device)
