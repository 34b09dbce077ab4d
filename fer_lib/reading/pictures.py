"""Read pictures in folders, a folder a class, with or without folders for the splits above.

    train/angry/1.png, test/angry/2.png ...         as Kaggle's msambare/fer2013, or RAF-DB's train/1/...
    anger/S010_004_00000017.png ...                 as CK+
    KA.AN1.39.tiff ...                              as JAFFE, whose names say the emotion

Any picture becomes grey and 48x48 pixels.
"""

import io
import re
import warnings
from functools import cache
from os.path import commonprefix
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from fer_lib.dataset import SIDE, Content, DataError
from fer_lib.reading.splitting import USAGE_NAMES, complete_splits, encode, name_classes
from fer_lib.reading.unpacking import Files

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")

SUFFIXES = set(".avif .bmp .gif .heic .heif .jfif .jp2 .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())

MOST_PIXELS = 100_000_000
"""Of a picture as it is decoded; half a gigabyte or so at 16 bits."""

MOST_TOLD = 5
"""Faulty pictures that one message names."""

JAFFE = re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|NE|SA|SU)\d+\.\d+\.tiff?")
JAFFE_CLASSES = dict(AN="Angry", DI="Disgust", FE="Fear", HA="Happy", NE="Neutral", SA="Sad", SU="Surprise")
LAYOUT = (
    "lay them out in a folder for each class, such as angry/1.png, or train/angry/1.png, validation/angry/2.png, "
    "test/angry/3.png"
)


def list_pictures(files: Files) -> list[str]:
    """The names of the pictures among some files, sorted; what systems hide among them is left out."""
    paths = map(PurePosixPath, files.names)
    seen = (path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts))
    return sorted(str(path) for path in seen if path.suffix.lower() in SUFFIXES)


def read_pictures(files: Files, name: str) -> Content:
    """Read pictures laid out as above, in the order of their names. name: for messages.

    Raises DataError for another layout, and for a picture that cannot be read, naming it."""
    names = list_pictures(files)
    labels, usages = _read_layout(name, names)
    _warn_of_folders(name, files.names, names)
    classes, numbers = name_classes(name, labels)
    usages, way = complete_splits(name, numbers, usages)
    places = {one: place for place, one in enumerate(names)}
    images, faults = np.empty((len(names), SIDE, SIDE), np.uint8), []
    for one, file in files.read_all(places.__contains__):
        try:
            images[places[one]] = _read_face(file.read())
        except ValueError as error:
            faults.append(f"{one}: no picture that can be read ({error})")
    if faults:
        more = f"; {len(faults) - MOST_TOLD} more" * (len(faults) > MOST_TOLD)
        raise DataError(f"{name}, {'; '.join(faults[:MOST_TOLD])}{more}; replace them or take them out")
    return Content(images, encode(numbers, usages), classes, way)


def _warn_of_folders(name: str, files: list[str], pictures: list[str]) -> None:
    """Warn of folders beside those of classes in which nothing is called as pictures are: a class may be lost."""
    paths = [PurePosixPath(one) for one in pictures]
    above, beside = {folder for path in paths for folder in path.parents}, {path.parent.parent for path in paths}
    others = {PurePosixPath(one).parent for one in files} - above
    lost = sorted(folder.name for folder in others if folder.parent in beside and folder.name[0] not in "._")
    if lost:
        told, endings = ", ".join(lost[:MOST_TOLD]), " ".join(sorted(SUFFIXES))
        warnings.warn(f"{name}: left out is {told}, in which no file's name ends in {endings}", stacklevel=4)


