"""What a file is packed in: told by content, not by name, one packing within another, and never unpacked to disk."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from fer_lib.dataset import PROJECT, DataError

LARGEST = 1 << 30  # bytes that one packing may unpack to; FER2013 has 0.3 GB
DEEPEST = 6  # packings within each other; a tar.gz in a zip has three
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}


def resolve(named: str) -> Path:
    """The path that an environment variable names. A relative one begins at the folder of the shell that all was
    called from, as $PWD has it, for a notebook's kernel starts in a folder of its own; where there is none, at the
    project's."""
    return Path(os.environ.get("PWD") or PROJECT, Path(named).expanduser())


def show_name(path: Path) -> str:
    """A file's name as messages give it, on one line whatever is in it."""
    return path.name if path.name.isprintable() else repr(path.name)


def check_path(path: Path, advice: str = "if it is to be FER2013, the README says how to get it from Kaggle") -> Path:
    """The path, if there is a folder or a file with something in it. Raises DataError, with advice for what is not
    there."""
    shown = str(path.absolute())
    shown = shown if shown.isprintable() else repr(shown)
    try:
        if not path.is_dir() and not path.is_file():
            raise DataError(f"{shown} does not exist; {advice}")
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{show_name(path)} is empty; download it again")
    except OSError as error:  # a path that is too long, a folder that may not be looked into
        raise DataError(f"{shown[:200]} cannot be read ({error.strerror})") from None
    return path


class Limited(io.RawIOBase):
    """A file that is unpacked as it is read, and refused once that has gone on for too long."""

    def __init__(self, file: IO[bytes], name: str):
        self.file, self.shown = file, name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._check(place)
        return self._check(self.file.seek(place, whence))

    def readinto(self, buffer) -> int:
        part = self.file.read(len(buffer))
        buffer[: len(part)] = part
        self._check(self.file.tell())
        return len(part)

    def _check(self, place: int) -> int:
        if place > LARGEST:
            raise DataError(
                f"{self.shown}: unpacks to over {LARGEST / 1e9:.1f} GB, and FER2013 to 0.3; download it again"
            )
        return place


def limit(file: IO[bytes], name: str) -> io.BufferedReader:
    """The unpacked file behind a buffer, which can be peeked into."""
    return io.BufferedReader(Limited(file, name), 1 << 20)


class Files:
    """The files in an archive or a folder, their names with / between the folders.

    names: of them all; read_all(wanted): yield the name and the open file of each whose name `wanted` takes."""

    names: list[str]

    def read_all(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
        raise NotImplementedError


class ZipFiles(Files):
    def __init__(self, file: IO[bytes], shown: str):
        self.archive, self.shown = zipfile.ZipFile(file), shown
        self.names = [name for name in self.archive.namelist() if not name.endswith("/")]

    def read_all(self, wanted):
        for name in filter(wanted, self.names):
            if self.archive.getinfo(name).flag_bits & 1:
                raise DataError(f"{self.shown}: locked by a password; unpack it first")
            with self.archive.open(name) as file:
                yield name, limit(file, self.shown)


class TarFiles(Files):
    def __init__(self, file: IO[bytes], shown: str):
        self.archive, self.shown = tarfile.open(fileobj=file, mode="r:"), shown
        self.names = [member.name for member in self.archive if member.isfile()]

    def read_all(self, wanted):
        for member in self.archive.getmembers():
            if member.isfile() and wanted(member.name):
                yield member.name, limit(self.archive.extractfile(member), self.shown)


class FolderFiles(Files):
    def __init__(self, folder: Path):
        self.folder = folder
        self.names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def read_all(self, wanted):
        for name in filter(wanted, self.names):
            with (self.folder / name).open("rb") as file:
                yield name, file


def unpack(file: IO[bytes], name: str) -> IO[bytes] | Files:
    """The content of a file, freed of gzip, bzip2 and xz: a plain file, or the files of a zip or a tar.

    name: for messages. Raises DataError for a content that is larger than the data can be."""
    for _ in range(DEEPEST):
        file.seek(0)
        start = file.read(512)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            return ZipFiles(file, name)
        if start[257:262] == b"ustar":
            return TarFiles(file, name)
        opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
        file = limit(opener(file) if opener else file, name)
        if opener is None:
            return file
    raise DataError(f"{name}: packed {DEEPEST} times over; unpack it first")


@contextlib.contextmanager
def tell_damage(name: str):
    """Raise DataError, one line, for whatever a damaged archive makes zipfile, tarfile and the rest raise."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name}: cannot be read to its end, damaged or cut short ({told}); download it again"
        ) from error
