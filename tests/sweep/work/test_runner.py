"""The runner: failures, restarts, busy runs, and what counts as finished."""

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dassl.utils import ConfigError, MissingFileError, UnknownNameError
from dassl.utils.logger import talking
from sweep.cli import build_parser, executor_of, main, part_of
from sweep.plan.data import without_missing
from sweep.plan.request import Request
from sweep.plan.run import Run, evaluation_of
from sweep.work import execute as execute_module
from sweep.work.execute import Job, Outcome, execute
from sweep.work.folder import RunFolder
from sweep.work.gpus import Places
from sweep.work.runner import Sweep

FAST = ("OPTIM.MAX_EPOCH", "2", "DATASET.NUM_SHOTS", "2")
TRAIN = Run("CoOp", "digits", "CoOp/tiny", 2, "base", 1, ("OPTIM.MAX_EPOCH", "2"))
NEW = evaluation_of(TRAIN, classes="new")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


class Here:
    """An executor that does every job at once, in this process."""

    def __init__(self, act=execute) -> None:
        self.act, self.ended, self.jobs = act, [], []
        self.free = 1

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.ended.append((job, self.act(job)))

    def wait(self, timeout: float | None = None) -> list:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        pass


def sweep_of(runs: Sequence[Run], output: Path, root: str = "data") -> Sweep:
    return Sweep([Job(run, output, root) for run in runs])


def record(run: Run, output: Path, accuracy: float = 50.0, **changes: object) -> Path:
    """Writes what a finished run leaves."""
    folder = run.folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "status": "finished",
        "split": "test",
        "seed": run.seed,
        "trainer": run.trainer,
        "epoch": run.epoch_tested,
        "metrics": {"accuracy": accuracy},
        **changes,
    }
    path = folder / "results.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(content) + "\n")
    return path


def test_train_then_test_then_nothing_to_do(data: Path, tmp_path: Path, capsys):
    for states in (["done", "done"], ["known", "known"]):
        outcomes = [execute(Job(run, tmp_path, str(data))) for run in (TRAIN, NEW)]
        assert [o.state for o in outcomes] == states
    files = {path.name for path in TRAIN.folder(tmp_path).iterdir()}
    assert files >= {"results.jsonl", "config.yaml", "run.json", "log.txt", "prompt_learner"}
    saved = {path.name for path in (TRAIN.folder(tmp_path) / "prompt_learner").iterdir()}
    assert saved == {"checkpoint", "model.pth.tar-2"}, "others were there to resume from"
    sweep = sweep_of((TRAIN, NEW), tmp_path, str(data))
    sweep.find_finished()
    executor = Here()
    sweep.run(executor)
    assert executor.jobs == []


def test_an_interrupted_training_is_resumed_with_the_same_numbers(
    data: Path, tmp_path: Path, monkeypatch
):
    run = replace(TRAIN, opts=("OPTIM.MAX_EPOCH", "4"))
    expected = execute(Job(run, tmp_path / "whole", str(data))).accuracy
    from dassl.engine import SimpleTrainer

    def stop(self) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SimpleTrainer, "before_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(Job(run, tmp_path, str(data)))
    assert RunFolder(run, tmp_path).state() == "waiting"
    outcome = execute(Job(run, tmp_path, str(data)))
    assert (outcome.state, outcome.accuracy) == ("done", expected)
    log = "".join(path.read_text() for path in run.folder(tmp_path).glob("log.txt*"))
    assert "Previous epoch: 2" in log


def test_the_best_epoch_on_validation(data: Path, tmp_path: Path):
    run = replace(TRAIN, opts=("OPTIM.MAX_EPOCH", "2", "TEST.FINAL_MODEL", "best_val"))
    test = evaluation_of(run, classes="new")
    assert (run.epoch_tested, test.epoch) == (None, 0)
    outcomes = [execute(Job(r, tmp_path, str(data))) for r in (run, test)]
    assert [o.state for o in outcomes] == ["done", "done"], outcomes
    best = [RunFolder(r, tmp_path).record()["epoch"] for r in (run, test)]
    assert best[0] == best[1]


def test_a_damaged_checkpoint_is_no_obstacle(data: Path, tmp_path: Path):
    folder = TRAIN.folder(tmp_path) / "prompt_learner"
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    (folder / "model.pth.tar-1").write_bytes(b"no checkpoint")
    assert execute(Job(TRAIN, tmp_path, str(data))).state == "done"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "begun"},
        {"split": "val"},
        {"seed": 2},
        {"epoch": 1},
        {"metrics": {}},
        {"trainer": "CoCoOp"},
    ],
)
def test_a_folder_or_another_record_does_not_make_a_run_finished(tmp_path: Path, changes: dict):
    record(TRAIN, tmp_path, **changes)
    assert RunFolder(TRAIN, tmp_path).record() is None


