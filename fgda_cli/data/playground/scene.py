"""One street scene: plan a street with its houses and traffic, then paint it far to near."""

from __future__ import annotations

import cv2
import numpy as np

from ..geometry import resize_ids
from . import objects
from .canvas import Canvas, shade
from .looks import Look, develop
from .objects import ID

WIDTH = 512
HEIGHT = 256
SUPERSAMPLING = 2
FAR = 110.0


class Street:
    """The plan of one scene: widths in metres, and a list of (distance, paint function)."""

    def __init__(self, look: Look, rng: np.random.Generator):
        self.look = look
        self.rng = rng
        self.road_left = -rng.uniform(3.0, 5.5)
        self.road_right = rng.uniform(3.0, 5.5)
        self.walk_left = rng.uniform(2.5, 5.5)
        self.walk_right = rng.uniform(2.5, 5.5)
        self.verge_left, self.verge_right = (
            rng.uniform(4.0, 10.0) if rng.random() < look.rates["terrain"] / 2 else 0.0
            for _ in range(2)
        )
        self.canvas = Canvas(
            WIDTH * SUPERSAMPLING,
            HEIGHT * SUPERSAMPLING,
            rng.uniform(*look.focal),
            horizon=rng.uniform(*look.horizon),
            camera_height=rng.uniform(*look.camera_height),
        )
        self.things: list[tuple[float, object]] = []

    def colour(self, name: str) -> tuple[float, ...]:
        choices = self.look.colours[name]
        base = np.array(choices[self.rng.integers(len(choices))], np.float64)
        jitter = self.rng.normal(0, self.look.spread) + self.rng.normal(0, self.look.spread / 3, 3)
        return tuple(np.clip(base + jitter, 5, 250))

    def count(self, name: str) -> int:
        return int(self.rng.poisson(self.look.rates[name]))

    def add(self, z: float, paint, *args) -> None:
        self.things.append((z, lambda: paint(self.canvas, *args)))

    def distance(self, near: float = 6.0, far: float = 60.0) -> float:
        """Draw a distance, uniform in its inverse: most objects are far, and enough of them are
        near.
        """
        return float(1 / self.rng.uniform(1 / far, 1 / near))

    # ground and sky

    def paint_ground(self) -> None:
        canvas = self.canvas
        rng = self.rng
        sky = np.array(self.colour("sky"))
        horizon = int(round(canvas.horizon))
        for row in range(horizon + 1):
            blend = 0.35 * row / max(horizon, 1)
            canvas.image[row] = np.clip(
                sky * (1 - blend) + np.array((236, 238, 240)) * blend, 0, 255
            )
        canvas.train_ids[: horizon + 1] = ID["sky"]
        for _ in range(rng.integers(0, 6)):
            x = rng.uniform(0, canvas.width)
            y = rng.uniform(0, horizon * 0.8)
            size = (int(rng.uniform(30, 140)), int(rng.uniform(6, 26)))
            cv2.ellipse(
                canvas.image,
                (int(x), int(y)),
                size,
                0,
                0,
                360,
                tuple(np.clip(sky + 30, 0, 250)),
                -1,
            )
        left = self.road_left
        right = self.road_right
        edges = (left - self.walk_left, right + self.walk_right)
        ground = self.colour("terrain" if self.verge_left or self.verge_right else "sidewalk")
        self._strip(
            -80, 80, ground, name="terrain" if self.verge_left or self.verge_right else "sidewalk"
        )
        self._strip(*edges, self.colour("sidewalk"), "sidewalk")
        self._strip(left, right, self.colour("road"), name="road")
        self._markings()
        for edge in (left, right):
            self._strip(edge - 0.08, edge + 0.08, (150, 148, 142), name=None)
        rows = np.arange(horizon + 1, canvas.height)
        canvas.depth[rows] = (canvas.focal * canvas.camera_height / (rows - canvas.horizon))[
            :, None
        ]

    def _strip(self, left: float, right: float, colour, name: str | None) -> None:
        near = [(left, 0, 2.0), (right, 0, 2.0), (right, 0, 400.0), (left, 0, 400.0)]
        self.canvas.quad(near, colour, None if name is None else ID[name])

    def _markings(self) -> None:
        middle = (self.road_left + self.road_right) / 2
        paint = (224, 222, 214)
        for start in np.arange(3.0, 70.0, 6.0):
            dash = [
                (middle - 0.08, 0, start),
                (middle + 0.08, 0, start),
                (middle + 0.08, 0, start + 3),
                (middle - 0.08, 0, start + 3),
            ]
            self.canvas.quad(dash, paint, None)
        if self.rng.random() < 0.3:  # zebra crossing
            z = self.rng.uniform(7, 25)
            for x in np.arange(self.road_left + 0.4, self.road_right - 0.4, 1.0):
                self.canvas.quad(
                    [(x, 0, z), (x + 0.5, 0, z), (x + 0.5, 0, z + 3), (x, 0, z + 3)], paint, None
                )

    # objects beside the road

    def plan_houses(self) -> None:
        rng = self.rng
        sides = (
            (-1, self.road_left - self.walk_left - self.verge_left),
            (1, self.road_right + self.walk_right + self.verge_right),
        )
        for side, line in sides:
            z = rng.uniform(1.0, 4.0)
            while z < FAR:
                length = rng.uniform(7, 18)
                if rng.random() < 0.8:
                    height = rng.uniform(6, 20)
                    self.add(
                        z + length,
                        self._house,
                        side,
                        line,
                        z,
                        length,
                        height,
                        self.colour("building"),
                    )
                z += length + (rng.uniform(3, 9) if rng.random() < 0.3 else 0.0)
        # the street's end: a house across, or trees
        if rng.random() < 0.5:
            self.add(FAR + 5, self._backdrop, rng.uniform(8, 16), self.colour("building"))
        else:
            for _ in range(14):
                self.add(
                    FAR + 5, objects.tree, rng.uniform(-40, 40), FAR, self.colour("vegetation"), rng
                )

    def _backdrop(self, canvas: Canvas, height: float, colour) -> None:
        canvas.box(0, FAR, (90, height, 5), colour=colour, train_id=ID["building"])

    def _house(self, canvas: Canvas, side, line, z, length, height, colour) -> None:
        depth = 12.0
        near = max(z, 2.1)
        corner = [
            (line, 0, near),
            (line, height, near),
            (line + side * depth, height, near),
            (line + side * depth, 0, near),
        ]
        canvas.quad(corner, shade(colour, 0.8), ID["building"])
        wall = [
            (line, 0, near),
            (line, height, near),
            (line, height, z + length),
            (line, 0, z + length),
        ]
        canvas.quad(wall, colour, ID["building"])
        pane = tuple(self.rng.uniform(40, 90, 3))
        for floor in np.arange(1.0, height - 1.5, 3.1):
            for start in np.arange(1.0, length - 1.5, 2.6):
                a = z + start
                b = z + start + 1.3
                if a > near:
                    window = [
                        (line, floor, a),
                        (line, floor + 1.6, a),
                        (line, floor + 1.6, b),
                        (line, floor, b),
                    ]
                    canvas.quad(window, pane, None)
        roof = [
            (line, height - 0.35, near),
            (line, height, near),
            (line, height, z + length),
            (line, height - 0.35, z + length),
        ]
        canvas.quad(roof, shade(colour, 0.65), None)

    def plan_roadside(self) -> None:
        rng = self.rng
        for name in ("wall", "fence"):
            for _ in range(self.count(name)):
                side = rng.choice((-1, 1))
                z = self.distance(4, 40)
                edge = (
                    self.road_left - self.walk_left
                    if side < 0
                    else self.road_right + self.walk_right
                )
                x = edge - side * rng.uniform(0, 0.3)
                length = rng.uniform(6, 18)
                self.add(
                    z + length / 2, objects.barrier, x, z, length, self.colour(name), rng, name
                )
        for name, paint in (
            ("vegetation", objects.tree),
            ("vegetation", objects.bush),
            ("pole", objects.pole),
        ):
            for _ in range(self.count(name)):
                z = self.distance(7, 70)
                self.add(z, paint, self._beside(0.4, 1.0), z, self.colour(name), rng)
        for name, paint in (
            ("traffic light", objects.traffic_light),
            ("traffic sign", objects.traffic_sign),
        ):
            for _ in range(self.count(name)):
                z = self.distance(7, 40)
                self.add(
                    z,
                    paint,
                    self._beside(0.0, 0.35),
                    z,
                    self.colour(name),
                    rng,
                    self.colour("pole"),
                )

    def _beside(self, low: float, high: float) -> float:
        """A place on either sidewalk; 0 is the curb, 1 the house line."""
        share = self.rng.uniform(low, high)
        if self.rng.random() < 0.5:
            return self.road_left - share * self.walk_left
        return self.road_right + share * self.walk_right

    # objects that move

    def plan_traffic(self) -> None:
        rng = self.rng
        taken = []
        if rng.random() < self.look.rates["train"]:
            self._vehicle("train", objects.train, taken, near=10, far=40)
        for name, paint in (("bus", objects.bus), ("truck", objects.truck), ("car", objects.car)):
            for _ in range(self.count(name)):
                self._vehicle(name, paint, taken, near=6, far=60)
        if rng.random() < 0.3:
            z = self.distance(10, 30)
            x = rng.uniform(self.road_left, self.road_right)
            self.add(z, objects.car_across, x, z, self.colour("car"), rng)
        for name, paint in (("motorcycle", objects.motorcycle), ("bicycle", objects.bicycle)):
            for _ in range(self.count(name)):
                z = self.distance(5, 30)
                rider = self.colour("rider") if rng.random() < 0.7 else None
                x = (
                    rng.uniform(self.road_left, self.road_right)
                    if rider
                    else self._beside(0.1, 0.9)
                )
                self.add(z, paint, x, z, self.colour(name), rng, rider)
        for _ in range(self.count("person")):
            z = self.distance(5, 40)
            x = (
                self._beside(0.05, 0.95)
                if rng.random() < 0.8
                else rng.uniform(self.road_left, self.road_right)
            )
            self.add(z, objects.person, x, z, self.colour("person"), rng)

    def _vehicle(self, name: str, paint, taken: list, near: float, far: float) -> None:
        """Put a vehicle in a lane where nothing stands within a car's length."""
        lanes = (self.road_left + 1.3, self.road_right - 1.3, (self.road_right - 1.0) / 2 + 0.4)
        for _ in range(6):
            lane = int(self.rng.integers(len(lanes)))
            z = self.distance(near, far)
            if all(lane != other or abs(z - position) > 6 for other, position in taken):
                taken.append((lane, z))
                self.add(z, paint, lanes[lane], z, self.colour(name), self.rng)
                return

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        """Paint the scene: RGB `[H,W,3]` uint8 and train ids `[H,W]` uint8 at the raw size."""
        self.paint_ground()
        self.plan_houses()
        self.plan_roadside()
        self.plan_traffic()
        for _, paint in sorted(self.things, key=lambda thing: -thing[0]):
            paint()
        canvas = self.canvas
        size = (WIDTH, HEIGHT)
        image = cv2.resize(canvas.image, size, interpolation=cv2.INTER_AREA)
        train_ids = resize_ids(canvas.train_ids, size)
        depth = resize_ids(canvas.depth, size)
        return develop(image, train_ids, depth, look=self.look, rng=self.rng), train_ids


def draw(look: Look, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene `index` of a look; the same arguments give the same pixels on every machine of one
    OpenCV release.
    """
    stream = sum(ord(letter) << (8 * digit) for digit, letter in enumerate(look.name[:4]))
    return Street(look, np.random.default_rng([seed, stream, index])).paint()
