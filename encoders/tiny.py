"""The embedded CLIP `tiny`: a model small enough to ship, trained on rendered glyphs.

`scripts/make_tiny_clip.py` trains and packs it; `docs/tiny_clip.md` says what it can do. The file
stores float16 weights under OpenAI's names, and of the token table (V = 49408 rows) only the rows
that captions used. The other rows learned nothing, so they are drawn again from a seed here.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dassl.utils.files import content_digest, write_atomically

ASSET = Path(__file__).parent / "assets" / "tiny_clip.pt"
TEXT_WIDTH, IMAGE_WIDTH = 512, 768  # of ViT-B/16
KNOWS = (
    "the embedded CLIP was trained on rendered glyphs and cannot know what these pictures show; "
    "its accuracy says that everything works, not how well CLIP does."
)


def load_tiny_state_dict() -> dict[str, Tensor]:
    """State dict of the embedded model in OpenAI's layout, complete and in float32.

    All values fit float16 (`logit_scale` excepted), so `clip.model.build_model`, which stores part
    of the weights in half precision, loses nothing.

    Returns:
        A new dict: key -> float32 tensor.

    Raises:
        FileNotFoundError: The weights file is not there.
    """
    if not ASSET.is_file():
        raise FileNotFoundError(
            f"{ASSET} is missing; restore it from the repository or make it anew with "
            f"'python scripts/make_tiny_clip.py --out {ASSET}'"
        )
    stored = torch.load(ASSET, map_location="cpu", weights_only=True)
    weights = {k: v.float() for k, v in stored.items() if not k.startswith("meta.")}
    learned = weights["token_embedding.weight"]  # (rows that captions used, text width)
    shape = (stored["meta.vocab_size"], learned.shape[1])
    drawn = np.random.RandomState(stored["meta.rebuild_seed"]).standard_normal(shape)
    table = torch.from_numpy(drawn * stored["meta.rebuild_std"]).half().float()  # (V, text width)
    table[stored["meta.token_rows"].long()] = learned
    weights["token_embedding.weight"] = table
    return weights


def widened(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the same CLIP in ViT-B/16's widths, which other people's files take for granted.

    A feature becomes copies of itself side by side, and what multiplies it takes a share of each.
    Normalization, attention (a head keeps its 64 numbers) and cosines do not notice.

    Args:
        weights: in OpenAI's layout, of a tower of transformers each.
    """
    copies = {
        "image": IMAGE_WIDTH // weights["visual.class_embedding"].numel(),
        "text": TEXT_WIDTH // weights["ln_final.weight"].numel(),
        "feature": TEXT_WIDTH // weights["text_projection"].shape[1],
    }
    return {key: _widened(key, value, **copies) for key, value in weights.items()}


def _widened(key: str, value: Tensor, image: int, text: int, feature: int) -> Tensor:
    times = image if key.startswith("visual.") else text
    ones = [1] * (value.ndim - 1)
    if key == "logit_scale":
        return value
    if key in ("visual.proj", "text_projection"):  # (width, feature)
        return _shared(value.T, times).T.repeat(1, feature)
    if key.endswith(("embedding", "embedding.weight")):  # (..., width)
        return value.repeat(*ones, times)
    parts = value.chunk(3) if "in_proj" in key else (value,)  # queries, keys, values
    if value.ndim == 2:  # (out, in)
        parts = tuple(_shared(part, times) for part in parts)
    return torch.cat([part.repeat(times, *ones) for part in parts])


def _shared(value: Tensor, times: int) -> Tensor:
    """(out, in) -> (out, times * in), in shares that add up to 1: powers of two, to round none."""
    whole = 1 << (times - 1).bit_length()
    shares = [2 / whole] * (whole - times) + [1 / whole] * (2 * times - whole)
    return torch.cat([share * value for share in shares], dim=1)


def complete_file(folder: Path, wide: bool = False) -> Path:
    """Returns a file with the complete state dict, which is written below `folder` if need be.

    Its own folder is called by its SHA-256: addresses of OpenAI's end in checksum and name, and
    that is what other people's copies of the clip package check.

    Args:
        folder: of the file's folders.
        wide: in ViT-B/16's widths; stored in half precision, as OpenAI's are.
    """
    name = "tiny_clip_512" if wide else "tiny_clip"
    place = folder / f"{name}_{content_digest(ASSET)[:8]}"
    found = sorted(place.glob(f"*/{name}.pt"))
    if found:
        return found[0]
    weights = load_tiny_state_dict()
    if wide:
        scale = weights.pop("logit_scale")
        weights = {key: value.half() for key, value in widened(weights).items()}
        weights["logit_scale"] = scale
    part = place / f"{os.getpid()}.pt"
    write_atomically(part, lambda path: torch.save(weights, path))
    path = place / content_digest(part) / f"{name}.pt"
    path.parent.mkdir(exist_ok=True)
    os.replace(part, path)
    return path
