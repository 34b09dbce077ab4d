import pytest
import torch
from torch import nn

from fer_lib.models import MODELS, count_multiply_adds, count_parameters

PARAMETERS = {
    # convolutions: 9 * in * out + out; head: 128 * 6 * 6 * 128 + 128, 128 * 7 + 7
    "BaselineModel": 320 + 18_496 + 73_856 + 589_952 + 903,
    # the same, and two for each channel of its four batch norms
    "ImprovedModel": 320 + 18_496 + 73_856 + 589_952 + 903 + 2 * (32 + 64 + 128 + 128),
    # convolutions; two for each channel of their batch norms; two convolutions and two batch norms
    # a residual block; head 2304 -> 512 -> 256 -> 128 -> 7 with batch norms
    "GigaModel": 320
    + 18_496
    + 73_856
    + 295_168
    + 2 * 480
    + sum(2 * (9 * c * c + c) + 4 * c for c in (32, 64, 128, 256))
    + 1_180_160
    + 131_328
    + 32_896
    + 903
    + 2 * 896,
}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def test_a_model_maps_images_to_seven_logits(name):
    assert MODELS[name]()(torch.rand(3, 1, 48, 48)).shape == (3, 7)


def test_parameter_counts_are_those_worked_out_by_hand(name):
    assert count_parameters(MODELS[name]()) == PARAMETERS[name]


def test_multiply_adds_are_those_worked_out_by_hand():
    """9 * in * out at each pixel of the three convolutions, and the two linear layers."""
    convolutions = 9 * (1 * 32 * 48**2 + 32 * 64 * 24**2 + 64 * 128 * 12**2)
    assert count_multiply_adds(MODELS["BaselineModel"]()) == convolutions + 4608 * 128 + 128 * 7


def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    nn.functional.cross_entropy(model(torch.rand(8, 1, 48, 48)), torch.arange(8) % 7).backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, label


def test_a_model_can_overfit_32_images(name, drawn):
    torch.manual_seed(0)
    images = torch.from_numpy(drawn.train.images[:32, None]) / 255
    labels = torch.from_numpy(drawn.train.labels[:32])
    model = MODELS[name]()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        logits = model(images)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        if (accuracy := (logits.argmax(1) == labels).float().mean()) > 0.95:
            break
    assert accuracy > 0.95


def test_the_baseline_is_the_reports_layer_by_layer():
    """conv 32 -> pool -> ReLU -> conv 64 -> pool -> ReLU -> conv 128 -> pool -> ReLU -> flatten -> 128 -> 7"""
    layers = list(MODELS["BaselineModel"]())
    block = [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
    kinds = 3 * block + [nn.Flatten, nn.Linear, nn.Linear]
    assert all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))
    assert [layer.out_channels for layer in layers[:9:3]] == [32, 64, 128]
    assert [layer.out_features for layer in layers[-2:]] == [128, 7]
