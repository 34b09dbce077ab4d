import subprocess
import sys

import pytest
import torch
from torch import nn

from fer_lib.extras.explore import calc_mean_attention
from fer_lib.models import MODELS, ResidualBlock, count_multiply_adds, count_parameters
from tests.conftest import PROJECT

FIVE_LAYERS = 320 + 18_496 + 73_856 + 2 * 147_584 + 2 * (32 + 64 + 3 * 128) + 2 * 147_584 + 4 * 128
EIGHT = (64, 64, 128, 128, 256, 256, 512, 512)
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
    # two convolutions; head 64 * 12 * 12 -> 128 -> 7
    "LayeredCNN": 320 + 18_496 + 1_179_776 + 903,
    # five convolutions with batch norm; a residual block of 128; four gates of 128 units, each with weights
    # for 128 inputs and 128 states and two biases; 128 -> 7
    "LSTMCNN": FIVE_LAYERS + 4 * 128 * (128 + 128 + 2) + 903,
    # 36 places; three projections and one back, with biases; layer norm; 128 -> 7
    # a convolution a stage with batch norm; two blocks of two, with batch norms; 256 -> 7
    "StrongCNN": 640
    + 73_856
    + 295_168
    + 2 * (64 + 128 + 256)
    + sum(2 * (2 * (9 * c * c + c) + 4 * c) for c in (64, 128, 256))
    + 256 * 7
    + 7,
    # eight convolutions of four widths, two for each channel of their batch norms; 512 -> 7
    "PlainCNN": sum(9 * a * b + b + 2 * b for a, b in zip((1, *2 * (64,), *2 * (128,), *2 * (256,), 512), EIGHT))
    + 512 * 7
    + 7,
    "AttentionCNN": FIVE_LAYERS + 36 * 128 + 4 * (128 * 128 + 128) + 2 * 128 + 903,
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


def test_multiply_adds_fall_with_the_images_area():
    whole, part = (count_multiply_adds(MODELS["PlainCNN"](), side) for side in (48, 24))
    assert part == pytest.approx(whole / 4, rel=1e-4)


def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    nn.functional.cross_entropy(model(torch.rand(8, 1, 48, 48)), torch.arange(8) % 7).backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, label


@pytest.mark.slow
def test_a_model_can_overfit_16_images(name, drawn):
    torch.manual_seed(0)
    images = torch.from_numpy(drawn.train.images[:16, None]) / 255
    labels = torch.from_numpy(drawn.train.labels[:16])
    model = MODELS[name](**({"conv_dropout": 0.0, "head_dropout": 0.0} if name == "GigaModel" else {}))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        logits = model(images)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        if (accuracy := (logits.argmax(1) == labels).float().mean()) == 1:
            break
    assert accuracy == 1


def test_the_baseline_is_the_reports_layer_by_layer():
    """conv 32 -> pool -> ReLU -> conv 64 -> pool -> ReLU -> conv 128 -> pool -> ReLU -> flatten -> 128 -> 7"""
    layers = list(MODELS["BaselineModel"]())
    block = [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
    kinds = 3 * block + [nn.Flatten, nn.Linear, nn.Linear]
    assert all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))
    assert [layer.out_channels for layer in layers[:9:3]] == [32, 64, 128]
    assert [layer.out_features for layer in layers[-2:]] == [128, 7]


def test_report_bs_layers_can_be_switched_one_by_one():
    plain, deeper = MODELS["LayeredCNN"](), MODELS["LayeredCNN"]((32, 64, 128))
    norm = MODELS["LayeredCNN"]((32, 64, 128), batch_norm=True)
    residual = MODELS["LayeredCNN"]((32, 64, 128), batch_norm=True, residual=True)
    kinds = [[type(layer).__name__ for layer in model.features] for model in (plain, deeper, norm, residual)]
    layer = ["Conv2d", "MaxPool2d", "ReLU"]
    with_norm = ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    assert kinds == [2 * layer, 3 * layer, 3 * with_norm, 3 * with_norm + ["ResidualBlock"]]


def test_an_lstm_reads_the_map_row_by_row_and_its_order_matters():
    torch.manual_seed(0)
    model = MODELS["LSTMCNN"]().eval()
    images = torch.rand(2, 1, 48, 48)
    features = model.features(images)
    states, _ = model.lstm(torch.stack([features[:, :, i, j] for i in range(6) for j in range(6)], 1))
    torch.testing.assert_close(model(images), model.head(states[:, -1]))
    assert not torch.allclose(model(images), model(images.flip(-1)))


def test_attention_is_a_map_of_the_places_that_sums_to_one():
    torch.manual_seed(0)
    model = MODELS["AttentionCNN"]().eval()
    maps = model.map_attention(torch.rand(3, 1, 48, 48))
    assert maps.shape == (3, 6, 6) and (maps > 0).all()
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))


def test_mean_attention_is_that_of_each_classs_images(small):
    torch.manual_seed(0)
    model = MODELS["AttentionCNN"]().eval()
    mean = calc_mean_attention(model, small.train)
    sad = torch.from_numpy(small.train.images[small.train.labels == 4][:, None]) / 255
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(mean[4]), model.map_attention(sad).mean(0))


def test_a_full_sized_first_stage_sees_every_pixel():
    """Where the first stage pools, one number is left of four pixels; and it costs no parameter."""
    pooled, full = (MODELS["StrongCNN"]((8, 16), (1, 1), full_size=full) for full in (False, True))
    assert count_parameters(pooled) == count_parameters(full)
    images, sizes = torch.rand(2, 1, 40, 40), []
    for model in (pooled, full):
        stage = next(layer for layer in model if isinstance(layer, ResidualBlock))
        stage.register_forward_hook(lambda layer, inputs, outputs: sizes.append(outputs.shape[-1]))
        assert model(images).shape == (2, 7)
    assert sizes == [20, 40]


@pytest.mark.slow
def test_torchvision_is_loaded_only_by_networks_that_need_it():
    """It takes a second or two, which each notebook that reads its runs back would wait for."""
    code = (
        "import sys; from fer_lib.experiments import EXPERIMENTS as all; all['a7_deeper_residual'].build_model(); "
        "assert 'torchvision' not in sys.modules; all['s10_squeeze_excitation'].build_model()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