def _read_layout(name: str, names: list[str]) -> tuple[list[str], np.ndarray | None]:
    """Each picture's class and its split, 0-2, or None in place of these if there are no folders for splits."""
    if all(JAFFE.fullmatch(PurePosixPath(one).name) for one in names):
        return [JAFFE_CLASSES[JAFFE.fullmatch(PurePosixPath(one).name)[1]] for one in names], None
    folders = [PurePosixPath(one).parent.parts for one in names]
    if len(set(folders)) == 1:
        raise DataError(f"{name}: all pictures lie in one folder, and two classes are the least; {LAYOUT}")
    above = len(commonprefix(folders))  # of tuples: the folders that hold all pictures
    named = [next((place for place, part in enumerate(f) if part.casefold() in USAGE_NAMES), None) for f in folders]
    starts = [above if place is None else place + 1 for place in named]
    split_too = sum(place is not None for place in named)
    if split_too not in (0, len(names)):
        stray = names[named.index(None)]
        raise DataError(f"{name}: {stray} lies in no folder of a split, and others do; {LAYOUT}")
    for one, folder, start in zip(names, folders, starts):
        if len(folder) <= start:
            raise DataError(f"{name}: {one} lies in no folder of a class; {LAYOUT}")
    labels = [folder[start] for folder, start in zip(folders, starts)]
    if not split_too:
        return labels, None
    usages = np.array([USAGE_NAMES[folder[place].casefold()] for folder, place in zip(folders, named)])
    return labels, _read_prefixes(names, usages)


def _read_prefixes(names: list[str], usages: np.ndarray) -> np.ndarray:
    """The splits as the files' names tell them: msambare/fer2013 has PublicTest_<n>.jpg beside PrivateTest_<n>.jpg in
    its folder test. As the folders tell them, unless all of what is not for training is named so."""
    told = [USAGE_NAMES.get(PurePosixPath(one).name.split("_")[0].casefold(), -1) for one in names]
    told = np.where(usages > 0, told, 0)
    return told if set(told[usages > 0]) == {1, 2} else usages


def _read_face(content: bytes) -> np.ndarray:
    """A picture as grey, uint8 (48, 48). Raises ValueError, saying why, for what is none."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # here and below: few need them

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=list_formats()) as image:
            warnings.simplefilter("ignore")
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"over {MOST_PIXELS // 10**6} million pixels")
            image.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG can be decoded at a fraction of its size
            return fit_face(np.asarray(to_grey(ImageOps.exif_transpose(image))))
    except UnidentifiedImageError:
        raise ValueError(tell_formats()) from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        why = re.sub(r" <_io\.BytesIO object at \w+>", "", " ".join(str(error).split()))
        raise ValueError(why) from error


def to_grey(image: "Image") -> "Image":
    """A picture of any mode in grey, 8 bits a pixel, what is transparent in it white.

    Raises ValueError for one of numbers that are not finite."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # more than 8 bits; PIL's own conversion cuts them off at 255
        return Image.fromarray(_scale_range(np.asarray(image)))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("L")


def _scale_range(values: np.ndarray) -> np.ndarray:
    """uint8 of numbers that do not say which of them is white: the usual one that none exceeds, 255, 65535, or, for
    fractions, 1."""
    if not np.isfinite(values).all():
        raise ValueError("it holds numbers that are not finite")
    highest, usual = values.max(), (1, 255, 65535) if values.dtype.kind == "f" else (255, 65535)
    white = next((one for one in usual if highest <= one), highest)
    return np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)


@cache
def list_formats() -> tuple[str, ...]:
    """The formats of pictures that are read, told by content, not by name; HEIF, which iPhones write, is one of them if
    Pillow's plugin for it is installed. Pillow knows others, some of which start other programs."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return tuple(name for name in FORMATS if name != "HEIF")
    register_heif_opener()
    return FORMATS


def tell_formats() -> str:
    """ "JPEG, PNG are known", say, and what else would be."""
    known = list_formats()
    lacking = "" if "HEIF" in known else "; HEIF would be with the package pillow-heif"
    return f"{', '.join(known)} are known{lacking}"


def fit_face(image: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a grey image, uint8 (H, W), at 48x48 pixels."""
    if image.shape == (SIDE, SIDE):
        return image
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.fromarray(image), (SIDE, SIDE), Image.Resampling.BILINEAR))
