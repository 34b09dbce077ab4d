import csv
import hashlib
import io
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from fer_lib import data
from fer_lib.data import DataError, load_data, load_votes, read_csv
from fer_lib.reading import cache, table, unpacking
from tests.conftest import REAL, needs_fer2013

RNG = np.random.default_rng(0)
PIXELS = [" ".join(map(str, RNG.integers(0, 256, 48 * 48))) for _ in range(6)]
ROWS = [
    (label, usage, pixels) for label, usage, pixels in zip([0, 6, 3, 3, 1, 5], 2 * list(data.USAGES), PIXELS)
]  # fmt: skip


def write_rows(rows=ROWS, header="emotion, Usage, pixels", end="\n"):
    return end.join([header, *(",".join(map(str, row)) for row in rows), ""]).encode()


GOOD = write_rows()


def save(folder, content, name="icml_face_data.csv"):
    path = folder / name
    path.write_bytes(content)
    return path


def pack_zip(content, name="icml_face_data.csv"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def pack_tar(content, name="fer2013/fer2013.csv"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def expected_images():
    return np.array([pixels.split() for pixels in PIXELS], np.uint8).reshape(-1, 48, 48)


FER2013_CSV = write_rows([(e, p, u) for e, u, p in ROWS], "emotion,pixels,Usage")
TRAIN_CSV = write_rows([(e, f'"{p}"') for e, _, p in ROWS], "emotion,pixels", "\r\n")
TRAIN = data.Content(expected_images(), np.array([4 * row[0] for row in ROWS], np.uint8))
QUOTED = write_rows([(e, u, f'"{p}"') for e, u, p in ROWS])


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        FER2013_CSV,
        pack_zip(GOOD),
        pack_zip(FER2013_CSV, "archive/fer2013.csv"),
        pack_tar(FER2013_CSV),
        write_rows(end="\r\n"),
        b"\xef\xbb\xbf" + GOOD,
        GOOD + b"\n\r\n  \n",
        GOOD.rstrip(b"\n"),
        QUOTED,
    ],
    ids="icml fer2013 zip zip-in-folder tar.gz crlf bom blank-end no-newline quoted".split(),
)
def test_accepted_formats_hold_the_same(tmp_path, content):
    images, codes = read_csv(save(tmp_path, content))
    np.testing.assert_array_equal(images, expected_images())
    np.testing.assert_array_equal(codes // 4, [row[0] for row in ROWS])
    np.testing.assert_array_equal(codes % 4, [0, 1, 2, 0, 1, 2])


def test_a_zip_as_kaggle_ships_it_yields_its_fullest_table(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__MACOSX/._icml_face_data.csv", b"junk")
        archive.writestr("train.csv", write_rows([(0, PIXELS[0])], "emotion,pixels"))
        archive.writestr("icml_face_data.csv", GOOD)
    assert len(read_csv(save(tmp_path, buffer.getvalue()))[1]) == len(ROWS)


def test_blanks_in_the_header_change_nothing(tmp_path):
    plain, blank = (
        read_csv(save(tmp_path, write_rows(ROWS, header), f"{place}.csv"))
        for place, header in enumerate(("emotion,Usage,pixels", " emotion, Usage,pixels "))
    )
    assert all(np.array_equal(one, other) for one, other in zip(plain, blank))


def test_train_csv_loads_and_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(data.FINGERPRINTS, TRAIN.calc_fingerprint(), "train.csv")
    dataset = load_data(save(tmp_path, TRAIN_CSV, "train.csv"))
    assert len(dataset.train) == len(ROWS)
    with pytest.raises(DataError, match=r"validation split \(PublicTest\) is not in this data set.*icml_face_data"):
        dataset.validation  # noqa: B018


def change(row, **fields):
    """GOOD with some fields of one data row (0 is the first) changed."""
    rows = [dict(zip(("emotion", "Usage", "pixels"), values)) for values in ROWS]
    rows[row] |= fields
    return write_rows([tuple(values.values()) for values in rows])


def put_pixel(value):
    return " ".join([*PIXELS[1].split()[:-1], value])


BAD = {
    "empty file": (b"", "is empty"),
    "blank file": (b"\n\n", "nothing but blank lines"),
    "no pixels": (write_rows([(0, "Training")], "emotion,Usage"), "row 1: column pixels missing"),
    "no emotion": (write_rows([(PIXELS[0],)], "pixels"), "row 1: column emotion missing"),
    "an unknown column in place of Usage": (
        write_rows([(u, e, p) for e, u, p in ROWS], "Usagf,emotion,pixels"),
        "row 1: column Usage missing; found 'Usagf",
    ),
    "too few pixels": (change(1, pixels="1 2 3"), "row 3: 3 pixels, expected 2304"),
    "too many pixels": (change(1, pixels=PIXELS[1] + " 7"), "row 3: 2305 pixels, expected 2304"),
    "no pixel": (change(1, pixels=""), "row 3: 0 pixels"),
    "a pixel moved to the next row": (
        change(1, pixels=PIXELS[1] + " 7").replace(PIXELS[2].encode(), PIXELS[2].split(" ", 1)[1].encode()),
        "row 3: 2305 pixels",
    ),
    "pixel below 0": (change(1, pixels=put_pixel("-1")), "row 3: pixel 2304 is '-1', expected .* 0 to 255"),
    "pixel above 255": (change(1, pixels=put_pixel("256")), "row 3: pixel 2304 is '256'"),
    "pixel far above 255": (change(1, pixels=put_pixel("1070")), "row 3: pixel 2304 is '1070'"),
    "pixel no number": (change(1, pixels=put_pixel("x")), "row 3: pixel 2304 is 'x'"),
    "pixel a fraction": (change(1, pixels=put_pixel("1.5")), "row 3: pixel 2304 is '1.5'"),
    "label above 6": (change(2, emotion=7), "row 4: label '7', expected a whole number from 0 to 6"),
    "label below 0": (change(2, emotion=-1), "row 4: label '-1'"),
    "label empty": (change(2, emotion=""), "row 4: label empty"),
    "unknown Usage": (change(2, Usage="Tset"), "row 4: Usage 'Tset', expected Training, PublicTest, PrivateTest"),
    "a field too many": (change(2, pixels=PIXELS[2] + ",1"), "row 4: 4 fields, expected 3"),
    "header again": (GOOD + GOOD, "row 8: the header again"),
    "blank in the middle": (GOOD + b"\n" + GOOD.split(b"\n", 1)[1], "row 8: blank"),
    "no test rows": (write_rows([row for row in ROWS if row[1] != "PrivateTest"]), "no row has the Usage PrivateTest"),
    "one label alone": (
        write_rows([(3, *row[1:]) for row in ROWS]),
        "all images are of one class, 3; two are the least",
    ),
    "two columns with labels": (
        write_rows([(row[0], *row) for row in ROWS], "label,emotion,Usage,pixels"),
        "row 1: columns emotion and label mean the same here; leave one of them out",
    ),
    "header alone": (write_rows([]), "no row under the header; the file is cut short"),
    "truncated zip": (pack_zip(GOOD)[:-40], "damaged or cut short"),
    "truncated tar.gz": (pack_tar(GOOD)[:-40], "damaged or cut short"),
    "zip with a bad byte": (pack_zip(GOOD)[:500] + b"\x00" + pack_zip(GOOD)[501:], "damaged or cut short"),
    "zip without a CSV": (pack_zip(GOOD, "readme.txt"), "or one CSV file in it, found none"),
    "zip with two unknown CSVs": (None, "found a.csv, b.csv"),
    "not text": (bytes(range(128, 256)) * 20, "row 1: column emotion and pixels missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_input_gets_one_clear_error_and_leaves_no_cache(tmp_path, own_folders, case):
    content, message = BAD[case]
    if content is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.csv", GOOD)
            archive.writestr("b.csv", GOOD)
        content = buffer.getvalue()
    path = save(tmp_path, content, "faces.csv")
    with pytest.raises(DataError, match=message) as error:
        load_data(path)
    assert str(error.value).startswith("faces.csv") or case == "empty file"
    assert not list((own_folders / "cache").glob("*"))


def test_a_path_that_is_no_file_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist; if it is to be FER2013, the README says how to get it"):
        load_data(tmp_path / "none.csv")
    with pytest.raises(
        DataError, match="is a folder; name the file itself.*or, for pictures, lay them out in a folder"
    ):
        load_data(tmp_path)


@st.composite
def mutations(draw):
    """A valid small file, plain or packed, with a few bytes cut, put in or changed."""
    content = bytearray(draw(st.sampled_from([GOOD, FER2013_CSV, QUOTED, pack_zip(GOOD), pack_tar(GOOD)])))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 2, 30, 4000]))
        alphabet = st.sampled_from(
            [b",", b"\n", b" ", b'"', b"0", b"9", b"-", b"\x00", b"\xff", b"Training", GOOD[:40]]
        )
        content[start : start + length] = draw(alphabet | st.binary(max_size=4))
    return bytes(content)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations())
