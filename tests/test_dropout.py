"""The faster dropout, by what dropout has to do, and where it is put."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from fer_lib import dropout
from fer_lib.models import MODELS

LAST = torch.channels_last


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(64, 32, 24, 24), (3, 5, 7, 7), (64, 128)])
def test_dropout_zeroes_at_its_rate_and_scales_the_rest(shape, dtype):
    torch.manual_seed(0)
    images = torch.ones(shape, dtype=dtype)
    images = (images.contiguous(memory_format=LAST) if images.dim() == 4 else images).requires_grad_()
    outputs = dropout.Dropout(0.25)(images)
    outputs.backward(torch.ones(shape, dtype=dtype))
    assert outputs.dtype == dtype and torch.equal(outputs, images.grad)
    assert set(outputs.unique().tolist()) <= {0.0, torch.tensor(4 / 3, dtype=dtype).item()}
    share, images = (outputs == 0).float().mean().item(), outputs.numel()
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / images)


@pytest.mark.parametrize(("rate", "left"), [(0.999, 1 / 256), (1.0, 0.0)])
def test_dropout_of_nearly_all_or_all_leaves_as_much(rate, left):
    kept = dropout.Dropout(rate)(torch.ones(200, 256)) != 0
    assert kept.float().mean().item() == pytest.approx(left, abs=2e-3)


def test_dropouts_draws_come_from_the_seed_and_are_independent():
    images = torch.randn(64, 32, 24, 24).to(torch.bfloat16).contiguous(memory_format=LAST)
    layer = dropout.Dropout(0.5)
    torch.manual_seed(1)
    first, other = layer(images), layer(images)
    kept = (first != 0).float().flatten()
    assert abs(torch.corrcoef(torch.stack([kept, (other != 0).float().flatten()]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(torch.stack([kept[1:], kept[:-1]]))[0, 1]) < 0.01
    torch.manual_seed(1)
    assert torch.equal(layer(images), first)
    assert torch.equal(layer.eval()(images), images)


def test_speed_up_changes_what_a_network_takes_not_what_it_is():
    torch.manual_seed(0)
    plain = MODELS["GigaModel"]().eval()
    fast_one = dropout.speed_up(copy.deepcopy(plain))
    kinds = Counter(type(layer) for layer in fast_one.modules())
    assert kinds[nn.Dropout] == 0 and kinds[dropout.Dropout] == 7
    assert list(fast_one.state_dict()) == list(plain.state_dict())
    images = torch.rand(4, 1, 48, 48)
    assert torch.equal(fast_one(images), plain(images))
