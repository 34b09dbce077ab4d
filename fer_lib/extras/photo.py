"""A user's own pictures: find the faces in them, cut them out as FER2013's are, and say what a network makes of them.

    python -m fer_lib.extras.photo me.jpg holiday/

prints a row a face.
"""

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from itertools import chain, count, groupby, islice
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from torch import nn

from fer_lib.dataset import EMOTIONS, SIDE, DataError
from fer_lib.extras.detect import LONGEST, find_faces
from fer_lib.extras.explain import calc_saliency
from fer_lib.preprocess import cut_middle, scale_pixels
from fer_lib.progress import show_warnings_plainly
from fer_lib.reading.faces import draw_faces
from fer_lib.reading.pictures import MOST_PIXELS, list_formats, tell_formats, to_grey
from fer_lib.recipe import judge_views
from fer_lib.record import Run, find_published_run, find_result, load_model

BATCH = 256
"""Faces that a network is shown at once."""


def read_picture(path: str | Path) -> np.ndarray:
    """A picture in grey, uint8 (H, W), upright as its EXIF says, what is transparent in it white, with at most as
    many pixels as a square of `LONGEST`.

    Raises FileNotFoundError, and DataError, saying why, for a file that is no picture, is damaged, or is too
    large or too small to use."""
    path = Path(path).expanduser()
    shown = str(path)[:200] if str(path).isprintable() else repr(str(path))  # on one line
    if not os.path.isfile(path):
        what, where = ("is a folder", " in it") if os.path.isdir(path) else ("does not exist", "")
        raise FileNotFoundError(f"{shown} {what}; give the path of a picture{where}")
    try:
        grey = _read_grey(path)
    except UnidentifiedImageError:
        raise DataError(f"{shown} is no picture that can be read; {tell_formats()}") from None
    except (Image.DecompressionBombError, MemoryError):
        raise DataError(f"{shown} is too large, over {MOST_PIXELS // 10**6} million pixels; shrink it first") from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise DataError(f"{shown} is damaged ({' '.join(str(error).split())})") from None
    scale = LONGEST / math.sqrt(grey.width * grey.height)
    if scale < 1:
        grey.thumbnail((max(1, int(grey.width * scale)), max(1, int(grey.height * scale))))
    if min(grey.size) < SIDE:
        raise DataError(f"{shown} is {grey.width}x{grey.height} pixels; at least {SIDE}x{SIDE} are needed")
    return np.asarray(grey)


def _read_grey(path: Path) -> Image.Image:
    with warnings.catch_warnings(), Image.open(path, formats=list_formats()) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image.draft("L", (LONGEST, LONGEST))  # a JPEG can be decoded at a fraction of its size
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        return to_grey(ImageOps.exif_transpose(image))


