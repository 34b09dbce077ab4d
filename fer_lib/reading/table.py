"""Read a CSV with an image in each row, as FER2013 is shipped: its pixels as numbers with spaces between.

Read plainly first; only where that finds something wrong is the file gone through again, line by line, to say what.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

import numpy as np
import pandas as pd

from fer_lib.dataset import EMOTIONS, FINGERPRINTS, PIXELS, SIDE, USAGES, Content, DataError
from fer_lib.reading.pictures import fit_face
from fer_lib.reading.splitting import FEWEST, USAGE_NAMES, complete_splits, encode, name_classes

COLUMNS = {  # what each may be called, in small letters
    "emotion": ("emotion", "label", "class"),
    "pixels": ("pixels", "pixel"),
    "usage": ("usage", "split"),
}
EXPECTED = "'emotion, Usage, pixels' or 'emotion, pixels', or 'label' for classes of your own in place of 'emotion'"
LABELS = "a whole number from 0 to 6, or a name for a class of your own"
INDEX = re.compile(r"|index|id|unnamed: \d+")  # what pandas calls a column with the rows' numbers
NUMBERS = {str(label) for label in range(len(EMOTIONS))}
ROWS = 1000  # read at a time
LONGEST_ROW = 1 << 20  # bytes; FER2013's are under 10,000
MOST_BLANK = 100  # rows at the end
SMALLEST = 8  # pixels, the side of an image
END = PIXELS  # stands between the rows' pixels, and is none itself


class Malformed(Exception):
    """There is something wrong with the file; `_explain` finds out what."""


def read_table(file: IO[bytes], name: str) -> Content:
    """Read and check a CSV, UTF-8, with the columns `COLUMNS` in any order; Usage may be missing.

    Labels are FER2013's numbers in the column emotion, else names of classes of the reader's own. Images of another
    size are brought to 48x48. name: for messages. Raises DataError naming the row (1 is the header) and what is wrong.
    """
    file.seek(0)
    _check_kind(name, file.read(4096))
    file.seek(0)
    try:
        columns, table, images = _read_plainly(name, file)
        own = columns["emotion"].strip(' "\r').casefold() != "emotion" or not set(table["emotion"]) <= NUMBERS
        counts = table["emotion"].value_counts()
        if own and counts[~counts.index.isin(NUMBERS)].min() < FEWEST:  # rather a wrong label than a class
            raise Malformed("a label with too few images")
    except (Malformed, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        file.seek(0)
        _explain(name, _number_lines(name, file))
        raise DataError(f"{name}: not a table that can be read ({' '.join(str(error).split())})") from error
    usages = table.get("usage")
    numbers = None if usages is None else usages.map(USAGE_NAMES).to_numpy()
    if not own:
        labels, told = table["emotion"].astype(np.int64).to_numpy(), set(() if usages is None else usages)
        content = _build_fer2013(name, images, labels, numbers, told)
        if len(set(labels)) < 2:
            raise DataError(f"{name}: all images are of one class, {labels[0]}; two are the least")
        return content
    classes, labels = name_classes(name, table["emotion"].tolist())
    numbers, way = complete_splits(name, labels, numbers)
    return Content(images, encode(labels, numbers), classes, way)


def _build_fer2013(
    name: str, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray | None, usages: set[str]
) -> Content:
    """Of FER2013's labels and the Usages, if there are any; the challenge's train.csv has none, and is for training."""
    whole = Content(images, encode(labels, np.zeros_like(labels)))
    if numbers is None and whole.calc_fingerprint() in FINGERPRINTS:
        return whole
    if usages and usages <= {"training", "publictest", "privatetest"}:
        for usage in USAGES:
            if usage.casefold() not in usages:
                raise DataError(
                    f"{name}: no row has the Usage {usage}; FER2013's own file is cut short then, download it again; "
                    "of data of your own leave the column out, and the images are split"
                )
        return Content(images, encode(labels, numbers))
    numbers, way = complete_splits(name, labels, numbers)
    return Content(images, encode(labels, numbers), split=way)


# --- plainly ----------------------------------------------------------------------------


def _read_plainly(name: str, file: IO[bytes]) -> tuple[dict[str, str], pd.DataFrame, np.ndarray]:
    """The columns' names in the file, labels and usages as text, and the images. Raises Malformed."""
    chunks = pd.read_csv(
        Lines(name, file), dtype=str, keep_default_na=False, quoting=3, skip_blank_lines=False, lineterminator="\n",
        encoding="utf-8-sig", chunksize=ROWS, low_memory=False,
    )  # fmt: skip
    columns, tables, images, side = None, [], [], None
    for chunk in chunks:
        columns = columns or _find_columns(name, list(chunk.columns))
        chunk = chunk.rename(columns={named: column for column, named in columns.items()})[list(columns)]
        if not isinstance(chunk.index, pd.RangeIndex) or tables and len(tables[-1]) < ROWS:
            raise Malformed("more fields in a row than columns, or a blank row")
        chunk = chunk.fillna("").apply(lambda column: column.str.strip(' "\r'))
        while len(chunk) and not "".join(chunk.iloc[-1]):
            chunk = chunk.iloc[:-1]
        if len(chunk):
            side = side or _find_side(chunk["pixels"].iloc[0])
            images.append(_decode(chunk["pixels"], side))
        tables.append(_clean(chunk.drop(columns="pixels")))
    if not images:
        raise Malformed("no rows")
    return columns, pd.concat(tables, ignore_index=True), np.concatenate(images)