def test_a_mutated_file_is_read_or_refused_by_the_loaders_own_error(tmp_path, content):
    try:
        images, codes = read_csv(save(tmp_path, content))
    except DataError as error:
        assert "icml_face_data.csv" in str(error)
        return
    # what is read must be what Python's own csv and int() read
    if content.removeprefix(b"\xef\xbb\xbf")[:7] == b"emotion":
        text = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
        rows = [row for row in rows if row["emotion"] and row["emotion"].strip()]
        assert [[int(v) for v in row["pixels"].split()] for row in rows] == images.reshape(len(codes), -1).tolist()
        assert [int(row["emotion"].strip(' "')) for row in rows] == (codes // 4).tolist()


def test_the_cache_is_used(tmp_path, own_folders, monkeypatch):
    path = save(tmp_path, GOOD)
    with pytest.warns(UserWarning, match="not the published FER2013"):
        first = load_data(path)
    (cached,) = (own_folders / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(data, "_read_content", lambda *args: pytest.fail("the cache was not used"))
        with pytest.warns(UserWarning):
            again = load_data(path)
    assert again.fingerprint == first.fingerprint and first.name == f"custom-{first.fingerprint[:8]}"
    np.testing.assert_array_equal(again.test.images, first.test.images)


def take_of_another(folder, cached):
    """What was cached of another file, under this one's name."""
    other = save(folder, change(0, emotion=4), "other.csv")
    with pytest.warns(UserWarning):
        load_data(other)
    (newer,) = [path for path in cached.parent.iterdir() if path != cached]
    newer.replace(cached)


def write_over(path, place, part):
    """Put these bytes into a file, so many bytes before its end."""
    content = bytearray(path.read_bytes())
    content[len(content) + place : len(content) + place + len(part)] = part
    path.write_bytes(content)


def rewrite(cached, images):
    """Other arrays, under what was told of the first ones."""
    with safe_open(cached, "np") as arrays:
        told, kept = arrays.metadata(), {name: arrays.get_tensor(name) for name in ("images", "codes")}
    save_file(kept | {"images": images}, cached, told)


CACHE_DAMAGE = {
    "cut": lambda folder, cached: cached.write_bytes(cached.read_bytes()[:100]),
    "a changed byte": lambda folder, cached: write_over(cached, -99, b"x"),
    "a zeroed half": lambda folder, cached: write_over(cached, -6000, bytes(6000)),
    "another file's": take_of_another,
    "other images": lambda folder, cached: rewrite(cached, np.zeros((6, 48, 48), np.uint8)),
    "another shape": lambda folder, cached: rewrite(cached, expected_images().reshape(6, -1)),
    "another kind": lambda folder, cached: rewrite(cached, expected_images().view(np.int8)),
}  # fmt: skip


@pytest.mark.parametrize("case", CACHE_DAMAGE)
def test_a_cache_that_is_not_of_this_file_is_not_believed(tmp_path, own_folders, case):
    path = save(tmp_path, GOOD)
    with pytest.warns(UserWarning):
        load_data(path)
    (cached,) = (own_folders / "cache").iterdir()
    CACHE_DAMAGE[case](tmp_path, cached)
    with pytest.warns(UserWarning):
        dataset = load_data(path)
    np.testing.assert_array_equal(dataset.test.images, expected_images()[[2, 5]])
    assert dataset.train.labels.tolist() == [0, 3]


def test_a_file_that_changes_while_it_is_read_is_told_and_not_cached(tmp_path, own_folders, monkeypatch):
    path, read = save(tmp_path, GOOD), data.read_table

    def overwrite(*args):
        path.write_bytes(change(0, emotion=4))
        return read(*args)

    monkeypatch.setattr(data, "read_table", overwrite)
    with pytest.raises(DataError, match="icml_face_data.csv: changed while it was read; try again"):
        load_data(path)
    assert not list((own_folders / "cache").glob("*"))


def test_a_file_that_is_replaced_while_it_is_read_counts_as_it_was(tmp_path, own_folders, monkeypatch):
    path, choose = save(tmp_path, pack_zip(GOOD)), data.unpack

    def replace(*args):
        save(tmp_path, pack_zip(change(0, emotion=4)), "new").replace(path)
        return choose(*args)

    with monkeypatch.context() as patch, pytest.warns(UserWarning):
        patch.setattr(data, "unpack", replace)
        assert load_data(path).train.labels[0] == 0
    with pytest.warns(UserWarning):
        assert load_data(path).train.labels[0] == 4


@pytest.mark.parametrize("trouble", ["a file", "below a file", "no home", "full"])
def test_without_a_cache_the_file_is_read_all_the_same_with_one_warning(tmp_path, monkeypatch, trouble):
    (tmp_path / "file").write_text("in the way")
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}
    monkeypatch.setenv("FER_CACHE", str(places.get(trouble, tmp_path / "cache")))
    if trouble == "no home":
        monkeypatch.delenv("FER_CACHE")
        monkeypatch.setattr(cache.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home directory")))
    if trouble == "full":
        monkeypatch.setattr(cache, "save_file", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.warns(UserWarning) as told:
        dataset = load_data(save(tmp_path, GOOD))
    assert dataset.train.labels.tolist() == [0, 3]
    assert sum("cannot be kept for the next time" in str(one.message) for one in told) == 1


class Endless(io.RawIOBase):
    """A file that goes on for ever with the same bytes; its beginning can be gone back to."""

    def __init__(self, start, part):
        self.start, self.part, self.place = start, part, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, place, whence=0):
        assert place == whence == 0
        self.place = 0
        return 0

    def readinto(self, buffer):
        content = self.start[self.place :] + self.part * (len(buffer) // len(self.part) + 1)
        buffer[:] = content[: len(buffer)]
        self.place += len(buffer)
        return len(buffer)


@pytest.mark.parametrize(
    ("part", "message"),
    [(b"0", "x, row 2: longer than any of FER2013's"), (b"    \r\n", "x, row 2: blank, and so are the 100 after it")],
)
def test_what_never_ends_is_refused_at_once(part, message):
    """Without a line end, without anything in the lines: from a source that goes on for ever."""
    with pytest.raises(DataError, match=message):
        table.read_table(io.BufferedReader(Endless(b"emotion,pixels,Usage\n", part)), "x")


@pytest.mark.parametrize("content", [GOOD, pack_zip(GOOD), pack_tar(GOOD)], ids="plain zip tar.gz".split())
def test_a_file_that_unpacks_to_far_more_than_fer2013_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(unpacking, "LARGEST", 40_000)
    with pytest.raises(DataError, match=r"unpacks to over .* GB, and FER2013 to 0.3"):
        read_csv(save(tmp_path, content))


def test_a_tar_gz_is_not_unpacked_to_list_what_is_in_it(tmp_path, monkeypatch):
    """The FER2013 file behind one that is larger than anything should be."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in (("huge", bytes(5_000_000)), ("fer2013.csv", FER2013_CSV)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(unpacking, "LARGEST", 1_000_000)
    with pytest.raises(DataError, match="unpacks to over"):
        read_csv(save(tmp_path, buffer.getvalue()))


@pytest.mark.parametrize("name", ["a" * 5000, "a\nb.csv", "\0"])
def test_an_impossible_path_gets_one_line(tmp_path, name):
    with pytest.raises(DataError) as error:
        load_data(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_with_a_line_end_in_its_name_gets_one_line(tmp_path):
    with pytest.raises(DataError, match="row 1") as error:
        load_data(save(tmp_path, b"x", "a\nb.csv"))
    assert "\n" not in str(error.value)


def test_a_changed_file_is_read_anew(tmp_path):
    path = save(tmp_path, GOOD)
    with pytest.warns(UserWarning):
        first = load_data(path)
    path.write_bytes(change(0, emotion=4))
    with pytest.warns(UserWarning):
        assert load_data(path).train.labels[0] == 4 != first.train.labels[0]


def test_splits_know_their_rows(tmp_path):
    with pytest.warns(UserWarning):
        dataset = load_data(save(tmp_path, GOOD))
    for name, rows in {"train": [0, 3], "validation": [1, 4], "test": [2, 5]}.items():
        split = dataset.splits[name]
        assert split.rows.tolist() == rows and split.name == name
        np.testing.assert_array_equal(split.images, expected_images()[rows])


def test_auto_takes_fer_data_then_the_folder_then_the_drawn_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    monkeypatch.delenv("FER_DATA", raising=False)
    with pytest.warns(UserWarning, match="no FER2013: FER_DATA is not set.*DRAWN FACES stand in"):
        assert load_data("auto").name == "drawn"
    (tmp_path / "data").mkdir()
    save(tmp_path / "data", pack_tar(GOOD), "fer2013.tar.gz")
    for named in ("", "auto"):
        monkeypatch.setenv("FER_DATA", named)
        with pytest.warns(UserWarning, match="fer2013.tar.gz"):
            load_data("auto")
    monkeypatch.setenv("FER_DATA", str(tmp_path / "elsewhere.csv"))
    with pytest.raises(DataError, match="elsewhere.csv does not exist"):
        load_data("auto")


def test_what_else_the_folder_holds_and_a_misspelt_name_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    monkeypatch.delenv("FER_DATA", raising=False)
    (tmp_path / "data").mkdir()
    save(tmp_path / "data", GOOD, "fer2013.csv")
    save(tmp_path / "data", GOOD, "other.csv")
    with pytest.warns(UserWarning, match="of data/, fer2013.csv is taken, and not other.csv: FER_DATA chooses"):
        load_data("auto")
    with pytest.raises(DataError, match="'drwan' is no file or folder, and no name; drawn is one"):
        load_data("drwan")


VOTES_HEADER = "Usage,Image name," + ",".join(data.VOTES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Usage,neutral\nTraining,1\n", "column Image name, happiness, .* missing"),
        (f"{VOTES_HEADER}\nTraining,a" + ",1" * 9 + ",x\n", "whole numbers from 0 to 10"),
        (f"{VOTES_HEADER}\nTraining,a" + ",1" * 9 + ",11\n", "whole numbers from 0 to 10"),
        (f"{VOTES_HEADER}\nTraining,a" + ",1" * 10 + "\n", "not those of this data set"),
        ("", "is empty"),
    ],
)
def test_bad_votes_get_a_clear_error(tmp_path, small, content, message):
    path = tmp_path / "votes.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_votes(small, path)


def test_no_votes_for_the_drawn_faces(small):
    assert load_votes(small) is None


# --- on the real file ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_csv(tmp_path_factory):
    """FER2013 unpacked, under the name and in the folder that torchvision expects."""
    folder = tmp_path_factory.mktemp("root") / "fer2013"
    folder.mkdir()
    with zipfile.ZipFile(REAL) as archive, archive.open("icml_face_data.csv") as source:
        with (folder / "icml_face_data.csv").open("wb") as target:
            shutil.copyfileobj(source, target)
    return folder / "icml_face_data.csv"


@pytest.mark.slow
@needs_fer2013
def test_images_and_labels_equal_torchvisions(fer2013, real_csv):
    """Of the splits that judge: of the training images, the fingerprint says that they are the published ones, and
    torchvision would read them for most of a minute."""
    from torchvision.datasets import FER2013

    rest = FER2013(real_csv.parent.parent, "test")._samples
    assert len(rest) == len(fer2013.validation) + len(fer2013.test)
    images = np.concatenate([fer2013.validation.images, fer2013.test.images])
    np.testing.assert_array_equal(np.stack([image for image, _ in rest]), images)
    assert [label for _, label in rest] == [*fer2013.validation.labels, *fer2013.test.labels]


@pytest.mark.slow
@needs_fer2013
def test_fingerprints_belong_to_the_published_files(tmp_path, real_csv):
    """Each published file, made from the real one and known by its published MD5, is taken for FER2013."""
    content = real_csv.read_bytes()
    rows = [line.split(",") for line in content.decode().splitlines()[1:]]
    files = {
        "b114b9e04e6949e5fe8b6a98b3892b1d": content,
        "f8428a1edbd21e88f42c73edd2a14f95": write_rows([(e, p, u) for e, u, p in rows], "emotion,pixels,Usage"),
        "3f0dfb3d3fd99c811a1299cb947e3131": write_rows(
            [(e, f'"{p}"') for e, u, p in rows if u == "Training"], "emotion,pixels", "\r\n"
        ),
    }
    for md5, content in files.items():
        assert hashlib.md5(content).hexdigest() == md5
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_data(save(tmp_path, content)).name == "fer2013"


@pytest.fixture(scope="session")
def published_votes():
    path = REAL.with_name("fer2013new.csv")
    if not path.is_file():
        pytest.skip("FER+'s fer2013new.csv is not beside FER2013")
    return path.read_text().splitlines(keepends=True)


@needs_fer2013
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "not the published votes, a row was moved"),
        (lambda rows: [rows[0], rows[-1], *rows[1:-1]], "not those of this data set"),
        (lambda rows: [rows[0], rows[9], *rows[1:9], *rows[10:]], "not the published votes"),
        (lambda rows: [*rows, rows[-1]], "not those of this data set"),
        (lambda rows: rows[:-1], "not those of this data set"),
        (
            lambda rows: [rows[0], f"Training,a.png{10 * ',6'}\n", *rows[2:]],
            "row 2: 60 votes, expected ten",
        ),
        (lambda rows: [rows[0], "Training,fer0000000.png" + 10 * ",1" + "\n", *rows[2:]], "not the published votes"),
    ],
    ids="swapped rotated-all rotated-some one-more one-less sum changed".split(),
)
def test_votes_that_do_not_belong_are_refused(fer2013, published_votes, tmp_path, change, message):
    path = tmp_path / "fer2013new.csv"
    path.write_text("".join(change(published_votes)))
    with pytest.raises(DataError, match=f"fer2013new.csv.*{message}"):
        load_votes(fer2013, path)


@needs_fer2013
def test_votes_are_aligned_row_by_row(fer2013):
    votes = load_votes(fer2013)
    if votes is None:
        pytest.skip("FER+'s fer2013new.csv is not beside FER2013")
    assert len(votes) == 35_887
    happy = votes.iloc[fer2013.test.rows[fer2013.test.labels == 3]]
    assert (happy["happiness"] > 5).mean() > 0.8  # a row's shift would give about a quarter
