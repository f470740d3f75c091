"""Things that stand on the street. Each function draws one object at (x, z) metres; colours come
from the look.
"""

from __future__ import annotations

import numpy as np

from ..classes import NAMES
from .canvas import Canvas, shade

ID = {name: index for index, name in enumerate(NAMES)}
GLASS = (52, 62, 74)
TYRE = (22, 22, 24)
SKIN = (196, 150, 124)


def ground_shadow(canvas: Canvas, x, z, width, length) -> None:
    """Draw the dark contact patch below a vehicle."""
    half = width / 2 + 0.1
    patch = [
        (x - half, 0, z - 0.25),
        (x + half, 0, z - 0.25),
        (x + half, 0, z + length),
        (x - half, 0, z + length),
    ]
    canvas.quad(patch, (40, 40, 42), None)


def car(canvas: Canvas, x, z, colour, rng) -> None:
    width = rng.uniform(1.7, 1.9)
    length = rng.uniform(3.8, 4.7)
    train_id = ID["car"]
    waist = rng.uniform(0.75, 0.9)
    roof = rng.uniform(1.4, 1.65)
    ground_shadow(canvas, x, z, width=width, length=length)
    _wheels(canvas, x, z, width=width, offsets=(0.8, length - 0.8), radius=0.33, train_id=train_id)
    cabin = (width * 0.86, roof - waist, length * 0.55)
    canvas.box(
        x, z + length * 0.2, cabin, colour=shade(colour, 0.9), train_id=train_id, bottom=waist
    )
    canvas.box(x, z, (width, waist - 0.25, length), colour=colour, train_id=train_id, bottom=0.25)
    slope = [
        (-width * 0.45, waist),
        (-width * 0.36, roof - 0.05),
        (width * 0.36, roof - 0.05),
        (width * 0.45, waist),
    ]
    canvas.shape(x, z + 0.3, slope, colour=shade(colour, 0.8), train_id=train_id)
    glass = [
        (-width * 0.38, waist + 0.05),
        (-width * 0.3, roof - 0.12),
        (width * 0.3, roof - 0.12),
        (width * 0.38, waist + 0.05),
    ]
    canvas.shape(x, z + 0.29, glass, colour=GLASS, train_id=None)
    lamp = (210, 40, 36) if rng.random() < 0.6 else (244, 240, 210)
    for side in (-1, 1):
        canvas.ellipse(
            (x + side * width * 0.4, waist - 0.15, z - 0.01), (0.15, 0.09), lamp, train_id=None
        )
    plate = [(-0.25, 0.42), (-0.25, 0.54), (0.25, 0.54), (0.25, 0.42)]
    canvas.shape(x, z - 0.01, plate, colour=(226, 226, 216), train_id=None)


def car_across(canvas: Canvas, x, z, colour, rng) -> None:
    """Draw a car seen from its side, on a crossing street."""
    train_id = ID["car"]
    flip = rng.random() < 0.5
    ground_shadow(canvas, x, z, width=4.3, length=1.6)
    body = [
        (-2.1, 0.3),
        (-2.1, 0.75),
        (-1.5, 0.9),
        (-0.9, 1.45),
        (0.8, 1.45),
        (1.4, 0.92),
        (2.1, 0.8),
        (2.15, 0.3),
    ]
    canvas.shape(x, z, body, colour=colour, train_id=train_id, flip=flip)
    for window in (
        [(-1.25, 0.95), (-0.8, 1.36), (-0.1, 1.36), (-0.1, 0.95)],
        [(0.0, 0.95), (0.0, 1.36), (0.7, 1.36), (1.15, 0.95)],
    ):
        canvas.shape(x, z, window, colour=GLASS, train_id=None, flip=flip)
    for across in (-1.3, 1.35):
        canvas.ellipse((x + across, 0.32, z), (0.33, 0.33), TYRE, train_id=train_id)


def _wheels(canvas: Canvas, x, z, width, offsets, radius, train_id) -> None:
    """Wheels on the side towards the camera axis, and the two rear tyres."""
    side = x + width / 2 if x < 0 else x - width / 2
    for offset in offsets:
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        ring = np.stack(
            [
                np.full(12, side),
                radius + radius * np.sin(angles),
                z + offset + radius * np.cos(angles),
            ],
            1,
        )
        canvas.quad(ring, TYRE, train_id)
    for sign in (-1, 1):
        tyre = [
            (sign * width * 0.46, 0),
            (sign * width * 0.46, 0.4),
            (sign * width * 0.32, 0.4),
            (sign * width * 0.32, 0),
        ]
        canvas.shape(x, z, tyre, colour=TYRE, train_id=train_id)