def _find_columns(name: str, found: list[str]) -> dict[str, str]:
    """{"emotion": what the file calls it, ...}; the places of the columns do not matter."""
    plain = {column.strip(' "\r').casefold(): column for column in reversed(found)}
    named = {column: plain[one] for column, names in COLUMNS.items() for one in reversed(names) if one in plain}
    for names in COLUMNS.values():
        if len(twins := [one for one in names if one in plain]) > 1:
            raise DataError(f"{name}, row 1: columns {' and '.join(twins)} mean the same here; leave one of them out")
    missing = [column for column in ("emotion", "pixels") if column not in named]
    further = [one for one in plain if plain[one] not in named.values() and not INDEX.fullmatch(one)]
    if missing or ("usage" not in named and further):
        text = ",".join(found)
        problem = f"column {' and '.join(missing or ['Usage'])} missing"
        for separator, word in ((";", "semicolons"), ("\t", "tabs")):
            if separator in text:
                problem = f"the columns are separated by {word}; save the file with commas between them"
        raise DataError(f"{name}, row 1: {problem}; found {text[:80]!r}, expected {EXPECTED}")
    return named


def _clean(chunk: pd.DataFrame) -> pd.DataFrame:
    """Labels and usages as they are compared: 3.0 is 3, and splits are in small letters."""
    labels = chunk["emotion"].str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    if (labels == "").any():
        raise Malformed("a label is missing")
    if "usage" not in chunk:
        return chunk.assign(emotion=labels)
    usages = chunk["usage"].str.casefold()
    if not usages.isin(USAGE_NAMES).all():
        raise Malformed("an unknown Usage")
    return chunk.assign(emotion=labels, usage=usages)


def _find_side(pixels: str) -> int:
    """The side of a square image; FER2013's where this is none."""
    side = math.isqrt(len(pixels.split()))
    return side if side >= SMALLEST and side**2 == len(pixels.split()) else SIDE


def _decode(pixels: pd.Series, side: int) -> np.ndarray:
    """Images, uint8 (N, 48, 48), of texts of numbers; a number that is no pixel ends each row, so that none is taken
    for the next one's."""
    text = f" {END} ".join([*pixels, ""]).encode("ascii", "replace")
    if text.translate(None, b"0123456789 "):
        raise Malformed("a pixel is no number")
    values = np.fromstring(text, np.int64, sep=" ")
    if len(values) != len(pixels) * (side**2 + 1):
        raise Malformed("a row with more or fewer pixels")
    values = values.reshape(len(pixels), -1)
    if (values[:, -1] != END).any() or (values[:, :-1] > 255).any():
        raise Malformed("a row with more or fewer pixels, or a pixel over 255")
    images = values[:, :-1].astype(np.uint8).reshape(-1, side, side)
    if side == SIDE:
        return images
    return np.stack([fit_face(image) for image in images])


class Lines(io.RawIOBase):
    """The file as pandas reads it, refused for what would be put together without an end, or is no UTF-8 text."""

    def __init__(self, name: str, file: IO[bytes]):
        self.name, self.file, self.since_end = name, file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self.file.read(len(buffer))
        end = part.rfind(b"\n")
        self.since_end = len(part) - end if end >= 0 else self.since_end + len(part)
        if b"\0" in part or self.since_end > LONGEST_ROW:
            raise Malformed("an endless row, or no text")
        buffer[: len(part)] = part
        return len(part)


