"""Max pooling and dropout, faster than torch's on a CPU of few threads: `speed_up` puts them into a network."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}  # of the same width


def speed_up(model: nn.Module) -> nn.Module:
    """Put these layers in the place of torch's, all through a model that is on a CPU; weights and their names stay."""
    for name, layer in model.named_children():
        if isinstance(layer, nn.MaxPool2d):
            setattr(model, name, MaxPool2d())
        elif isinstance(layer, nn.Dropout):
            setattr(model, name, Dropout(layer.p).train(layer.training))
        else:
            speed_up(layer)
    return model


class MaxPool2d(nn.MaxPool2d):
    """2x2 max pooling with stride 2: float (N, C, H, W) to (N, C, H // 2, W // 2).

    torch keeps the place of each maximum in 8 bytes and scatters the gradient one by one; here it
    takes as many bytes as the pixel, and every pass runs over the channels, which lie side by
    side in channels_last. Needs numba; without it, on many threads, and for odd sizes or another layout, it is torch's.
    """

    def __init__(self):
        super().__init__(2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        even = inputs.shape[2] % 2 == inputs.shape[3] % 2 == 0
        fits = inputs.dtype in INTEGERS and even
        if fits and inputs.is_contiguous(memory_format=torch.channels_last) and _find_kernels():
            return _Pooling.apply(inputs)
        return super().forward(inputs)


class Dropout(nn.Dropout):
    """Zero each activation with probability p and scale the others by 1 / (1 - p), in training.

    torch draws a random number for each activation; here one of 64 bits serves eight of them, so p
    is rounded to a multiple of 1/256.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(inputs)
        threshold, size = round(256 * self.p), inputs.numel()
        mask = torch.empty_like(inputs)
        flat = mask.as_strided((size,), (1,))  # empty_like is dense, whatever the inputs' layout
        draws = torch.empty(-(-size // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:size]
        scale = torch.tensor(256 / max(256 - threshold, 1), dtype=inputs.dtype)
        if inputs.dtype in INTEGERS and (kernels := _find_kernels()):
            integers = INTEGERS[inputs.dtype]
            kernels.keep(draws.numpy(), flat.view(integers).numpy(), threshold, scale.view(integers).numpy()[()])
        else:
            torch.mul(draws >= threshold, scale, out=flat)
        return inputs * mask


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(context, inputs):
        batch, channels, height, width = inputs.shape
        shape = (batch, channels, height // 2, width // 2)
        pooled = torch.empty(shape, dtype=inputs.dtype, memory_format=torch.channels_last)
        places = torch.empty_like(pooled, dtype=INTEGERS[inputs.dtype])
        load_kernels().pool(*map(_as_array, (inputs, pooled, places)))
        context.save_for_backward(places)
        return pooled

    @staticmethod
    def backward(context, gradient):
        (places,) = context.saved_tensors
        batch, channels, height, width = gradient.shape
        shape = (batch, channels, 2 * height, 2 * width)
        result = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        load_kernels().spread(*map(_as_array, (gradient, places, result)))
        return result


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    """(N, C, H, W) floats in channels_last as integers (N, H, W, C), of the same memory."""
    return tensor.view(INTEGERS.get(tensor.dtype, tensor.dtype)).permute(0, 2, 3, 1).numpy()


def _find_kernels() -> SimpleNamespace | None:
    """The kernels, where they are faster. They use one thread, which torch's own take four or five to keep up with;
    and to share them out among threads of ours would set these against torch's, which wait by spinning."""
    return load_kernels() if torch.get_num_threads() <= 4 else None


@cache
def load_kernels() -> SimpleNamespace | None:
    """The two passes of pooling and dropout's mask, compiled for this CPU; None without numba.

    They take floats as integers of the same bits, which order alike once the lower bits of negative ones are
    flipped. The innermost loops are kept so simple that they vectorise.
    """
    try:
        from numba import njit
    except ImportError:
        return None

    @njit(cache=True)
    def pool(inputs, pooled, places):
        number = inputs.dtype.type  # a plain 0 would make everything 64 bits wide
        bits = 8 * inputs.itemsize - 1
        bits, ones = number(bits), number((1 << bits) - 1)
        for n in range(pooled.shape[0]):
            for i in range(pooled.shape[1]):
                for j in range(pooled.shape[2]):
                    a, b = inputs[n, 2 * i, 2 * j], inputs[n, 2 * i, 2 * j + 1]
                    c, d = inputs[n, 2 * i + 1, 2 * j], inputs[n, 2 * i + 1, 2 * j + 1]
                    largest, place = pooled[n, i, j], places[n, i, j]
                    for k in range(pooled.shape[3]):
                        best, at = a[k] ^ ((a[k] >> bits) & ones), number(0)
                        other = b[k] ^ ((b[k] >> bits) & ones)
                        if other > best:
                            best, at = other, number(1)
                        other = c[k] ^ ((c[k] >> bits) & ones)
                        if other > best:
                            best, at = other, number(2)
                        other = d[k] ^ ((d[k] >> bits) & ones)
                        if other > best:
                            best, at = other, number(3)
                        largest[k] = best ^ ((best >> bits) & ones)
                        place[k] = at

    @njit(cache=True)
    def spread(gradient, places, result):
        for n in range(gradient.shape[0]):
            for i in range(gradient.shape[1]):
                for j in range(gradient.shape[2]):
                    source, place = gradient[n, i, j], places[n, i, j]
                    for at in range(4):
                        target = result[n, 2 * i + at // 2, 2 * j + at % 2]
                        for k in range(len(source)):
                            target[k] = source[k] & -(place[k] == at)

    @njit(cache=True)
    def keep(draws, mask, threshold, scale):
        nothing = mask.dtype.type(0)
        for k in range(len(draws)):
            mask[k] = scale if draws[k] >= threshold else nothing

    return SimpleNamespace(pool=pool, spread=spread, keep=keep)
