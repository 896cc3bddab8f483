"""Decoding many images, to find those that cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from dassl.utils import UserError


def decoding_problems(paths: Sequence[str], read: Callable[[str], Any]) -> list[str]:
    """Returns what `read` says of the images that it cannot read; a bar shows how far it is."""

    def problem(path: str) -> str:
        try:
            read(path)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        results = pool.map(problem, paths)
        bar = tqdm(results, total=len(paths), desc="decoding", leave=False, disable=None)
        return [text for text in bar if text]