# --- what is wrong ------------------------------------------------------------------------


def _check_kind(name: str, start: bytes) -> None:
    """Raise DataError for what is no UTF-8 table at all, by its first bytes."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start[:400].count(b"\0") > 100:
        raise DataError(f"{name}: text in UTF-16; save it as UTF-8")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(
            f"{name}: a web page, such as Kaggle shows to who is not logged in, not the data; log in and download again"
        )


def _number_lines(name: str, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each row's number, from 1, and its bytes, without the line's end."""
    row = 0
    while line := file.readline(LONGEST_ROW + 1):
        row += 1
        if len(line) > LONGEST_ROW:
            raise DataError(f"{name}, row {row}: longer than any of FER2013's; is this the file?")
        yield row, line.rstrip(b"\r\n")


def _explain(name: str, lines: Iterator[tuple[int, bytes]]) -> None:
    """Raise DataError for the first thing that is wrong, if one is found."""
    columns, blank_from, unknown, counts, pixels = None, None, {}, Counter(), None
    for row, line in lines:
        if not line.strip():
            blank_from = blank_from or row
            if row - blank_from >= MOST_BLANK:
                raise DataError(f"{name}, row {blank_from}: blank, and so are the {MOST_BLANK} after it")
            continue
        if columns is None:
            header = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split(",")
            columns = (header, _find_columns(name, header))
            continue
        if blank_from:
            raise DataError(f"{name}, row {blank_from}: blank; only the rows at the end may be")
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{name}, row {row}: no UTF-8; save the file as UTF-8") from None
        label, text = _explain_row(name, row, line, *columns)
        pixels = pixels or (_find_side(text.decode("ascii", "replace")) ** 2, row)
        _explain_pixels(name, row, text, *pixels)
        counts[label] += 1
        if label not in NUMBERS:
            unknown.setdefault(label, row)
    if columns is None:
        raise DataError(f"{name} holds nothing but blank lines; download it again")
    if not counts:
        raise DataError(f"{name}: no row under the header; the file is cut short, make it or download it again")
    for label, row in unknown.items():
        if counts[label] < FEWEST:
            raise DataError(
                f"{name}, row {row}: label {_show(label.encode())}, expected {LABELS}, of which there are at least "
                f"{FEWEST} images"
            )


def _explain_row(name: str, row: int, line: bytes, header: list[str], columns: dict[str, str]) -> tuple[str, bytes]:
    """The label and the pixel text of one row; raises DataError for a bad Usage, or an empty label."""
    fields = line.split(b",")
    if len(fields) != len(header):
        expected = ", ".join(column.strip(' "') for column in header)
        raise DataError(f"{name}, row {row}: {len(fields)} fields, expected {len(header)} ({expected})")
    values = {column: fields[header.index(named)].strip(b' "\r') for column, named in columns.items()}
    label = values["emotion"].decode("utf-8", "replace")
    if label == columns["emotion"].strip(' "'):
        raise DataError(f"{name}, row {row}: the header again; were two files joined? Remove this row")
    if not label:
        raise DataError(f"{name}, row {row}: label empty, expected {LABELS}")
    usage = values.get("usage", b"Training")
    if usage.decode("utf-8", "replace").casefold() not in USAGE_NAMES:
        known = ", ".join((*USAGES, "or train, valid, test"))
        raise DataError(f"{name}, row {row}: Usage {_show(usage)}, expected {known}")
    return re.sub(r"^(\d+)\.0+$", r"\1", label), values["pixels"]


def _explain_pixels(name: str, row: int, pixels: bytes, expected: int, first: int) -> None:
    """Raise DataError if this row's pixels are wrong, saying how; `first`: the row that said how many there are."""
    values = [value for value in pixels.split(b" ") if value]
    for place, value in enumerate(values, start=1):
        if not value.isdigit() or len(value) > 3 or int(value) > 255:
            raise DataError(
                f"{name}, row {row}: pixel {place} is {_show(value)}, expected a whole number from 0 to 255"
            )
    if len(values) != expected:
        side, like = math.isqrt(expected), "" if expected == PIXELS else f", as in row {first}"
        raise DataError(f"{name}, row {row}: {len(values)} pixels, expected {expected} ({side} x {side}{like})")


def _show(value: bytes) -> str:
    return repr(value[:20].decode("utf-8", "replace")) if value else "empty"
