"""Files that are written whole or not at all, told apart from damaged ones, and held by one process at a time."""

import contextlib
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

REMEDY = "git restore brings a published record back, and retrain (--retrain) makes a new one"


CHANGED = "not what was recorded, changed or damaged since"


class RecordError(RuntimeError):
    """A record or checkpoint cannot be trusted; the message says which file, what is wrong, and what to do."""

    def __init__(self, path: Path, fault: str, remedy: str = REMEDY):
        super().__init__(f"{path}: {' '.join(fault.split())}; {remedy}")

    def _render_traceback_(self) -> list[str]:  # what IPython shows
        return [f"{type(self).__name__}: {self}"]


class StorageError(RuntimeError):
    """A folder cannot be written to; the message says which, why, and what to do."""


@contextlib.contextmanager
def tell_failed_writes(folder: Path):
    """Raise StorageError, one line, for whatever the system refuses in the body: a full disk, a read-only folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder} ({error.strerror or error}); mend that, and the same command goes on from the "
            "last epoch that was stored, if there is one"
        ) from error


def calc_digest(content: bytes) -> str:
    """32 hex digits that differ where the content does."""
    return hashlib.sha256(content).hexdigest()[:32]


def read_bytes(path: Path, digest: str | None = None, remedy: str = REMEDY) -> bytes:
    """A file of a record, checked by its digest if it has one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(path, "missing from its record", remedy) from None
    except OSError as error:
        raise RecordError(path, f"cannot be read ({error.strerror})", remedy) from error
    if digest is not None and calc_digest(content) != digest:
        raise RecordError(path, CHANGED, remedy)
    return content


def write_json(path: Path, record: dict) -> None:
    """Write a record with a digest of itself, for `read_json`. Raises ValueError for a number that is not finite."""
    path.write_text(json.dumps(record | {"digest": _digest_json(record)}, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str = REMEDY) -> dict:
    """A record that `write_json` wrote, or one of before there were digests. Raises RecordError if it is damaged."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no number")

    try:
        record = json.loads(read_bytes(path, remedy=remedy), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RecordError(path, f"damaged or cut short ({error})", remedy) from error
    if not isinstance(record, dict) or ("digest" in record and record["digest"] != _digest_json(record)):
        raise RecordError(path, CHANGED, remedy)
    return record


def _digest_json(record: dict) -> str:
    content = {key: value for key, value in record.items() if key != "digest"}
    return calc_digest(json.dumps(content, sort_keys=True).encode())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """What `np.savez_compressed` writes, and `np.load` reads, with a compression that suits rounded logits better."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)


def work_folder(folder: Path) -> Path:
    """Where a run keeps its checkpoint until its record is written; deleted then."""
    return folder.with_name(folder.name + ".partial")


class Claimed(RuntimeError):
    """Another process is training the run."""


@contextlib.contextmanager
def claim(folder: Path):
    """Hold a run for this process alone, and yield its work folder, which is deleted if all goes well.

    Raises Claimed if another process is training the same run, StorageError if nothing can be written there."""
    work = work_folder(folder)
    with tell_failed_writes(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Claimed(f"{folder.parent.name}/{folder.name} is being trained by another process") from None
    try:
        with tell_failed_writes(folder.parent):
            work.mkdir(exist_ok=True)
            if (work / "replaced").exists() and not folder.exists():  # killed between the halves of a swap
                (work / "replaced").replace(folder)
        yield work
        shutil.rmtree(work)  # the lock is still held, and lies beside: nobody else is in there
    finally:
        with contextlib.suppress(OSError):
            work.rmdir()  # if nothing is in it: the training ended before its first epoch did
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()  # whoever has it open already sees that it is gone, and opens a new one
        lock.release()
