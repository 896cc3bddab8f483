"""Training pictures of the embedded CLIP: glyphs of many fonts, distorted in known ways.

Every glyph is rendered once as a signed distance field; a picture is that field warped, inked at a
drawn thickness, cropped and exposed. How it was made is kept as facts, so that captions can tell
the truth (`make_tiny_clip.py`). All randomness comes from the generator that is passed.

Shapes: B batch, G rendered glyphs, S side of a rendered field, F facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from torch import Tensor

IMAGE = 32  # side of a picture in pixels
FIELD, GLYPH = 64, 44  # a rendered field is FIELD px wide, the glyph's longer side GLYPH px

# The last two fonts are held out: the model is measured on them, never trained on them.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansDisplay", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "DejaVuSerifDisplay", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta",
    "cmb10", "cmr10", "cmss10", "cmti10", "cmtt10", "cmmi10",
    "DejaVuSansMono-Oblique", "STIXGeneralItalic",
)  # fmt: skip
HELD_OUT_FONTS = FONTS[-2:]
ITALIC_MARKS = ("Oblique", "Ita", "cmti", "cmmi")

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# People write some digits in shapes that fonts keep under other code points: a bare stroke for one,
# a four open at the top (Cyrillic che), a three with a flat top (ezh).
DIGIT_GLYPHS = ("0O", "1|I", "2", "3Ʒ", "4Ч", "5", "6", "7", "8", "9")
# Without l and o, which look like digits and would only teach the model to guess.
LETTERS = "abcdefghijkmnpqrstuvwxyz"
SIGNS = {
    "plus": "+", "equals": "=", "question mark": "?", "exclamation mark": "!",
    "ampersand": "&", "hash": "#", "percent": "%", "dollar": "$", "at": "@", "slash": "/",
    "star": "*",
}  # fmt: skip
KIND_SHARE = {"digit": 0.5, "letter": 0.4, "sign": 0.1}

# A fact is a property that a glyph was given on purpose; its words may be said when it holds.
FACT_WORDS = {
    "bright": ("white", "bright", "light"), "dark": ("black", "dark"),
    "blurry": ("blurry", "pixelated", "coarse"), "sharp": ("sharp", "clear", "crisp"),
    "thick": ("thick", "bold", "heavy"), "thin": ("thin", "fine", "slim"),
    "slanted": ("slanted", "italic", "tilted"), "upright": ("upright", "straight"),
    "bent": ("handwritten", "wobbly", "bent", "crooked"), "neat": ("printed", "neat", "typed"),
    "noisy": ("noisy", "grainy", "dirty"), "clean": ("clean", "plain"), "faint": ("faint", "pale"),
    "small": ("small", "little", "tiny"), "large": ("large", "big"),
    "narrow": ("narrow", "tall"), "wide": ("wide", "broad"),
    "upper": ("uppercase", "capital"), "lower": ("lowercase",),
    "bad": ("bad", "poor"), "good": ("good", "nice"),
}  # fmt: skip
FACTS = tuple(FACT_WORDS)


class Symbol(NamedTuple):
    """What a caption names: `six`, `k`, `question mark`."""

    name: str
    kind: str
    glyphs: str
    aliases: tuple[str, ...]


SYMBOLS = (  # digits first: their index is their value
    *(Symbol(n, "digit", g, (n, n, n, g[0])) for n, g in zip(DIGITS, DIGIT_GLYPHS)),
    *(Symbol(c, "letter", c + c.upper(), (c,)) for c in LETTERS),
    *(Symbol(n, "sign", g, (n,)) for n, g in SIGNS.items()),
)
Style = dict[str, np.ndarray]  # how each glyph of a batch is made; every entry is (B,)


@dataclass(frozen=True)
class Fields:
    """All rendered glyphs as signed distance fields, so that stroke thickness is one addition."""

    distance: Tensor  # (G, S, S) pixels to the outline, positive inside
    stroke: np.ndarray  # (G,) half the stroke width in pixels
    lean: np.ndarray  # (G,) horizontal shift per height that the font itself has
    case: np.ndarray  # (G,) 0 none, 1 lower, 2 upper
    by_symbol: dict[tuple[int, bool], np.ndarray]  # (symbol, held out) -> indices into G


def render_distance(font: ImageFont.FreeTypeFont, glyph: str) -> np.ndarray:
    """Signed distance field of one glyph, centred, longer side GLYPH pixels: (S, S) float32."""
    left, top, right, bottom = font.getbbox(glyph)
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), glyph, fill=255, font=font)
    image = image.crop(image.getbbox())
    scale = 2 * GLYPH / max(image.size)  # twice the size, halved below: smoother outlines
    image = image.resize([max(4, round(side * scale)) for side in image.size], Image.BICUBIC)
    canvas = Image.new("L", (2 * FIELD, 2 * FIELD))
    canvas.paste(image, (FIELD - image.width // 2, FIELD - image.height // 2))
    ink = np.asarray(canvas) > 127
    distance = (distance_transform_edt(ink) - distance_transform_edt(~ink)) / 2
    return distance.reshape(FIELD, 2, FIELD, 2).mean((1, 3)).astype(np.float32)


def render_fields() -> Fields:
    """Render every symbol in every font that has it."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    distance, lean, case, owner = [], [], [], []
    for font_name in FONTS:
        path = folder / f"{font_name}.ttf"
        font, known = ImageFont.truetype(str(path), 96), TTFont(path).getBestCmap()
        for index, symbol in enumerate(SYMBOLS):
            # Computer Modern keeps other signs under the code points of ASCII punctuation.
            skip = font_name.startswith("cm") and symbol.kind == "sign"
            for glyph in "" if skip else symbol.glyphs:
                if ord(glyph) in known and not (font_name.startswith("cm") and glyph == "|"):
                    distance.append(render_distance(font, glyph))
                    lean.append(0.2 if any(m in font_name for m in ITALIC_MARKS) else 0.0)
                    letter = symbol.kind == "letter"
                    case.append((1 if glyph.islower() else 2) if letter else 0)
                    owner.append((index, font_name in HELD_OUT_FONTS))
    by_symbol = {
        key: np.array([i for i, other in enumerate(owner) if other == key]) for key in set(owner)
    }
    stacked = np.stack(distance)
    stroke = stacked.max((1, 2))
    return Fields(torch.from_numpy(stacked), stroke, np.array(lean), np.array(case), by_symbol)


