"""Counting on the meta device, and what estimates make of the counts."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from benchmarks import on_paper
from benchmarks.gpu_day.plan import PARTS
from benchmarks.launches import META, Card, Kernel, count, meta_device_works
from benchmarks.measure import count_flops
from benchmarks.on_paper import Job, estimate, table_jobs, terms, total
from benchmarks.performance_tables import (
    DOCUMENT,
    RESULTS,
    assumed,
    fill,
    gpu_day,
    paper_steps,
)
from benchmarks.performance_tables import on_paper as on_paper_table
from benchmarks.text_encoding import Bench, Case, class_names
from benchmarks.whole_job_data import SMALL

CARD = Card(1e12, 1e9, 4, 0.5, 0.5, 1e-6, 4e-6)


# --- counting -------------------------------------------------------------------------------------


def test_views_are_no_kernels_and_each_operation_is_one():
    x, weight = torch.empty(300, 64, device=META), torch.empty(256, 64, device=META)

    def work() -> None:
        y = F.linear(x, weight).view(3, 100, 256).transpose(1, 2)[:, :5]  # all but one are views
        y.relu_()
        torch.empty(7, device=META)

    product, relu = count(work)
    assert (product.name, product.flops, product.tiles) == ("mm", 2 * 300 * 64 * 256, 3 * 2)
    assert product.bytes == 4 * (300 * 64 + 256 * 64 + 300 * 256)
    assert (relu.name, relu.flops, relu.tiles) == ("relu_", 0, 0)


def test_attention_is_one_kernel_forward_and_one_backward():
    q = torch.empty(2, 3, 5, 64, device=META, requires_grad=True)
    mask = torch.empty(2, 1, 5, 8, device=META)

    def work() -> None:
        k = torch.empty(2, 3, 8, 64, device=META)
        F.scaled_dot_product_attention(q, k, k, mask).sum().backward()

    names = [kernel.name for kernel in count(work) if "attention" in kernel.name]
    assert names == [f"_scaled_dot_product_efficient_attention{w}" for w in ("", "_backward")]


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp"])
def test_operations_are_those_of_the_same_step_on_a_cpu(method):
    case = Case("step", method, 5, 4)
    with meta_device_works():
        kernels = count(Bench(META, "fp32", class_names(), SMALL).works(case)["ours"])
    on_a_cpu = Bench(torch.device("cpu"), "fp32", class_names(), SMALL).works(case)["ours"]
    on_a_cpu()
    # The trunk's keys are copied into the tiles on a GPU, and padding differs.
    assert sum(k.flops for k in kernels) == pytest.approx(count_flops(on_a_cpu), rel=0.15)
    assert 100 < len(kernels) < 1000


def test_a_kernel_takes_the_longest_of_three_times():
    of_operations = Kernel("mm", 10**9, 100, 4)
    with_idle_multiprocessors = Kernel("mm", 10**9, 100, 1)
    of_bytes, of_nothing = Kernel("add", 0, 10**6, 0), Kernel("add", 0, 4, 0)
    for kernel, seconds in (
        (of_operations, 2e-3),
        (with_idle_multiprocessors, 8e-3),
        (of_bytes, 2e-3),
        (of_nothing, 1e-6),
    ):
        assert CARD.device_seconds([kernel]) == pytest.approx(seconds)
    assert CARD.host_seconds([of_nothing] * 3) == pytest.approx(12e-6)


# --- estimates ------------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch):
    """Round numbers in place of what is measured and counted."""
    core = {"decode": 0.01, "view": 0.001, "test": 0.016}
    monkeypatch.setattr(on_paper, "core_seconds", lambda *_: core)
    monkeypatch.setattr(on_paper, "start_seconds", lambda: 5.0)
    monkeypatch.setattr(on_paper, "image_seconds", lambda: 0.1)
    kernels = {1: 1000, 3: 1200, 100: 5000}
    monkeypatch.setattr(
        on_paper, "counted", lambda case: (Kernel("add", 0, 0, 0),) * kernels[case.batch]
    )


def test_terms(known):
    found = terms(Job("CoCoOp", "eurosat", 5, 1, images=80, epochs=10, test=1600))
    assert found["start"] == 5
    assert found["views"] == pytest.approx((80 * 0.01 + 800 * 0.001) / 8)
    assert found["view features"] == pytest.approx(80)
    assert found["steps"] == pytest.approx(800 * 1000 * 2e-6)
    assert found["steps, launched one by one"] == pytest.approx(800 * 1000 * 4e-6)
    assert found["steps, seeds together"] == pytest.approx(800 * 1200 * 2e-6 / 3)
    assert found["test images"] == pytest.approx(1600 * 0.016 / 16)
    assert found["test text"] == pytest.approx(16 * 5000 * 2e-6)
    assert total(found) == pytest.approx(
        sum(v for k, v in found.items() if not k.startswith("steps, "))
    )


def test_images_that_do_not_fit_are_decoded_in_each_epoch(known):
    many = on_paper.ASSUMED["cache_bytes"][0] // (500 * 375 * 3) + 1
    found = terms(Job("CoOp", "imagenet", 1000, 1, images=int(many), epochs=10))
    assert found["views"] == pytest.approx(many * 10 * 0.011 / 8)
    assert found["test images"] == found["test text"] == 0


def test_the_table_has_154_runs_and_encodes_each_test_image_once(known):
    jobs = table_jobs()
    assert len(jobs) == 154
    encoded = [(job.dataset, job.test) for job in jobs if not job.stored]
    assert len(encoded) == 22
    imagenet = next(j for j in jobs if j.dataset == "imagenet" and j.method == "CoCoOp" and j.steps)
    assert (imagenet.n_cls, imagenet.images, imagenet.epochs, imagenet.batch) == (500, 8000, 10, 1)
    coop = next(j for j in jobs if j.dataset == "eurosat" and j.method == "CoOp" and j.steps)
    assert (coop.images, coop.epochs, coop.batch, coop.n_ctx) == (80, 200, 32, 4)
    assert not any(job.steps for job in jobs if job.method == "CLIP")


def test_four_at_once_cannot_beat_a_quarter_nor_the_card(known):
    one = Job("CoCoOp", "eurosat", 5, 1, images=80, epochs=10)
    found = estimate((one,) * 4)
    assert found["total"] == pytest.approx(4 * total(terms(one)))
    assert found["four at once"] == pytest.approx(found["view features"] + found["steps"])
    assert "four at once" not in estimate((one,))


# --- tables ---------------------------------------------------------------------------------------


@pytest.fixture
def report():
    return json.loads((RESULTS / "on_paper.json").read_text(encoding="utf-8"))


def test_what_was_not_measured_is_said(tmp_path, report):
    day = gpu_day(tmp_path)
    assert day.startswith("**Not yet measured: no GPU was at hand.**")
    assert day.count("| | not yet measured |") == len(PARTS)
    assert "| measured on a GPU | not yet measured |" in on_paper_table(report, tmp_path)
    assert assumed(report, tmp_path).count("not yet measured") == 5


def test_a_day_fills_the_tables(tmp_path, report):
    where = {"time": "2026-12-01T10:00:00", "card": "NVIDIA H100", "driver": "580", "torch": "2.11"}
    where |= {"commit": "0123456789", "verdict": "bars missed"}
    (tmp_path / "homework.json").write_text(
        json.dumps({**where, "results": [{"key": "eurosat CoCoOp", "whole_seconds": 31.25}]})
    )
    (tmp_path / "machine.json").write_text(
        json.dumps({**where, "results": [{"key": "rates", "launch_seconds": 5e-6}]})
    )
    day = gpu_day(tmp_path)
    assert "Measured 2026-12-01 on NVIDIA H100, driver 580, torch 2.11, at 0123456." in day
    assert "seconds end to end | at most 30.0 | 31.2, **missed** |" in day
    assert "| launch by torch: seconds |  | 5e-06 |" in day
    assert day.count("not yet measured") == len(PARTS) - 2
    assert "| measured on a GPU | 31.2 |" in on_paper_table(report, tmp_path)
    assert "may double it | 5e-06 |" in assumed(report, tmp_path)


def test_the_document_is_what_the_results_say(report):
    day = RESULTS / "gpu"
    blocks = {"gpu_day": gpu_day(day), "on_paper": on_paper_table(report, day)}
    blocks |= {"paper_steps": paper_steps(report), "assumed": assumed(report, day)}
    text = DOCUMENT.read_text(encoding="utf-8")
    assert fill(text, blocks) == text
