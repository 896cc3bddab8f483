"""Packages of plug-ins: every file is imported, which registers what it defines."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType

from yacs.config import CfgNode


def import_files(
    package: str, folders: Iterable[str]
) -> tuple[dict[str, ModuleType], dict[str, Exception]]:
    """Imports every file of a package, in the order of their names.

    A file that cannot be imported does not stop the others. Folders are left alone: they hold no
    plug-ins. So is `__main__`: importing a command line would run it.

    Args:
        package: its `__name__`.
        folders: its `__path__`.

    Returns:
        {name: module}, and {file name: why it could not be imported}.
    """
    modules: dict[str, ModuleType] = {}
    failed: dict[str, Exception] = {}
    for info in pkgutil.iter_modules(folders):
        if info.ispkg or info.name == "__main__":
            continue
        try:
            modules[info.name] = importlib.import_module(f"{package}.{info.name}")
        except Exception as error:  # whatever a foreign file does wrong
            failed[f"{info.name}.py"] = error
    return modules, failed


def extend_cfg_by(modules: Mapping[str, ModuleType], cfg: CfgNode) -> None:
    """Calls `extend_cfg` of the modules that have one: each adds its settings."""
    for module in modules.values():
        if hasattr(module, "extend_cfg"):
            module.extend_cfg(cfg)
