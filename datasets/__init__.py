"""Data sets, one file each. Importing the package imports every file here, which registers them.

To add a data set, put a file here: nothing else has to change. A file that cannot be imported does
not stop the others; the reason is kept in `failed_imports`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from yacs.config import CfgNode

from datasets.base import BenchmarkDataset

__all__ = ["BenchmarkDataset", "extend_cfg", "failed_imports", "modules"]

modules: dict[str, ModuleType] = {}
failed_imports: dict[str, Exception] = {}  # file name → why it could not be imported

for _info in pkgutil.iter_modules(__path__):
    if _info.name == "__main__":  # the command line; importing it would run it
        continue
    try:
        modules[_info.name] = importlib.import_module(f"{__name__}.{_info.name}")
    except Exception as error:  # whatever a foreign file does wrong
        failed_imports[f"{_info.name}.py"] = error


def extend_cfg(cfg: CfgNode) -> None:
    """Adds the settings of every data set to a configuration."""
    for module in modules.values():
        if hasattr(module, "extend_cfg"):
            module.extend_cfg(cfg)
