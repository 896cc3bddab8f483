"""Evaluators by name."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from dassl.utils.logger import get_logger
from dassl.utils.registry import Registry, check_availability

logger = get_logger(__name__)

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> Any:
    """Builds the evaluator that TEST.EVALUATOR names.

    Args:
        cfg: the whole configuration.
        **kwargs: passed on, for example `lab2cname`.
    """
    name = cfg.TEST.EVALUATOR
    check_availability(name, EVALUATOR_REGISTRY.registered_names(), "TEST.EVALUATOR")
    if cfg.VERBOSE:
        logger.info(f"Loading evaluator: {name}")
    return EVALUATOR_REGISTRY.get(name)(cfg, **kwargs)
