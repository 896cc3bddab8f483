"""Train the embedded CLIP `tiny` on rendered glyphs and pack it into one small file.

    python scripts/make_tiny_clip.py --out trainers/assets/tiny_clip.pt

Digits, letters and signs are rendered from the TrueType fonts that come with matplotlib, distorted,
captioned with words that are true of how each glyph was made, and learned with CLIP's symmetric
contrastive loss (Radford et al. 2021, section 2.3). No handwritten image is seen in training; the
final model is the last one, nothing is selected. `--report-digits` prints zero-shot accuracy on
scikit-learn's handwritten digits once training is over.

What the seed fixes: the glyphs, the captions, the initial weights and their order. With the same
number of threads and the same PyTorch build a run repeats.

Shapes: B batch, G rendered glyphs, S side of a rendered field, L tokens, F facts.
"""

import argparse
import logging
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import PIL
import torch
import torch.nn.functional as F
from clip.model import CLIP
from clip.simple_tokenizer import SimpleTokenizer
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from torch import Tensor

logger = logging.getLogger("make_tiny_clip")

VOCAB_SIZE, CONTEXT_LENGTH = 49408, 77  # CLIP's
TRAIN_LENGTH = 24  # tokens per caption in training; later positions keep their initial values
IMAGE, PATCH, VISION_WIDTH, VISION_LAYERS = 32, 8, 128, 3
TEXT_WIDTH, TEXT_LAYERS, EMBED = 64, 2, 64
REBUILD_SEED, REBUILD_STD = 0, 0.02  # token rows that no caption uses; std is CLIP's initial one
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
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
KIND_WORDS = {
    "digit": ("digit", "number", "numeral", "figure"), "letter": ("letter", "character"),
    "sign": ("sign", "symbol"),
}  # fmt: skip

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
# (opening, fact it claims): the opening is followed by article, adjectives, kind, name, ending.
OPENINGS = (
    ("a photo of", ""), ("a photo of", ""), ("a photo of", ""), ("a photo of", ""),
    ("a picture of", ""), ("an image of", ""), ("this is", ""), ("", ""), ("", ""),
    ("itap of", ""), ("a rendering of", "neat"), ("a scan of", "clean"),
    ("a drawing of", "bent"), ("a sketch of", "bent"), ("art of", "bent"), ("a print of", "neat"),
    ("a bad photo of", "bad"), ("a good photo of", "good"), ("a blurry photo of", "blurry"),
    ("a dark photo of", "bright"), ("a bright photo of", "dark"), ("a close-up photo of", "large"),
)  # fmt: skip
ENDINGS = (
    ("on a black background", "bright"), ("on a dark background", "bright"),
    ("in white ink", "bright"), ("on white paper", "dark"), ("on a white background", "dark"),
    ("in black ink", "dark"), ("written by hand", "bent"), ("in a book", "neat"),
    ("in a video game", "blurry"), ("seen from far away", "small"),
    ("with thick strokes", "thick"), ("with thin strokes", "thin"), ("in the dust", "noisy"),
)  # fmt: skip
# Whole templates, {} being the bare name; CLIP's own ensemble words among them.
TEMPLATES = (
    ("a photo of a {}.", ""), ("a photo of a {}.", ""), ("a photo of a {}.", ""),
    ("a photo of the {}.", ""), ("{}.", ""), ("{}", ""), ("a {}.", ""), ("the {}.", ""),
    ("itap of a {}.", ""), ("a bad photo of the {}.", "bad"), ("a origami {}.", "neat"),
    ("a photo of the large {}.", "large"), ("a {} in a video game.", "blurry"),
    ("art of the {}.", "bent"), ("a photo of the small {}.", "small"),
    ("a photo of a handwritten {}.", "bent"), ("a centered satellite photo of {}.", "clean"),
    ('a photo of the number: "{}".', ""), ("a photo of {}, a type of sign.", ""), ("x {}.", ""),
)  # fmt: skip
REPORTED_TEMPLATES = (
    "a photo of a {}.",
    "a photo of the number {}.",
    "{}.",
    "a bad photo of the {}.",
    "a photo of a handwritten {}.",
    "a white handwritten digit {}.",
)


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


