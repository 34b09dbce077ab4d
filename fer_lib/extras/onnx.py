"""The published network as an ONNX file, for use without torch: in other languages, on a phone, in a browser.

    python -m fer_lib.extras.onnx

writes reports/onnx/fer.onnx. It takes faces as they are cut out, uint8 (N, 48, 48), and gives the probabilities of
the seven classes, float32 (N, 7); all in between is in the file.
"""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fer_lib import __version__
from fer_lib.dataset import EMOTIONS
from fer_lib.extras.photo import EXPERIMENT, SEED, predict_faces, read_temperature
from fer_lib.preprocess import cut_middle
from fer_lib.reading.faces import draw_faces
from fer_lib.recipe import judge_views
from fer_lib.record import find_published_run, load_model, runs_folder

TOLERANCE = 1e-4
"""By which a probability may differ from torch's."""


class Judge(nn.Module):
    """A network with what is done before and after it: of faces, uint8 (N, 48, 48), the probabilities, (N, 7).

    side: of the middle of a face that the network is shown; temperature: by which its logits are divided."""

    def __init__(self, network: nn.Module, side: int, temperature: float):
        super().__init__()
        self.network, self.side, self.temperature = network, side, temperature

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        images = cut_middle(faces, self.side)[:, None].float() / 255
        return (judge_views(self.network, images, "flip") / self.temperature).softmax(-1)


def write_network(path: Path) -> None:
    """Write the published network to a file, with weights that half precision holds exactly in half precision.

    Raises RuntimeError if its answers to drawn faces are not torch's."""
    run = find_published_run(EXPERIMENT, SEED)
    network, temperature = load_model(run), read_temperature(EXPERIMENT)
    judge = Judge(network, run.experiment.side, temperature).eval()
    faces = draw_faces(np.arange(len(EMOTIONS)).repeat(4), np.random.default_rng(0))
    program = torch.onnx.export(
        judge,
        (torch.from_numpy(faces),),
        input_names=["faces"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("faces")},),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    halve_weights(model)
    about = {"classes": ",".join(EMOTIONS), "network": f"{EXPERIMENT}, seed {SEED}", "version": __version__}
    helper.set_model_props(model, about | {"license": "MIT"})
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    answers = onnxruntime.InferenceSession(content).run(None, {"faces": faces})[0]
    wanted = predict_faces(network, cut_middle(faces, run.experiment.side), temperature)
    if not (off := np.abs(answers - wanted).max()) <= TOLERANCE:
        raise RuntimeError(f"the exported network's probabilities are up to {off:.1e} off torch's")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"{path.name}: {len(content) / 1e6:.1f} MB, at most {off:.1e} off torch on {len(faces)} drawn faces")


def halve_weights(model: onnx.ModelProto) -> None:
    """Store those float32 weights in half precision that lose nothing by it; they are cast back when it is loaded."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        halves = values.astype(np.float16)
        if values.size > 100 and (halves == values).all():
            name, half = tensor.name, f"{tensor.name}.half"
            tensor.CopyFrom(numpy_helper.from_array(halves, half))
            casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m fer_lib.extras.onnx", description=__doc__.split("\n\n")[0])
    parser.parse_args()
    try:
        write_network(runs_folder().parent / "onnx" / "fer.onnx")
    except (OSError, RuntimeError) as error:  # no weights, nowhere to write, or answers that are not torch's
        parser.exit(2, f"{parser.prog}: {error}\n")
