"""What the strong model's training has beyond the reports' plain loop. All of it is off by default."""

import contextlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

SMALL = 32
"""Side in pixels of the images in the first epochs of a run with `Recipe.small_share`."""


@dataclass(frozen=True)
class Recipe:
    """How the weights are found, save for learning rate, batch and epochs.

    optimizer: "adam" (Kingma and Ba 2015), or "sgd", with Nesterov's momentum of 0.9;
    schedule: of the learning rate: "constant", or "one_cycle", a rise over the first tenth of the epochs,
    then half a cosine down to zero (Smith and Topin 2018, arXiv:1708.07120);
    weight_decay: of the weights, not of biases and batch norms; with Adam decoupled from the gradient
    (Loshchilov and Hutter 2019, arXiv:1711.05101);
    label_smoothing: share of each label given to all classes alike (Szegedy et al. 2016);
    averaging: the network that is judged is a moving average, of which each batch keeps this share, but the
    batch after n others at most (1 + n) / (10 + n); 0 is none;
    mixup: parameter of the beta distribution that says how images are mixed in pairs (Zhang et al. 2018,
    arXiv:1710.09412); 0 is not at all;
    small_share: share of the epochs, the first ones, on images shrunk to `SMALL` pixels;
    teaching: share of the loss that the teachers' answers make up, where an experiment has teachers; the rest is of
    the labels;
    draws: so many epochs differ in the order and treatment of their images, the later ones repeat them in turn, and
    teachers need be asked but once about each image in each; 0 is all epochs;
    sharpness: radius of the step uphill from which the gradient is taken (sharpness-aware minimisation, Foret et al.
    2021, arXiv:2010.01412), at twice the cost; 0 is none.
    """

    optimizer: str = "adam"
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    averaging: float = 0.0
    mixup: float = 0.0
    small_share: float = 0.0
    teaching: float = 0.5
    draws: int = 0
    sharpness: float = 0.0

    def __post_init__(self):
        for name, choices in (("optimizer", ("adam", "sgd")), ("schedule", ("constant", "one_cycle"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: no {getattr(self, name)!r}; there are {', '.join(choices)}")
        for name in ("label_smoothing", "averaging", "small_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r}, expected a share from 0 to below 1")
        for name in ("weight_decay", "mixup", "sharpness"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)!r}, expected a number of at least 0")
        if not 0 < self.teaching <= 1:
            raise ValueError(f"teaching: {self.teaching!r}, expected a share above 0 and up to 1")
        if not isinstance(self.draws, int) or isinstance(self.draws, bool) or self.draws < 0:
            raise ValueError(f"draws: {self.draws!r}, expected a whole number of at least 0")

    def find_draw(self, epoch: int) -> int:
        """The number, from 1, of an epoch's draw of order and treatments; epochs with the same one see the same."""
        return (epoch - 1) % self.draws + 1 if self.draws else epoch


def make_optimizer(model: nn.Module, learning_rate: float, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer, with weights (all that has more than one axis) and the rest as its two groups."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, recipe: Recipe, progress: float) -> None:
    """Set the rate of the next batch; progress is the share of the training that lies behind, 0-1."""
    if recipe.schedule == "one_cycle":
        rise, fall = progress / 0.1, (progress - 0.1) / 0.9
        peak *= rise if rise < 1 else (1 + math.cos(math.pi * fall)) / 2
    for group in optimizer.param_groups:
        group["lr"] = peak


class MovingAverage(AveragedModel):
    """The moving average of a model, its batch norms' statistics included.

    share: what the average keeps of itself in each update, see `Recipe.averaging`."""

    def __init__(self, model: nn.Module, share: float):
        super().__init__(model, use_buffers=True)
        self.share = share

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model. The count of updates stays on the CPU: torch's own way, which brings it
        to the device each time, has the loop wait there for all that a GPU has still to do."""
        count = int(self.n_averaged)
        keep = min(self.share, (1 + count) / (10 + count)) if count else 0.0  # the first weights are soon forgotten
        pairs = zip((*self.module.parameters(), *self.module.buffers()), (*model.parameters(), *model.buffers()))
        numbers, counts = [], []  # counts: of the batches that batch norms have seen
        for pair in pairs:
            (numbers if pair[0].is_floating_point() else counts).append(pair)
        torch._foreach_lerp_(*map(list, zip(*numbers)), 1 - keep)
        if counts:
            torch._foreach_copy_(*map(list, zip(*counts)))
        self.n_averaged += 1


def average_weights(model: nn.Module, recipe: Recipe) -> MovingAverage | None:
    """The moving average of the model, or None."""
    return MovingAverage(model, recipe.averaging) if recipe.averaging else None


def shrink_images(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 1, H, W) at `SMALL` by `SMALL` pixels, each the mean of those it stands for."""
    return F.interpolate(images, (SMALL, SMALL), mode="bilinear", antialias=True)


def mix_images(images: torch.Tensor, targets: torch.Tensor, mixup: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image (N, 1, H, W) with another of its batch, and its target (N, 7) with the other's, in one proportion.

    The share of the first is the larger of the two. Since each image is once the first and once the other, no mixture
    is thereby likelier or less so; but its likeliest class is that of what is mostly seen, and the accuracy met in
    training means something. Draws from the default generators."""
    order = torch.randperm(len(images), device=images.device)
    concentration = torch.tensor(mixup, device=images.device)
    share = torch.distributions.Beta(concentration, concentration).sample()
    share = torch.maximum(share, 1 - share)
    return torch.lerp(images[order], images, share), torch.lerp(targets[order], targets, share)


class Teachers:
    """Trained networks, whose answers are learnt beside the labels: they tell which classes an image is like too
    (Hinton et al. 2015, arXiv:1503.02531).

    networks: on the device, in evaluation; keep: whether answers are kept, for draws that come again; digests: of
    their weights, by which a checkpoint knows them."""

    def __init__(self, networks: list[nn.Module], keep: bool, digests: list[str]):
        self.networks, self.keep, self.digests = networks, keep, digests
        self.answers: dict[tuple, torch.Tensor] = {}

    @torch.no_grad()
    def ask(self, images: torch.Tensor, draw: int, number: int) -> torch.Tensor:
        """The mean of their probabilities, float32 (N, 7), for the images (N, 1, H, W) of the batch of that number in
        a draw, as training shows them to the network that learns: that teachers see the very same mixture and crop is
        Beyer et al.'s advice (2022, arXiv:2106.05237)."""
        key = draw, number, images.shape  # the first images of a run may be shrunk
        if key in self.answers:
            return self.answers[key]
        answers = torch.stack([network(images).float().softmax(-1) for network in self.networks]).mean(0)
        if self.keep:
            self.answers[key] = answers
        return answers


@contextlib.contextmanager
def climb(model: nn.Module, radius: float):
    """For as long as the context lasts, the weights lie uphill, by so much along the gradient they have; batch norms'
    running statistics are then left alone."""
    weights = [parameter for parameter in model.parameters() if parameter.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        length = torch.stack(torch._foreach_norm(gradients)).norm() + 1e-12
        step = torch._foreach_mul(gradients, radius / length)
        before = [weight.clone() for weight in weights]
        torch._foreach_add_(weights, step)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, before)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum


VIEWS = ("plain", "flip", "ten_crops")
EDGE = 2
"""Pixels by which ten crops move a whole image into the corners."""


def make_views(images: torch.Tensor, view: str, window: int = 0) -> list[torch.Tensor]:
    """What the network is shown of images (N, 1, H, W) at test time, each of the same shape.

    plain: the images; flip: their mirror images too; ten_crops: both, moved by `EDGE` pixels into each corner too,
    black coming in at the edges. With a window, of that side: the middle of each image, and its corners."""
    height, width = images.shape[-2:]
    tall, wide = (window, window) if window else (height, width)
    top, left = (height - tall) // 2, (width - wide) // 2
    shown = [images[..., top : top + tall, left : left + wide]]
    if view == "ten_crops":
        padded = images if window else F.pad(images, [EDGE] * 4)
        tops, lefts = ((0, whole - part) for whole, part in zip(padded.shape[-2:], (tall, wide)))
        shown += [padded[..., top : top + tall, left : left + wide] for top in tops for left in lefts]
    return shown if view == "plain" else shown + [one.flip(-1) for one in shown]


def judge_views(model: nn.Module, images: torch.Tensor, view: str, window: int = 0) -> torch.Tensor:
    """Logits (N, 7) of a network for images (N, 1, H, W) under a view: of several images, the logarithm of the mean
    of their probabilities. window: side of what of each image the network is shown; 0 is all of it."""
    logits = [model(one) for one in make_views(images, view, window)]
    if len(logits) == 1:
        return logits[0]
    return torch.stack(logits).log_softmax(-1).logsumexp(0) - math.log(len(logits))