def write_caption(
    symbol: Symbol, facts: np.ndarray, words: random.Random, detail: float = 1.0
) -> tuple[str, set[str]]:
    """A true sentence about one glyph, and the facts it claims; bare with chance 1 - detail."""
    true = {name for name, holds in zip(FACTS, facts) if holds}
    name = words.choice(symbol.aliases)
    if words.random() > detail:
        return words.choice(("a photo of a {}.", "{}.")).format(name), set()
    if words.random() < 0.3:
        template, claim = words.choice([t for t in TEMPLATES if t[1] in true or not t[1]])
        return template.format(name), {claim} - {""}
    opening, claim = words.choice([o for o in OPENINGS if o[1] in true or not o[1]])
    claims = {claim}
    n_adjectives = min(words.choice((0, 0, 1, 1, 2, 3, 4)), len(true))
    adjectives = words.sample(sorted(true), n_adjectives)
    parts = [opening, words.choice(("a", "a", "the", "the", ""))]
    parts += [words.choice(FACT_WORDS[fact]) for fact in adjectives]
    if words.random() < 0.4:
        parts.append(words.choice(KIND_WORDS[symbol.kind]))
    parts.append(name)
    if words.random() < 0.2 and (fitting := [e for e in ENDINGS if e[1] in true]):
        ending, claim = words.choice(fitting)
        parts.append(ending)
        claims.add(claim)
    text = " ".join(part for part in parts if part) + words.choice((".", ".", ""))
    return text, (claims | set(adjectives)) - {""}


class Captioner:
    """Captions as rows of a compact vocabulary that holds only the tokens captions can use."""

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        texts = [*(t for t, _ in TEMPLATES + OPENINGS + ENDINGS), "a the one . , an photo x"]
        texts += [word for group in (*FACT_WORDS.values(), *KIND_WORDS.values()) for word in group]
        texts += [alias for symbol in SYMBOLS for alias in symbol.aliases]
        start, end = (self.tokenizer.encoder[f"<|{w}oftext|>"] for w in ("start", "end"))
        tokens = {t for text in texts for t in self.tokenizer.encode(text.replace("{}", " "))}
        # Sorted, so that the end token stays the largest: CLIP finds it by argmax.
        self.rows = sorted(tokens | {start, end})
        self.compact = {token: row for row, token in enumerate(self.rows)}
        self.start, self.end = self.compact[start], self.compact[end]

    def encode(self, texts: list[str]) -> Tensor:
        """Token rows, start and end included, zero-padded: (B, L)."""
        out = torch.zeros(len(texts), TRAIN_LENGTH, dtype=torch.long)
        for line, text in enumerate(texts):
            tokens = [self.compact[t] for t in self.tokenizer.encode(text)][: TRAIN_LENGTH - 2]
            out[line, : len(tokens) + 2] = torch.tensor([self.start, *tokens, self.end])
        return out


