"""Data of the reader's own, as its users lay it out: drawn faces in folders and tables of every kind."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

from fer_lib import data, plots, record, train
from fer_lib.data import DataError, load_data
from fer_lib.dataset import Content
from fer_lib.experiments import EXPERIMENTS
from fer_lib.preprocess import balance_classes
from fer_lib.reading.faces import draw_faces
from fer_lib.reading.pictures import list_formats
from fer_lib.reading.splitting import complete_splits, name_classes
from tests.test_damage import check
from tests.test_data import FER2013_CSV, GOOD, PIXELS, ROWS, expected_images, pack_tar, pack_zip, save, write_rows

pytestmark = pytest.mark.slow

FACES = draw_faces(np.arange(60) % 7, np.random.default_rng(0))


def load(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_data(path)


def write_pictures(folder, names, side=48):
    """A drawn face for each name, in grey or, for a JPEG, in colour; returns the folder."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(FACES[number % len(FACES)]).resize((side, side))
        (image.convert("RGB") if path.suffix == ".jpg" else image).save(path)
    return folder


def name_files(folders, ending=".png", count=6):
    return [f"{folder}/{number}{ending}" for folder in folders for number in range(count)]


# --- packings -----------------------------------------------------------------------------


def pack_plain_tar(content, name="fer2013/fer2013.csv"):
    return gzip.decompress(pack_tar(content, name))


