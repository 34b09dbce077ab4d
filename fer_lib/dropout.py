"""Dropout, faster than torch's on a CPU: `speed_up` puts it into a network."""

import torch
from torch import nn


def speed_up(model: nn.Module) -> nn.Module:
    """Put this dropout in the place of torch's, all through a model that is on a CPU; weights and their names stay."""
    for name, layer in model.named_children():
        if isinstance(layer, nn.Dropout):
            setattr(model, name, Dropout(layer.p).train(layer.training))
        else:
            speed_up(layer)
    return model


class Dropout(nn.Dropout):
    """Zero each activation with probability p and scale the others by 1 / (1 - p), in training.

    torch draws a random number for each activation; here one of 64 bits serves eight of them, so p
    is rounded to a multiple of 1/256.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 1:
            return super().forward(inputs)
        threshold, size = min(round(256 * self.p), 255), inputs.numel()
        mask = torch.empty_like(inputs)
        flat = mask.as_strided((size,), (1,))  # empty_like is dense, whatever the inputs' layout
        draws = torch.empty(-(-size // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:size]
        scale = torch.tensor(256 / (256 - threshold), dtype=inputs.dtype)
        torch.mul(draws >= threshold, scale, out=flat)
        return inputs * mask