def test_a_changed_default_makes_a_run_unfinished_and_a_new_setting_does_not(
    data: Path, tmp_path: Path
):
    assert execute(Job(TRAIN, tmp_path, str(data))).state == "done"
    path = TRAIN.folder(tmp_path) / "config.yaml"
    text = path.read_text()
    assert "  VAL_PERCENT: 0.1\n" in text
    path.write_text(text.replace("  VAL_PERCENT: 0.1\n", ""))  # as if it had come later
    assert RunFolder(TRAIN, tmp_path).record() is not None
    path.write_text(text.replace("MOMENTUM: 0.9", "MOMENTUM: 0.8"))
    assert RunFolder(TRAIN, tmp_path).record() is None
    assert not RunFolder(TRAIN, tmp_path).can_resume()
    assert execute(Job(TRAIN, tmp_path, str(data))).state == "done"


def test_half_a_record_counts_as_unfinished(tmp_path: Path, capsys):
    path = record(TRAIN, tmp_path)
    assert RunFolder(TRAIN, tmp_path).record()["metrics"]["accuracy"] == 50.0
    path.write_text(path.read_text()[:-20])
    assert RunFolder(TRAIN, tmp_path).record() is None
    assert "incomplete line" in capsys.readouterr().out


def test_one_failure_does_not_stop_the_others(tmp_path: Path, capsys):
    other = replace(TRAIN, seed=2)

    def act(job: Job) -> Outcome:
        if job.run == TRAIN:
            return Outcome("failed", error="the disk is full")
        return Outcome("done", 90.0, 1.0)

    runs = (TRAIN, NEW, other, evaluation_of(other, classes="new"))
    sweep = sweep_of(runs, tmp_path)
    executor = Here(act)
    sweep.run(executor)
    assert [job.run for job in executor.jobs] == [TRAIN, *runs[2:]]
    assert sweep.failed == {TRAIN: "the disk is full", NEW: "not run: its training failed"}
    text = sweep.summary("python -m sweep run base2new")
    assert "2 of 4 runs finished, 2 failed" in text
    assert "python -m sweep run base2new" in text
    assert str(TRAIN.folder(tmp_path)) in text
    assert "FAILED  CoOp digits, base classes, 2 shots, seed 1: the disk is full" in (
        capsys.readouterr().out
    )


def test_errors_are_kept_beside_the_results(tmp_path: Path, data: Path, monkeypatch):
    bad = replace(TRAIN, opts=("OPTIM.MAX_EPOCH", "2"), dataset="eurosat")
    outcome = execute(Job(bad, tmp_path, str(data)))
    assert outcome.state == "failed"
    assert "EuroSAT was looked for" in outcome.error
    assert "EuroSAT was looked for" in (bad.folder(tmp_path) / "error.txt").read_text()
    assert RunFolder(bad, tmp_path).state() == "failed"

    def crash(args: Namespace) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(execute_module.train, "main", crash)
    outcome = execute(Job(TRAIN, tmp_path, str(data)))
    assert (outcome.state, "No space left" in outcome.error) == ("failed", True)
    assert "Traceback" in (TRAIN.folder(tmp_path) / "error.txt").read_text()


def test_an_evaluation_without_its_training_says_so(tmp_path: Path):
    sweep = sweep_of((NEW,), tmp_path)
    sweep.find_finished()
    sweep.run(Here())
    assert sweep.failed == {NEW: "not run: nothing trained it yet"}
    record(TRAIN, tmp_path)
    again = sweep_of((NEW,), tmp_path)
    again.find_finished()
    executor = Here(lambda job: Outcome("done", 1.0))
    again.run(executor)
    assert [job.run for job in executor.jobs] == [NEW]


def test_two_processes_do_not_work_on_one_run(tmp_path: Path, data: Path):
    with RunFolder(TRAIN, tmp_path).lock():
        assert execute(Job(TRAIN, tmp_path, str(data))).state == "busy"
        assert RunFolder(TRAIN, tmp_path).state() == "running"
    assert RunFolder(TRAIN, tmp_path).state() == "waiting"


def test_a_busy_run_is_tried_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("sweep.work.runner.BUSY_RETRY", 0.01)
    answers = iter([Outcome("busy", error="another process"), Outcome("known", 80.0)])
    sweep = sweep_of((TRAIN,), tmp_path)
    sweep.run(Here(lambda job: next(answers)))
    assert sweep.done == {TRAIN}


def test_missing_data_are_named_and_may_be_left_out(tmp_path: Path):
    (tmp_path / "eurosat" / "2750").mkdir(parents=True)
    runs = Request("base2new", ("CoOp",), ("eurosat", "dtd", "digits"), (1,)).runs()
    with pytest.raises(MissingFileError) as error:
        without_missing(runs, tmp_path, skip=False)
    message = str(error.value)
    assert "dtd: there is no" in message
    assert "there are: eurosat, digits" in message
    assert "--skip-missing" in message
    assert len(without_missing(runs, tmp_path, skip=True)) == 6
    only = Request("base2new", ("CoOp",), ("dtd",), (1,)).runs()
    with pytest.raises(MissingFileError, match="name another --root"):
        without_missing(only, tmp_path, skip=True)


