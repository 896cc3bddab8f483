"""Packages that are needed for exports alone."""

from __future__ import annotations

import importlib
from types import ModuleType

from dassl.utils import ConfigError


def package(name: str, why: str) -> ModuleType:
    """Imports a package.

    Raises:
        ConfigError: it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] != name.split(".")[0]:
            raise  # it is there, and lacks something itself
        raise ConfigError(
            f"{why} needs the package {name}, which is not installed: "
            "pip install -r requirements-export.txt"
        ) from None
