"""The published network outside Python: as `make onnx` writes it, as the model card uses it, and in a browser."""

import base64
import io
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_lib.dataset import EMOTIONS
from fer_lib.extras import browser as scripts
from fer_lib.extras import photo
from fer_lib.extras.onnx import write_network
from fer_lib.preprocess import cut_middle
from fer_lib.reading.faces import draw_faces
from fer_lib.record import find_published_run, load_model
from tests import test_report
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow
browser = test_report.browser


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """What `make onnx` writes."""
    path = tmp_path_factory.mktemp("network") / "reports" / "onnx" / "fer.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FER_RUNS", raising=False)
        write_network(path)
    return path


@pytest.fixture
def predict(monkeypatch):
    """What torch says of faces, uint8 (N, 48, 48)."""
    monkeypatch.delenv("FER_RUNS", raising=False)
    run = find_published_run(photo.EXPERIMENT, photo.SEED)
    model, temperature = load_model(run), photo.read_temperature(photo.EXPERIMENT)
    return lambda faces: photo.predict_faces(model, cut_middle(faces, run.experiment.side), temperature)


def test_the_model_cards_lines_give_what_torch_gives(network, predict, monkeypatch):
    assert network.stat().st_size < 8e6
    (example,) = re.findall(
        r"```python\n(import numpy.*?)```", (PROJECT / "reports" / "model_card.md").read_text("utf-8"), re.S
    )
    monkeypatch.chdir(network.parents[2])
    exec(example, names := {})
    assert names["probabilities"].shape == (1, 7) and names["classes"] == list(EMOTIONS)
    faces = draw_faces(np.arange(7), np.random.default_rng(1))
    (answers,) = names["network"].run(None, {"faces": faces})
    np.testing.assert_allclose(answers, predict(faces), atol=1e-4)
    assert answers.dtype == np.float32


# --- the page to try it on -----------------------------------------------------------------------

ANSWERED = "#try tr[data-probability]"
SHARES = "rows => rows.map(row => +row.dataset.probability)"
SQUARE = "square => ['left', 'top', 'side'].map(name => +square.dataset[name])"
CUT = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 48, 48).data].filter((_, i) => i % 4 == 0)"


@pytest.fixture(scope="module")
def site(network, tmp_path_factory):
    """The folder of the site, with this page alone."""
    try:
        runtime = scripts.fetch_runtime()
    except scripts.Missing as missing:
        pytest.skip(f"needs {scripts.PACKAGE}: {missing}")
    reports = tmp_path_factory.mktemp("reports")
    for name in ("conf.py", "pages.py", "try.md", "try.js", "site.css", "site.js", "paper.md", "references.md"):
        shutil.copy(PROJECT / "reports" / name, reports)
    (reports / "browser").mkdir()
    (reports / "browser" / "missing.txt").touch()
    scripts.write_script(reports / "browser" / "network.js", runtime, network.read_bytes())
    alone = ["-D", "include_patterns=try.md", "-D", "root_doc=try"]
    command = [sys.executable, "-m", "sphinx", "-q", *alone, reports, reports / "site"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    return reports / "site"


@pytest.fixture(scope="module")
def page(site, browser):
    """The page, opened from its folder on a phone; no request goes elsewhere, and nothing is loaded unasked."""
    asked, failed = [], []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"{site.as_uri()}/try.html", wait_until="networkidle")
    assert asked and not [url for url in asked if "network.js" in url]
    yield page
    assert len([url for url in asked if "network.js" in url]) == 1
    assert all(url.startswith((f"{site.as_uri()}/", "data:", "blob:")) for url in asked)
    assert not failed


