"""How far the inputs of layers move: the measure, and its record."""

import numpy as np
import pytest

from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras import shift


@pytest.mark.parametrize(
    ("means", "deviations", "expected"),
    [([0, 0], [1, 1], 0), ([2, 2], [1, 1], 2), ([0, 0], [1.5, 1.5], 0.5), ([3, 0], [1, 1], 4.5**0.5)],
)
def test_a_shift_is_in_units_of_the_earlier_deviation(means, deviations, expected):
    before = (np.zeros(2), np.ones(2))
    assert shift.calc_shift(before, (np.array(means), np.array(deviations))) == pytest.approx(expected)


def test_each_seed_is_measured_once_and_lies_in_the_experiments_order(small, monkeypatch):
    monkeypatch.setattr(shift, "EPOCHS", 3)
    for name, seed in (("a2_batchnorm", 1), ("a1_baseline", 0), ("a2_batchnorm", 0)):
        shift.record_shifts(EXPERIMENTS[name], small, seed)
    table = shift.read_shifts()
    assert table[["experiment", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["a1_baseline", 0], ["a2_batchnorm", 0], ["a2_batchnorm", 1],
    ]  # fmt: skip
    own = table.query("experiment == 'a2_batchnorm' and seed == 0")
    layers = [name for name, weight in EXPERIMENTS["a2_batchnorm"].build_model().named_parameters() if weight.dim() > 1]
    assert own["layer"].tolist() == 2 * [name.removesuffix(".weight") for name in layers[1:]]
    assert own["epoch"].tolist() == [2] * 4 + [3] * 4 and (own["shift"] > 0).all()
    summary = shift.summarise_shifts(table).set_index(["experiment", "seed"])["log_shift"]
    assert summary["a2_batchnorm", 0] == pytest.approx(np.log(own["shift"]).mean())
    means = shift.tabulate_shifts()
    assert list(means.index) == ["layer 2", "layer 3", "layer 4", "layer 5", "all"]
    both = table.query("experiment == 'a2_batchnorm' and layer == '4'")["shift"]
    assert means.loc["layer 2", "A2 Batch norm"] == pytest.approx(np.exp(np.log(both).mean()), abs=1e-3)
    with pytest.raises(ValueError, match="s16_distilled learns from trained networks"):
        shift.measure_shifts(EXPERIMENTS["s16_distilled"], small, 0)
    monkeypatch.setattr(shift, "measure_shifts", None)  # a second time nothing is trained
    shift.record_shifts(EXPERIMENTS["a2_batchnorm"], small, 1)
