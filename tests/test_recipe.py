import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fer_lib import loop, recipe, record, train
from fer_lib.augment import Augmentation
from fer_lib.experiments import EXPERIMENTS
from fer_lib.models import StrongCNN
from fer_lib.recipe import Recipe, average_weights, make_views, mix_images

pytestmark = pytest.mark.slow

EVERYTHING = Recipe("adam", "one_cycle", 0.05, 0.1, 0.9, 0.2, 0.3, sharpness=0.02)


def test_the_default_is_the_plain_loops_adam(monkeypatch):
    """Against torch's own, step by step."""
    torch.manual_seed(0)
    models = [nn.Linear(4, 3), nn.Linear(4, 3)]
    models[1].load_state_dict(models[0].state_dict())
    ours = recipe.make_optimizer(models[0], 0.01, Recipe())
    theirs = torch.optim.Adam(models[1].parameters(), 0.01)
    for progress in (0, 0.5, 0.99):
        recipe.set_learning_rate(ours, 0.01, Recipe(), progress)
        for model, optimizer in zip(models, (ours, theirs)):
            optimizer.zero_grad()
            (model(torch.ones(2, 4)) ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_weights_decay_and_biases_do_not(name):
    model = StrongCNN((8,), (1,))
    optimizer = recipe.make_optimizer(model, 0.1, Recipe(name, weight_decay=0.01))
    decayed, spared = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    for label, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == label.endswith("weight") * (parameter.dim() > 1)
        assert (id(parameter) in decayed) != (id(parameter) in spared)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]


def test_one_cycle_rises_over_a_tenth_and_falls_to_nothing():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    rates = []
    for progress in np.linspace(0, 1, 1001):
        recipe.set_learning_rate(optimizer, 2.0, Recipe(schedule="one_cycle"), progress)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == 0 and max(rates) == rates[100] == 2 and rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[50] == pytest.approx(1) and rates[550] == pytest.approx(1)
    assert rates[325] == pytest.approx(1 + math.cos(math.pi / 4))


def test_mixtures_lie_between_an_image_and_another_of_its_batch():
    torch.manual_seed(0)
    images, labels = torch.arange(8.0)[:, None, None, None].expand(8, 1, 4, 4), torch.eye(8)
    mixed, targets = mix_images(images, labels, 0.4)
    share = targets.diagonal()[targets.diagonal() < 1].unique()
    assert len(share) == 1 and 0.5 <= share < 1
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    torch.testing.assert_close(mixed, (targets @ torch.arange(8.0))[:, None, None, None].expand(8, 1, 4, 4))


def test_the_shares_of_a_mixture_are_the_larger_halves_of_a_beta_distribution():
    """That is symmetrical about a half, with the variance 1 / (4 (2a + 1))."""
    torch.manual_seed(0)
    mixed = (mix_images(torch.zeros(9, 1, 1, 1), torch.eye(9), 0.5)[1] for _ in range(4000))
    shares = torch.stack([targets.max(1).values.min() for targets in mixed])  # few are mixed with themselves
    assert shares.min() >= 0.5
    assert (shares - 0.5).square().mean().item() == pytest.approx(1 / 8, abs=0.005)


def test_views_are_the_image_its_mirror_and_both_moved_into_the_corners():
    images = torch.rand(3, 1, 48, 48)
    (plain,) = make_views(images, "plain")
    torch.testing.assert_close(plain, images, rtol=0, atol=0)
    torch.testing.assert_close(make_views(images, "flip"), [images, images.flip(-1)])
    ten = make_views(images, "ten_crops")
    assert len(ten) == 10 and len({view.numpy().tobytes() for view in ten}) == 10
    assert all(view.shape == images.shape for view in ten)
    torch.testing.assert_close(ten[1][..., 2:, 2:], images[..., :-2, :-2])
    torch.testing.assert_close(ten[4][..., :-2, :-2], images[..., 2:, 2:])
    torch.testing.assert_close(ten[5:], [view.flip(-1) for view in ten[:5]])


def test_views_of_a_window_are_its_middle_and_its_corners():
    images = torch.rand(3, 1, 48, 48)
    (plain,) = make_views(images, "plain", 40)
    torch.testing.assert_close(plain, images[..., 4:44, 4:44])
    ten = make_views(images, "ten_crops", 40)
    corners = [images[..., i : i + 40, j : j + 40] for i in (0, 8) for j in (0, 8)]
    torch.testing.assert_close(ten[:5], [plain, *corners])
    torch.testing.assert_close(ten[5:], [view.flip(-1) for view in ten[:5]])


def test_draws_come_again_in_turn():
    assert [Recipe(draws=3).find_draw(epoch) for epoch in range(1, 8)] == [1, 2, 3, 1, 2, 3, 1]
    assert [Recipe().find_draw(epoch) for epoch in range(1, 4)] == [1, 2, 3]


def test_teachers_are_asked_once_for_each_batch_of_a_draw():
    asked = []

    class Network(nn.Module):
        def forward(self, images):
            asked.append(len(images))
            return images.flatten(1)[:, :7] * 3

    images = torch.rand(4, 1, 3, 3)
    keeps, forgets = (recipe.Teachers([Network(), Network()], keep, []) for keep in (True, False))
    first = keeps.ask(images, 1, 0)
    torch.testing.assert_close(first, (3 * images.flatten(1)[:, :7]).softmax(1))
    assert keeps.ask(torch.zeros_like(images), 1, 0) is first and len(asked) == 2
    keeps.ask(images, 1, 1), keeps.ask(images, 2, 0)
    assert len(asked) == 6
    forgets.ask(images, 1, 0), forgets.ask(images, 1, 0)
    assert len(asked) == 10


