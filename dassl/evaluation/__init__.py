"""Evaluators: from a model's outputs to the numbers that are reported."""

from dassl.evaluation.build import EVALUATOR_REGISTRY, build_evaluator
from dassl.evaluation.error_analysis import ErrorAnalysis
from dassl.evaluation.evaluator import Classification, EvaluatorBase

__all__ = [
    "EVALUATOR_REGISTRY",
    "Classification",
    "ErrorAnalysis",
    "EvaluatorBase",
    "build_evaluator",
]
