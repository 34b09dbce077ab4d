"""The architectures of both reports, named as there.

Each maps images, float (N, 1, 48, 48) in 0-1, to logits, float (N, 7).
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_lib.data import EMOTIONS, SIDE
from fer_lib.layers import Conv2d, Dropout, MaxPool2d


class BaselineModel(nn.Sequential):
    """Report A, step A1: three convolutions of 32, 64 and 128 filters, each followed by 2x2
    max pooling and then ReLU, and a head of 128.

    The report gives no filter size: 3x3 with padding 1, so that pooling alone shrinks the
    map, 48 to 6. It names no ReLU in the head, and there is none.
    """

    def __init__(self):
        super().__init__(
            *_conv_pool_relu(1, 32),
            *_conv_pool_relu(32, 64),
            *_conv_pool_relu(64, 128),
            nn.Flatten(),
            nn.Linear(128 * (SIDE // 8) ** 2, 128),
            nn.Linear(128, len(EMOTIONS)),
        )


class ImprovedModel(nn.Sequential):
    """Report A, steps A2 to A5: the baseline with batch norm (Ioffe and Szegedy 2015), then with
    dropout (Srivastava et al. 2014) too, then with more filters, then with a deeper head.

    filters: of each convolution; head: width of each hidden layer of the head; conv_dropout and
    head_dropout: probability, 0-1, of zeroing an activation after each of these.

    Batch norm stands after pooling, where it has a quarter of the activations to pass over, and
    before ReLU. A head of one hidden layer has no ReLU, as in A1; a deeper one has one after each
    hidden layer, since without it the layers would amount to a single one.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64, 128),
        head: tuple[int, ...] = (128,),
        conv_dropout: float = 0.0,
        head_dropout: float = 0.0,
    ):
        layers, inputs = [], 1
        for outputs in filters:
            layers += [*_conv_pool_norm_relu(inputs, outputs), *_dropout(conv_dropout)]
            inputs = outputs
        super().__init__(*layers, *_make_head(inputs, len(filters), head, head_dropout))


class GigaModel(nn.Sequential):
    """Report A, steps A6 and A7: residual blocks (He et al. 2016, doi:10.1109/CVPR.2016.90) after
    each convolution of A5, then two more convolutions and one more layer in the head.

    blocks: how many follow each of the convolutions of `filters`; skip: whether they add their
    input to their output, which is what makes them residual; else as `ImprovedModel`.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64, 128, 256),
        blocks: tuple[int, ...] = (1, 1, 1, 1),
        head: tuple[int, ...] = (512, 256, 128),
        conv_dropout: float = 0.25,
        head_dropout: float = 0.5,
        skip: bool = True,
    ):
        layers, inputs = [], 1
        for outputs, count in zip(filters, blocks, strict=True):
            layers += _conv_pool_norm_relu(inputs, outputs)
            layers += [ResidualBlock(outputs, skip) for _ in range(count)] + _dropout(conv_dropout)
            inputs = outputs
        super().__init__(*layers, *_make_head(inputs, len(filters), head, head_dropout))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, whose result is added to their input: (N, C, H, W) to the same shape."""

    def __init__(self, filters: int, skip: bool = True):
        super().__init__()
        self.skip = skip
        self.layers = nn.Sequential(
            Conv2d(filters, filters),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            Conv2d(filters, filters),
            nn.BatchNorm2d(filters),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layers(inputs)
        return torch.relu(outputs + inputs if self.skip else outputs)


def _conv_pool_norm_relu(inputs: int, filters: int) -> list[nn.Module]:
    return [Conv2d(inputs, filters), MaxPool2d(), nn.BatchNorm2d(filters), nn.ReLU()]


def _make_head(filters: int, poolings: int, widths: tuple[int, ...], dropout: float) -> list[nn.Module]:
    """Flatten, hidden layers of these widths, and the seven logits."""
    layers, inputs = [nn.Flatten()], filters * (SIDE // 2**poolings) ** 2
    for outputs in widths:
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)]
        layers += [nn.ReLU()] * (len(widths) > 1) + _dropout(dropout)
        inputs = outputs
    return [*layers, nn.Linear(inputs, len(EMOTIONS))]


def _dropout(probability: float) -> list[nn.Module]:
    return [Dropout(probability)] if probability else []


def _conv_pool_relu(inputs: int, filters: int) -> list[nn.Module]:
    return [Conv2d(inputs, filters), MaxPool2d(), nn.ReLU()]


MODELS = {model.__name__: model for model in (BaselineModel, ImprovedModel, GigaModel)}
"""Every architecture by the name that an experiment gives it."""


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module) -> int:
    """Multiplications, each with its addition, of one image's way through the convolutions and linear layers."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, 1, SIDE, SIDE))
    return counter.get_total_flops() // 2
