"""Time reading, loading and training, each beside what a user would otherwise write.

    python -m fer_lib.extras.bench        prints a table and puts it into reports/bench.json, by hardware

Each pair is timed in turn, several times, and the medians are compared: on a shared machine
two timings an hour apart say nothing about each other.
"""

import json
import statistics
import tempfile
import time
import zipfile
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms
from torchvision.datasets import FER2013
from tqdm import tqdm

from fer_lib import __version__
from fer_lib.augment import Augmentation
from fer_lib.data import find_data, load_data, read_csv
from fer_lib.dataset import PROJECT, Split
from fer_lib.experiment import Experiment
from fer_lib.experiments import EXPERIMENTS
from fer_lib.hardware import choose_hardware
from fer_lib.loop import Learner, make_learner, one_hot, predict_logits, train_one_epoch
from fer_lib.models import count_multiply_adds
from fer_lib.recipe import make_optimizer

REPEATS = 5
IMAGES = 6400  # a hundred batches
STRONG = EXPERIMENTS["s14_wider"]
AUGMENTATION = Augmentation(flip=0.5, rotation=10, crop_padding=4)  # report B's


def time_in_turn(*actions: Callable[[], object]) -> list[float]:
    """Median seconds of each action over `REPEATS` rounds."""
    seconds = [[] for _ in actions]
    for _ in range(REPEATS):
        for action, own in zip(actions, seconds):
            start = time.perf_counter()
            action()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in seconds]


def bench_reading(path: Path) -> list[dict]:
    """From the zipped file to arrays, and from the cache; against torchvision's reader, once for each split."""
    _tell("reading the zipped CSV, and from the cache")
    with tempfile.TemporaryDirectory() as root:
        with zipfile.ZipFile(path) as archive:
            archive.extract("icml_face_data.csv", Path(root) / "fer2013")
        ours, theirs = time_in_turn(
            lambda: read_csv(path), lambda: [FER2013(root, split) for split in ("train", "test")]
        )
        load_data(path)
        (cached,) = time_in_turn(lambda: load_data(path))
    return [
        _row("read the zipped CSV (s)", ours, theirs, theirs / ours, "torchvision.datasets.FER2013, unpacked"),
        _row("load from the cache (s)", cached, theirs, theirs / cached, "torchvision.datasets.FER2013, unpacked"),
    ]


def cut_split(split: Split, count: int) -> Split:
    """Its first images."""
    return replace(split, images=split.images[:count], labels=split.labels[:count], rows=split.rows[:count])


class PlainFaces(TorchDataset):
    """The faces as a user would wrap them: one PIL image at a time through torchvision's transforms."""

    def __init__(self, split: Split, augmented: bool):
        self.images, self.labels = split.images, split.labels
        moves = [
            transforms.RandomHorizontalFlip(AUGMENTATION.flip),
            transforms.RandomRotation(AUGMENTATION.rotation),
            transforms.RandomCrop(48, padding=AUGMENTATION.crop_padding),
        ]
        self.transform = transforms.Compose([*moves * augmented, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[place])), int(self.labels[place])


