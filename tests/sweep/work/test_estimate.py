"""Estimates rest on finished runs of the same kind; without any, the time is unknown."""

import pytest

from sweep.plan.request import Request
from sweep.plan.run import Run
from sweep.work.estimate import Estimator, duration

BASE_TO_NEW = Request("base2new", ("CoOp",), ("dtd", "eurosat"), (1, 2)).runs()


def runs(dataset: str, seed: int) -> tuple[Run, Run, Run]:
    """Training, test on new and test on all classes."""
    trained, *tests = [r for r in BASE_TO_NEW if (r.dataset, r.seed) == (dataset, seed)]
    new, whole = sorted(tests, key=lambda run: run.classes == "all")
    return trained, new, whole


def test_without_finished_runs_the_time_is_unknown():
    left = Estimator().time_left(BASE_TO_NEW)
    assert (left.known, left.unknown) == (0, 12)
    assert str(left) == "time left unknown"


def test_a_seed_tells_of_the_others_and_of_nothing_else():
    estimator = Estimator()
    for run, seconds in zip(runs("dtd", 1), (100.0, 20.0, 60.0)):
        estimator.learn(run, seconds)
    assert [estimator.seconds(run) for run in runs("dtd", 2)] == [100.0, 20.0, 60.0]
    assert [estimator.seconds(run) for run in runs("eurosat", 2)] == [None] * 3
    left = estimator.time_left([*runs("dtd", 2), *runs("eurosat", 2)])
    assert str(left) == "at least 3 min left, unknown for 3 of 6 runs"
    assert str(estimator.time_left(runs("dtd", 2))) == "about 3 min left"


def test_the_mean_of_several_seeds():
    estimator = Estimator()
    for seed, seconds in ((1, 100.0), (2, 140.0)):
        estimator.learn(runs("dtd", seed)[0], seconds)
    assert estimator.seconds(runs("dtd", 1)[0]) == 120.0


def test_several_at_once_take_as_long_as_the_longest_at_least():
    estimator = Estimator()
    for run, seconds in zip(runs("dtd", 1), (100.0, 20.0, 60.0)):
        estimator.learn(run, seconds)
    assert estimator.time_left(runs("dtd", 2), at_once=1).seconds == 180.0
    assert estimator.time_left(runs("dtd", 2), at_once=2).seconds == 100.0
    assert estimator.time_left([], at_once=2).seconds == 0.0


def test_trainings_grow_with_epochs_and_images_along_a_line():
    few_shot = Request("fewshot", ("CoOp",), ("dtd",), (1,), (1, 2, 4, 16)).runs()
    images = [run.shots * run.epochs for run in few_shot]
    assert images == [50, 200, 400, 3200]
    estimator = Estimator()
    estimator.learn(few_shot[0], 15 + 0.1 * 50)
    assert estimator.seconds(few_shot[1]) is None, "how long the start takes cannot be told yet"
    estimator.learn(few_shot[1], 15 + 0.1 * 200)
    assert estimator.seconds(few_shot[2]) == pytest.approx(15 + 0.1 * 400)
    assert estimator.seconds(few_shot[3]) == pytest.approx(15 + 0.1 * 3200)


def test_an_estimate_is_never_shorter_than_what_was_seen():
    few_shot = Request("fewshot", ("CoOp",), ("dtd",), (1,), (1, 2, 16)).runs()
    estimator = Estimator()
    estimator.learn(few_shot[0], 9.0)
    estimator.learn(few_shot[1], 8.0)  # chance
    assert estimator.seconds(few_shot[2]) == 8.0


def test_zero_shot_tells_nothing_of_training():
    zero_shot, *_, trained = Request("base2new", ("all",), ("digits",), (1,)).runs()
    estimator = Estimator()
    estimator.learn(zero_shot, 5.0)
    assert estimator.seconds(zero_shot) == 5.0
    assert estimator.seconds(trained) is None


def test_durations():
    assert [duration(s) for s in (9, 300, 7500, 200000)] == [
        "9 s",
        "5 min",
        "2 h 5 min",
        "2 days 7 h",
    ]