def truck(canvas: Canvas, x, z, colour, rng) -> None:
    width = 2.45
    height = rng.uniform(2.9, 3.6)
    length = rng.uniform(5.5, 8.0)
    train_id = ID["truck"]
    ground_shadow(canvas, x, z, width=width, length=length + 2)
    cab = tuple(rng.uniform(40, 200, 3))
    canvas.box(x, z + length, (width * 0.95, 2.3, 2.0), colour=cab, train_id=train_id, bottom=0.4)
    _wheels(
        canvas, x, z, width=width, offsets=(0.9, 2.0, length + 1.0), radius=0.48, train_id=train_id
    )
    canvas.box(x, z, (width, height - 0.9, length), colour=colour, train_id=train_id, bottom=0.9)
    canvas.box(
        x, z, (width * 0.9, 0.6, length), colour=(60, 60, 62), train_id=train_id, bottom=0.32
    )
    canvas.shape(
        x,
        z - 0.01,
        [(0, 1.0), (0, height - 0.1), (0.05, height - 0.1), (0.05, 1.0)],
        colour=shade(colour, 0.5),
        train_id=None,
    )
    for sign in (-1, 1):
        canvas.ellipse((x + sign * 1.0, 0.75, z - 0.02), (0.14, 0.1), (200, 40, 36), train_id=None)


def _long_windows(canvas: Canvas, x, z, width, length, low, high, step) -> None:
    """A band of windows along the visible side."""
    side = x + width / 2 if x < 0 else x - width / 2
    for start in np.arange(0.4, length - step, step):
        near = z + start
        far = z + start + step * 0.8
        canvas.quad(
            [(side, low, near), (side, high, near), (side, high, far), (side, low, far)],
            GLASS,
            None,
        )


def bus(canvas: Canvas, x, z, colour, rng) -> None:
    width = 2.5
    height = rng.uniform(2.9, 3.3)
    length = rng.uniform(9.0, 12.0)
    train_id = ID["bus"]
    ground_shadow(canvas, x, z, width=width, length=length)
    _wheels(canvas, x, z, width=width, offsets=(1.8, length - 2.2), radius=0.48, train_id=train_id)
    canvas.box(x, z, (width, height - 0.35, length), colour=colour, train_id=train_id, bottom=0.35)
    _long_windows(canvas, x, z, width=width, length=length, low=1.3, high=2.3, step=1.4)
    rear = [(-1.05, 1.4), (-1.05, 2.4), (1.05, 2.4), (1.05, 1.4)]
    canvas.shape(x, z - 0.01, rear, colour=GLASS, train_id=None)
    board = [(-0.8, 2.55), (-0.8, 2.8), (0.8, 2.8), (0.8, 2.55)]
    canvas.shape(x, z - 0.02, board, colour=(250, 190, 60), train_id=None)
    # rear lights
    for side in (-1.05, 1.05):
        canvas.ellipse((x + side, 0.8, z - 0.02), (0.13, 0.16), (200, 40, 36), train_id=None)


def train(canvas: Canvas, x, z, colour, rng) -> None:
    """Draw a tram on its track."""
    width = 2.5
    height = 3.6
    length = rng.uniform(18.0, 28.0)
    train_id = ID["train"]
    for rail in (-0.72, 0.72):
        strip = [
            (x + rail - 0.05, 0, 3),
            (x + rail + 0.05, 0, 3),
            (x + rail + 0.05, 0, 90),
            (x + rail - 0.05, 0, 90),
        ]
        canvas.quad(strip, (150, 150, 150), None)
    ground_shadow(canvas, x, z, width=width, length=length)
    canvas.box(x, z, (width, height - 0.25, length), colour=colour, train_id=train_id, bottom=0.25)
    _long_windows(canvas, x, z, width=width, length=length, low=1.5, high=2.7, step=1.9)
    nose = [(-1.25, 0.3), (-1.25, 1.2), (1.25, 1.2), (1.25, 0.3)]
    canvas.shape(x, z - 0.01, nose, colour=(236, 236, 232), train_id=None)
    screen = [(-1.0, 1.5), (-0.85, 2.9), (0.85, 2.9), (1.0, 1.5)]
    canvas.shape(x, z - 0.01, screen, colour=GLASS, train_id=None)
    canvas.shape(
        x,
        z,
        [(-0.1, height), (-0.6, height + 0.9), (0.6, height + 0.9), (0.1, height)],
        colour=(50, 50, 50),
        train_id=train_id,
    )


