"""The drawn faces: a small data set made by rule, for a machine without FER2013.

Each face is drawn from the facial actions that make an expression (Ekman and Friesen's
FACS, 1978): the brows' height and slant, the opening of the lids, the mouth's curve,
opening and width, the wrinkling of the nose. Who it is, how the head is held, the light,
the focus and the grain vary from face to face. Classes are as unequal as FER2013's, and
some labels are wrong, as FER2013's are. A model learns it in a minute; it says nothing
about people.
"""

import numpy as np

from fer_lib.dataset import EMOTIONS, SIDE, Dataset, build_dataset

ACTIONS = ("brow_height", "brow_slant", "lids", "mouth_curve", "mouth_open", "mouth_width", "nose_wrinkle")
EXPRESSIONS = np.array(
    # brow   slant  lids  curve  open  width  wrinkle
    [
        [-0.9, +1.0, -0.4, -0.5, 0.05, -0.2, 0.2],  # Angry: brows down and together, lips pressed
        [-0.5, +0.4, -0.6, -0.7, 0.25, +0.0, 1.0],  # Disgust: nose wrinkled, upper lip raised
        [+0.6, -0.8, +0.7, -0.3, 0.45, +0.3, 0.0],  # Fear: brows up and together, mouth drawn wide
        [+0.1, -0.0, -0.2, +1.1, 0.35, +0.7, 0.0],  # Happy: the mouth's corners up
        [+0.1, -1.0, -0.5, -0.9, 0.00, -0.3, 0.0],  # Sad: inner brows up, corners down, lids heavy
        [+1.1, -0.1, +1.0, +0.0, 1.00, -0.5, 0.0],  # Surprise: all open
        [+0.0, +0.0, +0.0, +0.0, 0.00, +0.0, 0.0],  # Neutral
    ],
    np.float32,
)
"""The typical actions of each class of `EMOTIONS`; 0 is a face at rest, 1 a strong action."""

COUNTS = np.array(  # FER2013's counts of the seven classes in its three splits
    [
        [3995, 436, 4097, 7215, 4830, 3171, 4965],
        [467, 56, 496, 895, 653, 415, 607],
        [491, 55, 528, 879, 594, 416, 626],
    ]
)
SCALES = {"drawn": 32, "drawn-few": 256}
"""One drawn face for so many of FER2013's; the few are for running everything on a slow machine."""
LABEL_NOISE = 0.1


