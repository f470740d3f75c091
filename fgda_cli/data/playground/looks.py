"""The two looks of the playground: the materials of its world, and the effects of camera and
weather on its pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ..classes import NAMES


@dataclass(frozen=True)
class Look:
    """Colours, object statistics and image formation of one domain."""

    name: str
    # class -> RGB choices
    colours: dict[str, tuple[tuple[int, int, int], ...]]
    # mean number of objects a scene
    rates: dict[str, float]
    # standard deviation of an object's colour, 0-255
    spread: float
    # focal length over image width
    focal: tuple[float, float]
    horizon: tuple[float, float]  # over image height
    camera_height: tuple[float, float]  # metres
    haze: tuple[float, float] = (0.0, 0.0)  # per metre
    haze_colour: tuple[int, int, int] = (200, 200, 200)
    light: tuple[float, float] = (1.0, 1.0)  # exposure
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    saturation: float = 1.0
    # strength of the surface texture
    texture: float = 0.0
    # darkness of cast shadows
    shadows: float = 0.0
    # sigma in output pixels
    blur: tuple[float, float] = (0.0, 0.0)
    # sensor noise, 0-255
    noise: float = 0.0
    vignette: float = 0.0
    # texture strength by class, default 1
    roughness: dict[str, float] = field(default_factory=dict)


GAME = Look(
    name="game",
    colours={
        "road": ((92, 92, 96), (84, 84, 90), (100, 98, 98)),
        "sidewalk": ((176, 168, 156), (164, 158, 150)),
        "building": ((206, 160, 112), (222, 190, 140), (186, 120, 92), (214, 206, 190)),
        "wall": ((170, 142, 118), (150, 138, 126)),
        "fence": ((124, 96, 64), (96, 104, 108)),
        "pole": ((70, 74, 78), (96, 98, 100)),
        "traffic light": ((36, 40, 36),),
        "traffic sign": ((220, 30, 30), (30, 80, 210), (240, 210, 40)),
        "vegetation": ((64, 132, 40), (88, 150, 44), (50, 112, 40)),
        "terrain": ((140, 176, 72), (166, 160, 88)),
        "sky": ((92, 160, 236), (110, 176, 244)),
        "person": ((196, 60, 60), (60, 84, 190), (232, 232, 232), (60, 150, 110)),
        "rider": ((230, 120, 30), (40, 120, 200)),
        "car": ((210, 30, 34), (32, 70, 190), (236, 236, 236), (250, 190, 30), (24, 24, 28)),
        "truck": ((236, 232, 222), (60, 110, 60), (70, 100, 170)),
        "bus": ((240, 200, 40), (200, 60, 44)),
        "train": ((60, 160, 120), (190, 196, 200)),
        "motorcycle": ((30, 30, 34), (180, 30, 30)),
        "bicycle": ((40, 40, 44), (30, 120, 190)),
    },
    rates={
        "car": 5.0,
        "truck": 0.5,
        "bus": 0.5,
        "train": 0.35,
        "motorcycle": 0.7,
        "bicycle": 0.6,
        "person": 3.0,
        "pole": 4.0,
        "traffic light": 1.3,
        "traffic sign": 1.6,
        "vegetation": 4.0,
        "fence": 0.9,
        "wall": 0.9,
        "terrain": 1.2,
    },
    spread=9.0,
    focal=(0.72, 0.86),
    horizon=(0.42, 0.47),
    camera_height=(1.5, 1.9),
    haze=(0.0, 0.002),
    haze_colour=(196, 214, 236),
    light=(0.95, 1.1),
    contrast=1.1,
    saturation=1.1,
    texture=0.035,
    shadows=0.15,
    noise=1.5,
)

STREET = Look(
    name="street",
    colours={
        "road": ((118, 114, 108), (104, 100, 98), (130, 126, 118)),
        "sidewalk": ((134, 122, 118), (146, 136, 130)),
        "building": ((128, 112, 100), (150, 138, 122), (112, 92, 84), (166, 156, 144)),
        "wall": ((120, 112, 106), (140, 128, 112)),
        "fence": ((84, 86, 80), (110, 104, 92)),
        "pole": ((104, 108, 104), (124, 122, 116)),
        "traffic light": ((44, 50, 44),),
        "traffic sign": ((178, 52, 48), (52, 80, 148), (196, 176, 70)),
        "vegetation": ((66, 82, 52), (84, 92, 58), (52, 66, 48)),
        "terrain": ((112, 116, 80), (122, 110, 84)),
        "sky": ((206, 208, 204), (190, 196, 196), (222, 220, 212)),
        "person": ((66, 62, 66), (92, 78, 72), (60, 74, 96), (140, 130, 124)),
        "rider": ((90, 84, 76), (74, 88, 104)),
        "car": ((58, 60, 64), (150, 152, 152), (98, 100, 104), (120, 50, 46), (52, 66, 96)),
        "truck": ((160, 156, 146), (84, 98, 86), (92, 100, 124)),
        "bus": ((168, 146, 84), (142, 70, 60)),
        "train": ((92, 124, 108), (150, 150, 146)),
        "motorcycle": ((46, 46, 48), (110, 50, 46)),
        "bicycle": ((52, 52, 54), (60, 88, 110)),
    },
    rates={
        "car": 6.5,
        "truck": 0.4,
        "bus": 0.45,
        "train": 0.4,
        "motorcycle": 0.5,
        "bicycle": 1.0,
        "person": 4.0,
        "pole": 5.0,
        "traffic light": 1.5,
        "traffic sign": 1.8,
        "vegetation": 5.0,
        "fence": 0.8,
        "wall": 0.8,
        "terrain": 1.3,
    },
    spread=12.0,
    focal=(0.8, 0.95),
    horizon=(0.4, 0.46),
    camera_height=(1.2, 1.5),
    haze=(0.003, 0.009),
    haze_colour=(206, 208, 202),
    light=(0.85, 1.1),
    tint=(0.97, 1.02, 0.94),
    contrast=0.95,
    saturation=0.9,
    texture=0.06,
    shadows=0.35,
    blur=(0.4, 0.7),
    noise=3.5,
    vignette=0.2,
    roughness={
        "sky": 0.15,
        "car": 0.4,
        "bus": 0.4,
        "train": 0.4,
        "truck": 0.4,
        "vegetation": 2.0,
        "terrain": 1.6,
    },
)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Return zero-mean noise `[H,W]` of unit deviation whose grain is `cell` pixels."""
    coarse = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def develop(
    image: np.ndarray, train_ids: np.ndarray, depth: np.ndarray, look: Look, rng
) -> np.ndarray:
    """Apply the camera: texture, shadows, haze, exposure, tint, blur, vignette and noise; RGB uint8
    `[H,W,3]` in and out.
    """
    height, width = train_ids.shape
    strength = np.full(256, look.texture, np.float32)
    for name, factor in look.roughness.items():
        strength[NAMES.index(name)] = look.texture * factor
    grain = smooth_noise(rng, height, width, cell=3) + 0.7 * smooth_noise(
        rng, height, width, cell=12
    )
    picture = image.astype(np.float32) * (1 + strength[train_ids] * grain)[..., None]
    picture *= _cast_shadows(train_ids, look, rng)[..., None]
    fog = np.exp(-rng.uniform(*look.haze) * np.minimum(depth, 250.0))[..., None]
    fog[train_ids == NAMES.index("sky")] = 0.6 if look.haze[1] > 0.005 else 0.95
    picture = picture * fog + np.asarray(look.haze_colour, np.float32) * (1 - fog)
    picture = _grade(picture, look, rng)
    sigma = rng.uniform(*look.blur)
    if sigma > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture += rng.standard_normal(picture.shape).astype(np.float32) * look.noise
    return np.clip(picture, 0, 255).astype(np.uint8)


