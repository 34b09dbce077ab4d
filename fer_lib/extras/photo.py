"""A user's own picture: find the faces in it, cut them out as FER2013's are, and say what a network makes of them."""

import math
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import nn

from fer_lib.dataset import SIDE
from fer_lib.extras.explain import calc_saliency
from fer_lib.preprocess import scale_pixels
from fer_lib.reading.faces import draw_faces
from fer_lib.recipe import judge_views

LONGEST = 1600
"""Side in pixels of a square, to whose area larger pictures are shrunk: enough for a face of a twelfth of it."""

MOST_PIXELS = 100_000_000
"""Of a picture as it is decoded; half a gigabyte or so at 16 bits."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Of photographs, told by content, not by name. Pillow knows others, some of which start other programs."""


def read_picture(path: str | Path) -> np.ndarray:
    """A picture in grey, uint8 (H, W), upright as its EXIF says, what is transparent in it white, with at most as
    many pixels as a square of `LONGEST`.

    Raises FileNotFoundError, and ValueError, saying why, for a file that is no picture, is damaged, or is too
    large or too small to use."""
    path = Path(path)
    shown = str(path)[:200] if str(path).isprintable() else repr(str(path))  # on one line
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{shown} does not exist; give the path of a picture")
    try:
        grey = _read_grey(path)
    except UnidentifiedImageError:
        raise ValueError(f"{shown} is no picture that can be read; {', '.join(FORMATS)} can") from None
    except (Image.DecompressionBombError, TooLarge, MemoryError):
        raise ValueError(f"{shown} is too large, over {MOST_PIXELS // 10**6} million pixels; shrink it first") from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"{shown} is damaged ({' '.join(str(error).split())})") from None
    scale = LONGEST / math.sqrt(grey.width * grey.height)
    if scale < 1:
        grey.thumbnail((max(1, int(grey.width * scale)), max(1, int(grey.height * scale))))
    if min(grey.size) < SIDE:
        raise ValueError(f"{shown} is {grey.width}x{grey.height} pixels; at least {SIDE}x{SIDE} are needed")
    return np.asarray(grey)


class TooLarge(Exception):
    """A picture has more pixels than should be decoded."""


def _read_grey(path: Path) -> Image.Image:
    with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image.draft("L", (LONGEST, LONGEST))  # a JPEG can be decoded at a fraction of its size
        if image.width * image.height > MOST_PIXELS:
            raise TooLarge
        image.load()
        return _to_grey(ImageOps.exif_transpose(image))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits; PIL's own conversion cuts them off at 255
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _scale_range(np.asarray(image))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("L")


def _scale_range(values: np.ndarray) -> Image.Image:
    """Numbers, int32 or float32 (H, W), that do not say which of them is white: the usual one that none exceeds, 1
    for fractions, 255 or 65535. Raises ValueError if one is not finite."""
    highest = values.max()
    if not np.isfinite(values).all():
        raise ValueError("it holds numbers that are not finite")
    usual = (1, 255, 65535) if values.dtype.kind == "f" else (65535,)
    white = next((one for one in usual if highest <= one), highest)
    return Image.fromarray((values.clip(0, white) * np.float32(255 / white)).astype(np.uint8))


def find_faces(picture: np.ndarray) -> np.ndarray:
    """The frontal, upright faces of a picture, uint8 (H, W): int (N, 4), left, top, width and height of each in
    pixels, from left to right; none is (0, 4).

    By the cascade that comes with OpenCV (Viola and Jones 2001, doi:10.1109/CVPR.2001.990517), as FER2013's were."""
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    for least in (max(24, min(picture.shape) // 12), 24):  # small ones only where there are no others, as in a crowd
        found = cascade.detectMultiScale(picture, scaleFactor=1.1, minNeighbors=5, minSize=(least, least))
        if len(found):
            break
    boxes = np.array(found, int).reshape(-1, 4)
    return boxes[np.lexsort((boxes[:, 1], boxes[:, 0]))]


def describe_faces(boxes: np.ndarray) -> str:
    """How many faces were found, in a sentence; `boxes` of `find_faces`."""
    if len(boxes) == 0:
        return "**No face was found.** The cascade sees faces from the front, upright, and not too small: try another."
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
    inputs = scale_pixels(torch.from_numpy(faces[:, None]))
    logits = judge_views(model.eval(), inputs, "flip")
    return (logits / temperature).softmax(-1).numpy()


def explain_faces(model: nn.Module, faces: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """What the likeliest answer to each face rests on, against a picture of the face's mean grey: float32
    (N, 48, 48), as `explain.calc_saliency`. faces, answers: of `cut_faces` and `predict_faces`."""
    return calc_saliency(model, faces, answers.argmax(1), faces.mean((1, 2), keepdims=True))


def draw_picture(count: int = 3, seed: int = 0) -> np.ndarray:
    """A picture with drawn faces of some classes in it, for a reader without a photograph: uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    size, gap = 180, 60
    picture = np.full((size + 2 * gap, gap + count * (size + gap)), 128, np.uint8)
    for place, face in enumerate(draw_faces(rng.permutation(7)[:count], rng)):
        left = gap + place * (size + gap)
        picture[gap : gap + size, left : left + size] = cv2.resize(face, (size, size), interpolation=cv2.INTER_CUBIC)
    return picture