def draw_dataset(name: str = "drawn", seed: int = 0) -> Dataset:
    """Draw a data set of `SCALES`: some 1,100 faces in the three splits, or 140, the same for the same seed; of each
    class at least one in each split."""
    rng = np.random.default_rng(seed)
    counts = np.maximum(COUNTS // SCALES[name], 1)
    usages = np.repeat(np.arange(3), counts.sum(1))
    shown = np.concatenate([rng.permutation(np.repeat(np.arange(len(EMOTIONS)), row)) for row in counts])
    images = draw_faces(shown, rng)
    wrong = rng.random(len(shown)) < LABEL_NOISE
    labels = np.where(wrong, rng.integers(0, len(EMOTIONS), len(shown)), shown)
    return build_dataset(name, images, (4 * labels + usages).astype(np.uint8))


def draw_faces(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a face for each label, int (N,), 0-6: uint8 (N, 48, 48)."""
    batches = np.array_split(labels, -(-len(labels) // 128))  # of a size that stays in the CPU's cache
    return np.concatenate([_draw_batch(batch, rng) for batch in batches])


def _draw_batch(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(labels)

    def vary(mean: float, deviation: float) -> np.ndarray:
        return rng.normal(mean, deviation, (n, 1, 1)).astype(np.float32)

    strength = np.clip(vary(0.95, 0.25), 0.4, 1.4)[:, :, 0]
    actions = EXPRESSIONS[labels] * strength + rng.normal(0, 0.14, (n, len(ACTIONS))).astype(np.float32)
    face = dict(zip(ACTIONS, actions.T[:, :, None, None]))
    x, y = _pose_head(n, vary)
    soft = np.clip(vary(0.045, 0.02), 0.02, 0.1)  # of every edge: the focus
    skin, hair = np.clip(vary(0.62, 0.13), 0.3, 0.9), np.clip(vary(0.2, 0.13), 0.02, 0.6)
    image = np.broadcast_to(np.clip(vary(0.4, 0.25), 0, 1), (n, SIDE, SIDE)).astype(np.float32)

    def paint(distance: np.ndarray, tone: np.ndarray | float, opacity: float = 1.0) -> None:
        """Lay a tone where `distance` is below 0, its edge `soft` wide."""
        cover = np.clip(0.5 - distance / (2 * soft), 0, 1) * opacity
        image[:] += cover * (tone - image)

    width = np.clip(vary(0.72, 0.05), 0.6, 0.85)
    _paint_head(x, y, width, skin, hair, vary, paint)
    _paint_eyes(x, y, face, skin, hair, vary, paint)
    _paint_nose(x, y, face, skin, vary, paint)
    _paint_mouth(x, y, face, skin, vary, paint)

    image *= 1 + vary(0, 0.16) * x + vary(0, 0.12) * y  # light from one side
    image = (image - 0.5) * np.clip(vary(0.9, 0.2), 0.5, 1.4) + np.clip(vary(0.5, 0.08), 0.3, 0.7)
    image += rng.standard_normal(image.shape, np.float32) * np.abs(vary(0.02, 0.015))
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _pose_head(n: int, vary) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of each pixel on each face, -1 to 1, x to the right and y down, the head's pose undone."""
    steps = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    x, y = steps[None, None, :] - vary(0, 0.05), steps[None, :, None] - vary(0, 0.05)
    angle, size = np.deg2rad(vary(0, 6)), np.clip(vary(0.98, 0.06), 0.8, 1.15)
    x, y = (np.cos(angle) * x + np.sin(angle) * y) / size, (np.cos(angle) * y - np.sin(angle) * x) / size
    return x + vary(0, 0.07) * (1 - x**2), y  # turned a little to one side


def _paint_head(x, y, width, skin, hair, vary, paint) -> None:
    paint(np.hypot(x / (width + 0.12), (y + 0.18) / 0.98) - 1, hair)
    paint(np.hypot(x / 0.34, (y - 1.15) / 0.5) - 1, skin * 0.85)  # neck
    chin = np.clip(vary(0.93, 0.04), 0.85, 1)
    head = np.hypot(x / (width * (1 - 0.18 * np.clip(y, 0, 1))), (y - 0.02) / chin) - 1
    fringe = -0.62 + vary(0, 0.07) + 0.15 * x**2
    paint(np.maximum(head, fringe - y), skin)


def _paint_eyes(x, y, face, skin, hair, vary, paint) -> None:
    apart, level, size = vary(0.33, 0.02), vary(-0.17, 0.03), vary(0.165, 0.01)
    opening = np.clip(0.085 * (1 + 0.75 * face["lids"]), 0.018, 0.19)
    gaze = vary(0, 0.02)
    for side in (-1, 1):
        across = (x - side * apart) / size
        up = y - level
        eye = np.abs(up) - opening * (1 - across**2)
        paint(eye - 0.035, skin * 0.55)  # lashes and shadow of the socket
        paint(eye, 0.93)
        iris = np.hypot(x - side * apart - gaze, up) - 0.075
        paint(np.maximum(iris, eye), 0.08)
        brow = level - 0.25 - 0.11 * face["brow_height"] + 0.05 * across**2
        brow = brow - 0.09 * face["brow_slant"] * across * side
        inward = 0.05 * np.abs(face["brow_slant"])  # drawn together
        reach = np.abs(x - side * (apart - inward)) - 0.21
        paint(np.maximum(np.abs(y - brow) - 0.036, reach), np.minimum(hair, skin * 0.5))


def _paint_nose(x, y, face, skin, vary, paint) -> None:
    length = vary(0.2, 0.02)
    side = np.abs(np.abs(x) - 0.055 - 0.05 * np.clip((y + 0.1) / 0.3, 0, 1)) - 0.012
    paint(np.maximum(side, np.abs(y - 0.03) - length), skin * 0.75, 0.6)
    nostrils = np.hypot((np.abs(x) - 0.085) / 1.4, y - length - 0.03 + 0.04 * face["nose_wrinkle"]) - 0.035
    paint(nostrils, skin * 0.35)
    wrinkle = np.clip(face["nose_wrinkle"], 0, 1)
    for place in (-0.14, -0.06, 0.02):
        crease = np.abs(y - place - 0.35 * np.abs(x)) - 0.018
        paint(np.maximum(crease, np.abs(x) - 0.15), skin * 0.45, wrinkle)
    lifted = np.abs(np.abs(x) - 0.2 - 0.45 * (y - 0.15)) - 0.02  # the folds from nose to mouth
    paint(np.maximum(lifted, np.abs(y - 0.3) - 0.16), skin * 0.55, np.clip(wrinkle + 0.5 * face["mouth_curve"], 0, 1))


def _paint_mouth(x, y, face, skin, vary, paint) -> None:
    half = np.clip(0.27 * (1 + 0.35 * face["mouth_width"]), 0.14, 0.42)
    level = vary(0.5, 0.02) - 0.03 * face["nose_wrinkle"]
    across = np.clip(x / half, -1.3, 1.3)
    middle = level + face["mouth_curve"] * 0.13 * (0.45 - across**2)
    gape = np.clip(face["mouth_open"], 0, 1.3) * np.clip(1 - across**2, 0, 1)
    top, bottom = middle - 0.06 * gape - 0.05 * face["nose_wrinkle"] * (1 - across**2), middle + 0.24 * gape
    lips = np.maximum(np.maximum(top - y, y - bottom) - 0.045 * np.clip(1.15 - across**2, 0.2, 1), np.abs(x) - half)
    paint(lips, skin * 0.6)
    inside = np.maximum(np.maximum(top - y, y - bottom) - 0.008, np.abs(x) - half * 0.93)
    paint(inside, 0.07)
    teeth = np.maximum(inside + 0.02, y - top - 0.075)
    grin = np.clip(face["mouth_curve"] + 0.6 * face["nose_wrinkle"], 0, 1)
    paint(teeth, 0.92, grin * (face["mouth_open"] > 0.1))
