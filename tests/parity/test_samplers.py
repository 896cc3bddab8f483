"""Samplers against samplers.json: orders, lengths and random-number consumption."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest

from dassl.data.samplers import build_sampler
from tests.parity.helpers_transforms import GOLDEN, next_numbers, seed_all

DATA = json.loads((GOLDEN / "samplers.json").read_text(encoding="utf-8"))
ITEMS = [
    SimpleNamespace(label=label, domain=domain)
    for label, domain in zip(DATA["labels"], DATA["domains"])
]


def case_id(case: dict) -> str:
    return f"{case['sampler']}-batch{case['batch_size']}-seed{case['seed']}"


def build(case: dict):
    sizes = {key: case[key] for key in ("n_domain", "n_ins") if key in case}
    return build_sampler(case["sampler"], data_source=ITEMS, batch_size=case["batch_size"], **sizes)


@pytest.mark.parametrize("case", DATA["cases"], ids=case_id)
def test_orders_and_consumption(case):
    seed_all(case["seed"])
    sampler = build(case)
    assert len(sampler) == case["len"]
    for order in case["epochs"]:
        assert list(sampler) == order
    drawn = next_numbers()
    assert drawn == pytest.approx({name: case[name] for name in drawn}, abs=1e-9)


@pytest.mark.parametrize("case", DATA["cases"], ids=case_id)
def test_building_consumes_what_upstream_does(case):
    seed_all(case["seed"])
    build(case)
    assert random.random() == pytest.approx(case["python_random_after_build"], abs=1e-12)


def test_unknown_sampler():
    assert DATA["error_types"]["unknown"] == "ValueError"
    with pytest.raises(ValueError, match=r"'RandomDomain'.*SeqDomainSampler.*Did you mean"):
        build_sampler("RandomDomain", data_source=ITEMS)


def test_class_batch_smaller_than_instances():
    assert DATA["error_types"]["class_batch_smaller_than_instances"] == "ValueError"
    with pytest.raises(ValueError, match="batch size 4 and n_ins 8"):
        build_sampler("RandomClassSampler", data_source=ITEMS, batch_size=4, n_ins=8)


@pytest.mark.parametrize("name", ["RandomDomainSampler", "SeqDomainSampler"])
def test_domain_batch_not_divisible_is_a_value_error(name):
    """Upstream raises AssertionError; ours is a ValueError like every other wrong setting."""
    assert DATA["error_types"]["random_domain_batch_not_divisible"] == "AssertionError"
    with pytest.raises(ValueError, match="multiple of 3"):
        build_sampler(name, data_source=ITEMS, batch_size=4)


def test_too_few_domains_classes_or_items():
    with pytest.raises(ValueError, match="N_DOMAIN"):
        build_sampler("RandomDomainSampler", data_source=ITEMS, batch_size=4, n_domain=4)
    with pytest.raises(ValueError, match=r"needs 8 items .* domain 0 has 7, domain 2 has 7"):
        build_sampler("SeqDomainSampler", data_source=ITEMS, batch_size=24)
    with pytest.raises(ValueError, match="needs 6 classes"):
        build_sampler("RandomClassSampler", data_source=ITEMS, batch_size=12, n_ins=2)
