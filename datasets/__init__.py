"""Data sets, one file each; importing the package registers all of them."""

from datasets.base import BenchmarkDataset, extend_cfg
from datasets.digits import Digits
from datasets.eurosat import EuroSAT

__all__ = ["BenchmarkDataset", "Digits", "EuroSAT", "extend_cfg"]