def test_uphill_the_weights_lie_along_their_gradient_and_come_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = nn.utils.parameters_to_vector(model.parameters()).clone()
    model(torch.rand(4, 2)).pow(3).sum().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    seen = model[1].running_mean.clone()
    with recipe.climb(model, 0.1):
        moved = nn.utils.parameters_to_vector(model.parameters()) - before
        torch.testing.assert_close(moved, 0.1 * gradient / gradient.norm())
        model(torch.rand(4, 2))
    torch.testing.assert_close(nn.utils.parameters_to_vector(model.parameters()), before, rtol=0, atol=0)
    torch.testing.assert_close(model[1].running_mean, seen, rtol=0, atol=0)
    model(torch.rand(4, 2))
    assert not torch.equal(model[1].running_mean, seen)


def test_small_images_keep_the_mean_and_the_network_takes_them():
    images = torch.rand(2, 1, 48, 48)
    small = recipe.shrink_images(images)
    assert small.shape == (2, 1, 32, 32)
    torch.testing.assert_close(small.mean((2, 3)), images.mean((2, 3)), atol=0.01, rtol=0)
    assert StrongCNN((8, 8), (1, 1))(small).shape == (2, 7)


@pytest.fixture
def strong():
    """A small network with all that a recipe has, for eight epochs."""
    return replace(
        EXPERIMENTS["s1_deeper"],
        options=(("widths", (16, 32)), ("blocks", (1, 1)), ("squeeze_excitation", True), ("skip_rate", 0.2)),
        augmentation=Augmentation(0.5, light=0.1, erasing=0.1),
        recipe=EVERYTHING, epochs=8, patience=8, batch_size=16, learning_rate=4e-3, views=("flip", "ten_crops"),
    )  # fmt: skip


def test_a_run_with_everything_learns_and_records_its_views(strong, drawn):
    once = replace(EVERYTHING, sharpness=0.0)  # which takes twice as long
    run = train.train_run(replace(strong, recipe=once), drawn, seed=0)
    assert run.results["validation_accuracy"] > np.bincount(drawn.validation.labels).max() / len(drawn.validation) + 0.1
    rates = run.history["learning_rate"]
    assert rates.max() == rates[0] and rates.iloc[-1] < 0.05 * rates[0]
    assert set(run.logits) == {f"{s}{v}" for s in ("validation", "test") for v in ("", "_flip", "_ten_crops")}
    for view in ("_flip", "_ten_crops"):
        right = (run.logits[f"test{view}"].argmax(1) == drawn.test.labels).mean()
        assert right == pytest.approx(run.results[f"test_accuracy{view}"], abs=0.02)


def test_the_moving_average_of_a_case_worked_out_by_hand():
    """A batch norm's scale goes 1, 2, 3, 4: the average keeps 2/11 of itself, then no more than a fifth."""
    model = nn.BatchNorm1d(1)
    average = average_weights(model, Recipe(averaging=0.2))
    expected = 1.0
    for value, keep in ((1.0, 0), (2.0, 2 / 11), (3.0, 0.2), (4.0, 0.2)):
        model.weight.data.fill_(value)
        model.num_batches_tracked.fill_(int(value))
        average.update_parameters(model)
        expected = keep * expected + (1 - keep) * value
        assert average.module.weight.item() == pytest.approx(expected)
        assert average.module.num_batches_tracked == int(value)


def test_the_moving_average_is_what_is_judged_and_kept(strong, small, monkeypatch):
    """Against the average of the weights after each step, worked out here; kept in half precision."""
    weights, step = [], loop.Learner.step

    def step_and_tell(learner):
        step(learner)
        weights.append({name: value.detach().clone() for name, value in learner.model.named_parameters()})

    monkeypatch.setattr(loop.Learner, "step", step_and_tell)
    slow = replace(strong, epochs=1, batch_size=8, recipe=replace(EVERYTHING, averaging=0.6))
    kept = dict(record.load_model(train.train_run(slow, small, seed=0)).named_parameters())
    assert len(weights) == 8
    expected, last = dict(weights[0]), weights[-1]
    for count, later in enumerate(weights[1:], start=1):
        share = min((1 + count) / (10 + count), 0.6)
        expected = {name: torch.lerp(later[name], average, share) for name, average in expected.items()}

    def measure_distance(other):
        return nn.utils.parameters_to_vector([kept[name] - other[name] for name in kept]).norm()

    assert measure_distance(expected) < 0.1 * measure_distance(last)


def test_a_run_with_everything_resumes_with_the_very_numbers(strong, small, monkeypatch, own_folders, interrupt):
    strong = replace(strong, epochs=4)
    whole = train.train_run(strong, small, seed=0)
    monkeypatch.setenv("FER_RUNS", str(own_folders / "again"))
    interrupt(strong, small, epochs=3)
    resumed = train.train_run(strong, small, seed=0)
    for name, logits in whole.logits.items():
        np.testing.assert_array_equal(resumed.logits[name], logits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "lion"},
        {"schedule": "step"},
        {"weight_decay": -1},
        {"label_smoothing": 1},
        {"averaging": 1.0},
        {"mixup": float("nan")},
        {"small_share": -0.1},
        {"teaching": 0},
        {"draws": 1.5},
        {"sharpness": -0.1},
    ],
)
def test_senseless_values_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        Recipe(**wrong)