def bench_training(split: Split, experiment: Experiment) -> dict:
    """An epoch of a network with report B's augmentation: `train_one_epoch` against a plain loop in float32."""
    _tell(f"training {experiment.step}")
    hardware = choose_hardware()
    images, targets = hardware.put(split.images), one_hot(split).to(hardware.device)

    def train_ours() -> None:
        learner = make_learner(experiment, hardware)  # the last epoch: its images are never shrunk
        train_one_epoch(learner, images, targets, experiment, hardware, 0, experiment.epochs, tqdm(disable=True))

    def train_plainly() -> None:
        model = experiment.build_model().to(hardware.device)
        optimizer = torch.optim.Adam(model.parameters(), experiment.learning_rate)
        for inputs, labels in DataLoader(PlainFaces(split, True), experiment.batch_size, shuffle=True):
            loss = torch.nn.functional.cross_entropy(model(inputs.to(hardware.device)), labels.to(hardware.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    train_ours()  # the first epoch also sets up the kernels
    ours, theirs = (len(split) / seconds for seconds in time_in_turn(train_ours, train_plainly))
    return _row(f"train {experiment.step} (images/s)", ours, theirs, ours / theirs, "float32, DataLoader, PIL")


def bench_dropout(split: Split, experiment: Experiment) -> dict:
    """The same epoch with the dropout that `Hardware.place` puts in, and with torch's own."""
    _tell(f"dropout in {experiment.step}")
    hardware = choose_hardware()
    images, targets = hardware.put(split.images), one_hot(split).to(hardware.device)

    def train(learner: Learner) -> None:
        train_one_epoch(learner, images, targets, experiment, hardware, 0, experiment.epochs, tqdm(disable=True))

    def make_plain() -> Learner:
        model = experiment.build_model().to(hardware.device, memory_format=hardware.memory_format)
        return Learner(model, make_optimizer(model, experiment.learning_rate, experiment.recipe), None)

    train(make_learner(experiment, hardware))
    seconds = time_in_turn(lambda: train(make_learner(experiment, hardware)), lambda: train(make_plain()))
    ours, theirs = (len(split) / own for own in seconds)
    return _row(f"dropout, {experiment.step} (images/s)", ours, theirs, ours / theirs, "torch.nn's dropout, same loop")


def bench_inference(split: Split, experiment: Experiment) -> dict:
    """The logits of a split: `predict_logits` against a plain loop."""
    _tell(f"judging with {experiment.step}")
    hardware = choose_hardware()
    model = hardware.place(experiment.build_model())
    plain_model = experiment.build_model().to(hardware.device).eval()

    @torch.inference_mode()
    def judge_plainly() -> torch.Tensor:
        batches = DataLoader(PlainFaces(split, False), experiment.batch_size)
        return torch.cat([plain_model(inputs.to(hardware.device)) for inputs, _ in batches]).cpu()

    seconds = time_in_turn(lambda: predict_logits(model, split, experiment, hardware), judge_plainly)
    ours, theirs = (len(split) / own for own in seconds)
    return _row(f"judge {experiment.step} (images/s)", ours, theirs, ours / theirs, "DataLoader, PIL")


def measure_peak() -> float:
    """TFLOP/s of the product of two large matrices, in the precision that training uses."""
    _tell("products of large matrices")
    hardware, side = choose_hardware(), 4096
    left, right = torch.randn(2, side, side, device=hardware.device).to(hardware.precision)

    def multiply() -> None:
        (left @ right)[0, 0].item()  # waits for a device that works in the background

    multiply()
    (seconds,) = time_in_turn(multiply)
    return 2 * side**3 / seconds / 1e12


def share_peak(row: dict, experiment: Experiment, peak: float) -> dict:
    """What share of the peak (TFLOP/s) a training row reaches, counting the products alone: one pass forward and
    two back."""
    work = 3 * 2 * count_multiply_adds(experiment.build_model())
    return {
        "step": experiment.step,
        "peak_tflops": round(peak, 3),
        "share_of_peak": round(row["ours"] * work / peak / 1e12, 3),
    }


def _tell(what: str) -> None:
    print(f"timing {what}: {REPEATS} rounds", flush=True)


def _row(what: str, ours: float, usual: float, ratio: float, against: str) -> dict:
    return {
        "what": what,
        "ours": round(ours, 3),
        "usual": round(usual, 3),
        "ratio": round(ratio, 1),
        "usual is": against,
    }


def keep_record(path: Path, record: dict) -> None:
    """Put a record into the file, in place of the one of the same hardware, if there is one."""
    known = json.loads(path.read_text()) if path.exists() else []
    others = [old for old in known if old["hardware"] != record["hardware"]]
    path.write_text(json.dumps([*others, record], indent=2) + "\n")


def main() -> None:
    path = find_data()
    reads_zip = path is not None and zipfile.is_zipfile(path)
    rows = bench_reading(Path(path)) if reads_zip else []
    few, fewer = (cut_split(load_data().train, count) for count in (IMAGES, IMAGES // 10))
    rows.append(bench_training(few, replace(EXPERIMENTS["a1_baseline"], augmentation=AUGMENTATION)))
    rows.append(bench_training(fewer, STRONG))
    share = share_peak(rows[-1], STRONG, measure_peak())
    rows.append(bench_inference(fewer, STRONG))
    rows.append(bench_dropout(fewer, EXPERIMENTS["a5_deeper_head"]))
    record = {
        "fer_lib": __version__,
        "torch": torch.__version__,
        "hardware": choose_hardware().name,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "strong": share,
    }
    keep_record(PROJECT / "reports" / "bench.json", record)
    print(f"medians of {REPEATS} rounds on {record['hardware']}, {record['threads']} threads")
    print(f"{'':30}{'fer_lib':>10}{'usual':>10}{'ratio':>8}  usual is")
    for row in rows:
        print(f"{row['what']:30}{row['ours']:>10,.4g}{row['usual']:>10,.4g}{row['ratio']:>7}×  {row['usual is']}")
    print(
        f"{STRONG.step} trains at {share['share_of_peak']:.0%} of the {share['peak_tflops']:.2f} TFLOP/s of a product "
        "of large matrices"
    )
    if not reads_zip:
        print("reading was not timed: that needs FER2013's icml_face_data.csv, zipped, in FER_DATA")
    print("reports/bench.json, which is tracked, has these numbers now: commit it, or git restore reports/bench.json")


if __name__ == "__main__":
    ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    main()
