"""The architectures of both reports, named as there.

Each maps images, float (N, 1, 48, 48) in 0-1, to logits, float (N, 7).
"""

from torch import nn

from fer_lib.data import EMOTIONS, SIDE


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


def _conv_pool_relu(inputs: int, filters: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]


MODELS = {model.__name__: model for model in (BaselineModel,)}
"""Every architecture by the name that an experiment gives it."""


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters())
