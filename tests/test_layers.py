"""The faster layers against torch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fer_lib import layers

LAST = torch.channels_last


@pytest.fixture(params=[1, 5], ids=["few threads", "many threads"], autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    assert (layers._find_kernels() is None) == (request.param == 5)
    yield request.param
    torch.set_num_threads(before)


def run(layer, images, gradient):
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    outputs = layer(images)
    outputs.backward(gradient)
    return outputs.detach(), images.grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
@pytest.mark.parametrize("size", [48, 6, 3])
def test_pooling_is_torchs_to_the_bit(dtype, layout, size):
    images = torch.randn(5, 7, size, size).to(dtype).contiguous(memory_format=layout)
    images[0] = images[1, 0, 0, 0]  # ties: the first of equals counts
    images[2] = -images[2].abs()
    gradient = torch.randn(5, 7, size // 2, size // 2).to(dtype)
    for own, torchs in zip(run(layers.MaxPool2d(), images, gradient), run(nn.MaxPool2d(2), images, gradient)):
        assert own.dtype == dtype and torch.equal(own, torchs)


@pytest.mark.parametrize("shape", [(64, 32, 24, 24), (3, 5, 7, 7), (64, 128)])
def test_dropout_zeroes_at_its_rate_and_scales_the_rest(shape):
    torch.manual_seed(0)
    images = torch.ones(shape)
    images = images.contiguous(memory_format=LAST) if images.dim() == 4 else images
    outputs, gradient = run(layers.Dropout(0.25), images, torch.ones(shape))
    assert torch.equal(outputs, gradient)
    assert set(outputs.unique().tolist()) <= {0.0, torch.tensor(4 / 3).item()}
    share, images = (outputs == 0).float().mean().item(), outputs.numel()
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / images)


def test_dropouts_draws_come_from_the_seed_are_independent_and_need_no_numba(monkeypatch):
    images = torch.randn(64, 32, 24, 24).to(torch.bfloat16).contiguous(memory_format=LAST)
    layer = layers.Dropout(0.5)
    torch.manual_seed(1)
    first, other = layer(images), layer(images)
    kept = (first != 0).float().flatten()
    assert abs(torch.corrcoef(torch.stack([kept, (other != 0).float().flatten()]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(torch.stack([kept[1:], kept[:-1]]))[0, 1]) < 0.01
    monkeypatch.setattr(layers, "load_kernels", lambda: None)
    torch.manual_seed(1)
    assert torch.equal(layer(images), first)
    assert torch.equal(layer.eval()(images), images)


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
@pytest.mark.parametrize("size", [1, 3, 6, 12])
def test_convolution_has_torchs_gradients(size, layout):
    torch.manual_seed(0)
    own, torchs = layers.Conv2d(16, 24), nn.Conv2d(16, 24, 3, padding=1)
    torchs.load_state_dict(own.state_dict())
    images, gradient = torch.randn(8, 16, size, size).contiguous(memory_format=layout), torch.randn(8, 24, size, size)

    def run_bfloat16(layer):
        with torch.autocast("cpu", torch.bfloat16):
            outputs, images_gradient = run(layer, images, gradient.to(torch.bfloat16))
        return outputs, images_gradient, layer.weight.grad, layer.bias.grad

    for mine, theirs in zip(run_bfloat16(own), run_bfloat16(torchs)):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert (mine - theirs).norm() < 0.01 * theirs.norm()
    assert torch.equal(own(images), F.conv2d(images, own.weight, own.bias, padding=1))


@pytest.mark.parametrize("size", [48, 6, 5])
def test_a_convolution_with_pooling_in_one_pass_is_the_two_in_turn(size):
    torch.manual_seed(0)
    own = layers.Sequential(layers.Conv2d(1, 40), layers.MaxPool2d(), nn.Flatten())
    torchs = nn.Sequential(nn.Conv2d(1, 40, 3, padding=1), nn.MaxPool2d(2), nn.Flatten())
    torchs.load_state_dict(own.state_dict())
    images = torch.rand(8, 1, size, size).contiguous(memory_format=LAST)
    gradient = torch.randn(8, 40 * (size // 2) ** 2)

    def run_bfloat16(model):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        outputs.backward(gradient.to(torch.bfloat16))
        return outputs.detach(), model[0].weight.grad, model[0].bias.grad

    (mine, *my_gradients), (theirs, *their_gradients) = run_bfloat16(own), run_bfloat16(torchs)
    assert mine.dtype == theirs.dtype and torch.allclose(mine, theirs, atol=0.01)
    # where two neighbours round to the same, either may have the gradient
    for one, other in zip(my_gradients, their_gradients):
        assert (one - other).norm() < 0.1 * other.norm()
    assert torch.equal(own(images), torchs(images))  # in full precision


def test_one_pass_gives_the_gradient_of_full_precision():
    """Of numbers that bfloat16 can hold, so that nothing is rounded but the sums."""
    torch.manual_seed(0)
    own = layers.Sequential(layers.Conv2d(1, 8), layers.MaxPool2d())
    own.load_state_dict({name: layers._round(value) for name, value in own.state_dict().items()})
    images, gradient = layers._round(torch.rand(4, 1, 12, 12)), layers._round(torch.randn(4, 8, 6, 6))
    own(images).backward(gradient)
    exact = [weight.grad.clone() for weight in own.parameters()]
    own.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = own(images)
    outputs.backward(gradient.to(torch.bfloat16))
    if layers._find_kernels():
        for weight, right in zip(own.parameters(), exact):
            assert torch.allclose(weight.grad, right, rtol=1e-4, atol=1e-4)


def test_images_that_want_a_gradient_get_it():
    own = layers.Sequential(layers.Conv2d(1, 8), layers.MaxPool2d())
    images = torch.rand(4, 1, 12, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        own(images).sum().backward()
    assert images.grad.abs().sum() > 0
