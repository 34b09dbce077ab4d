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
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.Dropout(conv_dropout)] * (conv_dropout > 0)
            inputs = outputs
        layers.append(nn.Flatten())
        inputs *= (SIDE // 2 ** len(filters)) ** 2
        for outputs in head:
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)]
            layers += [nn.ReLU()] * (len(head) > 1) + [nn.Dropout(head_dropout)] * (head_dropout > 0)
            inputs = outputs
        super().__init__(*layers, nn.Linear(inputs, len(EMOTIONS)))


def _conv_pool_relu(inputs: int, filters: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]


MODELS = {model.__name__: model for model in (BaselineModel, ImprovedModel)}
"""Every architecture by the name that an experiment gives it."""


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters())
