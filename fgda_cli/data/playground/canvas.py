"""A painter's canvas with a pinhole camera: every polygon writes colour, train id and depth at
once.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..classes import IGNORE_INDEX

# metres; nothing nearer than this is drawn
NEAR = 2.0


class Canvas:
    """Image `[H,W,3]` RGB, train ids `[H,W]` and depth `[H,W]` in metres, drawn far to near.

    World axes: X right, Y up from the ground, Z forward, in metres; the camera stands at (0,
    height, 0).
    """

    def __init__(self, width: int, height: int, focal: float, horizon: float, camera_height: float):
        self.width = width
        self.height = height
        self.focal = focal * width
        self.horizon = horizon * height
        self.camera_height = camera_height
        self.image = np.zeros((height, width, 3), np.uint8)
        self.train_ids = np.full((height, width), IGNORE_INDEX, np.uint8)
        self.depth = np.full((height, width), 1e4, np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project world points `[N,3]` to pixels `[N,2]`."""
        points = np.asarray(points, np.float64)
        z = np.maximum(points[:, 2], NEAR)
        x = self.width / 2 + self.focal * points[:, 0] / z
        y = self.horizon + self.focal * (self.camera_height - points[:, 1]) / z
        return np.stack([x, y], 1)

    def fill(self, pixels: np.ndarray, colour, train_id: int | None, depth: float) -> None:
        """Fill a polygon given in pixels; `train_id` None leaves the labels as they are (markings,
        windows).
        """
        # far outside is as good as at infinity, where OpenCV's coordinates would overflow
        polygon = [np.round(np.clip(pixels, -20000, 20000)).astype(np.int32)]
        cv2.fillPoly(self.image, polygon, tuple(int(np.clip(c, 0, 255)) for c in colour))
        if train_id is not None:
            cv2.fillPoly(self.train_ids, polygon, int(train_id))
            cv2.fillPoly(self.depth, polygon, float(depth))

    def quad(self, points, colour, train_id: int | None) -> None:
        """Fill a polygon of world points; it is dropped when it lies wholly behind the near
        plane.
        """
        points = np.asarray(points, np.float64)
        if points[:, 2].max() > NEAR:
            self.fill(self.project(points), colour, train_id, depth=points[:, 2].mean())

    def ellipse(self, centre, radii, colour, train_id: int | None, sides: int = 14) -> None:
        """Draw an ellipse in the plane facing the camera; centre (X, Y, Z) and radii (across, up)
        are in metres.
        """
        angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
        x, y, z = centre
        ring = np.stack(
            [x + radii[0] * np.cos(angles), y + radii[1] * np.sin(angles), np.full(sides, z)], 1
        )
        self.quad(ring, colour, train_id)

    def shape(
        self, x: float, z: float, outline, colour, train_id: int | None, flip: bool = False
    ) -> None:
        """Draw a flat silhouette facing the camera: `outline` [(across, up)] in metres around (x,
        0, z).
        """
        sign = -1.0 if flip else 1.0
        self.quad([(x + sign * across, up, z) for across, up in outline], colour, train_id)

    def box(self, x, z, size, colour, train_id: int, bottom: float = 0.0) -> None:
        """Draw a box (width, height, length) whose near face is at z: side towards the camera axis,
        top, near face.
        """
        width, height, length = size
        low = bottom
        high = bottom + height
        left = x - width / 2
        right = x + width / 2
        side = right if right < 0 else left if left > 0 else None
        if side is not None:
            wall = [
                (side, low, z),
                (side, high, z),
                (side, high, z + length),
                (side, low, z + length),
            ]
            self.quad(wall, shade(colour, 0.72), train_id)
        if high < self.camera_height:
            top = [
                (left, high, z),
                (right, high, z),
                (right, high, z + length),
                (left, high, z + length),
            ]
            self.quad(top, shade(colour, 1.15), train_id)
        self.quad(
            [(left, low, z), (left, high, z), (right, high, z), (right, low, z)], colour, train_id
        )


def shade(colour, factor: float) -> tuple[float, ...]:
    return tuple(channel * factor for channel in colour)