def draw_symbols(n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices into SYMBOLS: kinds by KIND_SHARE, uniform within a kind."""
    kinds = [symbol.kind for symbol in SYMBOLS]
    weight = np.array([KIND_SHARE[kind] / kinds.count(kind) for kind in kinds])
    return rng.choice(len(SYMBOLS), n, p=weight / weight.sum())


def warp(distance: Tensor, style: Style, rng: np.random.Generator) -> Tensor:
    """Rotate, shear and bend the fields (B, S, S), then ink them: (B, S, S) in [0, 1]."""
    n = len(distance)
    cos, sin, shear = np.cos(style["angle"]), np.sin(style["angle"]), style["shear"]
    # grid_sample asks where each output pixel comes from, hence the inverse maps.
    theta = np.stack([cos - shear * sin, sin + shear * cos, 0 * cos, -sin, cos, 0 * cos], 1)
    theta = torch.from_numpy(theta.reshape(n, 2, 3)).float()
    grid = F.affine_grid(theta, [n, 1, FIELD, FIELD], align_corners=False)  # (B, S, S, 2)
    knots = torch.from_numpy(rng.standard_normal((n, 2, 5, 5)) * style["bend"][:, None, None, None])
    bend = F.interpolate(knots.float(), (FIELD, FIELD), mode="bicubic", align_corners=True)
    grid = grid + bend.permute(0, 2, 3, 1)
    field = F.grid_sample(distance[:, None], grid, padding_mode="border", align_corners=False)
    offset = torch.from_numpy(style["half"] - style["stroke"]).float()
    return torch.sigmoid(2 * (field[:, 0] + offset[:, None, None]))


def crop(ink: Tensor, style: Style, rng: np.random.Generator) -> Tensor:
    """Cut each glyph to its box with a margin: (B, S, S) -> (B, 48, 48); sets style["aspect"]."""
    n = len(ink)
    spans = []
    for axis in (1, 2):  # columns, then rows
        filled = (ink.amax(axis) > 0.5).numpy()  # (B, S)
        first, last = filled.argmax(1), FIELD - filled[:, ::-1].argmax(1)
        spans.append(((first + last) / 2, np.maximum(last - first, 2).astype(float)))
    (center_x, width), (center_y, height) = spans
    longer = np.maximum(width, height)
    # fill 0 keeps the proportions, fill 1 stretches the glyph to the whole square.
    fill = np.where(rng.random(n) < 0.4, 0.0, rng.uniform(0, 0.9, n))
    crop_x, crop_y = (side**fill * longer ** (1 - fill) for side in (width, height))
    style["aspect"] = (width / crop_x) / (height / crop_y)
    jitter = rng.uniform(-0.5, 0.5, (2, n)) * (style["margin"] + 0.04)
    matrix = np.zeros((n, 2, 3))
    matrix[:, 0, 0] = crop_x * (1 + style["margin"]) / FIELD
    matrix[:, 1, 1] = crop_y * (1 + style["margin"]) / FIELD
    matrix[:, 0, 2] = (center_x + jitter[0] * crop_x) * 2 / FIELD - 1
    matrix[:, 1, 2] = (center_y + jitter[1] * crop_y) * 2 / FIELD - 1
    grid = F.affine_grid(torch.from_numpy(matrix).float(), [n, 1, 48, 48], align_corners=False)
    return F.grid_sample(ink[:, None], grid, align_corners=False)[:, 0]


def expose(ink: Tensor, style: Style, rng: np.random.Generator) -> Tensor:
    """Average down, add noise, enlarge, set contrast and polarity: (B, 48, 48) -> (B, 32, 32)."""
    out = torch.empty(len(ink), IMAGE, IMAGE)
    for pixels in np.unique(style["pixels"]):
        rows = torch.from_numpy(np.flatnonzero(style["pixels"] == pixels))
        small = F.adaptive_avg_pool2d(ink[rows, None], int(pixels))  # (b, 1, pixels, pixels)
        noise = torch.from_numpy(rng.standard_normal(small.shape)).float()
        small = small + noise * torch.from_numpy(style["noise"]).float()[rows, None, None, None]
        # antialias=True selects the bicubic kernel that PIL uses.
        big = F.interpolate(small.clamp(0, 1), (IMAGE, IMAGE), mode="bicubic", antialias=True)
        out[rows] = big[:, 0].clamp(0, 1)
    low, high = (torch.from_numpy(style[k]).float()[:, None, None] for k in ("low", "high"))
    out = low + (high - low) * out
    return (out * 255).round() / 255


def draw_style(n: int, rng: np.random.Generator, strength: float) -> Style:
    """How each of n glyphs will be made, distorted up to `strength` in [0, 1]; entries are (B,)."""
    contrast = np.where(rng.random(n) < 0.75, rng.uniform(0.75, 1, n), rng.uniform(0.4, 0.75, n))
    low = rng.random(n) * (1 - contrast)
    bright = rng.random(n) < 0.75
    return {
        "angle": np.radians(rng.normal(0, 9 * strength, n)),
        "shear": rng.normal(0, 0.2 * strength, n),
        "bend": strength * np.where(rng.random(n) < 0.3, 0.01, rng.uniform(0.02, 0.12, n)),
        "half": rng.uniform(1.4, 4.8, n),
        "margin": np.where(rng.random(n) < 0.7, rng.uniform(0, 0.2, n), rng.uniform(0.2, 0.7, n)),
        "pixels": rng.choice([8, 12, 16, 32], n, p=[0.65, 0.1, 0.05, 0.2]),
        "noise": strength * np.where(rng.random(n) < 0.7, 0.0, rng.uniform(0.03, 0.15, n)),
        "contrast": contrast,
        "bright": bright,
        "low": np.where(bright, low, low + contrast),  # paper
        "high": np.where(bright, low + contrast, low),  # ink
    }


def style_facts(style: Style, case: np.ndarray) -> np.ndarray:
    """Which facts hold for each glyph: (B, F) bool, columns as in FACTS."""
    lean = np.abs(style["lean"] + style["shear"] + np.tan(style["angle"]))
    facts = {
        "bright": style["bright"], "dark": ~style["bright"],
        "blurry": style["pixels"] < 16, "sharp": style["pixels"] == 32,
        "thick": style["half"] > 3.6, "thin": style["half"] < 2.3,
        "slanted": lean > 0.25, "upright": lean < 0.1,
        "bent": style["bend"] > 0.05, "neat": style["bend"] < 0.02,
        "noisy": style["noise"] > 0.06, "clean": style["noise"] == 0,
        "faint": style["contrast"] < 0.6,
        "small": style["margin"] > 0.35, "large": style["margin"] < 0.08,
        "narrow": style["aspect"] < 0.5, "wide": style["aspect"] > 0.95,
        "upper": case == 2, "lower": case == 1,
    }  # fmt: skip
    facts["good"] = facts["sharp"] & facts["clean"] & ~facts["faint"]
    facts["bad"] = facts["blurry"] & (facts["noisy"] | facts["faint"])
    return np.stack([facts[name] for name in FACTS], 1)


def draw_glyphs(
    fields: Fields, n: int, rng: np.random.Generator, strength: float = 1.0, held_out: bool = False
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Fresh glyphs: images (B, 32, 32) in [0, 1], symbols (B,), facts (B, F)."""
    symbols = draw_symbols(n, rng)
    picked = np.array([rng.choice(fields.by_symbol[int(s), held_out]) for s in symbols])
    style = draw_style(n, rng, strength)
    style["stroke"], style["lean"] = fields.stroke[picked], fields.lean[picked]
    # A stroke cannot be thinned to nothing, nor thickened until its holes close.
    style["half"] = style["half"].clip(0.45 * style["stroke"], style["stroke"] + 2.2)
    ink = warp(fields.distance[torch.from_numpy(picked)], style, rng)
    images = expose(crop(ink, style, rng), style, rng)
    return images, symbols, style_facts(style, fields.case[picked])
