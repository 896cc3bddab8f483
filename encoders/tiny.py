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


def complete_file(folder: Path) -> Path:
    """Returns a file with the complete state dict, which is written below `folder` if need be.

    Its own folder is called by its SHA-256: addresses of OpenAI's end in checksum and name, and
    that is what other people's copies of the clip package check.
    """
    place = folder / f"tiny_clip_{content_digest(ASSET)[:8]}"
    found = sorted(place.glob("*/tiny_clip.pt"))
    if found:
        return found[0]
    part = place / f"{os.getpid()}.pt"
    write_atomically(part, lambda path: torch.save(load_tiny_state_dict(), path))
    path = place / content_digest(part) / "tiny_clip.pt"
    path.parent.mkdir(exist_ok=True)
    os.replace(part, path)
    return path
