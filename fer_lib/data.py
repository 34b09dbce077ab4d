"""Find, read, check and cache FER2013, or data of the reader's own, and split it.

FER2013 (Goodfellow et al. 2013, doi:10.1007/978-3-642-42051-1_16) is 35,887 grey
48x48 images with one of seven labels. It is shipped as text, one image a row; here it
is read once, checked to the last pixel, and kept as bytes in a cache.
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from fer_lib.dataset import (
    EMOTIONS,
    FINGERPRINTS,
    PIXELS,
    PROJECT,
    SIDE,
    SPLITS,
    USAGES,
    Content,
    DataError,
    Dataset,
    Split,
    build_dataset,
    split_rows,
)
from fer_lib.reading.cache import find_cache, read_cache, write_cache
from fer_lib.reading.faces import SCALES, draw_dataset
from fer_lib.reading.pictures import LAYOUT, list_pictures, read_pictures
from fer_lib.reading.splitting import USAGE_NAMES, WAYS
from fer_lib.reading.table import read_table
from fer_lib.reading.unpacking import DEEPEST, Files, FolderFiles, check_path, resolve, show_name, tell_damage, unpack
from fer_lib.reading.votes import VOTE_CLASSES, VOTES, load_votes

__all__ = [  # what the project asks this file for; most of it is made elsewhere
    "EMOTIONS", "PIXELS", "PROJECT", "SIDE", "SPLITS", "USAGES", "VOTES", "VOTE_CLASSES", "DataError", "Dataset",
    "Split", "build_dataset", "find_data", "load_data", "load_votes", "read_csv",
]  # fmt: skip

STEMS = ("icml_face_data", "fer2013", "train")
"""The names of the challenge's files, without endings, the fullest first."""

ENDINGS = {".csv", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"}
VOTES_FILE = "fer2013new.csv"


def load_data(data: str | os.PathLike = "auto") -> Dataset:
    """Load a data set, from the cache where it was read before.

    data: "auto" takes what $FER_DATA names, else what `find_data` finds in the
    project's folder data/, else, with a warning, the drawn faces; "drawn" takes those in any case, "drawn-few" an
    eighth of them; anything else is the path of FER2013's icml_face_data.csv, fer2013.csv or train.csv, of a table
    like it (see `table.read_table`), of a folder of pictures (see `pictures.read_pictures`), or of either packed.

    Raises DataError for what is missing or malformed. Warns of what is
    well formed and yet not the published FER2013.
    """
    if not isinstance(data, (str, os.PathLike)):
        raise DataError(f"data: {data!r} is no path; papermill's -r passes a name that is a number as text")
    named = _choose_data() if data == "auto" else data
    if not str(named).strip():
        raise DataError("data: empty, expected a file or folder of faces, drawn, drawn-few or auto")
    if named in SCALES:
        return draw_dataset(str(named))
    path = Path(named).expanduser()
    if (near := get_close_matches(str(named), SCALES, 1)) and not path.exists():
        raise DataError(f"data: {named!r} is no file or folder, and no name; {near[0]} is one")
    content, fingerprint = _load_cached(path)
    if fingerprint in FINGERPRINTS:
        return split_rows("fer2013", fingerprint, content)
    name = f"custom-{fingerprint[:8]}"
    count, own = len(content.codes), content.classes != EMOTIONS
    classes = f", {len(content.classes)} classes: {', '.join(content.classes[:20])}" if own else ""
    warnings.warn(
        f"{show_name(path)}: well formed, but not the published FER2013 ({count:,} rows, fingerprint {fingerprint}"
        f"{classes}). Results will be recorded under '{name}'. {WAYS[content.split]}".rstrip(),
        stacklevel=2,
    )
    return split_rows(name, fingerprint, content)


def _choose_data() -> str | Path:
    """What "auto" is: where there is no data, the drawn faces, with a warning."""
    if named := _name_data():
        return named
    found, faults = _search(PROJECT / "data")
    if not found:
        _warn_of_drawn_faces(faults)
        return "drawn"
    if len(found) > 1:
        others = ", ".join(show_name(path) for path in found[1:])
        warnings.warn(f"of data/, {show_name(found[0])} is taken, and not {others}: FER_DATA chooses", stacklevel=3)
    return found[0]


def _warn_of_drawn_faces(faults: list[str]) -> None:
    looked = f"of what is in {PROJECT / 'data'} nothing can be used ({'; '.join(faults)})" if faults else (
        f"FER_DATA is not set, and {PROJECT / 'data'} holds no data"
    )  # fmt: skip
    warnings.warn(
        f"no FER2013: {looked}. DRAWN FACES stand in, and no result is about people; the README says how to get "
        "FER2013, and data: drawn asks for these faces without this warning",
        stacklevel=4,
    )


# --- where it is --------------------------------------------------------------------------


def find_data() -> str | Path | None:
    """Where `data="auto"` finds FER2013: a path, or None where there is none.

    That is what $FER_DATA names, see `unpacking.resolve`; else the first file or folder of pictures in the project's
    folder data/, or in a folder in it, that can be read, the published FER2013 before any other."""
    return _name_data() or next(iter(_search(PROJECT / "data")[0]), None)


def _name_data() -> str | Path | None:
    named = os.environ.get("FER_DATA")
    if named == "auto":  # as where it is not set
        return None
    return named if not named or named in SCALES else resolve(named)


def _search(folder: Path) -> tuple[list[Path], list[str]]:
    """What in a folder can be used, the published FER2013 alone if it is there, and what is wrong with the rest."""
    found, faults = [], []
    for path in _list_candidates(folder):
        try:
            fingerprint = _load_cached(path)[1]
        except DataError as error:
            faults.append(str(error))
            continue
        if fingerprint in FINGERPRINTS:
            return [path], []
        found.append(path)
    return found, faults


def _list_candidates(folder: Path) -> list[Path]:
    """Tables and archives in a folder and its folders, those with the challenge's names first; then folders with
    pictures."""
    paths = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())
    files = [path for path in paths if path.suffix.lower() in ENDINGS and path.name != VOTES_FILE]
    files.sort(key=lambda path: _rank(path.name, (*STEMS[:2], None, STEMS[2])))
    inner = sorted(path for path in folder.glob("*") if path.is_dir())
    split = any(path.name.casefold() in USAGE_NAMES for path in inner)
    return files + [path for path in ([folder] if split else inner) if list_pictures(FolderFiles(path))]