def _grade(picture: np.ndarray, look: Look, rng) -> np.ndarray:
    """Exposure, contrast, saturation, tint and vignette."""
    height, width = picture.shape[:2]
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + (picture - grey) * look.saturation
    picture = (picture - 128) * look.contrast + 128
    picture = picture * rng.uniform(*look.light) * np.asarray(look.tint, np.float32)
    # the corners are darkened by the whole of `vignette`
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    shade = 1 - look.vignette * (x * x + y * y) / 2
    return picture * shade[..., None]


def _cast_shadows(train_ids: np.ndarray, look: Look, rng) -> np.ndarray:
    """Slanted bands of shadow over the ground (road, sidewalk, terrain), as houses and trees throw
    them.
    """
    height, width = train_ids.shape
    shadow = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 5)):
        top = rng.uniform(0.45, 0.95) * height
        thick = rng.uniform(0.03, 0.15) * height
        slant = rng.uniform(-0.1, 0.1) * height
        left, right = sorted(rng.uniform(-0.2, 1.2, 2) * width)
        band = [
            (left, top),
            (right, top + slant),
            (right, top + slant + thick),
            (left, top + thick),
        ]
        cv2.fillPoly(shadow, [np.round(np.array(band)).astype(np.int32)], 1.0)
    ground = np.isin(train_ids, (0, 1, 9))
    return 1 - look.shadows * cv2.GaussianBlur(shadow, (0, 0), 1.5) * ground
