"""The surest mistakes of a run, with small pictures inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from dassl.data.datasets import image_reader
from dassl.utils import UserError, read_image
from explore.predictions import Prediction, surest_mistakes
from explore.runs import Seen
from pages import Gallery, Picture

SIDE = 96  # pixels of a small picture's longer side
SHOWN = 3  # guesses


def gallery(run: Seen, at_most: int) -> Gallery | None:
    """Returns the mistakes that the run was surest of; None: it made none, or nobody knows."""
    chosen = surest_mistakes(run.predictions, at_most) if run.predictions else []
    if not chosen:
        return None
    read = image_reader(run.run.cfg) or read_image
    pictures = [Picture(_small(run, one, read), _about(one), _lines(run, one)) for one in chosen]
    return Gallery(run.title, pictures)


def _lines(run: Seen, one: Prediction) -> list[str]:
    lines = [f"is {one.truth} ({one.truth_probability:.0%})"]
    lines += [f"{k}. {name} {p:.0%}" for k, (name, p) in enumerate(one.top[:SHOWN], 1)]
    if one.path:
        path = Path(one.path)
        lines.append(f"{path.parent.name}/{path.name}" if run.own_data else path.name)
    return lines


def _about(one: Prediction) -> str:
    return f"{Path(one.path).name or 'a picture'}: {one.truth}, taken for {one.predicted}"


def _small(run: Seen, one: Prediction, read) -> str:
    """Returns the picture as a data URI; "" where it cannot be read."""
    if not one.path:
        return ""
    try:
        image = read(str(run.images / one.path))
    except (UserError, OSError):
        return ""
    image.thumbnail((SIDE, SIDE))
    held = io.BytesIO()
    image.convert("RGB").save(held, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()
