"""Which parts of a face a network's answer rests on, and whether that is true."""

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from torch import nn

from fer_lib.dataset import SIDE, Split
from fer_lib.extras.explore import average_by_class
from fer_lib.hardware import choose_hardware
from fer_lib.preprocess import scale_pixels

BLOCK = 6
"""Side in pixels of the squares that are masked: 8 by 8 of them make a face."""


def calc_saliency(model: nn.Module, images: np.ndarray, labels: np.ndarray, start: np.ndarray) -> np.ndarray:
    """How much each pixel of each image adds to or takes from the logit of its label: float32 (N, 48, 48), at least 0.

    Absolute integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365, by captum) from `start`, which stands
    for nothing seen, to the image, in 16 steps. images: uint8 (N, 48, 48); labels: int64 (N,); start: float,
    0-255, of a shape that goes with the images', such as the mean image of a split. In the precision of training:
    on a CPU twice as fast, and as close to full precision as so few steps are to many."""
    model.eval()
    method = IntegratedGradients(model)
    starts = torch.from_numpy(np.broadcast_to(start / 255, images.shape).astype(np.float32))[:, None]
    inputs = scale_pixels(torch.from_numpy(images[:, None]))
    with choose_hardware().autocast():
        maps = [
            method.attribute(batch, origin, target=target, n_steps=16)[:, 0].abs().detach().float()
            for batch, origin, target in zip(inputs.split(64), starts.split(64), torch.from_numpy(labels).split(64))
            if len(batch)  # no images make one batch of none
        ]
    return torch.cat(maps).numpy() if maps else np.zeros(images.shape, np.float32)


def calc_mean_saliency(saliency: np.ndarray, split: Split) -> np.ndarray:
    """The mean map of each class's images, each map's own sum brought to 1 first: float (classes, 48, 48);
    NaN for a class without images."""
    return average_by_class(saliency / saliency.sum((1, 2), keepdims=True), split)


def measure_masking(model: nn.Module, split: Split, saliency: np.ndarray) -> pd.DataFrame:
    """Accuracy (0-1) when more and more of each face is hidden: by what its own map marks most, by what it marks
    least, and at random. A row a share of the face hidden (the index), a column a way.

    What is hidden takes the grey of the split's mean image there. saliency: of `calc_saliency`. If the map is
    true, accuracy falls fastest by what it marks most."""
    blocks = _sum_blocks(saliency)
    chance = np.random.default_rng(0).random(blocks.shape)
    orders = {"most salient first": -blocks, "at random": chance, "least salient first": blocks}
    rows = {0.0: dict.fromkeys(orders, _judge_masked(model, split, chance, 0))}
    for count in np.arange(4, blocks.shape[1] // 2 + 1, 4):
        masked = {name: _judge_masked(model, split, order, count) for name, order in orders.items()}
        rows[count / blocks.shape[1]] = masked
    return pd.DataFrame.from_dict(rows, orient="index")


def _sum_blocks(maps: np.ndarray) -> np.ndarray:
    """Maps (N, 48, 48) summed over each square: (N, 64)."""
    count = SIDE // BLOCK
    return maps.reshape(-1, count, BLOCK, count, BLOCK).sum((2, 4)).reshape(len(maps), -1)


@torch.inference_mode()
def _judge_masked(model: nn.Module, split: Split, order: np.ndarray, count: int) -> float:
    """Accuracy with the first `count` squares of each image in the order of (N, 64) hidden."""
    hidden = np.zeros(order.shape, bool)
    np.put_along_axis(hidden, order.argsort(1, kind="stable")[:, :count], True, 1)
    side = SIDE // BLOCK
    mask = hidden.reshape(-1, side, side).repeat(BLOCK, 1).repeat(BLOCK, 2)
    images = np.where(mask, split.images.mean(0), split.images).astype(np.float32) / 255
    logits = [model.eval()(batch) for batch in torch.from_numpy(images[:, None]).split(256)]
    return float((torch.cat(logits).argmax(1).numpy() == split.labels).mean())
