"""The domain and class samplers where the goldens do not reach: orders, and when a pass ends."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from dassl.data.samplers import RandomClassSampler, RandomDomainSampler, SeqDomainSampler
from tests.data.helpers_loading import seed_all


def items_of(domains: list[int], labels: list[int] | None = None) -> list[SimpleNamespace]:
    labels = labels or [0] * len(domains)
    return [SimpleNamespace(domain=d, label=c) for d, c in zip(domains, labels, strict=True)]


@pytest.mark.parametrize(
    "domains",
    [[2, 2, 2, 1, 1, 1, 0, 0, 0], [1, 2, 0] * 3, [7, 7, 7, 3, 3, 3, 5, 5, 5]],
    ids=["descending", "mixed", "gaps"],
)
def test_sequential_domains_come_in_the_order_of_their_numbers(domains):
    """In every batch, whatever the order in which they appear in the data."""
    seed_all(1)
    order = list(SeqDomainSampler(items_of(domains), batch_size=3))
    numbers = sorted(set(domains))
    assert [domains[i] for i in order] == numbers * 3
    assert sorted(order) == list(range(9))


def test_sequential_domains_draw_in_the_order_of_their_numbers():
    domains = [2] * 5 + [1] * 5 + [0] * 5
    ids = {d: [i for i, domain in enumerate(domains) if domain == d] for d in range(3)}
    sampler = SeqDomainSampler(items_of(domains), batch_size=6)
    random.seed(4)
    first = [i for d in range(3) for i in random.sample(ids[d], 2)]
    random.seed(4)
    assert list(sampler)[:6] == first


@pytest.mark.parametrize("sampler", [SeqDomainSampler, RandomDomainSampler])
@pytest.mark.parametrize(
    ("sizes", "share", "batches"),
    [
        ((4, 4), 2, 2),  # both divide evenly: all items come
        ((6, 4), 2, 2),  # the second one does, and ends the pass
        ((5, 7), 2, 2),  # neither does
        ((2, 9), 2, 1),  # just one share
        ((3, 3), 1, 3),
    ],
)
def test_a_pass_ends_when_a_domain_has_no_full_share_left(sampler, sizes, share, batches):
    domains = [d for d, size in enumerate(sizes) for _ in range(size)]
    seed_all(1)
    made = sampler(items_of(domains), batch_size=2 * share)
    assert len(made) == batches * 2 * share
    for _ in range(3):
        order = list(made)
        assert len(order) == len(set(order)) == batches * 2 * share
        for start in range(0, len(order), 2 * share):
            batch = [domains[i] for i in order[start : start + 2 * share]]
            assert batch.count(0) == batch.count(1) == share


def test_random_domains_are_chosen_among_those_in_order_of_appearance():
    """As in the public engine, which sorts the domains of the sequential sampler alone."""
    domains = [2] * 4 + [0] * 4 + [1] * 4
    sampler = RandomDomainSampler(items_of(domains), batch_size=4, n_domain=2)
    random.seed(3)
    chosen = random.sample([2, 0, 1], 2)
    random.seed(3)
    first = list(sampler)[:4]
    assert [domains[i] for i in first] == [chosen[0]] * 2 + [chosen[1]] * 2


@pytest.mark.parametrize(
    ("sizes", "passes"),
    [
        ((4, 4), 4),  # both divide evenly into two groups: all of them come
        ((5, 4), 4),  # the item too many is left out
        ((2, 2), 2),  # just one group each
        ((1, 2), 2),  # the first one is filled up
    ],
)
def test_groups_of_a_class(sizes, passes):
    labels = [c for c, size in enumerate(sizes) for _ in range(size)]
    seed_all(3)
    made = RandomClassSampler(items_of([0] * len(labels), labels), batch_size=4, n_ins=2)
    order = list(made)
    assert len(order) == 2 * passes == len(made)
    for start in range(0, len(order), 2):
        first, second = order[start : start + 2]
        assert labels[first] == labels[second]
        assert first != second or sizes[labels[first]] == 1


def test_random_classes_are_shuffled_and_chosen_in_order_of_appearance():
    labels = [2, 2, 0, 0, 1, 1]
    sampler = RandomClassSampler(items_of([0] * 6, labels), batch_size=4, n_ins=2)
    random.seed(5)
    groups = {2: [0, 1], 0: [2, 3], 1: [4, 5]}
    for group in groups.values():
        random.shuffle(group)
    expected = [i for label in random.sample([2, 0, 1], 2) for i in groups[label]]
    random.seed(5)
    assert list(sampler) == expected
