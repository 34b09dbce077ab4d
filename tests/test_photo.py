import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lib import plots
from fer_lib.extras import photo
from fer_lib.extras.photo import (
    cut_faces,
    describe_faces,
    describe_network,
    draw_picture,
    explain_faces,
    find_faces,
    frame_faces,
    predict_faces,
    read_picture,
    read_temperature,
)
from fer_lib.models import BaselineModel
from fer_lib.reading.faces import draw_faces
from fer_lib.record import find_published_run
from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def picture():
    return draw_picture()


@pytest.fixture
def save(picture, tmp_path):
    """Save the drawn picture, or another, as a file of this name."""

    def write(name, image=None, **options):
        (image or Image.fromarray(picture)).save(tmp_path / name, **options)
        return tmp_path / name

    return write


def test_each_drawn_face_is_found_where_it_was_put(picture):
    boxes = find_faces(picture)
    assert boxes.shape == (3, 4)
    assert np.abs(boxes[:, 0] + boxes[:, 2] / 2 - [150, 390, 630]).max() < 25, "from left to right"


def test_a_picture_without_a_face_has_none():
    boxes = find_faces(np.full((300, 400), 128, np.uint8))
    assert boxes.shape == (0, 4) and cut_faces(np.zeros((300, 400), np.uint8), boxes).shape == (0, 48, 48)


def test_where_no_face_is_found_or_all_is_asked_for_the_middle_of_the_picture_is_taken(picture):
    boxes, found = frame_faces(np.full((300, 400), 128, np.uint8))
    assert boxes.tolist() == [[50, 0, 300, 300]] and not found
    boxes, found = frame_faces(picture, whole=True)
    assert boxes.tolist() == [[240, 0, 300, 300]] and not found
    assert frame_faces(picture)[1]


def test_a_picture_that_is_a_face_is_cut_to_most_of_itself():
    for face in draw_faces(np.arange(7), np.random.default_rng(0)):
        ((left, top, width, height),), _ = frame_faces(face)
        assert width == height >= 32 and left + width <= 48 and top + height <= 48


def test_a_cut_face_is_what_lies_in_the_box(picture):
    (face,) = cut_faces(picture, np.array([[60, 60, 180, 180]]))
    whole = np.asarray(Image.fromarray(picture[60:240, 60:240]).resize((48, 48), Image.Resampling.BOX))
    assert np.abs(face.astype(int) - whole).mean() < 2
    (small,) = cut_faces(picture, np.array([[60, 60, 20, 20]]))
    assert small.shape == (48, 48)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.heic"])
def test_every_usual_format_gives_the_same_picture(save, picture, name):
    read = read_picture(save(name))
    assert read.dtype == np.uint8 and read.shape == picture.shape
    assert np.abs(read.astype(int) - picture).mean() < 3


def test_a_picture_is_turned_upright_as_its_exif_says(save, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    sideways = Image.fromarray(np.rot90(picture).copy())
    read = read_picture(save("a.jpg", sideways, exif=exif, quality=95))
    assert np.abs(read.astype(int) - picture).mean() < 3


def test_what_is_transparent_is_white(save, picture):
    image = Image.fromarray(picture).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 50, 50))
    read = read_picture(save("a.png", image))
    assert (read[:50, :50] == 255).all() and (read[60:, 60:] == picture[60:, 60:]).all()
    palette = Image.fromarray(picture).convert("P")
    assert (read_picture(save("b.png", palette, transparency=int(np.asarray(palette)[0, 0])))[0, 0]) == 255


def test_colour_and_16_bits_become_grey(save, picture):
    colour = Image.merge("RGB", [Image.fromarray(picture)] * 3)
    assert np.abs(read_picture(save("a.png", colour)).astype(int) - picture).max() <= 1
    deep = Image.fromarray(picture.astype(np.uint16) * 257)
    assert (read_picture(save("b.png", deep)) == picture).all()


def test_a_huge_picture_is_shrunk_and_its_faces_are_found(save, picture):
    huge = Image.fromarray(picture).resize((picture.shape[1] * 8, picture.shape[0] * 8))
    read = read_picture(save("a.jpg", huge))
    assert read.size <= photo.LONGEST**2 and len(find_faces(read)) == 3


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_a_picture_of_floats_is_not_black(tmp_path, picture, white):
    Image.fromarray(picture.astype(np.float32) * (white / 255)).save(tmp_path / "a.tif")
    assert np.abs(read_picture(tmp_path / "a.tif").astype(int) - picture).max() <= 1


