"""The faster layers against torch's own."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from fer_lib import fast
from fer_lib.models import MODELS

LAST = torch.channels_last


@pytest.fixture(params=[1, 5], ids=["few threads", "many threads"], autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    assert (fast._find_kernels() is None) == (request.param == 5)
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
    for own, torchs in zip(run(fast.MaxPool2d(), images, gradient), run(nn.MaxPool2d(2), images, gradient)):
        assert own.dtype == dtype and torch.equal(own, torchs)


@pytest.mark.parametrize("shape", [(64, 32, 24, 24), (3, 5, 7, 7), (64, 128)])
def test_dropout_zeroes_at_its_rate_and_scales_the_rest(shape):
    torch.manual_seed(0)
    images = torch.ones(shape)
    images = images.contiguous(memory_format=LAST) if images.dim() == 4 else images
    outputs, gradient = run(fast.Dropout(0.25), images, torch.ones(shape))
    assert torch.equal(outputs, gradient)
    assert set(outputs.unique().tolist()) <= {0.0, torch.tensor(4 / 3).item()}
    share, images = (outputs == 0).float().mean().item(), outputs.numel()
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / images)


def test_dropouts_draws_come_from_the_seed_are_independent_and_need_no_numba(monkeypatch):
    images = torch.randn(64, 32, 24, 24).to(torch.bfloat16).contiguous(memory_format=LAST)
    layer = fast.Dropout(0.5)
    torch.manual_seed(1)
    first, other = layer(images), layer(images)
    kept = (first != 0).float().flatten()
    assert abs(torch.corrcoef(torch.stack([kept, (other != 0).float().flatten()]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(torch.stack([kept[1:], kept[:-1]]))[0, 1]) < 0.01
    monkeypatch.setattr(fast, "load_kernels", lambda: None)
    torch.manual_seed(1)
    assert torch.equal(layer(images), first)
    assert torch.equal(layer.eval()(images), images)


def test_speed_up_changes_what_a_network_takes_not_what_it_is():
    torch.manual_seed(0)
    plain = MODELS["GigaModel"]().eval()
    fast_one = fast.speed_up(copy.deepcopy(plain))
    kinds = Counter(type(layer) for layer in fast_one.modules())
    assert kinds[nn.MaxPool2d] == kinds[nn.Dropout] == 0 and kinds[fast.MaxPool2d] == 4 and kinds[fast.Dropout] == 7
    assert list(fast_one.state_dict()) == list(plain.state_dict())
    images = torch.rand(4, 1, 48, 48)
    assert torch.equal(fast_one(images), plain(images))
