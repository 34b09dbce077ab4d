"""The published network as an ONNX file, as `make onnx` writes it and the model card uses it."""

import re

import numpy as np
import pytest

from fer_lib.extras import photo
from fer_lib.extras.onnx import write_network
from fer_lib.preprocess import cut_middle
from fer_lib.reading.faces import draw_faces
from fer_lib.record import find_published_run, load_model
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow


def test_the_model_cards_lines_give_what_torch_gives(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS", raising=False)
    write_network(tmp_path / "reports" / "onnx" / "fer.onnx")
    assert (tmp_path / "reports" / "onnx" / "fer.onnx").stat().st_size < 8e6
    (example,) = re.findall(
        r"```python\n(import numpy.*?)```", (PROJECT / "reports" / "model_card.md").read_text("utf-8"), re.S
    )
    monkeypatch.chdir(tmp_path)
    exec(example, names := {})
    assert names["probabilities"].shape == (1, 7)
    faces = draw_faces(np.arange(7), np.random.default_rng(1))
    (answers,) = names["network"].run(None, {"faces": faces})
    run = find_published_run(photo.EXPERIMENT, photo.SEED)
    wanted = photo.predict_faces(
        load_model(run), cut_middle(faces, run.experiment.side), photo.read_temperature(photo.EXPERIMENT)
    )
    np.testing.assert_allclose(answers, wanted, atol=1e-4)
    assert answers.dtype == np.float32
