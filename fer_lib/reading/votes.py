"""Read FER+'s votes (Barsoum et al. 2016): what ten people each call the images of FER2013."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.dataset import PROJECT, SPLITS, USAGES, DataError, Dataset
from fer_lib.reading.unpacking import check_path, resolve, show_name

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""What a FER+ tagger could choose (Barsoum et al. 2016, doi:10.1145/2993148.2993165)."""

VOTES_FINGERPRINT = "7fcd1fd5e349caf9"  # of the published fer2013new.csv
VOTE_CLASSES = {"anger": 0, "disgust": 1, "fear": 2, "happiness": 3, "sadness": 4, "surprise": 5, "neutral": 6}
"""FER+'s names for FER2013's labels; it has contempt, unknown and NF (no face) besides."""


def load_votes(dataset: Dataset, path: str | os.PathLike = "auto") -> pd.DataFrame | None:
    """Read the FER+ votes (fer2013new.csv), one row for each row of FER2013, in its order.

    path: "auto" takes $FER_VOTES, else fer2013new.csv beside the file that $FER_DATA names or anywhere
    in the project's folder data/, and returns None where there is none, or where `dataset` is
    not FER2013. Returns a DataFrame of int64 with the columns `VOTES`: how many of the ten
    taggers chose each; index it with `Split.rows`. Raises DataError for any other file.
    """
    if path == "auto":
        path = _find_votes()
        if path is None or dataset.name != "fer2013":
            return None
    path = check_path(Path(path).expanduser(), "FER+'s fer2013new.csv is at github.com/microsoft/FERPlus")
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{show_name(path)}: not a CSV file ({' '.join(str(error).split())})") from error
    missing = [column for column in ("Usage", "Image name", *VOTES) if column not in table]
    if missing:
        raise DataError(f"{show_name(path)}: column {', '.join(missing)} missing; expected FER+'s fer2013new.csv")
    _check_votes(show_name(path), table, dataset)
    return table[list(VOTES)]


def _find_votes() -> Path | None:
    if named := os.environ.get("FER_VOTES"):
        return resolve(named)
    if (named := os.environ.get("FER_DATA")) and named != "auto":
        beside = resolve(named).with_name("fer2013new.csv")
        return beside if beside.is_file() else None
    return min((PROJECT / "data").rglob("fer2013new.csv"), default=None)


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