def test_the_faces_of_a_crowd_and_of_a_panorama_are_found(save, picture):
    face = np.asarray(Image.fromarray(picture[30:270, 30:270]).resize((200, 200)))
    margin = np.full((260, 260), 128, np.uint8)
    margin[30:230, 30:230] = face
    crowd = np.tile(margin, (8, 8))
    assert len(find_faces(read_picture(save("crowd.png", Image.fromarray(crowd))))) >= 60
    panorama = np.full((1000, 10000), 128, np.uint8)
    panorama[400:660, 3000:3260] = panorama[400:660, 7000:7260] = margin
    assert len(find_faces(read_picture(save("wide.png", Image.fromarray(panorama))))) == 2


def test_what_cannot_be_used_is_told(save, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none.jpg does not exist; give the path of a picture"):
        read_picture(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="text.jpg is no picture that can be read"):
        read_picture(tmp_path / "text.jpg")
    whole, huge = save("cut.png").read_bytes(), save("huge.png")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.png is damaged"):
        read_picture(tmp_path / "cut.png")
    with pytest.raises(ValueError, match="tiny.png is 20x30 pixels; at least 48x48 are needed"):
        read_picture(save("tiny.png", Image.new("L", (20, 30))))
    (tmp_path / "document.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n")
    with pytest.raises(ValueError, match="document.jpg is no picture that can be read"):
        read_picture(tmp_path / "document.jpg")
    Image.fromarray(np.full((60, 60), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match="nan.tif is damaged .it holds numbers that are not finite."):
        read_picture(tmp_path / "nan.tif")
    with pytest.raises(FileNotFoundError, match="aaa.* does not exist"):
        read_picture("a" * 5000)
    with monkeypatch.context() as patch:
        patch.setattr(photo, "MOST_PIXELS", 5000)
        patch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
        with pytest.raises(ValueError, match="huge.png is too large, .*; shrink it first"):
            read_picture(huge)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="huge.png is too large, .*; shrink it first"):
        read_picture(huge)


def test_a_prediction_is_the_mean_over_both_views_and_hardly_minds_the_mirror(picture):
    torch.manual_seed(0)
    model = BaselineModel()
    faces = cut_faces(picture, find_faces(picture))
    shares = predict_faces(model, faces, temperature=1.0)
    assert shares.shape == (3, 7)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    mirrored = predict_faces(model, faces[:, :, ::-1].copy(), temperature=1.0)
    np.testing.assert_allclose(mirrored, shares, rtol=1e-4)
    with torch.inference_mode():
        plain = model(torch.from_numpy(faces[:, None]) / 255).softmax(-1)
        other = model(torch.from_numpy(faces[:, None, :, ::-1].copy()) / 255).softmax(-1)
    np.testing.assert_allclose(shares, (plain + other) / 2, rtol=1e-4)
    flat = predict_faces(model, faces, temperature=1000.0)
    np.testing.assert_allclose(flat, 1 / 7, atol=1e-3)


def test_an_answer_is_explained_even_for_a_single_face(picture):
    """Against its own grey, not against the mean of the faces, which one face would be itself."""
    torch.manual_seed(0)
    model = BaselineModel()
    faces = cut_faces(picture, find_faces(picture))
    answers = predict_faces(model, faces, temperature=1.0)
    maps = explain_faces(model, faces, answers)
    assert maps.shape == (3, 48, 48) and (maps.sum((1, 2)) > 0).all()
    alone = explain_faces(model, faces[:1], answers[:1])
    np.testing.assert_allclose(alone[0], maps[0], rtol=1e-3, atol=1e-6)
    assert explain_faces(model, faces[:0], answers[:0]).shape == (0, 48, 48)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_faces_are_told_and_drawn_however_many(picture, count):
    boxes = find_faces(picture)[:count]
    faces, answers = cut_faces(picture, boxes), np.full((count, 7), 1 / 7)
    answers[:, 3] += 0.1
    told = describe_faces(boxes, found=count > 0)
    assert ("No face was found" in told) == (count == 0) and ("3 faces" in told) == (count == 3)
    figure = plots.plot_answers(picture, boxes, faces, answers, np.ones((count, 48, 48)))
    title = figure.get_suptitle()
    assert title == "No face was found in this picture" if count == 0 else title.count("Happy (24%)") == count
    assert ("this face Happy" in title) == (count == 1)
    assert len(figure.axes) == 1 + 3 * count


def test_of_a_crowd_the_title_says_how_many_are_called_what(picture):
    answers = np.eye(7)[[3, 6, 3, 3, 0, 6]]
    boxes = np.tile([0, 0, 60, 60], (6, 1))
    figure = plots.plot_answers(picture, boxes, cut_faces(picture, boxes), answers, np.ones((6, 48, 48)))
    assert figure.get_suptitle() == "Of 6 faces it would call 3 Happy, 2 Neutral and 1 Angry"


def test_a_network_that_was_not_judged_by_mirror_images_can_answer_too(monkeypatch):
    monkeypatch.delenv("FER_RUNS", raising=False)
    told = describe_network(find_published_run("b5_attention", 0))
    assert "shown a face, plain, is right on **65.0%**" in told and told.endswith("no temperature was fitted.")
    assert read_temperature("b5_attention") == 1
    assert "and its mirror image, is right" in describe_network(find_published_run("s20_taught", 2))


@pytest.fixture
def album(save, tmp_path, monkeypatch):
    """A picture with three faces, and a folder with one that is a face, one without any and one that is damaged."""
    monkeypatch.delenv("FER_RUNS", raising=False)  # the published network answers
    (tmp_path / "album").mkdir()
    save("album/face.png", Image.fromarray(draw_faces([3], np.random.default_rng(0))[0]))
    save("album/grey.png", Image.new("L", (90, 60), 128))
    (tmp_path / "album" / "no.jpg").write_text("no picture")
    (tmp_path / "album" / "notes.txt").write_text("no picture either")
    return save("three.heic"), tmp_path / "album"


def test_many_pictures_are_answered_in_a_table_and_what_is_none_is_told(album, capsys, tmp_path):
    """The exit status says that one was not answered."""
    picture, folder = album
    with pytest.raises(SystemExit) as left:
        photo.main([str(picture), str(folder), "--save", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert left.value.code == 1 and "no.jpg is no picture that can be read" in err and "notes" not in out + err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [str(picture)] * 3 + [
        str(folder / "face.png"),
        str(folder / "grey.png"),
    ]
    assert [line.split()[2] for line in lines] == ["1", "2", "3", "1", "1"]
    assert ["whole picture" in line for line in lines] == [False] * 4 + [True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["face.png", "grey.png", "three.png"]
    with Image.open(tmp_path / "out" / "three.png") as saved:
        red, _, blue = np.moveaxis(np.asarray(saved).astype(int), -1, 0)
        assert ((red - blue) > 200).sum() > 1000, "faces are framed in yellow"


def test_json_holds_every_probability(album, capsys):
    with pytest.raises(SystemExit) as left:
        photo.main([str(album[0]), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert left.value.code == 0 and [row["face"] for row in rows] == [1, 2, 3]
    for row in rows:
        first, second = sorted(row["probabilities"], key=row["probabilities"].get)[:-3:-1]
        assert (row["answer"], row["second"]) == (first, second) and row["found"]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_patterns_and_the_users_folder_are_resolved(album, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    faces = [album[1] / "face.png", album[1] / "grey.png"]
    assert photo.list_paths([str(album[1] / "*.png")]) == photo.list_paths(["~/album/*.png"]) == faces
    assert photo.list_paths(["~/album/", str(faces[0])]) == [*faces, album[1] / "no.jpg"], "none of them twice"
    assert photo.list_paths(["none*.png"]) == [photo.Path("none*.png")], "which is told to be missing"


def run_photo(*arguments, **environment):
    """In a process of its own, as from a shell: nothing is registered or cached yet."""
    command = [sys.executable, "-m", "fer_lib.extras.photo", *map(str, arguments)]
    inherited = {"PYTHONPATH": str(PROJECT), **os.environ} | environment
    return subprocess.run(command, capture_output=True, text=True, env=inherited, timeout=300)


@pytest.mark.slow
def test_from_a_shell_a_folder_is_answered_though_records_of_ones_own_lie_elsewhere(album, tmp_path):
    """The network and its temperature come with the project."""
    _, folder = album
    done = run_photo(folder, FER_RUNS=str(tmp_path / "mine" / "runs"))
    assert done.returncode == 1 and [line.split()[0] for line in done.stdout.splitlines()] == [
        str(folder / "face.png"),
        str(folder / "grey.png"),
    ]
    assert "no.jpg is no picture that can be read" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_from_a_shell_a_folder_without_pictures_is_told(tmp_path):
    done = run_photo(tmp_path)
    assert done.returncode == 2 and f"no picture in {tmp_path}; JPEG" in done.stderr
    assert "Traceback" not in done.stderr
