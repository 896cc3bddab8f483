"""Worker processes that live as long as their loader, and draw what restarted ones would draw.

What a seed fixes. Without workers, everything is drawn from the generators of the main process,
in upstream's order: per pass one number that is not used, one for the shuffle, then the
transforms of one image after the other. With workers (DATALOADER.NUM_WORKERS = n), each pass draws
two numbers from torch's generator, a seed s for the workers and one for the shuffle; batch i is
transformed with the generators of "stream" i mod n, which start every pass from s + i mod n. That
is what n workers draw that are started anew for each pass, as upstream's are. It depends on n, but
not on how many processes the machine at hand has cores for.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from dassl.utils import set_random_seed
from dassl.utils.random_state import random_state, set_random_state


class Loader(DataLoader):
    """A DataLoader whose workers start on the first pass and stay.

    A dataset may define `prepare_workers(n_workers)`, called before they start. There can be one
    pass at a time: a new one ends the old one.

    Args:
        dataset: maps an index to an item.
        batch_size: items per batch.
        sampler: order of the indices.
        num_workers: streams of random numbers (see the module's text); 0: no workers.
        drop_last: leave out an incomplete last batch.
        pin_memory: put batches into memory that a GPU copies from faster.
        processes: at most so many carry the streams; 0: one a core.
        ahead: so many items are read before they are wanted, or a batch a process if that is
            more; 0: two batches a process, as in torch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        sampler: Sampler[int],
        num_workers: int,
        drop_last: bool,
        pin_memory: bool,
        processes: int = 0,
        ahead: int = 0,
    ) -> None:
        n_batches = -(-len(sampler) // batch_size)
        n_processes = count_processes(num_workers, processes or usable_cores(), n_batches)
        settings: dict[str, Any] = {}
        if n_processes:
            shared = torch.zeros(2, dtype=torch.int64).share_memory_()  # number of the pass, seed
            sampler = _PassSampler(sampler, shared)
            start = partial(_install_streams, shared, num_workers)
            settings = {"persistent_workers": True, "worker_init_fn": start}
            if ahead:
                settings["prefetch_factor"] = -(-ahead // (n_processes * batch_size))
        self._started = False
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=n_processes,
            drop_last=drop_last,
            pin_memory=pin_memory,
            **settings,
        )

    def __iter__(self) -> Iterator:
        if not self.num_workers or self._started:
            return super().__iter__()
        prepare = getattr(self.dataset, "prepare_workers", None)
        if prepare is not None:
            prepare(self.num_workers)
        self._started = True
        iterator = super().__iter__()
        _keep_queues_until_workers_stop(iterator)
        return iterator


def plain_sampler(loader: DataLoader) -> Sampler[int]:
    """Returns the sampler that a loader was given."""
    sampler = loader.sampler
    return sampler.sampler if isinstance(sampler, _PassSampler) else sampler


def advance_rng_like_a_pass() -> None:
    """Draws what the main process draws for a pass that is neither shuffled nor transformed at
    random, with workers or without: for whoever has its results already."""
    torch.empty((), dtype=torch.int64).random_()


def _keep_queues_until_workers_stop(iterator: Iterator) -> None:
    """Lets the workers be told to stop whenever the iterator goes.

    An iterator that is part of a reference cycle, as after every error in a worker (torch 2.15),
    is collected together with its queues, and Python closes those first: the iterator then waits
    5 s for each worker in vain. Something outside of the cycle that refers to the queues, until
    just before the iterator goes, avoids it.
    """
    queues = getattr(iterator, "_index_queues", None)
    weakref.finalize(iterator, lambda queues: None, queues).atexit = False


def usable_cores() -> int:
    """Returns the number of cores this process may run on, counted as torch's warning does."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_processes(n_streams: int, n_cores: int, n_batches: int) -> int:
    """Returns how many processes share `n_streams` streams: the largest divisor that pays.

    More processes than cores only compete with each other, more than batches would idle. It must
    divide `n_streams`: then the batches of a stream all go to one process, which carries it on.
    """
    useful = min(n_streams, n_cores, max(n_batches, 1))
    return max((n for n in range(1, useful + 1) if n_streams % n == 0), default=0)


class _PassSampler(Sampler[int]):
    """Draws and publishes the workers' seed of each pass, then yields what `sampler` yields.

    torch itself draws the seed when workers start, so the first pass draws none. The body runs
    when the first index is asked for; by then the workers have done with the pass before.
    """

    def __init__(self, sampler: Sampler[int], shared: Tensor) -> None:
        self.sampler = sampler
        self.shared = shared
        self.passes = 0

    def __iter__(self) -> Iterator[int]:
        if self.passes > 0:
            self.shared[1] = torch.empty((), dtype=torch.int64).random_()
        self.shared[0] = self.passes
        self.passes += 1
        yield from self.sampler

    def __len__(self) -> int:
        return len(self.sampler)


def _install_streams(shared: Tensor, n_streams: int, worker_id: int) -> None:
    """Runs in a new worker: has its batches fetched under the right stream."""
    dataset = get_worker_info().dataset
    fetch = getattr(dataset, "__getitems__", None) or partial(_fetch_one_by_one, dataset)
    dataset.__getitems__ = _Streams(fetch, shared, n_streams)  # torch asks for whole batches here


def _fetch_one_by_one(dataset: Dataset, indices: list[int]) -> list:
    return [dataset[index] for index in indices]


class _Streams:
    """Fetches batches; before each, switches the global generators to the batch's stream."""

    def __init__(self, fetch: Callable[[list[int]], list], shared: Tensor, n_streams: int) -> None:
        info = get_worker_info()
        self.fetch = fetch
        self.shared = shared
        self.n_streams = n_streams
        self.worker, self.n_workers = info.id, info.num_workers
        self.first_seed = info.seed - info.id  # torch's seed of the first pass
        self.passes = -1

    def __call__(self, indices: list[int]) -> list:
        if self.passes != int(self.shared[0]):
            self._start_pass()
        # Batches are dealt to the workers in turn, from worker 0 on in every pass.
        self._switch_to((self.worker + self.batches * self.n_workers) % self.n_streams)
        self.batches += 1
        return self.fetch(indices)

    def _start_pass(self) -> None:
        self.passes = int(self.shared[0])
        self.seed = int(self.shared[1]) if self.passes > 0 else self.first_seed
        self.batches = 0
        self.stream = -1
        self.states: dict[int, dict] = {}  # of the streams that wait

    def _switch_to(self, stream: int) -> None:
        if stream == self.stream:
            return
        if self.stream >= 0:
            self.states[self.stream] = random_state()
        if stream in self.states:
            set_random_state(self.states.pop(stream))
        else:
            set_random_seed(self.seed + stream)
        self.stream = stream
