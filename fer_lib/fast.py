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

    torch looks at pixel after pixel, and keeps the place of each maximum in 8 bytes; here it takes as many bytes as
    the pixel, and the inner loops run over what lies side by side: channels in channels_last, else columns. Needs
    numba; without it, on many threads, and for odd sizes, it is torch's.
    """

    def __init__(self):
        super().__init__(2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        even = inputs.shape[2] % 2 == inputs.shape[3] % 2 == 0
        if inputs.dtype in INTEGERS and even and _find_layout(inputs) and _find_kernels():
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
        context.layout = _find_layout(inputs)
        shape = (batch, channels, height // 2, width // 2)
        pooled = torch.empty(shape, dtype=inputs.dtype, memory_format=context.layout)
        places = torch.empty_like(pooled, dtype=INTEGERS[inputs.dtype])
        load_kernels().pool[context.layout](*(_as_array(one, context.layout) for one in (inputs, pooled, places)))
        context.save_for_backward(places)
        return pooled

    @staticmethod
    def backward(context, gradient):
        (places,), layout = context.saved_tensors, context.layout
        batch, channels, height, width = gradient.shape
        result = torch.empty((batch, channels, 2 * height, 2 * width), dtype=gradient.dtype, memory_format=layout)
        gradient = gradient.contiguous(memory_format=layout)
        load_kernels().spread[layout](*(_as_array(one, layout) for one in (gradient, places, result)))
        return result


def _find_layout(tensor: torch.Tensor) -> torch.memory_format | None:
    layouts = (torch.channels_last, torch.contiguous_format)
    return next((layout for layout in layouts if tensor.is_contiguous(memory_format=layout)), None)


def _as_array(tensor: torch.Tensor, layout: torch.memory_format) -> np.ndarray:
    """Floats (N, C, H, W) as integers of the same memory: (N, H, W, C) in channels_last, else (N * C, H, W)."""
    integers = tensor.view(INTEGERS.get(tensor.dtype, tensor.dtype))
    if layout == torch.channels_last:
        return integers.permute(0, 2, 3, 1).numpy()
    return integers.flatten(0, 1).numpy()


def _find_kernels() -> SimpleNamespace | None:
    """The kernels, where they are faster. They use one thread, which torch's own take four or five to keep up with;
    and to share them out among threads of ours would set these against torch's, which wait by spinning."""
    return load_kernels() if torch.get_num_threads() <= 4 else None


@cache
def load_kernels() -> SimpleNamespace | None:
    """The two passes of pooling, for either layout, and dropout's mask, compiled for this CPU; None without numba.

    They take floats as integers of the same bits, which order alike once the lower bits of negative ones are
    flipped. The innermost loops are kept so simple that they vectorise, but for one that scatters.
    """
    try:
        from numba import njit
    except ImportError:
        return None

    @njit(cache=True)
    def choose(a, b, c, d, bits):
        """The largest of four, and its place, the first of equals; bits: of such a number, but for its sign."""
        number = type(a)  # a plain 0 would make everything 64 bits wide
        ones = number((1 << bits) - 1)
        best, at = a ^ ((a >> bits) & ones), number(0)
        other = b ^ ((b >> bits) & ones)
        if other > best:
            best, at = other, number(1)
        other = c ^ ((c >> bits) & ones)
        if other > best:
            best, at = other, number(2)
        other = d ^ ((d >> bits) & ones)
        if other > best:
            best, at = other, number(3)
        return best ^ ((best >> bits) & ones), at

    @njit(cache=True)
    def pool_channels(inputs, pooled, places):
        bits = inputs.dtype.type(8 * inputs.itemsize - 1)
        for n in range(pooled.shape[0]):
            for i in range(pooled.shape[1]):
                for j in range(pooled.shape[2]):
                    a, b = inputs[n, 2 * i, 2 * j], inputs[n, 2 * i, 2 * j + 1]
                    c, d = inputs[n, 2 * i + 1, 2 * j], inputs[n, 2 * i + 1, 2 * j + 1]
                    largest, place = pooled[n, i, j], places[n, i, j]
                    for k in range(pooled.shape[3]):
                        largest[k], place[k] = choose(a[k], b[k], c[k], d[k], bits)

    @njit(cache=True)
    def pool_columns(inputs, pooled, places):
        bits = inputs.dtype.type(8 * inputs.itemsize - 1)
        for n in range(pooled.shape[0]):
            for i in range(pooled.shape[1]):
                a, c = inputs[n, 2 * i], inputs[n, 2 * i + 1]
                largest, place = pooled[n, i], places[n, i]
                for j in range(pooled.shape[2]):
                    largest[j], place[j] = choose(a[2 * j], a[2 * j + 1], c[2 * j], c[2 * j + 1], bits)

    @njit(cache=True)
    def spread_channels(gradient, places, result):
        for n in range(gradient.shape[0]):
            for i in range(gradient.shape[1]):
                for j in range(gradient.shape[2]):
                    source, place = gradient[n, i, j], places[n, i, j]
                    for at in range(4):
                        target = result[n, 2 * i + at // 2, 2 * j + at % 2]
                        for k in range(len(source)):
                            target[k] = source[k] & -(place[k] == at)

    @njit(cache=True)
    def spread_columns(gradient, places, result):
        result[:] = 0
        for n in range(gradient.shape[0]):
            for i in range(gradient.shape[1]):
                rows = result[n, 2 * i : 2 * i + 2]
                for j in range(gradient.shape[2]):
                    at = places[n, i, j]
                    rows[at >> 1, 2 * j + (at & 1)] = gradient[n, i, j]

    @njit(cache=True)
    def keep(draws, mask, threshold, scale):
        nothing = mask.dtype.type(0)
        for k in range(len(draws)):
            mask[k] = scale if draws[k] >= threshold else nothing

    last, plain = torch.channels_last, torch.contiguous_format
    pool = {last: pool_channels, plain: pool_columns}
    spread = {last: spread_channels, plain: spread_columns}
    return SimpleNamespace(pool=pool, spread=spread, keep=keep)
