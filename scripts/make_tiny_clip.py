"""Train the embedded CLIP `tiny` on rendered glyphs and pack it into one small file.

    python scripts/make_tiny_clip.py --out encoders/assets/tiny_clip.pt

Digits, letters and signs are rendered from the TrueType fonts that come with matplotlib, distorted
(`glyphs.py`), captioned with words that are true of how each glyph was made, and learned with
CLIP's symmetric contrastive loss (Radford et al. 2021, section 2.3). No handwritten image is seen
in training; the final model is the last one, nothing is selected. `--report-digits` prints
zero-shot accuracy on scikit-learn's handwritten digits once training is over.

What the seed fixes: the glyphs, the captions, the initial weights and their order. With the same
number of threads and the same PyTorch build a run repeats.

Shapes: B batch, L tokens, F facts.
"""

import argparse
import logging
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib
import numpy as np
import PIL
import torch
import torch.nn.functional as F
from clip.model import CLIP
from clip.simple_tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor

from scripts.glyphs import (
    DIGITS,
    FACT_WORDS,
    FACTS,
    IMAGE,
    SYMBOLS,
    Fields,
    Symbol,
    draw_glyphs,
    render_fields,
)

logger = logging.getLogger("make_tiny_clip")

VOCAB_SIZE, CONTEXT_LENGTH = 49408, 77  # CLIP's
TRAIN_LENGTH = 24  # tokens per caption in training; later positions keep their initial values
PATCH, VISION_WIDTH, VISION_LAYERS = 8, 128, 3
TEXT_WIDTH, TEXT_LAYERS, EMBED = 64, 2, 64
REBUILD_SEED, REBUILD_STD = 0, 0.02  # token rows that no caption uses; std is CLIP's initial one
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

KIND_WORDS = {
    "digit": ("digit", "number", "numeral", "figure"), "letter": ("letter", "character"),
    "sign": ("sign", "symbol"),
}  # fmt: skip

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
