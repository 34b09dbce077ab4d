"""Find, read, check and cache FER2013, and split it as the challenge did.

FER2013 (Goodfellow et al. 2013, doi:10.1007/978-3-642-42051-1_16) is 35,887 grey
48x48 images with one of seven labels. It is shipped as text, one image a row; here it
is read once, checked to the last pixel, and kept as bytes in a cache.
"""

import contextlib
import hashlib
import os
import tarfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
"""The seven classes, in the order of their labels 0-6."""

USAGES = ("Training", "PublicTest", "PrivateTest")
SPLITS = ("train", "validation", "test")
"""What each of `USAGES` is used as: PublicTest alone chooses, PrivateTest is read once."""

SIDE = 48
PIXELS = SIDE * SIDE
COLUMNS = (  # icml_face_data.csv, fer2013.csv, train.csv
    ("emotion", "Usage", "pixels"),
    ("emotion", "pixels", "Usage"),
    ("emotion", "pixels"),
)
FILE_NAMES = ("icml_face_data.csv", "fer2013.csv", "train.csv")
FINGERPRINTS = {  # of the decoded rows; tests tie each to the published MD5 of its file
    "6abd39e37481cc88": "icml_face_data.csv or fer2013.csv",
    "4b3655c1a9df6fb1": "train.csv",
}
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""What a FER+ tagger could choose (Barsoum et al. 2016, doi:10.1145/2993148.2993165)."""

VOTES_FINGERPRINT = "7fcd1fd5e349caf9"  # of the published fer2013new.csv
VOTE_CLASSES = {"anger": 0, "disgust": 1, "fear": 2, "happiness": 3, "sadness": 4, "surprise": 5, "neutral": 6}
"""FER+'s names for FER2013's labels; it has contempt, unknown and NF (no face) besides."""

PROJECT = Path(__file__).resolve().parent.parent
CACHE_VERSION = "1"
CHUNK = 1 << 20  # small enough that a chunk and its decoded pixels stay in the CPU's cache
LONGEST_ROW = 20_000  # bytes; FER2013's are under 10,000
MOST_BLANK = 100  # rows at the end
LARGEST = 1 << 30  # bytes that a file may unpack to; FER2013 has 0.3 GB


class DataError(ValueError):
    """The data cannot be used; the message says which file, where in it, and what to do."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: how it was found out tells a reader nothing
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True, eq=False)
class Split:
    """One of the three splits.

    images: uint8 (N, 48, 48), 0 black to 255 white; labels: int64 (N,), 0-6;
    rows: int64 (N,), the place of each image among the file's data rows, from 0.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: `name` ("fer2013", "drawn", "drawn-few", or "custom-" and eight hex digits),
    `fingerprint` (16 hex digits of the SHA-256 of its rows) and its splits."""

    name: str
    fingerprint: str
    splits: dict[str, Split] = field(repr=False)

    @property
    def train(self) -> Split:
        return self._split("train")

    @property
    def validation(self) -> Split:
        return self._split("validation")

    @property
    def test(self) -> Split:
        return self._split("test")

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(
                f"the {name} split ({USAGES[SPLITS.index(name)]}) is not in this data set: the challenge's train.csv "
                "holds the training images alone. Use icml_face_data.csv or fer2013.csv, which hold all three splits."
            )
        return self.splits[name]


def load_data(data: str | os.PathLike = "auto") -> Dataset:
    """Load a data set, from the cache where its file was read before.

    data: "auto" takes the file that $FER_DATA names, else a FER2013 file in the
    project's folder data/, else the drawn faces; "drawn" takes those in any case, "drawn-few" an eighth of them;
    anything else is the path of a file: icml_face_data.csv, fer2013.csv or train.csv,
    as it is, zipped, or in a tar.gz.

    Raises DataError for a file that is missing or malformed. Warns of a file that is
    well formed and yet not the published FER2013.
    """
    if not isinstance(data, (str, os.PathLike)):
        raise DataError(f"data: {data!r} is no path; papermill's -r passes a name that is a number as text")
    path = find_data() if data == "auto" else data
    if path in (None, "drawn", "drawn-few"):
        from fer_lib.faces import draw_dataset  # faces.py builds on this file

        return draw_dataset(path or "drawn")
    path = Path(path).expanduser()
    images, codes, fingerprint = _load_cached(path)
    if fingerprint in FINGERPRINTS:
        return _split_rows("fer2013", fingerprint, images, codes)
    name = f"custom-{fingerprint[:8]}"
    warnings.warn(
        f"{_name(path)}: well formed, but not the published FER2013 ({len(codes):,} rows, fingerprint {fingerprint}). "
        f"Results will be recorded under '{name}'.",
        stacklevel=2,
    )
    return _split_rows(name, fingerprint, images, codes)