def _rank(name: str, stems: tuple[str | None, ...] = STEMS) -> int:
    """The place of a file's name, without folders and endings, among the names; another's is where None is, or last."""
    stem = PurePosixPath(name.lower())
    while stem.suffix in ENDINGS:
        stem = stem.with_suffix("")
    wanted = stem.name if stem.name in stems else None
    return stems.index(wanted) if wanted in stems else len(stems)


# --- what is in it ------------------------------------------------------------------------


def _load_cached(path: Path) -> tuple[Content, str]:
    """The content of a file or folder and its fingerprint, from the cache or, the first time, from itself."""
    with _open(check_path(path)) as source:  # what is hashed is what is read, whatever becomes of the path
        checksum = _calc_checksum(source)
        folder = find_cache()
        if folder and (found := read_cache(folder, checksum)):
            return found
        content = _read_content(path, source)
        if _calc_checksum(source) != checksum:
            raise DataError(f"{show_name(path)}: changed while it was read; try again once it is written")
    fingerprint = content.calc_fingerprint()
    if folder:
        write_cache(folder, checksum, content, fingerprint)
    return content, fingerprint


def read_csv(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read and check a FER2013 file, without the cache.

    Returns images, uint8 (N, 48, 48), and codes, uint8 (N,): 4 * label + usage.
    Raises DataError naming the file, the row (1 is the header) and what is wrong.
    """
    with _open(check_path(Path(path))) as source:
        content = _read_content(Path(path), source)
    return content.images, content.codes


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes] | Files]:
    try:
        source = FolderFiles(path) if path.is_dir() else path.open("rb")
    except OSError as error:
        raise DataError(f"{show_name(path)}: cannot be read ({error.strerror})") from error
    with contextlib.ExitStack() as stack:
        yield source if isinstance(source, Files) else stack.enter_context(source)


def _read_content(path: Path, source: IO[bytes] | Files) -> Content:
    name = show_name(path)
    with tell_damage(name):
        if isinstance(source, Files) and not list_pictures(source) and _choose_member(source.names) is None:
            file = path / "icml_face_data.csv.zip"
            raise DataError(
                f"{path.absolute()} is a folder; name the file itself, such as {file}, or, for pictures, {LAYOUT}"
            )
        return _read_packed(name, source)


def _read_packed(name: str, source: IO[bytes] | Files, depth: int = 0) -> Content:
    """The content of a table, or of what one of the challenge's tables, pictures, or any one table is packed in."""
    found = source if isinstance(source, Files) else unpack(source, name)
    if not isinstance(found, Files):
        return read_table(found, name)
    member, pictures = _choose_member(found.names), list_pictures(found)
    if pictures and (member is None or _rank(member) >= STEMS.index("train")):  # tables beside these hold labels alone
        return read_pictures(found, name)
    if member is None or depth == DEEPEST:
        tables = sorted(one for one in found.names if PurePosixPath(one).suffix.lower() == ".csv")
        told = ", ".join(tables[:5]) or "none"
        raise DataError(
            f"{name}: expected {', '.join(f'{stem}.csv' for stem in STEMS)} or one CSV file in it, found {told}"
        )
    opened = found.read_all(lambda one: one == member)
    _, file = next(opened)  # is open for as long as `opened` is there
    return _read_packed(name, file, depth + 1)


def _choose_member(names: list[str]) -> str | None:
    """The file of several to read: the fullest of the challenge's tables, packed or not, else the only table or
    archive."""
    paths = [
        PurePosixPath(one) for one in names if "__MACOSX" not in one and not PurePosixPath(one).name.startswith(".")
    ]
    tables = [path for path in paths if path.suffix.lower() in ENDINGS and path.name != VOTES_FILE]
    if known := [path for path in tables if _rank(path.name) < len(STEMS)]:
        return str(min(known, key=lambda path: (_rank(path.name), path.suffix.lower() != ".csv", str(path))))
    return str(tables[0]) if len(tables) == 1 else None


def _calc_checksum(source: IO[bytes] | Files) -> str:
    if not isinstance(source, Files):
        source.seek(0)
        return hashlib.file_digest(source, "sha256").hexdigest()
    digest, pictures = hashlib.sha256(), set(list_pictures(source))
    for name, file in source.read_all(lambda one: one in pictures or PurePosixPath(one).suffix.lower() in ENDINGS):
        digest.update(f"{name}\0".encode(errors="surrogateescape") + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
