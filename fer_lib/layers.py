"""Convolution, max pooling, dropout and layers in turn as in torch.nn, faster on a CPU of few threads.

On other devices they are torch's own. Pooling gives the same numbers to the bit; the others do not.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}  # of the same width


class Conv2d(nn.Conv2d):
    """3x3 convolution with padding 1: float (N, inputs, H, W) to (N, outputs, H, W).

    In bfloat16 and on maps of at most 6x6, the gradient of the weights is taken as one product of matrices,
    for which oneDNN takes longer, the smaller the map the more.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        small = inputs.shape[2] * inputs.shape[3] <= 36
        if not (small and inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super().forward(inputs)
        return _Convolution.apply(*(t.to(torch.bfloat16) for t in (inputs, self.weight, self.bias)))


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
        fits = inputs.device.type == "cpu" and inputs.dtype in INTEGERS and even
        if fits and inputs.is_contiguous(memory_format=torch.channels_last) and _find_kernels():
            return _Pooling.apply(inputs)
        return super().forward(inputs)


class Dropout(nn.Dropout):
    """Zero each activation with probability p and scale the others by 1 / (1 - p), in training.

    torch draws a random number for each activation; here one of 64 bits serves eight of them, so p
    is rounded to a multiple of 1/256.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training or inputs.device.type != "cpu":
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


class Sequential(nn.Sequential):
    """Layers in turn. A convolution of a single channel that opens them and the pooling after it are one pass.

    In bfloat16 alone, and unless the images' own gradient is asked for. The map before pooling, the largest of
    all, is then never written, and the gradient is taken at its maxima alone. Which of four neighbours is the
    largest is seen before rounding to bfloat16, not after.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        layers = list(self)
        if isinstance(layers[0], Conv2d) and isinstance(layers[1], MaxPool2d) and _fits_one_pass(layers[0], inputs):
            inputs, layers = _ConvolutionWithPooling.apply(inputs, layers[0].weight, layers[0].bias), layers[2:]
        for layer in layers:
            inputs = layer(inputs)
        return inputs


def _fits_one_pass(convolution: Conv2d, inputs: torch.Tensor) -> bool:
    plain = convolution.in_channels == 1 and inputs.shape[2] % 2 == inputs.shape[3] % 2 == 0
    bfloat16 = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return plain and bfloat16 and not inputs.requires_grad and bool(_find_kernels())


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(context, inputs, weight, bias):
        context.save_for_backward(inputs, weight)
        return F.conv2d(inputs, weight, bias, padding=1)

    @staticmethod
    def backward(context, gradient):
        inputs, weight = context.saved_tensors
        padded = F.pad(inputs.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
        (batch, height, width, channels), strides = padded.shape, padded.stride()
        # the 3x3 places under each pixel of the gradient; three in a row lie side by side
        seen = padded.as_strided((batch, height - 2, width - 2, 3, 3 * channels), (*strides[:3], strides[1], 1))
        flat = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        for_weight = (flat.t() @ seen.reshape(len(flat), -1)).view(-1, 3, 3, channels).permute(0, 3, 1, 2)
        for_inputs = torch.nn.grad.conv2d_input(inputs.shape, weight, gradient, padding=1)
        return for_inputs, for_weight, flat.sum(0)


class _ConvolutionWithPooling(torch.autograd.Function):
    """In full precision, on numbers rounded to bfloat16, as matrices are multiplied."""

    @staticmethod
    def forward(context, inputs, weight, bias):
        batch, _, height, width = inputs.shape
        padded = F.pad(_round(inputs[:, 0]), (1, 1, 1, 1))
        by_place = _round(weight).flatten(1).t().contiguous()  # (9, filters)
        shape = (batch, len(weight), height // 2, width // 2)
        pooled = torch.empty(shape, dtype=torch.bfloat16, memory_format=torch.channels_last)
        places = torch.empty_like(pooled, dtype=torch.int8)
        tensors = (padded, by_place, _round(bias))
        load_kernels().convolve(*(t.detach().numpy() for t in tensors), *map(_as_array, (pooled, places)))
        context.save_for_backward(padded, places)
        return pooled

    @staticmethod
    def backward(context, gradient):
        padded, places = context.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        by_place, for_bias = torch.zeros(9, places.shape[1]), torch.zeros(places.shape[1])
        arrays = map(_as_array, (gradient, places))
        load_kernels().gather(padded.numpy(), *arrays, by_place.numpy(), for_bias.numpy())
        return None, by_place.t().reshape(-1, 1, 3, 3), for_bias


def _round(tensor: torch.Tensor) -> torch.Tensor:
    """To what bfloat16 can hold, as float32."""
    return tensor.to(torch.bfloat16).float()


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
    """The two passes of pooling, those of a convolution with pooling, and dropout's mask, compiled for this CPU;
    None without numba.

    They take bfloat16, and pooling and dropout all floats, as integers of the same bits, which order alike once
    the lower bits of negative ones are flipped. The innermost loops are kept so simple that they vectorise.
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

    @njit(cache=True, fastmath={"contract"})  # a product and its sum in one instruction
    def convolve(images, weight, bias, pooled, places):
        for n in range(pooled.shape[0]):
            for i in range(pooled.shape[1]):
                a, b, c, d = images[n, 2 * i], images[n, 2 * i + 1], images[n, 2 * i + 2], images[n, 2 * i + 3]
                for j in range(pooled.shape[2]):
                    # the 4x4 pixels under four neighbouring 3x3 windows
                    a0, a1, a2, a3 = a[2 * j], a[2 * j + 1], a[2 * j + 2], a[2 * j + 3]
                    b0, b1, b2, b3 = b[2 * j], b[2 * j + 1], b[2 * j + 2], b[2 * j + 3]
                    c0, c1, c2, c3 = c[2 * j], c[2 * j + 1], c[2 * j + 2], c[2 * j + 3]
                    d0, d1, d2, d3 = d[2 * j], d[2 * j + 1], d[2 * j + 2], d[2 * j + 3]
                    largest, place = pooled[n, i, j], places[n, i, j]
                    for k in range(pooled.shape[3]):
                        r, s, t = weight[0, k], weight[1, k], weight[2, k]
                        u, v, w = weight[3, k], weight[4, k], weight[5, k]
                        x, y, z = weight[6, k], weight[7, k], weight[8, k]
                        best = a0 * r + a1 * s + a2 * t + b0 * u + b1 * v + b2 * w + c0 * x + c1 * y + c2 * z
                        at = np.int8(0)
                        other = a1 * r + a2 * s + a3 * t + b1 * u + b2 * v + b3 * w + c1 * x + c2 * y + c3 * z
                        if other > best:
                            best, at = other, np.int8(1)
                        other = b0 * r + b1 * s + b2 * t + c0 * u + c1 * v + c2 * w + d0 * x + d1 * y + d2 * z
                        if other > best:
                            best, at = other, np.int8(2)
                        other = b1 * r + b2 * s + b3 * t + c1 * u + c2 * v + c3 * w + d1 * x + d2 * y + d3 * z
                        if other > best:
                            best, at = other, np.int8(3)
                        bits = np.float32(best + bias[k]).view(np.int32)
                        largest[k] = (bits + np.int32(0x7FFF) + ((bits >> 16) & 1)) >> 16  # nearest, ties to even
                        place[k] = at

    @njit(cache=True, fastmath={"contract"})
    def gather(images, gradient, places, weight, bias):
        nothing = np.float32(0)
        for n in range(gradient.shape[0]):
            for i in range(gradient.shape[1]):
                a, b, c, d = images[n, 2 * i], images[n, 2 * i + 1], images[n, 2 * i + 2], images[n, 2 * i + 3]
                for j in range(gradient.shape[2]):
                    a0, a1, a2, a3 = a[2 * j], a[2 * j + 1], a[2 * j + 2], a[2 * j + 3]
                    b0, b1, b2, b3 = b[2 * j], b[2 * j + 1], b[2 * j + 2], b[2 * j + 3]
                    c0, c1, c2, c3 = c[2 * j], c[2 * j + 1], c[2 * j + 2], c[2 * j + 3]
                    d0, d1, d2, d3 = d[2 * j], d[2 * j + 1], d[2 * j + 2], d[2 * j + 3]
                    source, place = gradient[n, i, j], places[n, i, j]
                    for k in range(gradient.shape[3]):
                        value, at = np.int32(np.int32(source[k]) << 16).view(np.float32), place[k]
                        p = value if at == 0 else nothing
                        q = value if at == 1 else nothing
                        r = value if at == 2 else nothing
                        s = value if at == 3 else nothing
                        weight[0, k] += p * a0 + q * a1 + r * b0 + s * b1
                        weight[1, k] += p * a1 + q * a2 + r * b1 + s * b2
                        weight[2, k] += p * a2 + q * a3 + r * b2 + s * b3
                        weight[3, k] += p * b0 + q * b1 + r * c0 + s * c1
                        weight[4, k] += p * b1 + q * b2 + r * c1 + s * c2
                        weight[5, k] += p * b2 + q * b3 + r * c2 + s * c3
                        weight[6, k] += p * c0 + q * c1 + r * d0 + s * d1
                        weight[7, k] += p * c1 + q * c2 + r * d1 + s * d2
                        weight[8, k] += p * c2 + q * c3 + r * d2 + s * d3
                        bias[k] += value

    @njit(cache=True)
    def keep(draws, mask, threshold, scale):
        nothing = mask.dtype.type(0)
        for k in range(len(draws)):
            mask[k] = scale if draws[k] >= threshold else nothing

    return SimpleNamespace(pool=pool, spread=spread, convolve=convolve, gather=gather, keep=keep)
