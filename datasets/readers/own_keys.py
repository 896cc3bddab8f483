"""The settings of one's own images, which no other dataset reads."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from yacs.config import CfgNode

from dassl.utils import ConfigError

OWN_KEYS = MappingProxyType(  # below DATASET → default
    {
        "CSV": "",  # file with the columns path,label[,split]; empty: folders below ROOT
        "CLASSNAMES": None,  # list in label order, or file; None: as the folders are called
        "ENCODING": "",  # of these two files, if they do not say; such as latin-1, gbk
        "TEMPLATE": "",  # zero-shot prompt with {} for the name; empty: the default
        "BACKGROUND": "white",  # what transparent pixels show
        "VALUE_RANGE": (),  # black and white of deep grey images that do not say
    }
)


def require_defaults(settings: CfgNode) -> None:
    """Raises ConfigError with the settings that have no effect on a dataset that is not one's own.

    Args:
        settings: the node DATASET.
    """
    changed = [
        f"DATASET.{key} {value!r} has no effect on DATASET.NAME {settings.NAME}: Folder alone "
        "reads it. Leave it out."
        for key, default in OWN_KEYS.items()
        if (value := _plain(settings.get(key, default))) != default
    ]
    if changed:
        raise ConfigError(changed)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