def person(
    canvas: Canvas, x, z, colour, rng, train_id: int = ID["person"], lift: float = 0.0
) -> None:
    """Draw a walking person; `lift` raises a sitting one (the rider of a two-wheeler)."""
    scale = rng.uniform(0.9, 1.08)
    stride = rng.uniform(0.08, 0.3)
    trousers = tuple(rng.uniform(30, 110, 3))

    def at(outline):
        return [(across * scale, lift + up * scale) for across, up in outline]

    for sign in (-1, 1):
        foot = sign * stride
        leg = at(
            [(foot - 0.08, 0), (sign * 0.02 - 0.1, 0.9), (sign * 0.02 + 0.1, 0.9), (foot + 0.08, 0)]
        )
        canvas.shape(x, z, leg, colour=trousers, train_id=train_id)
        arm = at(
            [(sign * 0.24, 1.4), (sign * 0.36, 0.85), (sign * 0.27, 0.83), (sign * 0.15, 1.35)]
        )
        canvas.shape(x, z, arm, colour=shade(colour, 0.85), train_id=train_id)
    canvas.shape(
        x,
        z,
        at([(-0.2, 0.82), (-0.26, 1.42), (0.26, 1.42), (0.2, 0.82)]),
        colour=colour,
        train_id=train_id,
    )
    canvas.ellipse(
        (x, lift + 1.6 * scale, z), (0.13 * scale, 0.16 * scale), SKIN, train_id=train_id
    )


def bicycle(canvas: Canvas, x, z, colour, rng, rider=None) -> None:
    """Draw a bicycle seen half from its side; with a rider's colour, somebody rides it."""
    train_id = ID["bicycle"]
    reach = rng.uniform(0.35, 0.6)
    if rider is not None:
        person(canvas, x, z + 0.05, colour=rider, rng=rng, train_id=ID["rider"], lift=0.35)
    for sign in (-1, 1):
        _ring(canvas, (x + sign * reach, 0.36, z), 0.36, colour=colour, train_id=train_id)
    frame = [
        (-reach, 0.33),
        (-0.15, 0.8),
        (reach * 0.7, 0.85),
        (reach, 0.33),
        (reach * 0.6, 0.72),
        (-0.05, 0.6),
    ]
    canvas.shape(x, z, frame, colour=colour, train_id=train_id)
    canvas.shape(
        x,
        z,
        [(reach * 0.5, 0.95), (reach * 0.5, 1.05), (reach, 1.08), (reach, 0.98)],
        colour=colour,
        train_id=train_id,
    )


def motorcycle(canvas: Canvas, x, z, colour, rng, rider=None) -> None:
    train_id = ID["motorcycle"]
    reach = rng.uniform(0.5, 0.75)
    if rider is not None:
        person(canvas, x, z + 0.05, colour=rider, rng=rng, train_id=ID["rider"], lift=0.3)
    for sign in (-1, 1):
        canvas.ellipse((x + sign * reach, 0.33, z), (0.33, 0.33), TYRE, train_id=train_id)
    body = [
        (-reach - 0.1, 0.55),
        (-reach, 0.95),
        (0.1, 0.85),
        (reach * 0.8, 1.1),
        (reach, 0.6),
        (0.3, 0.3),
        (-0.4, 0.3),
    ]
    canvas.shape(x, z, body, colour=colour, train_id=train_id)
    canvas.ellipse((x + reach * 0.9, 0.9, z - 0.01), (0.12, 0.12), (244, 240, 200), train_id=None)


def _ring(canvas: Canvas, centre, radius, colour, train_id) -> None:
    """A spoked wheel: the labels count the whole disc, as the annotators of Cityscapes do."""
    canvas.ellipse(centre, (radius, radius), colour, train_id=train_id)
    canvas.ellipse(centre, (radius * 0.72, radius * 0.72), shade(colour, 1.7), train_id=None)


def pole(canvas: Canvas, x, z, colour, rng, height: float | None = None) -> None:
    height = height or rng.uniform(4.5, 8.0)
    radius = rng.uniform(0.07, 0.13)
    canvas.shape(
        x,
        z,
        [(-radius, 0), (-radius, height), (radius, height), (radius, 0)],
        colour=colour,
        train_id=ID["pole"],
    )
    if height > 4 and rng.random() < 0.6:
        reach = -np.sign(x) * rng.uniform(1.0, 2.5)
        arm = [(0, height - 0.15), (0, height), (reach, height + 0.1), (reach, height - 0.05)]
        canvas.shape(x, z, arm, colour=colour, train_id=ID["pole"])


