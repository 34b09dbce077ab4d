"""The architectures of both reports, named as there, and the strong model.

Each maps images, float (N, 1, 48, 48) in 0-1, to logits, float (N, classes): seven for FER2013's.
"""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fer_lib.dataset import EMOTIONS, SIDE


class BaselineModel(nn.Sequential):
    """Report A, step A1: three convolutions of 32, 64 and 128 filters, each followed by 2x2
    max pooling and then ReLU, and a head of 128.

    The report gives no filter size: 3x3 with padding 1, so that pooling alone shrinks the
    map, 48 to 6. It names no ReLU in the head, and there is none.
    """

    def __init__(self, classes: int = len(EMOTIONS)):
        super().__init__(
            *_conv_pool_relu(1, 32),
            *_conv_pool_relu(32, 64),
            *_conv_pool_relu(64, 128),
            nn.Flatten(),
            nn.Linear(128 * (SIDE // 8) ** 2, 128),
            nn.Linear(128, classes),
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
        classes: int = len(EMOTIONS),
    ):
        layers, inputs = [], 1
        for outputs in filters:
            layers += [*_conv_norm_relu(inputs, outputs), *_dropout(conv_dropout)]
            inputs = outputs
        super().__init__(*layers, *_make_head(inputs, len(filters), head, head_dropout, classes))


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
        classes: int = len(EMOTIONS),
    ):
        layers, inputs = [], 1
        for outputs, count in zip(filters, blocks, strict=True):
            layers += _conv_norm_relu(inputs, outputs)
            layers += [ResidualBlock(outputs, skip) for _ in range(count)] + _dropout(conv_dropout)
            inputs = outputs
        super().__init__(*layers, *_make_head(inputs, len(filters), head, head_dropout, classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, whose result is added to their input: (N, C, H, W) to the same shape.

    skip: whether the input is added; squeeze_excitation: the result's channels are weighted by what is
    in them (Hu et al. 2018, doi:10.1109/CVPR.2018.00745); skip_rate: probability, 0-1, of leaving the
    result out for an image in training (stochastic depth, Huang et al. 2016, arXiv:1603.09382).
    """

    def __init__(self, filters: int, skip: bool = True, squeeze_excitation: bool = False, skip_rate: float = 0.0):
        super().__init__()
        self.skip = skip
        self.layers = nn.Sequential(
            _conv(filters, filters),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            _conv(filters, filters),
            nn.BatchNorm2d(filters),
        )
        if squeeze_excitation or skip_rate:
            from torchvision.ops import SqueezeExcitation, StochasticDepth  # takes a second or two; few need it

            self.layers.extend([SqueezeExcitation(filters, filters // 8)] * squeeze_excitation)
            self.layers.extend([StochasticDepth(skip_rate, "row")] * bool(skip_rate))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layers(inputs)
        return torch.relu(outputs + inputs if self.skip else outputs)


class LayeredCNN(nn.Module):
    """Report B, families B1 to B3: "2-Layer CNN", "3-Layer_Batchnorm" and "3-Layer_BatchNorm_Resnet".

    kernels: filters of each convolution, as the report calls them; drop_threshold: probability, 0-1,
    of zeroing a hidden unit of the head; batch_norm: after each convolution; residual: a
    `ResidualBlock` after the last one.

    The report gives no more than that. Here filters are 3x3 with padding, ReLU follows each
    convolution, 2x2 max pooling each of the first three, so that five of them leave the map at
    6x6, and the head has one hidden layer of 128, as report A's.
    """

    def __init__(
        self,
        kernels: tuple[int, ...] = (32, 64),
        drop_threshold: float = 0.5,
        batch_norm: bool = False,
        residual: bool = False,
        classes: int = len(EMOTIONS),
    ):
        super().__init__()
        self.features = _make_features(kernels, batch_norm, residual)
        side = SIDE // 2 ** min(len(kernels), POOLINGS)
        hidden = [nn.Linear(kernels[-1] * side**2, 128), nn.ReLU(), *_dropout(drop_threshold)]
        self.head = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


class LSTMCNN(nn.Module):
    """Report B, family B4, "5-Layer_CNN_LSTM_Resnet": the feature map is read by an LSTM (Hochreiter and
    Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735) as a sequence of its places, row by row.

    The logits are taken from its last state, of 128 units; else as `LayeredCNN`, with batch norm
    and a residual block.
    """

    def __init__(
        self,
        kernels: tuple[int, ...] = (32, 64, 128, 128, 128),
        drop_threshold: float = 0.5,
        classes: int = len(EMOTIONS),
    ):
        super().__init__()
        self.features = _make_features(kernels, batch_norm=True, residual=True)
        self.lstm = nn.LSTM(kernels[-1], 128, batch_first=True)
        self.head = nn.Sequential(*_dropout(drop_threshold), nn.Linear(128, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        _, (state, _) = self.lstm(_as_sequence(self.features(images)))
        return self.head(state[-1])


class AttentionCNN(nn.Module):
    """Report B, family B5, planned there: self-attention (Vaswani et al. 2017, arXiv:1706.03762) over the
    places of the feature map, in place of the LSTM.

    One layer of four heads, its input added to its output and normalised; a learned vector tells
    each place from the others. The logits are taken from the mean over the places; else as `LSTMCNN`.
    """

    def __init__(
        self,
        kernels: tuple[int, ...] = (32, 64, 128, 128, 128),
        drop_threshold: float = 0.5,
        classes: int = len(EMOTIONS),
    ):
        super().__init__()
        self.features = _make_features(kernels, batch_norm=True, residual=True)
        side = SIDE // 2 ** min(len(kernels), POOLINGS)
        self.places = nn.Parameter(0.02 * torch.randn(side**2, kernels[-1]))
        self.attention = nn.MultiheadAttention(kernels[-1], 4, batch_first=True)
        self.norm = nn.LayerNorm(kernels[-1])
        self.head = nn.Sequential(*_dropout(drop_threshold), nn.Linear(kernels[-1], classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        places = _as_sequence(self.features(images)) + self.places
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU its backward pass is much the faster for so few places
            seen, _ = self.attention(places, places, places, need_weights=False)
        return self.head(self.norm(places + seen).mean(1))

    def map_attention(self, images: torch.Tensor) -> torch.Tensor:
        """How much each place is looked at, in the mean over heads and over the places that look: (N, side, side),
        each map's sum 1."""
        places = _as_sequence(self.features(images)) + self.places
        _, weights = self.attention(places, places, places)
        side = round(weights.shape[1] ** 0.5)
        return weights.mean(1).unflatten(1, (side, side))


class StrongCNN(nn.Sequential):
    """The strong model: stages of a convolution with pooling and residual blocks (He et al. 2016), each at half
    the former's resolution, then the mean over the places (Lin et al. 2014, arXiv:1312.4400) and the logits.

    widths: filters of each stage; blocks: residual blocks in each; squeeze_excitation, skip_rate: of
    `ResidualBlock`, the rate rising from the first block's, near 0, to the last one's; full_size: the first stage does
    not pool, and so sees every pixel. Images may be of any size that the poolings leave something of.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256),
        blocks: tuple[int, ...] = (2, 2, 2),
        squeeze_excitation: bool = False,
        skip_rate: float = 0.0,
        full_size: bool = False,
        classes: int = len(EMOTIONS),
    ):
        layers, inputs, count = [], 1, 0
        for outputs, number in zip(widths, blocks, strict=True):
            layers += _conv_norm_relu(inputs, outputs, pool=bool(layers) or not full_size)
            for _ in range(number):
                count += 1
                layers.append(ResidualBlock(outputs, True, squeeze_excitation, skip_rate * count / sum(blocks)))
            inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class PlainCNN(nn.Sequential):
    """A strong model without shortcuts (after Simonyan and Zisserman 2015, arXiv:1409.1556): stages of two
    convolutions with batch norm, pooling between them, then the mean over the places and the logits.

    widths: filters of each stage. Images may be of any size that the poolings leave something of.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512), classes: int = len(EMOTIONS)):
        layers, inputs = [], 1
        for outputs in widths:
            layers += [nn.MaxPool2d(2)] * bool(layers)
            layers += _conv_norm_relu(inputs, outputs, pool=False) + _conv_norm_relu(outputs, outputs, pool=False)
            inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


POOLINGS = 3  # more would leave report B's deeper networks a map of a single place


def _make_features(kernels: tuple[int, ...], batch_norm: bool, residual: bool) -> nn.Sequential:
    """Convolutions with ReLU, the first three with pooling, and a residual block where asked for."""
    layers: list[nn.Module] = []
    inputs = 1
    for place, outputs in enumerate(kernels):
        layers += [_conv(inputs, outputs), *[nn.MaxPool2d(2)] * (place < POOLINGS)]
        layers += [*[nn.BatchNorm2d(outputs)] * batch_norm, nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, *([ResidualBlock(inputs)] if residual else []))


def _as_sequence(features: torch.Tensor) -> torch.Tensor:
    """A feature map (N, C, H, W) as its places row by row: (N, H * W, C)."""
    return features.flatten(2).transpose(1, 2)


def _conv(inputs: int, filters: int) -> nn.Conv2d:
    """3x3, with padding, so that the map stays as large."""
    return nn.Conv2d(inputs, filters, 3, padding=1)


def _conv_norm_relu(inputs: int, filters: int, pool: bool = True) -> list[nn.Module]:
    return [_conv(inputs, filters), *[nn.MaxPool2d(2)] * pool, nn.BatchNorm2d(filters), nn.ReLU()]


def _make_head(filters: int, poolings: int, widths: tuple[int, ...], dropout: float, classes: int) -> list[nn.Module]:
    """Flatten, hidden layers of these widths, and the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = filters * (SIDE // 2**poolings) ** 2
    for outputs in widths:
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)]
        layers += [*[nn.ReLU()] * (len(widths) > 1), *_dropout(dropout)]
        inputs = outputs
    return [*layers, nn.Linear(inputs, classes)]


def _dropout(probability: float) -> list[nn.Module]:
    return [nn.Dropout(probability)] if probability else []


def _conv_pool_relu(inputs: int, filters: int) -> list[nn.Module]:
    return [_conv(inputs, filters), nn.MaxPool2d(2), nn.ReLU()]


MODELS = {
    model.__name__: model
    for model in (BaselineModel, ImprovedModel, GigaModel, LayeredCNN, LSTMCNN, AttentionCNN, StrongCNN, PlainCNN)
}
"""Every architecture by the name that an experiment gives it."""


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, side: int = SIDE) -> int:
    """Multiplications, each with its addition, of the way of one image, of `side` by `side` pixels, through the
    convolutions and linear layers."""
    from torch.utils.flop_counter import FlopCounterMode  # brings triton, for which each notebook would wait a second

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, 1, side, side))
    return counter.get_total_flops() // 2