def frame_faces(picture: np.ndarray, whole: bool = False) -> tuple[np.ndarray, bool]:
    """The boxes of `find_faces` and True; if there are none, or the whole picture is asked for, the largest square in
    its middle and False."""
    boxes = np.empty((0, 4), int) if whole else find_faces(picture)
    if len(boxes):
        return boxes, True
    side = min(picture.shape)
    return np.array([[(picture.shape[1] - side) // 2, (picture.shape[0] - side) // 2, side, side]]), False


def describe_faces(boxes: np.ndarray, found: bool) -> str:
    """How many faces were found, in a sentence; arguments as `frame_faces` gives them."""
    if not found:
        return "**No face was found,** so the middle of the whole picture is taken for one."
    return "**One face was found.**" if len(boxes) == 1 else f"**{len(boxes)} faces were found.**"


def cut_faces(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What lies in each box, at FER2013's size: uint8 (N, 48, 48). Arguments as of `find_faces`."""
    faces = np.empty((len(boxes), SIDE, SIDE), np.uint8)
    for face, (left, top, width, height) in zip(faces, boxes):
        way = cv2.INTER_AREA if width > SIDE else cv2.INTER_CUBIC
        face[:] = cv2.resize(picture[top : top + height, left : left + width], (SIDE, SIDE), interpolation=way)
    return faces


@torch.inference_mode()
def predict_faces(model: nn.Module, faces: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of the seven classes, float (N, 7), in the mean over each face and its mirror image.

    faces: uint8 (N, 48, 48); temperature: of `evaluate.fit_temperature`, fitted under the same view."""
    if len(faces) == 0:
        return np.empty((0, len(EMOTIONS)), np.float32)
    batches = scale_pixels(torch.from_numpy(np.ascontiguousarray(faces[:, None]))).split(BATCH)
    logits = torch.cat([judge_views(model.eval(), batch, "flip") for batch in batches])
    return (logits / temperature).softmax(-1).numpy()


def explain_faces(model: nn.Module, faces: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """What the likeliest answer to each face rests on, against a picture of the face's mean grey: float32
    (N, 48, 48), as `explain.calc_saliency`. faces, answers: of `cut_faces` and `predict_faces`."""
    return calc_saliency(model, faces, answers.argmax(1), faces.mean((1, 2), keepdims=True))


DRAWN = ("Fear", "Sad", "Happy")
"""What the faces of `draw_picture` are meant to show."""


def draw_picture(classes: Sequence[str] = DRAWN, seed: int = 2) -> np.ndarray:
    """A picture with a drawn face of each class in it, for a reader without a photograph: uint8 (H, W)."""
    size, gap = 180, 60
    picture = np.full((size + 2 * gap, gap + len(classes) * (size + gap)), 128, np.uint8)
    labels = np.array([EMOTIONS.index(name) for name in classes])
    for place, face in enumerate(draw_faces(labels, np.random.default_rng(seed))):
        left = gap + place * (size + gap)
        picture[gap : gap + size, left : left + size] = cv2.resize(face, (size, size), interpolation=cv2.INTER_CUBIC)
    return picture


# --- the command -------------------------------------------------------------------------------

EXPERIMENT, SEED = "s20_taught", 2
"""Whose network answers: the one whose weights come with the project."""

AT_ONCE = 32
"""Pictures that are read before the network is asked about the faces in them."""


def answer_pictures(paths: Iterable[Path], whole: bool = False) -> Iterator[dict]:
    """Ask the published network about each face of each picture, a row a face as soon as it is known.

    A row: file, str; face, its number from 1; box, [left, top, width, height] in pixels of the picture as
    `read_picture` gives it; found, whether it was found or is the middle of the whole; answer and second, the
    likeliest classes; probabilities, a dict by class. For a picture that cannot be read: file, and error, which says
    why. whole: take the middle of each picture for the face."""
    run = find_published_run(EXPERIMENT, SEED)
    model, temperature = load_model(run), read_temperature(EXPERIMENT)
    paths = iter(paths)
    while chosen := list(islice(paths, AT_ONCE)):
        rows, faces = [], []
        for path in chosen:
            try:
                picture = read_picture(path)
            except (OSError, ValueError) as error:
                rows.append({"file": str(path), "error": str(error)})
                continue
            boxes, found = frame_faces(picture, whole)
            rows += [
                {"file": str(path), "face": number, "box": box.tolist(), "found": found}
                for number, box in enumerate(boxes, start=1)
            ]
            faces.append(cut_middle(cut_faces(picture, boxes), run.experiment.side))
        answers = iter(predict_faces(model, np.concatenate(faces), temperature) if faces else ())
        yield from (row if "error" in row else row | _name_answers(next(answers), run.classes) for row in rows)


def read_temperature(experiment: str) -> float:
    """What the logits of an experiment are to be divided by, as `make results` recorded it; 1 for one that was not
    judged by mirror images, of which nothing is recorded."""
    facts = json.loads(find_result("facts.json").read_text(encoding="utf-8"))
    return facts["mirrored"].get(experiment, {"temperature": 1.0})["temperature"]


def describe_network(run: Run) -> str:
    """In Markdown, how often the network that answers is right."""
    view, shown = ("_flip", " and its mirror image") if "flip" in run.experiment.views else ("", ", plain")
    test, validation = (run.results[f"{split}_accuracy{view}"] for split in ("test", "validation"))
    told = (
        f"**{run.experiment.step}** of seed {run.seed}, shown a face{shown}, is right on **{test:.1%}** of FER2013's "
        f"test images ({validation:.1%} of validation), where people are on 65 ± 5%."
    )
    return told if view else f"{told} Here it is shown the mirror image too, for which no temperature was fitted."


def _name_answers(shares: np.ndarray, classes: Sequence[str]) -> dict:
    first, second = (classes[place] for place in np.argsort(-shares, kind="stable")[:2])
    return {
        "answer": first,
        "second": second,
        "probabilities": {name: round(float(share), 4) for name, share in zip(classes, shares)},
    }


def list_paths(given: Iterable[str]) -> list[Path]:
    """The files meant by what was typed: paths, folders, of which the pictures right inside are taken, by the endings
    of their names, and patterns such as *.jpg, which not every shell resolves; ~ is the user's own folder."""
    paths = []
    for path in (Path(one).expanduser() for one in given):
        if path.is_dir():
            Image.init()
            formats = list_formats()  # before what is registered is gone through: it may register one more
            known = {ending for ending, name in Image.registered_extensions().items() if name in formats}
            paths += sorted(one for one in path.iterdir() if one.suffix.lower() in known and one.name[0] != ".")
        elif set(str(path)) & set("*?[") and not path.exists():
            paths += sorted(map(Path, glob(str(path)))) or [path]
        else:
            paths.append(path)
    return list(dict.fromkeys(paths))


def save_annotated(rows: list[dict], folder: Path) -> None:
    """Write a picture into a folder, each face in it framed, with its number and answer; rows: those of one picture.

    The name is the picture's, as a PNG, with a number where there is one of this name."""
    image = Image.fromarray(read_picture(rows[0]["file"])).convert("RGB")
    draw = ImageDraw.Draw(image)
    size = max(12, min(image.size) // 40)
    for row in rows:
        left, top, width, height = row["box"]
        text = f"{row['face']} {row['answer']} {row['probabilities'][row['answer']]:.0%}"
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline="yellow", width=max(1, size // 6))
        place = (left, max(0, top - 1.3 * size))
        draw.rectangle(draw.textbbox(place, text, font_size=size), fill="black")
        draw.text(place, text, fill="yellow", font_size=size)
    name = Path(rows[0]["file"]).stem
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    image.save(next(path for path in (folder / f"{one}.png" for one in names) if not path.exists()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fer_lib.extras.photo", description="Name the faces' expressions.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, folders, or patterns such as '*.jpg'")
    parser.add_argument("--whole", action="store_true", help="take the middle of each picture for the face")
    parser.add_argument("--json", action="store_true", help="print a JSON list, a row a face, with every probability")
    parser.add_argument("--save", metavar="FOLDER", help="write the pictures there with their faces framed")
    options = parser.parse_args(arguments)
    folder = options.save and Path(options.save).expanduser()
    if folder and folder.is_file():
        parser.error(f"--save: {folder} is a file; name a folder")
    paths, rows = list_paths(options.pictures), []
    if not paths:
        parser.exit(2, f"{parser.prog}: no picture in {', '.join(options.pictures)}; {tell_formats()}\n")
    try:
        for _, group in groupby(answer_pictures(paths, options.whole), itemgetter("file")):
            rows += (group := list(group))
            if not options.json:
                _print_rows(group, max(len(str(path)) for path in paths))
            if folder and "error" not in group[0]:
                folder.mkdir(parents=True, exist_ok=True)
                save_annotated(group, folder)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    sys.exit(any("error" in row for row in rows))


def _print_rows(rows: list[dict], width: int) -> None:
    """The lines of one picture in the table; what is wrong with it goes to stderr."""
    for row in rows:
        if "error" in row:
            print(row["error"], file=sys.stderr)
            continue
        first, second = (f"{row[key]:<8} {row['probabilities'][row[key]]:4.0%}" for key in ("answer", "second"))
        said = "" if row["found"] else "  (no face found: of the whole picture)"
        print(f"{row['file']:<{width}}  face {row['face']:<3} {first}   or {second}{said}", flush=True)


if __name__ == "__main__":
    show_warnings_plainly()
    main()
