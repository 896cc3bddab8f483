"""Samplers: the order in which a loader visits the data source.

A data source is a sequence of items with `.label` and `.domain`. The domain and class samplers
draw from Python's `random` (and NumPy's generator where noted) and yield whole batches one after
the other, so they go with a loader of the same batch size. They run once when built, to count
themselves. That consumes random numbers, and as the number of batches may depend on the draw, a
later pass may be shorter or longer than `len(sampler)` says.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError, not_one_of


def _indices_by(data_source: Sequence[Any], attribute: str) -> dict[int, list[int]]:
    """Groups item indices by an attribute; groups in order of first appearance."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(groups)


class _DomainSampler(Sampler[int]):
    """Batches with equally many items of each of `n_domain` domains, without replacement.

    A pass ends when any of the domains just used has too few items left for another batch.

    Args:
        data_source: items with `.domain`.
        batch_size: items per batch.
        n_domain: domains per batch; 0, None or less means all.

    Raises:
        ConfigError: (a ValueError) the batch cannot be divided evenly, there are fewer domains
            than asked for, or a domain is smaller than its share of one batch.
    """

    def __init__(
        self, data_source: Sequence[Any], batch_size: int, n_domain: int | None = 0
    ) -> None:
        self.data_source = data_source
        self.batch_size = batch_size
        self.domain_dict = _indices_by(data_source, "domain")
        self.domains = list(self.domain_dict)
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.domains)
        self._check()
        self.n_img_per_domain = batch_size // self.n_domain
        self.length = sum(1 for _ in self)

    def _check(self) -> None:
        name = type(self).__name__
        if not 0 < self.n_domain <= len(self.domains):
            raise ConfigError(
                f"{name} got n_domain {self.n_domain}, but the data has {len(self.domains)} "
                "domain(s); lower DATALOADER.TRAIN_X.N_DOMAIN (or TRAIN_U), 0 means all."
            )
        if self.batch_size % self.n_domain:
            raise ConfigError(
                f"{name} got batch size {self.batch_size}, which {self.n_domain} domains cannot "
                f"share evenly; use a multiple of {self.n_domain}."
            )
        share = self.batch_size // self.n_domain
        small = {d: len(ids) for d, ids in self.domain_dict.items() if len(ids) < share}
        if small:
            counts = ", ".join(f"domain {d} has {n}" for d, n in small.items())
            raise ConfigError(
                f"{name} needs {share} items of each domain per batch of {self.batch_size}, but "
                f"{counts}; use a smaller batch."
            )

    def _domains_of_next_batch(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        """Yields indices; one `random.sample` per domain of each batch."""
        left = {domain: list(indices) for domain, indices in self.domain_dict.items()}
        order: list[int] = []
        exhausted = False
        while not exhausted:
            for domain in self._domains_of_next_batch():
                chosen = random.sample(left[domain], self.n_img_per_domain)
                order += chosen
                # Keep the order of the rest: `random.sample` picks by position.
                taken = set(chosen)
                left[domain] = [index for index in left[domain] if index not in taken]
                exhausted |= len(left[domain]) < self.n_img_per_domain
        return iter(order)

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_DomainSampler):
    """Batches from `n_domain` random domains each, in random order.

    Draws one `random.sample` of domains per batch, then one of items for each domain.
    """

    def _domains_of_next_batch(self) -> list[int]:
        return random.sample(self.domains, self.n_domain)


class SeqDomainSampler(_DomainSampler):
    """Batches from all domains, in the order of their numbers.

    Draws one `random.sample` of items for each domain of a batch.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int) -> None:
        super().__init__(data_source, batch_size)

    def _domains_of_next_batch(self) -> list[int]:
        return sorted(self.domains)


class RandomClassSampler(Sampler[int]):
    """Batches of `batch_size // n_ins` random classes with `n_ins` items each.

    Classes with fewer items are filled up by drawing with replacement; items beyond a multiple of
    `n_ins` are left out of the pass. A pass ends when too few classes remain for a batch.

    Args:
        data_source: items with `.label`.
        batch_size: items per batch.
        n_ins: items per class and batch.

    Raises:
        ConfigError: (a ValueError) the batch is smaller than `n_ins`, or the data has too few
            classes for one batch.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int, n_ins: int) -> None:
        if batch_size < n_ins:
            raise ConfigError(
                f"RandomClassSampler got batch size {batch_size} and n_ins {n_ins}; a batch must "
                "hold at least n_ins items (DATALOADER.TRAIN_X.N_INS, or TRAIN_U)."
            )
        self.data_source = data_source
        self.batch_size = batch_size
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        self.index_dic = _indices_by(data_source, "label")
        self.labels = list(self.index_dic)
        if len(self.labels) < self.ncls_per_batch:
            raise ConfigError(
                f"RandomClassSampler needs {self.ncls_per_batch} classes per batch (batch size "
                f"{batch_size}, n_ins {n_ins}), but the data has {len(self.labels)}."
            )
        self.length = sum(1 for _ in self)

    def _groups_by_label(self) -> dict[int, list[list[int]]]:
        """Deals each class into groups of `n_ins`.

        Draws for each class, in order of first appearance, one `random.shuffle`; before it, for a
        class that is too small, one `numpy.random.choice`.
        """
        groups = {}
        for label, indices in self.index_dic.items():
            indices = list(indices)
            if len(indices) < self.n_ins:
                indices = np.random.choice(indices, size=self.n_ins, replace=True).tolist()
            random.shuffle(indices)
            starts = range(0, len(indices) - self.n_ins + 1, self.n_ins)
            groups[label] = [indices[start : start + self.n_ins] for start in starts]
        return groups

    def __iter__(self) -> Iterator[int]:
        """Yields indices; after the shuffles, one `random.sample` of classes per batch."""
        groups = self._groups_by_label()
        labels = list(self.labels)
        order: list[int] = []
        while len(labels) >= self.ncls_per_batch:
            for label in random.sample(labels, self.ncls_per_batch):
                order += groups[label].pop(0)
                if not groups[label]:
                    labels.remove(label)
        return iter(order)

    def __len__(self) -> int:
        return self.length


AVAI_SAMPLERS = (
    "RandomSampler",
    "SequentialSampler",
    "RandomDomainSampler",
    "SeqDomainSampler",
    "RandomClassSampler",
)


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Any] | None = None,
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler[int]:
    """Builds a sampler by name.

    Args:
        sampler_type: one of `AVAI_SAMPLERS`; the configuration's `DATALOADER.*.SAMPLER`.
        cfg: not used; part of the signature that callers know.
        data_source: items with `.label` and `.domain`.
        batch_size: items per batch.
        n_domain: domains per batch, for RandomDomainSampler; 0 means all.
        n_ins: items per class and batch, for RandomClassSampler.

    Raises:
        ConfigError: (a ValueError) the name is unknown or the sizes do not fit the data.
    """
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    if sampler_type == "RandomClassSampler":
        return RandomClassSampler(data_source, batch_size, n_ins)
    raise ConfigError(not_one_of("DATALOADER sampler", sampler_type, AVAI_SAMPLERS))
