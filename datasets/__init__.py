"""Datasets, one file each, and what they share: `base.py` and `few_shot.py`.

Importing the package imports every file here, which registers the datasets. To add one, put a file
here: nothing else has to change. A file that cannot be imported does not stop the others; the
reason is reported when a dataset is asked for that nobody registered.
"""

from __future__ import annotations

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from yacs.config import CfgNode

from dassl.utils.plugins import extend_cfg_by, import_files
from datasets.base import BenchmarkDataset

__all__ = ["BenchmarkDataset", "extend_cfg", "failed_imports", "modules"]

modules, failed_imports = import_files(__name__, __path__)


def extend_cfg(cfg: CfgNode) -> None:
    """Adds the settings of every dataset to a configuration."""
    extend_cfg_by(modules.values(), cfg)