def test_of_each_drawn_face_the_page_says_what_torch_says(page, predict):
    sources = page.eval_on_selector_all("#try .faces img", "all => all.map(picture => picture.src)")
    pictures = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]
    wanted = predict(np.stack([np.asarray(picture) for picture in pictures]))
    assert len(wanted) >= 7
    for number, shares in enumerate(wanted):
        page.locator("#try .faces button").nth(number).click()
        page.wait_for_selector(ANSWERED)
        np.testing.assert_allclose(page.eval_on_selector_all("#try .shares tr", SHARES), shares, atol=1e-3)
        assert page.inner_text("#try .said").startswith(f"{photo.EMOTIONS[shares.argmax()]}, {shares.max():.0%}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 391


def test_in_a_photograph_the_largest_face_is_found_cut_out_and_answered_as_by_python(page, predict, tmp_path):
    colours = np.full((900, 1200, 3), (90, 120, 160), np.uint8)
    for face, (left, top, side) in zip(draw_faces(np.array([6, 3]), np.random.default_rng(5)), PLACES):
        larger = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        colours[top : top + side, left : left + side] = larger[:, :, None]
    exif = Image.Exif()
    exif[0x0112] = 6  # as a phone that was held upright says it
    turned = Image.fromarray(colours).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    page.set_input_files("#try input", tmp_path / "photo.jpg")
    page.wait_for_selector(ANSWERED)
    assert "largest face" in page.inner_text("#try .status")

    picture = photo.read_picture(tmp_path / "photo.jpg")
    assert page.eval_on_selector("#try .whole", "canvas => [canvas.height, canvas.width]") == list(picture.shape)
    left, top, side = page.eval_on_selector("#try .square", SQUARE)
    boxes, _ = photo.frame_faces(picture)
    np.testing.assert_allclose([left, top, side], max(boxes, key=lambda box: box[2])[:3], atol=0.1 * side)
    cut = np.array(page.eval_on_selector("#try .cut", CUT), np.uint8).reshape(48, 48)
    by_python = photo.cut_faces(picture, np.array([[left, top, side, side]]))[0]
    assert np.abs(cut.astype(int) - by_python).max() <= 3
    shares = page.eval_on_selector_all("#try .shares tr", SHARES)
    np.testing.assert_allclose(shares, predict(cut[None])[0], atol=1e-3)

    page.set_input_files("#try input", tmp_path / "photo.jpg")  # which takes longer to decode
    page.locator("#try .faces button").first.click()
    page.wait_for_timeout(1000)
    page.wait_for_selector(ANSWERED)
    assert page.eval_on_selector("#try .whole", "canvas => canvas.width") == 48, "what was chosen last is shown"


PLACES = (100, 150, 250), (600, 300, 420)
"""Of the faces in the photograph: left, top, side."""


def test_the_square_is_moved_and_resized_by_mouse_and_keys_and_answered_anew(page, predict):
    page.set_input_files("#try input", {"name": "a.png", "mimeType": "image/png", "buffer": draw_large_face()})
    page.wait_for_selector(ANSWERED)
    square = page.locator("#try .square")
    for _ in range(30):
        square.press("-")
    left, top, side = square.evaluate(SQUARE)
    assert side == 24, "small enough to be enlarged"
    square.press("ArrowRight")
    square.press("ArrowUp")
    assert square.evaluate(SQUARE) == [left + 1, top - 1, side]
    square.press("+")
    left, top, side = square.evaluate(SQUARE)
    assert side == 26
    box = square.bounding_box()
    scale = side / box["width"]
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + 44, box["y"] + 4)
    page.mouse.up()
    assert square.evaluate(SQUARE) == pytest.approx([left + 40 * scale, top, side], abs=1)
    left, top, side = square.evaluate(SQUARE)
    box = square.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 17, box["y"] + box["height"] + 17)
    page.mouse.up()
    assert square.evaluate(SQUARE) == pytest.approx([left, top, side + 20 * scale], abs=1)
    left, top, side = square.evaluate(SQUARE)
    picture = np.asarray(Image.open(io.BytesIO(draw_large_face())))
    cut = np.array(page.eval_on_selector("#try .cut", CUT), np.uint8).reshape(48, 48)
    by_python = photo.cut_faces(picture, np.array([[left, top, side, side]]))[0]
    assert np.abs(cut.astype(int) - by_python).max() <= 1
    wanted = predict(cut[None])[0]
    page.wait_for_function(f"Math.abs(document.querySelector('{ANSWERED}').dataset.probability - {wanted[0]}) < 1e-3")
    np.testing.assert_allclose(page.eval_on_selector_all("#try .shares tr", SHARES), wanted, atol=1e-3)


def draw_large_face():
    """A picture of 200×160 grey pixels, as the content of a PNG."""
    (face,) = draw_faces(np.array([5]), np.random.default_rng(2))
    Image.fromarray(cv2.resize(face, (160, 200), interpolation=cv2.INTER_CUBIC)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"), [(b"no picture", "cannot read that file"), (None, "at least 48×48 are needed")]
)
def test_what_is_no_picture_to_use_is_told(page, content, message):
    if content is None:
        Image.new("L", (60, 20)).save(file := io.BytesIO(), "PNG")
        content = file.getvalue()
    page.set_input_files("#try input", {"name": "a.png", "mimeType": "image/png", "buffer": content})
    page.wait_for_selector("#try .status.wrong")
    assert message in page.inner_text("#try .status") and not page.is_visible("#try .shown")


def test_without_its_script_the_page_says_that_it_cannot_load_the_network(site, browser, tmp_path):
    bare = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("network.js"))
    page = browser.new_page()
    page.goto(f"{bare.as_uri()}/try.html")
    page.locator("#try .faces button").first.click()
    page.wait_for_selector("#try .status.wrong")
    assert "network.js is not beside this page's scripts" in page.inner_text("#try .status")
    page.close()


@pytest.mark.parametrize(
    ("npm", "message"),
    [
        (None, "is not installed"),
        ("echo 'npm error code ENOTFOUND' >&2; exit 1", r"from its registry \(ENOTFOUND\)"),
        ('[ "$1" = view ] || echo another > "$4/another.tgz"', "is not the published"),
    ],
)
def test_where_the_runtime_cannot_be_had_it_is_said_why(npm, message, tmp_path, monkeypatch):
    if npm is not None:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(scripts.Missing, match=message):
        scripts.fetch_runtime()
