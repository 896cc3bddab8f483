"""The configuration tree: every default, and how YAML files and `KEY VALUE` pairs merge into it."""

from dassl.config.arguments import checked
from dassl.config.defaults import get_cfg_default
from dassl.config.find_file import find_config
from dassl.config.node import (
    Config,
    clean_cfg,
    collect_problems,
    mark_not_determining,
    not_determining,
    note_methods,
    noted_methods,
)

__all__ = [
    "Config",
    "checked",
    "clean_cfg",
    "collect_problems",
    "find_config",
    "get_cfg_default",
    "mark_not_determining",
    "not_determining",
    "note_methods",
    "noted_methods",
]