def test_shards_are_a_partition():
    runs = Request("cocoop-1").runs()
    parser = build_parser()
    parts = [part_of(runs, parser.parse_args(["run", "x", "--shard", f"{i}/5"])) for i in range(5)]
    assert sorted(map(str, runs)) == sorted(str(run) for part in parts for run in part)
    for part in parts:
        assert all(run.source is None or run.source in part for run in part)
    with pytest.raises(ConfigError, match="expected I/N"):
        part_of(runs, parser.parse_args(["run", "x", "--shard", "5/5"]))


def test_unknown_executor():
    with pytest.raises(UnknownNameError, match="Did you mean 'local'"):
        executor_of(Namespace(executor="locale"), 1, Places(("",), ("",)))


def test_dry_run_and_status(tmp_path: Path, capsys):
    flags = ["base2new", "--trainers", "CoOp", "--datasets", "digits", "--seeds", "1"]
    flags += ["--output", str(tmp_path / "out"), "--root", str(tmp_path)]
    assert main(["run", *flags, "--dry-run"]) == 0
    assert "3 runs: 1 to train" in capsys.readouterr().out
    assert not (tmp_path / "out").exists(), "a dry run leaves nothing behind"
    request = Request("base2new", ("CoOp",), ("digits",), (1,))
    request.save(tmp_path / "out")
    run = request.runs()[0]
    record(run, tmp_path / "out")
    RunFolder(run, tmp_path / "out").write(seconds=3.0)
    main(["status", "--output", str(tmp_path / "out")])
    assert "1 finished, 0 running, 0 failed, 2 waiting" in capsys.readouterr().out
    main(["run", *flags, "--dry-run"])
    assert "time left unknown until" in capsys.readouterr().out, "nothing like them is finished"


def test_a_folder_that_cannot_be_written_fails_the_run_alone(tmp_path: Path, data: Path):
    if os.geteuid() == 0:
        (tmp_path / "out").write_text("a file is in the way")
        outcome = execute(Job(TRAIN, tmp_path / "out", str(data)))
    else:
        (tmp_path / "out").mkdir(mode=0o500)
        outcome = execute(Job(TRAIN, tmp_path / "out", str(data)))
    assert outcome.state == "failed"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


# --- what is said meanwhile -----------------------------------------------------------------------


class Slow(Here):
    """An executor whose runs end at the second look."""

    looks = 0

    def wait(self, timeout: float | None = None) -> list:
        self.looks += 1
        return super().wait() if self.looks % 2 == 0 else []


@pytest.mark.parametrize(
    ("every", "flag", "begins", "running", "done"),
    [(0, "", 0, 0, 2), (1e-9, "", 0, 2, 2), (0, "verbose", 2, 0, 2), (1e-9, "quiet", 0, 0, 0)],
)
def test_as_many_lines_as_a_person_wants(
    every: float, flag: str, begins: int, running: int, done: int, tmp_path: Path, capsys
):
    jobs = [Job(run, tmp_path, "data") for run in (TRAIN, NEW)]
    sweep = Sweep(jobs, every=every)
    with talking(**({flag: True} if flag else {})):
        sweep.run(Slow(lambda job: Outcome("done", 50.0, 1.0)))
    lines = capsys.readouterr().out.splitlines()
    log = str(TRAIN.folder(tmp_path) / "log.txt")
    assert sum(" begins " in line for line in lines) == begins
    assert sum(" running " in line for line in lines) >= running
    assert bool(running) == any(" running " in line and log in line for line in lines)
    assert sum(" done " in line for line in lines) == done


def test_failures_are_told_in_any_case(tmp_path: Path, capsys):
    sweep = Sweep([Job(TRAIN, tmp_path, "data")])
    with talking(quiet=True):
        sweep.run(Here(lambda job: Outcome("failed", error="no weights")))
    assert "FAILED" in capsys.readouterr().out
    assert sweep.summary("again").startswith("0 of 1 run finished, 1 failed:")


def test_weights_that_cannot_be_had_are_told_once(data: Path, tmp_path: Path, monkeypatch, capsys):
    from dassl.utils.download import DownloadError
    from encoders import openai

    def nothing(url: str, *_: object, **__: object) -> None:
        raise DownloadError(f"{url} cannot be fetched: no network")

    monkeypatch.setattr(openai, "download", nothing)
    flags = ["--datasets", "digits", "--root", str(data), "--output", str(tmp_path / "out")]
    pair = ["--opts", "MODEL.BACKBONE.NAME", "ViT-B/16"]
    with pytest.raises(DownloadError) as error:
        main(["run", "base2new", *flags, *pair])
    assert str(error.value).count("cannot be fetched") == 1
    assert str(openai.weights_file("ViT-B/16")) in str(error.value)
    assert "--backbone tiny" in str(error.value)
    assert not (tmp_path / "out").exists()