def find_data() -> str | Path | None:
    """Where `data="auto"` finds FER2013: a path, or None where there is no such file."""
    if named := os.environ.get("FER_DATA"):
        return named
    stems = [name.removesuffix(".csv") for name in FILE_NAMES]
    names = [stem + ending for stem in stems for ending in (".csv", ".csv.zip", ".zip", ".csv.tar.gz", ".tar.gz")]
    return next((path for name in names if (path := PROJECT / "data" / name).is_file()), None)


def build_dataset(name: str, images: np.ndarray, codes: np.ndarray) -> Dataset:
    """Make a Dataset of images, uint8 (N, 48, 48), and codes, uint8 (N,):
    4 * label + usage (0 Training, 1 PublicTest, 2 PrivateTest)."""
    return _split_rows(name, _fingerprint(images, codes), images, codes)


def _fingerprint(images: np.ndarray, codes: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(codes))
    return digest.hexdigest()[:16]


def _split_rows(name: str, fingerprint: str, images: np.ndarray, codes: np.ndarray) -> Dataset:
    splits = {}
    for usage, split in enumerate(SPLITS):
        rows = np.flatnonzero(codes % 4 == usage)
        if len(rows):
            whole = rows[-1] - rows[0] + 1 == len(rows)  # then a view will do, and spare a copy of 66 MB
            chosen = slice(rows[0], rows[-1] + 1) if whole else rows
            splits[split] = Split(split, images[chosen], (codes[chosen] // 4).astype(np.int64), rows)
    return Dataset(name, fingerprint, splits)


def load_votes(dataset: Dataset, path: str | os.PathLike = "auto") -> pd.DataFrame | None:
    """Read the FER+ votes (fer2013new.csv), one row for each row of FER2013, in its order.

    path: "auto" takes $FER_VOTES, else fer2013new.csv beside the file that $FER_DATA names or
    in the project's folder data/, and returns None where there is none, or where `dataset` is
    not FER2013. Returns a DataFrame of int64 with the columns `VOTES`: how many of the ten
    taggers chose each; index it with `Split.rows`. Raises DataError for any other file.
    """
    if path == "auto":
        beside = Path(os.environ.get("FER_DATA") or PROJECT / "data" / "x").expanduser().with_name("fer2013new.csv")
        path = os.environ.get("FER_VOTES") or (beside if beside.is_file() else None)
        if path is None or dataset.name != "fer2013":
            return None
    path = _check_path(Path(path).expanduser())
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{_name(path)}: not a CSV file ({' '.join(str(error).split())})") from error
    missing = [column for column in ("Usage", "Image name", *VOTES) if column not in table]
    if missing:
        raise DataError(f"{_name(path)}: column {', '.join(missing)} missing; expected FER+'s fer2013new.csv")
    _check_votes(_name(path), table, dataset)
    return table[list(VOTES)]


def _check_votes(name: str, table: pd.DataFrame, dataset: Dataset) -> None:
    """Raise DataError unless these are ten taggers' votes on each row of the data set, in its order."""
    votes = table[list(VOTES)]
    if not all(pd.api.types.is_integer_dtype(kind) for kind in votes.dtypes) or not votes.stack().between(0, 10).all():
        raise DataError(f"{name}: votes must be whole numbers from 0 to 10")
    sums = votes.sum(axis=1).to_numpy()
    if (wrong := np.flatnonzero((sums < 9) | (sums > 10))).size:  # one row of the published file has nine
        raise DataError(f"{name}, row {wrong[0] + 2}: {sums[wrong[0]]} votes, expected ten")
    usages = np.concatenate([np.full(len(split), USAGES[SPLITS.index(name)]) for name, split in dataset.splits.items()])
    rows = np.concatenate([split.rows for split in dataset.splits.values()])
    lacking = [usage for usage, split in zip(USAGES, SPLITS) if split not in dataset.splits]  # train.csv's
    told = table["Usage"].to_numpy()
    if len(told) < len(rows) or (told[rows] != usages).any() or not np.isin(told[len(rows) :], lacking).all():
        raise DataError(f"{name}: its rows are not those of this data set ({dataset.name})")
    if calc_votes_fingerprint(table) != VOTES_FINGERPRINT:  # no row says for sure which image it is of
        raise DataError(f"{name}: not the published votes, a row was moved or a vote changed; download it again")


def calc_votes_fingerprint(table: pd.DataFrame) -> str:
    """16 hex digits of the SHA-256 of FER+'s votes, whole numbers from 0 to 10 in the columns `VOTES`, and names."""
    digest = hashlib.sha256(table[list(VOTES)].to_numpy(np.uint8).tobytes())
    digest.update("\n".join(table["Image name"].astype(str)).encode())
    return digest.hexdigest()[:16]


# --- the file ---------------------------------------------------------------------------


def _load_cached(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Images, codes and fingerprint of a file, from the cache or, the first time, from the file itself."""
    _check_path(path)
    with _open_file(path) as file:  # the one that is hashed is the one that is read, whatever becomes of the path
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        folder = _find_cache()
        if folder and (found := _read_cache(folder, checksum)):
            return found
        images, codes = _read_csv(path, file)
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
            raise DataError(f"{_name(path)}: changed while it was read; try again once it is written")
    fingerprint = _fingerprint(images, codes)
    if folder:
        _write_cache(folder, checksum, images, codes, fingerprint)
    return images, codes, fingerprint


def _find_cache() -> Path | None:
    """The cache's folder, or None for a user without a home."""
    if named := os.environ.get("FER_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "fer_lib"
    except RuntimeError as error:
        _warn_without_cache(error)
        return None


def _cache_path(folder: Path, checksum: str) -> Path:
    return folder / f"{checksum[:32]}-{CACHE_VERSION}.safetensors"


def _read_cache(folder: Path, checksum: str) -> tuple[np.ndarray, np.ndarray, str] | None:
    """What is cached for a file with this checksum; None if nothing is, or what is there is not that."""
    try:
        with safe_open(_cache_path(folder, checksum), "np") as arrays:
            images, codes, told = arrays.get_tensor("images"), arrays.get_tensor("codes"), arrays.metadata()
    except (OSError, SafetensorError):  # absent or damaged: the file is read again
        return None
    wanted = {"checksum": checksum, "fingerprint": _fingerprint(images, codes)}
    sound = images.dtype == codes.dtype == np.uint8 and images.shape == (len(codes), SIDE, SIDE)
    return (images, codes, wanted["fingerprint"]) if sound and told == wanted else None


def _write_cache(folder: Path, checksum: str, images: np.ndarray, codes: np.ndarray, fingerprint: str) -> None:
    cached = _cache_path(folder, checksum)
    partial = cached.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"images": images, "codes": codes}, partial, {"checksum": checksum, "fingerprint": fingerprint})
        partial.replace(cached)  # whole or not at all, also with two readers at once
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        _warn_without_cache(error)


def _warn_without_cache(error: Exception) -> None:
    warnings.warn(
        f"what was read cannot be kept for the next time ({error}), which will take as long; FER_CACHE names a folder "
        "for it",
        stacklevel=2,
    )


def read_csv(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read and check a FER2013 file, without the cache.

    Returns images, uint8 (N, 48, 48), and codes, uint8 (N,): 4 * label + usage.
    Raises DataError naming the file, the row (1 is the header) and what is wrong.
    """
    path = _check_path(Path(path))
    with _open_file(path) as file:
        return _read_csv(path, file)


def _read_csv(path: Path, file: BinaryIO) -> tuple[np.ndarray, np.ndarray]:
    with contextlib.ExitStack() as stack:
        blocks = _prefetch(_read_blocks(path, file, stack), stack)
        return _parse(_name(path), _split_lines(_name(path), blocks))


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{_name(path)}: cannot be read ({error.strerror})") from error


def _name(path: Path) -> str:
    """A file's name as messages give it, on one line whatever is in it."""
    return path.name if path.name.isprintable() else repr(path.name)


def _check_path(path: Path) -> Path:
    shown = str(path) if str(path).isprintable() else repr(str(path))
    try:
        if path.is_dir():
            raise DataError(f"{shown} is a folder; name the file itself, such as {path / 'icml_face_data.csv.zip'}")
        if not path.is_file():
            raise DataError(f"{shown} does not exist; the README says how to get FER2013 from Kaggle")
        if path.stat().st_size == 0:
            raise DataError(f"{_name(path)} is empty; download it again")
    except OSError as error:  # a path that is too long, a folder that may not be looked into
        raise DataError(f"{shown[:200]} cannot be read ({error.strerror})") from None
    return path


def _read_blocks(path: Path, file: BinaryIO, stack: contextlib.ExitStack):
    """Yield the CSV's bytes, `CHUNK` at a time, out of whatever the file is packed in."""
    total = 0
    try:
        table = _open_csv(path, file, stack)
        while block := table.read(CHUNK):
            total = _check_size(path, total + len(block))
            yield block
    except DataError:
        raise
    except Exception as error:  # a damaged archive makes zipfile and tarfile raise almost anything
        raise DataError(
            f"{_name(path)}: cannot be read to its end, damaged or cut short ({error}); download it again"
        ) from error


def _check_size(path: Path, size: int) -> int:
    """The number of bytes unpacked so far, if that can still be FER2013."""
    if size > LARGEST:
        raise DataError(f"{_name(path)}: unpacks to over {LARGEST / 1e9:.1f} GB, and FER2013 to 0.3; download it again")
    return size


def _open_csv(path: Path, file: BinaryIO, stack: contextlib.ExitStack) -> IO[bytes]:
    """Open the CSV in a file that is one, a zip or a tar.gz: told apart by content, not by name."""
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if magic == b"PK\x03\x04":
        archive = stack.enter_context(zipfile.ZipFile(file))
        member = _choose_member(path, archive.namelist())
        if archive.getinfo(member).flag_bits & 1:
            raise DataError(f"{_name(path)}: locked by a password; unpack it first")
        return stack.enter_context(archive.open(member))
    if magic[:2] == b"\x1f\x8b":
        archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:gz"))
        for member in archive:  # to list the next one, tarfile unpacks this one
            _check_size(path, member.offset_data + member.size)
        return archive.extractfile(_choose_member(path, archive.getnames()))
    return file


def _choose_member(path: Path, members: list[str]) -> str:
    """The FER2013 file in an archive: one of `FILE_NAMES`, the fullest first, else the only CSV."""
    tables = {PurePosixPath(m).name: m for m in members if m.endswith(".csv") and "__MACOSX" not in m}
    for name in FILE_NAMES:
        if name in tables:
            return tables[name]
    if len(tables) != 1:
        found = ", ".join(sorted(tables)[:5]) or "none"
        raise DataError(f"{_name(path)}: expected {', '.join(FILE_NAMES)} or one CSV file in it, found {found}")
    return next(iter(tables.values()))


def _prefetch(blocks, stack: contextlib.ExitStack):
    """Yield the same blocks; one thread unpacks the next while the caller decodes the last."""
    reader = stack.enter_context(ThreadPoolExecutor(1))
    ahead = reader.submit(next, blocks, None)
    while (block := ahead.result()) is not None:
        ahead = reader.submit(next, blocks, None)
        yield block


def _split_lines(name: str, blocks):
    """Yield lists of whole lines, without their line ends, out of blocks cut anywhere."""
    rest, row = b"", 1
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        row += len(lines)
        if len(rest) > LONGEST_ROW:  # else a file without line ends would be put together over and over
            raise DataError(f"{name}, row {row}: longer than any of FER2013's; is this the file?")
        yield lines
    yield [rest]


def _parse(name: str, batches) -> tuple[np.ndarray, np.ndarray]:
    columns, images, codes, row, blank_from = None, [], [], 0, None
    for lines in batches:
        texts = []
        for line in lines:
            row += 1
            line = line.strip(b"\r")
            if not line.strip():
                blank_from = blank_from or row
                if row - blank_from >= MOST_BLANK:
                    raise DataError(f"{name}, row {blank_from}: blank, and so are the {MOST_BLANK} after it")
                continue
            if columns is None:
                columns = _parse_header(name, line)
                continue
            if blank_from:
                raise DataError(f"{name}, row {blank_from}: blank; only the rows at the end may be")
            code, pixels = _parse_row(name, row, line, columns)
            codes.append(code)
            texts.append((row, pixels))
        if texts:
            images.append(_parse_pixels(name, texts))
    if columns is None:
        raise DataError(f"{name} holds nothing but blank lines; download it again")
    codes = np.array(codes, np.uint8)
    for usage, label in enumerate(USAGES if "Usage" in columns else USAGES[:1]):
        if not (codes % 4 == usage).any():
            raise DataError(f"{name}: no row has the Usage {label}; the file is cut short, download it again")
    return np.concatenate(images), codes


def _parse_header(name: str, line: bytes) -> tuple[str, ...]:
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    columns = tuple(column.strip(' "') for column in text.split(","))
    if columns in COLUMNS:
        return columns
    expected = " or ".join(repr(", ".join(order)) for order in COLUMNS)
    missing = [column for column in ("emotion", "pixels") if column not in columns]
    problem = f"column {' and '.join(missing)} missing" if missing else "unknown order of columns"
    raise DataError(f"{name}, row 1: {problem}; found {text[:80]!r}, expected {expected}")


def _parse_row(name: str, row: int, line: bytes, columns: tuple[str, ...]) -> tuple[int, bytes]:
    """The code and the pixel text of one row; raises DataError for a bad label or Usage."""
    fields = line.split(b",")
    if len(fields) != len(columns):
        raise DataError(f"{name}, row {row}: {len(fields)} fields, expected {len(columns)} ({', '.join(columns)})")
    values = dict(zip(columns, fields))
    label = values["emotion"].strip(b' "')
    if label == b"emotion":
        raise DataError(f"{name}, row {row}: the header again; were two files joined? Remove this row")
    if label not in _LABELS:
        raise DataError(f"{name}, row {row}: label {_show(label)}, expected a whole number from 0 to 6")
    usage = values.get("Usage", b"Training").strip(b' "')
    if usage not in _USAGES:
        raise DataError(f"{name}, row {row}: Usage {_show(usage)}, expected {', '.join(USAGES)}")
    return 4 * int(label) + _USAGES[usage], values["pixels"].strip(b' "')


_LABELS = {str(label).encode() for label in range(len(EMOTIONS))}
_USAGES = {usage.encode(): i for i, usage in enumerate(USAGES)}


def _parse_pixels(name: str, texts: list[tuple[int, bytes]]) -> np.ndarray:
    """Decode the pixel texts of several rows at once: uint8 (N, 48, 48).

    Each number is read off at its last digit, from that byte and the two before it;
    a few passes over the whole text, and no loop over its numbers.
    """
    text = np.frombuffer(b" " + b" ".join(pixels for _, pixels in texts) + b" ", np.uint8)
    digits = text - np.uint8(ord("0"))  # wraps: whatever is no digit becomes 10 or more
    is_digit = digits < 10
    digits *= is_digit
    last = np.flatnonzero(is_digit[:-1] > is_digit[1:])  # places of the last digits
    ones, tens = digits[last], digits[last - 1]
    hundreds = digits[last - 2] * is_digit[last - 1]
    values = ones + 10 * tens + np.uint16(100) * hundreds
    ends = np.cumsum([len(pixels) + 1 for _, pixels in texts])
    counts = np.diff(np.searchsorted(last, ends), prepend=0)
    four_digits = is_digit[3:] & is_digit[2:-1] & is_digit[1:-2] & is_digit[:-3]
    clean = np.count_nonzero(is_digit) + np.count_nonzero(text == ord(" ")) == len(text)
    if not clean or four_digits.any() or (counts != PIXELS).any() or values.max(initial=0) > 255:
        for row, pixels in texts:
            _explain_pixels(name, row, pixels)
    return values.astype(np.uint8).reshape(-1, SIDE, SIDE)


def _explain_pixels(name: str, row: int, pixels: bytes) -> None:
    """Raise DataError if this row's pixels are wrong, saying how."""
    values = pixels.split(b" ")
    for place, value in enumerate((value for value in values if value), start=1):
        if not value.isdigit() or len(value) > 3 or int(value) > 255:
            raise DataError(
                f"{name}, row {row}: pixel {place} is {_show(value)}, expected a whole number from 0 to 255"
            )
    if (count := sum(map(bool, values))) != PIXELS:
        raise DataError(f"{name}, row {row}: {count} pixels, expected {PIXELS} ({SIDE} x {SIDE})")


def _show(value: bytes) -> str:
    return repr(value[:20].decode("utf-8", "replace")) if value else "empty"
