"""What was read, kept as bytes: the next load takes a tenth of a second."""

import contextlib
import json
import os
import warnings
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fer_lib.dataset import EMOTIONS, SIDE, Content
from fer_lib.reading.unpacking import resolve

CACHE_VERSION = "1"


def find_cache() -> Path | None:
    """The cache's folder, or None for a user without a home."""
    if named := os.environ.get("FER_CACHE"):
        return resolve(named)
    try:
        return Path.home() / ".cache" / "fer_lib"
    except RuntimeError as error:
        _warn_without_cache(error)
        return None


def _cache_path(folder: Path, checksum: str) -> Path:
    return folder / f"{checksum[:32]}-{CACHE_VERSION}.safetensors"


def read_cache(folder: Path, checksum: str) -> tuple[Content, str] | None:
    """What is cached for a file with this checksum; None if nothing is, or what is there is not that."""
    try:
        with safe_open(_cache_path(folder, checksum), "np") as arrays:
            images, codes, told = arrays.get_tensor("images"), arrays.get_tensor("codes"), arrays.metadata()
        classes, split = json.loads(told["about"]) if "about" in told else (EMOTIONS, "given")
        content = Content(images, codes, tuple(classes), split)
        fingerprint = content.calc_fingerprint()
    except (OSError, SafetensorError, ValueError, TypeError):  # absent or damaged: the file is read again
        return None
    sound = images.dtype == np.uint8 and images.shape == (len(codes), SIDE, SIDE)
    sound = sound and codes.dtype in (np.uint8, np.uint16) and codes.ndim == 1
    return (content, fingerprint) if sound and told == _describe_cached(checksum, content, fingerprint) else None


def _describe_cached(checksum: str, content: Content, fingerprint: str) -> dict[str, str]:
    """What the cache holds beside the arrays; what is FER2013's own is not said."""
    told = {"checksum": checksum, "fingerprint": fingerprint}
    if (content.classes, content.split) != (EMOTIONS, "given"):
        told["about"] = json.dumps([content.classes, content.split])
    return told


def write_cache(folder: Path, checksum: str, content: Content, fingerprint: str) -> None:
    cached = _cache_path(folder, checksum)
    partial = cached.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"images": content.images, "codes": content.codes}
        save_file(arrays, partial, _describe_cached(checksum, content, fingerprint))
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
