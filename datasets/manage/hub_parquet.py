"""The parquet files of a dataset on the hub, fetched by the hub's own list of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dassl.utils import ConfigError, DataError, read_json
from dassl.utils.download import download
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

HUB = "https://huggingface.co"  # GET /api/datasets/<name>/parquet: {config: {part: [address]}}
_PREFIX = "hub:"


def hub_name(text: str) -> str:
    """Returns the name on the hub in hub:timm/eurosat-rgb; "" for a file or folder.

    Raises:
        ConfigError: it is no such name.
    """
    if not text.startswith(_PREFIX):
        return ""
    name = text.removeprefix(_PREFIX)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ConfigError(f"--from is {text!r}; a dataset of the hub is like hub:timm/eurosat-rgb")
    return name


def fetch_parquet(name: str, folder: Path) -> None:
    """Fetches the parquet files of a dataset, of all its parts; what is there is kept.

    Args:
        name: on the hub.
        folder: where they go, as <part>-<number>.parquet.

    Raises:
        DownloadError: the hub does not give the list or a file.
        DataError: the list says something else, or the dataset has several versions (configs).
    """
    listing = folder / "list.json"
    listing.unlink(missing_ok=True)  # of an earlier time; the dataset may have changed
    logger.info(f"  asking {HUB} for the parquet files of {name}")
    download(f"{HUB}/api/datasets/{name}/parquet", listing)
    files = _files(name, read_json(listing))
    for number, (part, url) in enumerate(files):
        logger.info(f"  fetching {url}")
        download(url, folder / f"{part}-{number:04d}.parquet")
    listing.unlink()


def _files(name: str, content: Any) -> list[tuple[str, str]]:
    """Returns (part, address) of each file, in the list's order."""
    try:
        if len(content) > 1:
            raise DataError(
                f"{name} has several versions ({', '.join(map(str, content))}): download one by "
                "hand, and name its folder with --from"
            )
        ((_, parts),) = content.items()
        files = [(str(part), str(url)) for part, urls in parts.items() for url in urls]
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{HUB} gives no list of parquet files of {name}") from None
    for part, url in files:
        if not re.fullmatch(r"\w[\w.-]*", part) or not url.startswith(f"{HUB}/"):
            raise DataError(f"{HUB} lists a file of {name} that is not its own: {url!r:.200}")
    return files