def normalise(images: Tensor) -> Tensor:
    """Grey images (B, 32, 32) in [0, 1] to CLIP's input (B, 3, 32, 32)."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (images[:, None] - mean) / std


def contrastive_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Symmetric InfoNCE in which a caption that is true of another image is no negative for it.

    Args:
        logits: (B, B) scaled cosines, images in rows, captions in columns.
        truth: (B, B) bool, whether the caption of the column is true of the image of the row.
    """
    others = truth & ~torch.eye(len(truth), dtype=torch.bool)
    logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def draw_batch(
    fields: Fields,
    captioner: Captioner,
    n: int,
    rng: np.random.Generator,
    words: random.Random,
    strength: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, 32, 32), captions (B, L) and which caption is true of which image (B, B)."""
    images, symbols, facts = draw_glyphs(fields, n, rng, strength)
    written = [write_caption(SYMBOLS[s], row, words, strength) for s, row in zip(symbols, facts)]
    claimed = np.array([[name in claims for name in FACTS] for _, claims in written])  # (B, F)
    broken = (~facts).astype(int) @ claimed.T.astype(int)  # claims of the column that fail
    truth = (symbols[:, None] == symbols[None, :]) & (broken == 0)
    captions = [text for text, _ in written]
    return normalise(images), captioner.encode(captions), torch.from_numpy(truth)


def train(fields: Fields, captioner: Captioner, args: argparse.Namespace) -> CLIP:
    """Train from scratch for `args.steps` batches and return the last model."""
    torch.manual_seed(args.seed)
    rng, words = np.random.default_rng(args.seed), random.Random(args.seed)
    vision = (EMBED, IMAGE, VISION_LAYERS, VISION_WIDTH, PATCH)
    text = (TRAIN_LENGTH, len(captioner.rows), TEXT_WIDTH, TEXT_WIDTH // 64, TEXT_LAYERS)
    model = CLIP(*vision, *text)
    # CLIP's initial positions drown in the patches' contents; larger ones save hundreds of steps.
    torch.nn.init.normal_(model.visual.positional_embedding, std=0.5)
    matrices = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, total_steps=args.steps, pct_start=0.15, cycle_momentum=False
    )
    began, mean_loss = time.time(), 0.0
    for step in range(1, args.steps + 1):
        strength = min(1.0, 0.2 + 2 * step / args.steps)  # easy glyphs and bare captions first
        images, captions, truth = draw_batch(fields, captioner, args.batch, rng, words, strength)
        loss = contrastive_loss(model(images, captions)[0], truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))  # as in CLIP
        mean_loss += loss.item()
        if step % 50 == 0 or step == args.steps:
            seconds, every = time.time() - began, 50 if step % 50 == 0 else step % 50
            logger.info("step %5d  loss %.3f  %.0f s", step, mean_loss / every, seconds)
            mean_loss = 0.0
    return model.eval()


def pack(model: CLIP, captioner: Captioner, args: argparse.Namespace) -> dict[str, Tensor | str]:
    """The file's content: float16 weights under CLIP's names, `meta.*` for what rebuilds the rest.

    `token_embedding.weight` holds only the rows listed in `meta.token_rows`; the other rows are
    REBUILD_STD times standard normal draws of numpy's RandomState(REBUILD_SEED).
    """
    weights = {key: value.detach().half() for key, value in model.state_dict().items()}
    # float16 would round ln 100 up, past CLIP's limit.
    weights["logit_scale"] = model.logit_scale.detach().clone()
    late = np.random.RandomState(args.seed).standard_normal((CONTEXT_LENGTH, TEXT_WIDTH)) * 0.01
    positions = torch.from_numpy(late).half()  # CLIP's initial std, for positions never trained
    positions[:TRAIN_LENGTH] = weights["positional_embedding"]
    weights["positional_embedding"] = positions
    return {
        **weights,
        "meta.token_rows": torch.tensor(captioner.rows, dtype=torch.int32),
        "meta.vocab_size": VOCAB_SIZE,
        "meta.rebuild_seed": REBUILD_SEED,
        "meta.rebuild_std": REBUILD_STD,
        "meta.made_by": f"scripts/make_tiny_clip.py --steps {args.steps} --batch {args.batch} "
        f"--lr {args.lr} --seed {args.seed} --threads {args.threads}",
        "meta.versions": f"torch {torch.__version__}, matplotlib {matplotlib.__version__}, "
        f"pillow {PIL.__version__}, numpy {np.__version__}",
    }


@torch.no_grad()
def zero_shot(
    model: CLIP, captioner: Captioner, images: Tensor, labels: Tensor, prompts: list[str]
) -> float:
    """Percentage of grey images (B, 32, 32) whose nearest prompt is that of their label (B,)."""
    texts = F.normalize(model.encode_text(captioner.encode(prompts)), dim=-1)  # (C, D)
    features = torch.cat([model.encode_image(part) for part in normalise(images).split(512)])
    return 100 * ((features @ texts.T).argmax(1) == labels).float().mean().item()


def report_held_out(model: CLIP, captioner: Captioner, fields: Fields, seed: int) -> None:
    """Accuracy on distorted glyphs of the two fonts that training never used."""
    images, symbols, _ = draw_glyphs(fields, 4000, np.random.default_rng(seed + 1), held_out=True)
    labels = torch.from_numpy(symbols)
    for n in (len(SYMBOLS), 10):
        rows, prompts = labels < n, [f"a photo of a {symbol.name}." for symbol in SYMBOLS[:n]]
        score = zero_shot(model, captioner, images[rows], labels[rows], prompts)
        logger.info("held-out fonts, %d symbols: %.1f%%", n, score)


def report_digits(model: CLIP, captioner: Captioner) -> None:
    """Zero-shot accuracy on scikit-learn's 1,797 handwritten digits; a report, never a choice."""
    from sklearn.datasets import load_digits  # imported here: training must not see it

    digits = load_digits()
    grey = [Image.fromarray((d * 255 / 16).astype(np.uint8)) for d in digits.images]
    large = np.stack([np.asarray(g.resize((IMAGE, IMAGE), Image.BICUBIC)) for g in grey])
    images, labels = torch.from_numpy(large).float() / 255, torch.from_numpy(digits.target)
    for template in REPORTED_TEMPLATES:
        scores = []
        for first, last in ((0, 10), (0, 5), (5, 10)):
            rows = (labels >= first) & (labels < last)
            prompts = [template.format(name) for name in DIGITS[first:last]]
            scores.append(zero_shot(model, captioner, images[rows], labels[rows] - first, prompts))
        line = "handwritten, %-36r ten %.1f%%  zero-four %.1f%%  five-nine %.1f%%"
        logger.info(line, template, *scores)


def main() -> None:
    """Parse arguments, train, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="weights file to write")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-digits", action="store_true", help="measure on real digits")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    fields, captioner = render_fields(), Captioner()
    logger.info("%d glyphs, %d tokens", len(fields.distance), len(captioner.rows))
    model = train(fields, captioner, args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(pack(model, captioner, args), args.out)
    logger.info("%s: %.2f MB", args.out, args.out.stat().st_size / 1e6)
    report_held_out(model, captioner, fields, args.seed)
    if args.report_digits:
        report_digits(model, captioner)


if __name__ == "__main__":
    main()