def pack_all(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


PACKINGS = {
    "tar": pack_plain_tar(GOOD),
    "gzip": gzip.compress(GOOD),
    "bzip2": bz2.compress(GOOD),
    "xz": lzma.compress(GOOD),
    "tar.bz2": bz2.compress(pack_plain_tar(GOOD)),
    "tar.xz": lzma.compress(pack_plain_tar(GOOD)),
    "tar.gz in a zip": pack_all(fer2013_dot_tar_dot_gz=pack_tar(GOOD)),
    "zip in a zip": pack_all(icml_face_data_dot_csv_dot_zip=pack_zip(GOOD)),
    "capitals": pack_zip(GOOD, "FER2013.CSV"),
    "Download All": pack_all(
        example_submission_dot_csv=b"emotion\n0\n",
        fer2013_dot_tar_dot_gz=pack_tar(FER2013_CSV),
        icml_face_data_dot_csv=GOOD,
        test_dot_csv=write_rows([(p,) for p in PIXELS], "pixels"),
        train_dot_csv=write_rows([(0, PIXELS[0])], "emotion,pixels"),
    ),
    "all of it in folders": pack_all(a__b__fer2013_dot_csv=GOOD, a__readme_dot_txt=b"hello"),
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_a_packing_is_told_by_its_content_whatever_its_name(tmp_path, kind):
    images, codes = data.read_csv(save(tmp_path, PACKINGS[kind], "faces"))
    np.testing.assert_array_equal(images, expected_images())
    assert (codes // 4).tolist() == [row[0] for row in ROWS]


@pytest.mark.parametrize("kind", ["tar", "gzip", "bzip2", "xz", "tar.gz in a zip"])
def test_a_damaged_packing_is_read_or_refused(tmp_path, monkeypatch, kind):
    path = save(tmp_path, PACKINGS[kind])
    monkeypatch.setitem(data.FINGERPRINTS, load(path).fingerprint, "published")
    same = [row[0] for row in ROWS[::3]]
    check(
        path,
        lambda: data.load_data(path),
        DataError,
        lambda found: found.name.startswith("custom-") or found.train.labels.tolist() == same,
    )


def test_what_is_packed_in_itself_without_end_is_refused(tmp_path):
    content = GOOD
    for _ in range(10):
        content = gzip.compress(content)
    with pytest.raises(DataError, match="packed 6 times over"):
        load_data(save(tmp_path, content))


# --- tables -------------------------------------------------------------------------------

TABLES = {
    "another order": write_rows([(p, u, e) for e, u, p in ROWS], "pixels,Usage,emotion"),
    "capitals": write_rows(header="EMOTION,USAGE,PIXELS"),
    "pandas' index": write_rows([(i, e, u, p) for i, (e, u, p) in enumerate(ROWS)], ",emotion,Usage,pixels"),
    "a saved index": write_rows([(i, e, u, p) for i, (e, u, p) in enumerate(ROWS)], "Unnamed: 0,emotion,Usage,pixels"),
    "labels as 3.0": write_rows([(f"{e}.0", u, p) for e, u, p in ROWS]),
    "a further column": write_rows([(e, u, p, "x") for e, u, p in ROWS], "emotion,Usage,pixels,who"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_columns_are_found_by_name(tmp_path, kind):
    images, codes = data.read_csv(save(tmp_path, TABLES[kind]))
    np.testing.assert_array_equal(images, expected_images())
    assert [codes.tolist(), codes.dtype] == [[0, 25, 14, 12, 5, 22], np.uint8]


REFUSED = {
    "semicolons": (GOOD.replace(b",", b";"), "row 1: the columns are separated by semicolons; save the file with comm"),
    "tabs": (GOOD.replace(b",", b"\t"), "row 1: the columns are separated by tabs"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "text in UTF-16; save it as UTF-8"),
    "UTF-16 without its mark": (GOOD.decode().encode("utf-16-le"), "text in UTF-16"),
    "a web page": (b"\n<!DOCTYPE html><html><head><title>Login | Kaggle", "a web page.*log in and download again"),
    "Latin-1": ("label,pixels\nfröhlich,1".encode("latin-1"), "row 2: no UTF-8; save the file as UTF-8"),
    "a label missing": (
        write_rows([("" if i == 4 else "xy"[i % 2], p) for i, p in enumerate(PIXELS)], "label,pixels"),
        "row 6: label empty, expected a whole number from 0 to 6, or a name for a class of your own",
    ),
    "one class": (write_rows([("x", p) for p in PIXELS], "label,pixels"), "all images are of one class, x"),
    "a rare class": (
        write_rows([("xy"[i > 1], u, p) for i, (_, u, p) in enumerate(ROWS)], "label,Usage,pixels"),
        "row 2: label 'x', expected a whole number from 0 to 6, or a name for .*, of which there are at least 3",
    ),
    "no splits and few faces": (write_rows([(0, p) for p in PIXELS[:2]], "emotion,pixels"), "fewer than 3 images"),
    "another size in between": (
        write_rows([(0, " ".join(p.split()[: 100 if i < 5 else 81])) for i, p in enumerate(PIXELS)], "label,pixels"),
        r"row 7: 81 pixels, expected 100 \(10 x 10, as in row 2\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_other_tables_are_named(tmp_path, kind):
    content, message = REFUSED[kind]
    with pytest.raises(DataError, match=f"^faces.csv.*{message}"):
        load_data(save(tmp_path, content, "faces.csv"))


def test_a_table_with_classes_of_its_own_and_another_size(tmp_path):
    names = ["calm", "calm", "9", "9", "10", "10"] * 4
    pixels = [" ".join(map(str, FACES[i].repeat(2, 0).repeat(2, 1).ravel())) for i in range(len(names))]
    path = tmp_path / "own.csv"
    pd.DataFrame({"pixels": pixels, "label": names}).to_csv(path)
    with pytest.warns(
        UserWarning, match="own.csv: .*24 rows.*3 classes: 9, 10, calm.*'custom-.*without splits"
    ) as told:
        dataset = load_data(path)
    assert len(told) == 1 and dataset.classes == ("9", "10", "calm") and dataset.name.startswith("custom-")
    assert [np.bincount(split.labels).tolist() for split in dataset.splits.values()] == [[6] * 3, [1] * 3, [1] * 3]
    for split in dataset.splits.values():
        assert [names[row] for row in split.rows] == [dataset.classes[label] for label in split.labels]
        assert np.abs(split.images - FACES[split.rows].astype(float)).mean() < 10


# --- finding ------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without data, and the folder in it where they are looked for."""
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    monkeypatch.delenv("FER_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["fer2013/fer2013.csv", "archive.zip", "fer2013.tar", "downloads/all.zip"])
def test_any_file_in_the_folder_data_that_can_be_read_is_used(project, name):
    (project / name).parent.mkdir(exist_ok=True)
    kind = {".csv": FER2013_CSV, ".tar": pack_plain_tar(GOOD)}.get((project / name).suffix, PACKINGS["Download All"])
    save(project, b"emotion\n0\n", "notes.csv")
    save(project, b"Usage,neutral\n", "fer2013new.csv")
    save(project, kind, name)
    with pytest.warns(UserWarning, match=f"^{(project / name).name}"):
        assert load_data().train.labels.tolist() == [0, 3]
    assert data.find_data() == project / name


def test_the_published_file_comes_before_any_other(project, monkeypatch):
    whole = Content(expected_images(), np.array([0, 25, 14, 12, 5, 22], np.uint8))
    monkeypatch.setitem(data.FINGERPRINTS, whole.calc_fingerprint(), "published")
    save(project, write_rows([(e, u, p) for e, u, p in ROWS[::-1]]), "fer2013.csv")
    save(project, PACKINGS["gzip"], "z.gz")
    assert data.find_data() == project / "z.gz" and load_data().name == "fer2013"


def test_folders_of_pictures_in_data_are_found(project):
    write_pictures(project / "mine", name_files(["glad", "grim"]))
    assert load("auto").classes == ("glad", "grim") and data.find_data() == project / "mine"


def test_whoever_falls_back_on_the_drawn_faces_says_so_and_what_was_wrong(project):
    save(project, pack_zip(GOOD)[:-40], "fer2013.zip")
    with pytest.warns(UserWarning, match="no FER2013: .*fer2013.zip: .*cut short.*DRAWN FACES stand in"):
        assert load_data().name == "drawn"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data("drawn-few").name == "drawn-few"


def test_a_relative_path_in_the_environment_begins_where_the_shell_is(tmp_path, monkeypatch):
    """Not where the process is: a notebook's kernel starts in the notebook's folder."""
    (tmp_path / "shell").mkdir()
    (tmp_path / "kernel").mkdir()
    monkeypatch.setenv("PWD", str(tmp_path / "shell"))
    monkeypatch.setenv("FER_DATA", "faces.csv")
    monkeypatch.chdir(tmp_path / "kernel")
    with pytest.raises(DataError, match=f"^{tmp_path / 'shell' / 'faces.csv'} does not exist"):
        load_data()
    save(tmp_path / "shell", GOOD, "faces.csv")
    assert load("auto").train.labels.tolist() == [0, 3]
    monkeypatch.delenv("PWD")
    with pytest.raises(DataError, match=f"^{data.PROJECT / 'faces.csv'} does not exist"):
        load_data()


# --- folders ------------------------------------------------------------------------------

CK = ["anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise", "neutral"]
FER = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
RAF = list("1234567")
JAFFE = [
    f"{who}.{one}{n}.{n}.tiff" for who in ("KA", "KL") for one in "AN DI FE HA SA SU NE".split() for n in (1, 2, 3)
]
SEVEN = list(data.EMOTIONS)
LAYOUTS = {
    "CK+": (name_files([f"CK+48/{one}" for one in CK], count=10), sorted(CK), [64, 8, 8]),
    "people in the classes": (name_files([f"{c}/{p}" for c in "ab" for p in "xyz"], count=4), ["a", "b"], [20, 2, 2]),
    "RAF-DB": (name_files([f"DATASET/{s}/{c}" for s in ("train", "test") for c in RAF], ".jpg"), RAF, [42, 21, 21]),
    "JAFFE": ([f"jaffe/{name}" for name in JAFFE], SEVEN, [28, 7, 7]),
    "all splits": (name_files([f"{s}/{c}" for s in ("Train", "val", "TEST") for c in "ab"]), ["a", "b"], [12] * 3),
    "two splits": (name_files([f"{s}/{c}" for s in ("train", "validation") for c in FER]), SEVEN, [42, 21, 21]),
}  # fmt: skip


def pack(folder, kind):
    """The folder as it is, or in an archive."""
    path = folder.with_suffix(f".{kind}")
    if kind == "folder":
        return folder
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for one in sorted(folder.rglob("*")):
                archive.write(one, one.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, "faces")
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tgz"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_of_pictures_as_their_users_lay_them_out(tmp_path, layout, kind):
    names, classes, sizes = LAYOUTS[layout]
    folder = write_pictures(tmp_path / "faces", names, side=60)
    (folder / "train_labels.csv").write_text("image,label\n1.jpg,5\n")
    (folder / "Thumbs.db").write_bytes(b"x")
    path = pack(folder, kind)
    dataset = load(path)
    assert list(dataset.classes) == classes and [len(split) for split in dataset.splits.values()] == sizes
    rows = np.concatenate([split.rows for split in dataset.splits.values()])
    assert sorted(rows) == list(range(len(names)))
    for split in dataset.splits.values():
        counts = np.bincount(split.labels, minlength=len(classes))
        assert counts.max() - counts.min() <= 1 and split.images.shape[1:] == (48, 48)
        assert split.images.std() > 20
    assert load(path).fingerprint == dataset.fingerprint


def test_pictures_have_the_labels_and_splits_of_their_folders(tmp_path):
    names = name_files([f"{s}/{c}" for s in ("train", "test") for c in FER])
    dataset = load(write_pictures(tmp_path / "faces", names))
    order = sorted(names)
    for split in dataset.splits.values():
        for row, label, image in zip(split.rows, split.labels, split.images):
            folder, emotion, _ = order[row].split("/")
            assert (folder == "train") == (split.name == "train")
            assert data.EMOTIONS[label].lower() == emotion
            np.testing.assert_array_equal(image, FACES[names.index(order[row]) % len(FACES)])


def test_kaggles_fer2013_keeps_the_challenges_splits_that_its_files_names_tell(tmp_path):
    """msambare/fer2013 has Training_<n>.jpg in train, PublicTest_<n>.jpg and PrivateTest_<n>.jpg in test."""
    parts = {"train": ["Training"] * 3, "test": ["PublicTest", "PrivateTest", "PrivateTest"]}
    names = [f"{s}/{c}/{one}_{n}.png" for s, ones in parts.items() for c in FER for n, one in enumerate(ones)]
    folder = write_pictures(tmp_path / "faces", names)
    with pytest.warns(UserWarning) as told:
        dataset = load_data(folder)
    assert "draw" not in str(told[0].message) and [len(split) for split in dataset.splits.values()] == [21, 7, 14]
    order = sorted(names)
    assert all("PublicTest" in order[row] for row in dataset.validation.rows)
    (folder / "test/sad/PublicTest_0.png").rename(folder / "test/sad/0.png")  # one without: their names tell nothing
    with pytest.warns(UserWarning, match="split in two by a draw"):
        assert [len(split) for split in load_data(folder).splits.values()] == [21, 11, 10]


@pytest.mark.parametrize("ending", [".heic", ".avif", ".jp2", ".webp", ".JPG", ".jfif"])
def test_what_telephones_and_cameras_write_is_read(tmp_path, ending):
    list_formats()  # else it could not be written either
    folder = write_pictures(tmp_path / "faces", [*name_files(["glad", "grim"]), f"glad/99{ending}"])
    dataset = load(folder)
    assert sum(len(split) for split in dataset.splits.values()) == 13


def test_without_its_package_heif_is_asked_for_and_all_else_is_read(tmp_path, monkeypatch, request):
    list_formats()  # else none could be written
    folder = write_pictures(tmp_path / "faces", [*name_files(["glad", "grim"]), "glad/99.jp2", "glad/98.heic"])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    list_formats.cache_clear()
    request.addfinalizer(list_formats.cache_clear)
    with pytest.raises(DataError, match="glad/98.heic: no picture .*HEIF would be with the package pillow-heif"):
        load(folder)
    (folder / "glad/98.heic").unlink()
    assert sum(len(split) for split in load(folder).splits.values()) == 13


def test_pictures_are_decoded_once(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "faces", name_files(["glad", "grim"]))
    first = load(folder)
    with monkeypatch.context() as patch:
        patch.setattr("fer_lib.reading.pictures._read_face", lambda *args: pytest.fail("decoded again"))
        assert load(folder).fingerprint == first.fingerprint
    write_pictures(folder, ["glad/7.png"], side=30)
    assert len(load(folder).train) == len(first.train) + 1


WRONG = {
    "no folder": (["1.png", "2.png"], "all pictures lie in one folder, and two classes are the least; lay them out"),
    "one folder": (name_files(["only"]), "all pictures lie in one folder, and two classes are the least; lay them out"),
    "beside the folders": (["a/1.png", "2.png"], "2.png lies in no folder of a class; lay them out in a folder for"),
    "no class below a split": (["train/1.png", "test/2.png"], "test/2.png lies in no folder of a class"),
    "a stray picture": (["train/a/1.png", "train/b/2.png", "c/3.png"], "c/3.png lies in no folder of a split"),
    "few pictures": (name_files("ab", count=2), "of a, b fewer than 3 images"),
    "one class": (name_files(["train/a", "test/a"]), "all images are of one class, a; two are the least"),
    "no training": (name_files(["test/a", "test/b"]), "needs images to train on"),
    "a class without training": (
        name_files(["train/a", "train/b", "test/b", "test/c"]),
        "a class has no images to tra",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_another_layout_is_refused_with_the_one_that_is_wanted(tmp_path, kind):
    names, message = WRONG[kind]
    with pytest.raises(DataError, match=f"^faces: .*{message}"):
        load_data(write_pictures(tmp_path / "faces", names))


def test_pictures_that_are_none_are_named(tmp_path):
    folder = write_pictures(tmp_path / "faces", name_files(["glad", "grim"]))
    for number in (1, 2):
        (folder / f"grim/{number}.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="^faces, grim/1.png: no picture that can be read .*; grim/2.png: no picture"):
        load_data(folder)


def test_a_class_without_a_picture_is_told(tmp_path):
    folder = write_pictures(tmp_path / "faces", name_files(["glad", "grim"]))
    (folder / "sad").mkdir()
    (folder / "sad" / "1.webm").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="faces: left out is sad, in which no file's name ends in .avif"):
        assert load_data(folder).classes == ("glad", "grim")


@pytest.mark.parametrize(("kind", "white"), [(np.uint16, 65535), (np.uint16, 255), (np.float32, 1), (np.float32, 255)])
def test_pictures_of_more_than_8_bits_are_not_black(tmp_path, kind, white):
    for number, name in enumerate(name_files(["glad", "grim"], ".tif")):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((FACES[number % len(FACES)] * (white / 255)).astype(kind)).save(path)
    plain = load(write_pictures(tmp_path / "plain" / "faces", name_files(["glad", "grim"], ".tif")))
    read = load(tmp_path / "faces")
    assert np.abs(read.train.images.astype(int) - plain.train.images).max() <= 1


def test_damaged_pictures_are_read_or_named(tmp_path):
    folder = write_pictures(tmp_path / "faces", name_files(["glad", "grim"], count=3))
    path = pack(folder, "zip")
    check(path, lambda: load(path), DataError, lambda found: found.name.startswith("custom-"))


def test_the_cache_of_own_data_is_believed_only_whole(tmp_path, own_folders):
    folder = write_pictures(tmp_path / "faces", name_files(["glad", "grim"], count=3))
    first = load(folder)
    (cached,) = (own_folders / "cache").iterdir()
    same = lambda found: (found.fingerprint, found.classes) == (first.fingerprint, first.classes)  # noqa: E731
    check(cached, lambda: load(folder), (), same)


# --- classes and splits -------------------------------------------------------------------


def test_splits_are_the_same_at_every_reading_and_hold_every_class():
    labels = np.repeat([0, 1, 2], [3, 40, 100])
    first, way = complete_splits("x", labels, None)
    assert way == "drawn" and (first == complete_splits("x", labels, None)[0]).all()
    table = np.array([np.bincount(first[labels == label], minlength=3) for label in range(3)])
    assert table.tolist() == [[1, 1, 1], [32, 4, 4], [80, 10, 10]]


def test_any_number_of_classes_in_the_order_of_their_names():
    names = [str(number) for number in range(300) for _ in range(3)]
    classes, places = name_classes("x", names)
    assert classes == tuple(map(str, range(300))) and [classes[place] for place in places] == names


# --- training -----------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Eight classes of drawn faces, as CK+ has them."""
    return write_pictures(tmp_path / "CK", LAYOUTS["CK+"][0])


def test_an_experiment_trains_on_it_and_its_record_knows_the_classes(own, capsys, own_folders):
    with pytest.warns(UserWarning, match="8 classes: anger, contempt"):
        train.main(["a1_baseline", "--data", str(own), "--epochs", "1"])
    told = capsys.readouterr().out
    assert "a1_baseline custom-" in told and "nothing was trained" not in told
    with pytest.warns(UserWarning, match="8 classes"):
        train.main(["a1_baseline", "--data", str(own), "--epochs", "1"])
    assert "is on record, and was before: nothing was trained" in capsys.readouterr().out
    dataset = load(own)
    (run,) = train.get_runs(replace(EXPERIMENTS["a1_baseline"], epochs=1), dataset, [0])
    assert run.logits["test"].shape == (8, 8) and run.classes == dataset.classes and run.data == dataset.name
    assert record.load_model(run)[-1].out_features == 8
    figure = plots.plot_confusions([run], [run], dataset.test.labels, "test")
    assert f"On {dataset.name}, which is not FER2013." in figure.get_suptitle()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == sorted(CK)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_network_has_as_many_answers_as_there_are_classes(name):
    model = EXPERIMENTS[name].build_model(11)
    last = [module for module in model.modules() if hasattr(module, "out_features")][-1]
    assert last.out_features == 11


def test_classes_are_balanced_by_their_own_number(own):
    dataset = load(own)
    with pytest.raises(ValueError, match="7 factors, and the data has 8 classes"):
        balance_classes(dataset.train, EXPERIMENTS["a8_targeted_upsampling"].upsampling)
    uneven = replace(dataset.train, labels=np.zeros(64, np.int64))
    assert len(balance_classes(uneven)) == 64


def test_a_notebook_of_one_step_runs_on_it_and_says_so(own, tmp_path):
    parameters = {"data": str(own), "seeds": [0], "epochs": 1, "wandb_mode": "disabled"}
    source = data.PROJECT / "notebooks" / "03_a1_baseline.ipynb"
    papermill.execute_notebook(source, tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False)
    text = (tmp_path / "out.ipynb").read_text()
    assert "not FER2013's faces, but data of your own" in text and "8 classes: anger, contempt" in text
    assert "out_features=8" in text and "2 runs on custom-" in text