def traffic_light(canvas: Canvas, x, z, colour, rng, pole_colour) -> None:
    low = rng.uniform(2.4, 3.4)
    pole(canvas, x, z, colour=pole_colour, rng=rng, height=low + 0.1)
    high = low + 1.15
    case = [(-0.24, low), (-0.24, high), (0.24, high), (0.24, low)]
    canvas.shape(x, z - 0.05, case, colour=colour, train_id=ID["traffic light"])
    lit = rng.integers(3)
    # green below, red above
    for index, lamp in enumerate(((70, 220, 90), (250, 190, 40), (240, 50, 40))):
        glow = lamp if index == lit else shade(lamp, 0.25)
        centre = (x, low + 0.22 + 0.36 * index, z - 0.06)
        canvas.ellipse(centre, (0.14, 0.14), glow, train_id=None)


def traffic_sign(canvas: Canvas, x, z, colour, rng, pole_colour) -> None:
    height = rng.uniform(2.2, 3.0)
    radius = rng.uniform(0.35, 0.55)
    pole(canvas, x, z, colour=pole_colour, rng=rng, height=height)
    centre = (x, height, z - 0.05)
    shape = rng.integers(3)
    sides = (16, 3, 4)[shape]
    angles = (
        np.linspace(0, 2 * np.pi, sides, endpoint=False)
        + np.pi / 2
        + (np.pi / 4 if shape == 2 else 0)
    )
    for factor, paint, train_id in (
        (1.0, colour, ID["traffic sign"]),
        (0.62, (240, 240, 236), None),
    ):
        ring = [
            (x + factor * radius * np.cos(a), centre[1] + factor * radius * np.sin(a), centre[2])
            for a in angles
        ]
        canvas.quad(ring, paint, train_id)


def tree(canvas: Canvas, x, z, colour, rng) -> None:
    train_id = ID["vegetation"]
    height = rng.uniform(4.0, 8.0)
    crown = rng.uniform(1.2, 2.6)
    trunk = [(-0.16, 0), (-0.12, height - crown), (0.12, height - crown), (0.16, 0)]
    canvas.shape(x, z, trunk, colour=(84, 66, 50), train_id=train_id)
    _foliage(
        canvas, (x, height - crown * 0.4, z), (crown, crown), colour=colour, rng=rng, leaves=16
    )


def bush(canvas: Canvas, x, z, colour, rng) -> None:
    _foliage(canvas, (x, 0.5, z), (rng.uniform(0.8, 2.0), 0.6), colour=colour, rng=rng, leaves=8)


def _foliage(canvas: Canvas, centre, spread, colour, rng, leaves: int) -> None:
    for _ in range(leaves):
        dx, dy = rng.uniform(-1, 1, 2) * spread * np.array([0.8, 0.8])
        radius = rng.uniform(0.3, 0.55) * spread[1]
        clump = (centre[0] + dx, max(centre[1] + dy, radius * 0.6), centre[2])
        canvas.ellipse(
            clump,
            (radius * 1.2, radius),
            shade(colour, rng.uniform(0.75, 1.25)),
            train_id=ID["vegetation"],
            sides=9,
        )


def barrier(canvas: Canvas, x, z, length, colour, rng, name: str) -> None:
    """Draw a wall or a fence along the street; the fence's gaps count as fence, as in
    Cityscapes.
    """
    height = rng.uniform(1.0, 2.4) if name == "wall" else rng.uniform(0.9, 1.6)
    face = [(x, 0, z), (x, height, z), (x, height, z + length), (x, 0, z + length)]
    canvas.quad(face, colour if name == "wall" else shade(colour, 1.5), ID[name])
    if name == "wall":
        cap = [
            (x, height - 0.12, z),
            (x, height, z),
            (x, height, z + length),
            (x, height - 0.12, z + length),
        ]
        canvas.quad(cap, shade(colour, 0.75), None)
        return
    for start in np.arange(0, length, 0.7):
        post = [
            (x, 0, z + start),
            (x, height, z + start),
            (x, height, z + start + 0.22),
            (x, 0, z + start + 0.22),
        ]
        canvas.quad(post, shade(colour, 0.7), None)
    for low in (0.1, height - 0.15):
        rail = [(x, low, z), (x, low + 0.14, z), (x, low + 0.14, z + length), (x, low, z + length)]
        canvas.quad(rail, shade(colour, 0.8), None)
