from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fer_lib.extras.explain import calc_mean_saliency, calc_saliency, measure_masking


class MouthReader(nn.Module):
    """Looks at one square alone: the brighter it is, the more it says Happy, and else Sad."""

    def forward(self, images):
        light = 10 * (images[:, 0, 36:42, 18:24].mean((1, 2)) - 0.5)
        zeros = torch.zeros(len(images), device=images.device)
        return torch.stack([zeros - 9] * 3 + [light, -light] + [zeros - 9] * 2, 1)


@pytest.fixture
def faces(small):
    """Noise with a bright or dark mouth, labelled Happy or Sad."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 48, 48)).astype(np.uint8)
    labels = rng.integers(3, 5, 200)
    images[:, 36:42, 18:24] = np.where(labels == 3, 220, 30)[:, None, None]
    return replace(small.test, images=images, labels=labels, rows=np.arange(200))


def test_saliency_marks_what_the_network_looks_at_and_nothing_else(faces):
    saliency = calc_saliency(MouthReader(), faces.images, faces.labels, faces.images.mean(0))
    assert saliency.shape == (200, 48, 48) and (saliency >= 0).all()
    inside = saliency[:, 36:42, 18:24].sum((1, 2))
    np.testing.assert_allclose(inside, saliency.sum((1, 2)), rtol=1e-5)
    # integrated gradients add up to the difference of the logits: 10 times that of the mean of the square
    start = faces.images.mean(0)[36:42, 18:24].mean()
    expected = 10 * np.abs(faces.images[:, 36:42, 18:24].mean((1, 2)) - start) / 255
    np.testing.assert_allclose(inside, expected, rtol=1e-3)
    mean = calc_mean_saliency(saliency, faces)
    assert mean[3].sum() == pytest.approx(1) and np.isnan(mean[0]).all()


def test_masking_what_a_true_map_marks_costs_most_and_a_false_map_is_found_out(faces):
    model = MouthReader()
    table = measure_masking(model, faces, calc_saliency(model, faces.images, faces.labels, faces.images.mean(0)))
    assert table.index[0] == 0 and (table.iloc[0] == 1).all()
    assert table["most salient first"].iloc[1] < 0.7 < table["at random"].iloc[1]
    assert table["least salient first"].iloc[-1] == 1
    false = np.random.default_rng(1).random((200, 48, 48)).astype(np.float32)
    wrong = measure_masking(model, faces, false)
    assert abs(wrong["most salient first"] - wrong["at random"]).iloc[1:].max() < 0.15
