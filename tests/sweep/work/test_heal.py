"""Damage in a run's folder: the run starts anew by itself, says so, and ends with its numbers."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dassl.engine import SimpleTrainer, run_folder
from dassl.utils import CheckpointError, load_checkpoint
from dassl.utils.locks import file_lock
from sweep.plan.run import Run, evaluation_of
from sweep.work import execute as execute_module
from sweep.work import kept
from sweep.work.execute import Job, Outcome, execute
from sweep.work.folder import RunFolder
from sweep.work.runner import Sweep
from tests.runs import make_eurosat
from tests.sweep.work.test_runner import Here, record

TRAIN = Run(
    *("CoOp", "eurosat", "CoOp/tiny", 2, "base", 1),
    opts=("OPTIM.MAX_EPOCH", "4", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"),
)
NEW = evaluation_of(TRAIN, classes="new")
STOPPED_IN = 2  # epochs from 0: two are finished, and saved


@pytest.fixture(autouse=True)
def _said_anew():
    kept._said.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder in which all is finished."""
    output = tmp_path_factory.mktemp("whole")
    assert [execute(Job(run, output, str(data))).state for run in (TRAIN, NEW)] == ["done"] * 2
    return output


@pytest.fixture(scope="module")
def cut(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder in which the training was interrupted."""
    output = tmp_path_factory.mktemp("cut")

    def stop(self: SimpleTrainer) -> None:
        if self.epoch == STOPPED_IN:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleTrainer, "before_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(Job(TRAIN, output, str(data)))
    return output


@pytest.fixture
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "out"))


def accuracy(run: Run, output: Path) -> float:
    return RunFolder(run, output).record()["metrics"]["accuracy"]


# --- kinds of damage ------------------------------------------------------------------------------


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes() if path.is_file() else b""))

    return damage


def in_its_place(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "a file").write_text("x")


def a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


DAMAGE = {
    "cut": rewritten(lambda content: content[: len(content) // 2]),
    "empty": rewritten(lambda _: b""),
    "zeros": rewritten(lambda content: bytes(len(content))),
    "text": rewritten(lambda _: b"nothing of the kind"),
    "binary": rewritten(lambda _: bytes(range(256)) * 4),
    "deep": rewritten(lambda _: b"[" * 100_000),
    "number": rewritten(lambda _: b'{"metrics": {"accuracy": ' + b"1" * 5000 + b"}}"),
    "aliases": rewritten(
        lambda _: (
            b"a: &a [1,1,1,1,1,1,1,1,1]\n"
            + b"".join(
                f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n".encode()
                for x, y in zip("abcdefgh", "bcdefghi")
            )
        )
    ),
    "missing": lambda path: path.unlink(missing_ok=True),
    "folder": in_its_place,
    "pipe": a_pipe,
    "loop": a_loop,
}


def changed(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Another checkpoint, whole in itself."""

    def damage(path: Path) -> None:
        content = load_checkpoint(str(path))
        change(content)
        torch.save(content, path)

    return damage


OF_ANOTHER = {
    "another epoch": changed(lambda content: content.update(epoch=1)),
    "another seed": changed(lambda content: content["made_by"]["settings"].update(SEED=2)),
    "another recipe": changed(lambda c: c["made_by"]["settings"].update({"OPTIM.LR": 0.5})),
}
STATES = "progress*.pt"  # the newest and the one before
NEEDED = (STATES, "run.json", "config.yaml")
OTHERS = (
    *("progress.pt", "prompt_learner/checkpoint", "prompt_learner/model.pth.tar-2"),
    *("error.txt", "lock", "log.txt"),
)
OF_A_CUT_RUN = (
    *((name, kind) for name in (*NEEDED, "results.jsonl") for kind in DAMAGE),
    *((name, kind) for name in OTHERS for kind in ("cut", "binary", "missing", "folder", "pipe")),
)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["cut"], indirect=True)
@pytest.mark.parametrize(("name", "kind"), OF_A_CUT_RUN)
def test_an_interrupted_run_ends_with_its_numbers(
    name: str, kind: str, output: Path, whole: Path, data: Path
):
    folder = TRAIN.folder(output)
    found = sorted(folder.glob(name)) or [folder / name]
    assert len(found) == (2 if name == STATES else 1)
    for path in found:
        DAMAGE[kind](path)
    outcome = execute(Job(TRAIN, output, str(data)))
    assert (outcome.state, outcome.error) == ("done", "")
    assert outcome.accuracy == accuracy(TRAIN, whole)
    if name in NEEDED:
        assert "anew" in outcome.note, "it says so"
        assert (name if name != STATES else "progress.pt") in outcome.note
    assert len((folder / "results.jsonl").read_text().splitlines()) == 1
    assert execute(Job(TRAIN, output, str(data))).state == "known"


@pytest.mark.slow
@pytest.mark.parametrize("output", ["cut"], indirect=True)
def test_what_is_whole_is_gone_on_with(output: Path, whole: Path, data: Path):
    outcome = execute(Job(TRAIN, output, str(data)))
    assert (outcome.accuracy, outcome.note) == (accuracy(TRAIN, whole), "")
    logs = "".join(path.read_text() for path in TRAIN.folder(output).glob("log.txt*"))
    assert "Previous epoch: 2" in logs


@pytest.mark.slow
@pytest.mark.parametrize("output", ["cut"], indirect=True)
@pytest.mark.parametrize("place", range(8))
def test_a_flipped_bit_is_noticed(place: int, output: Path, whole: Path, data: Path):
    for path in TRAIN.folder(output).glob("**/*.pt*"):
        content = bytearray(path.read_bytes())
        content[len(content) * (2 * place + 1) // 16] ^= 1 << place
        path.write_bytes(content)
    outcome = execute(Job(TRAIN, output, str(data)))
    assert outcome.accuracy == accuracy(TRAIN, whole)
    assert "anew" in outcome.note


@pytest.mark.slow
@pytest.mark.parametrize("output", ["whole"], indirect=True)
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["run.json", "config.yaml", "results.jsonl"])
def test_a_finished_run(name: str, kind: str, output: Path, whole: Path, data: Path, capsys):
    """Intact records count while nothing speaks against them; others are made again."""
    path = TRAIN.folder(output) / name
    DAMAGE[kind](path)
    kept_anyhow = kind == "missing" and name != "results.jsonl"
    found = RunFolder(TRAIN, output).record()
    assert (found is not None) == kept_anyhow
    if kind not in ("missing", "empty"):
        assert str(path) in capsys.readouterr().out
    jobs = [Job(run, output, str(data)) for run in (TRAIN, NEW)]
    sweep = Sweep(jobs)
    sweep.find_finished()
    sweep.run(Here())
    assert (sweep.failed, sweep.done) == ({}, {TRAIN, NEW})
    for run in (TRAIN, NEW):
        assert accuracy(run, output) == accuracy(run, whole)
        assert len((run.folder(output) / "results.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("output", ["whole"], indirect=True)
@pytest.mark.parametrize("kind", ["cut", "empty", "binary", "missing", "folder", *OF_ANOTHER])
def test_weights_to_evaluate_are_trained_again(
    kind: str, output: Path, whole: Path, data: Path, capsys
):
    {**DAMAGE, **OF_ANOTHER}[kind](TRAIN.folder(output) / "prompt_learner" / "model.pth.tar-4")
    shutil.rmtree(NEW.folder(output))
    sweep = Sweep([Job(run, output, str(data)) for run in (TRAIN, NEW)])
    sweep.find_finished()
    assert sweep.done == {TRAIN}
    executor = Here()
    sweep.run(executor)
    assert [job.run for job in executor.jobs] == [NEW, TRAIN, NEW]
    assert sweep.failed == {}
    assert "again   CoOp eurosat, base classes" in capsys.readouterr().out
    for run in (TRAIN, NEW):
        assert accuracy(run, output) == accuracy(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["whole"], indirect=True)
def test_weights_to_test_again_are_trained_again(output: Path, whole: Path, data: Path):
    (TRAIN.folder(output) / "prompt_learner" / "model.pth.tar-4").write_bytes(b"x")
    outcome = execute(Job(TRAIN, output, str(data), error_analysis=True))
    assert (outcome.state, outcome.accuracy) == ("done", accuracy(TRAIN, whole))
    assert RunFolder(TRAIN, output).has_error_analysis()


def test_an_evaluation_alone_says_what_it_lacks(tmp_path: Path):
    sweep = Sweep([Job(NEW, tmp_path, "data")])
    record(TRAIN, tmp_path)
    sweep.find_finished()
    sweep.run(Here(lambda job: Outcome("untrained", error="its weights are lost")))
    assert sweep.failed == {NEW: "its weights are lost: what it evaluates has to be trained again"}


def test_what_cannot_be_trained_again_fails_once(tmp_path: Path):
    states = {TRAIN: "done", NEW: "untrained"}
    sweep = Sweep([Job(run, tmp_path, "data") for run in (TRAIN, NEW)])
    executor = Here(lambda job: Outcome(states[job.run], 1.0, error="lost"))
    sweep.run(executor)
    assert [job.run for job in executor.jobs] == [TRAIN, NEW, TRAIN, NEW]
    assert list(sweep.failed) == [NEW]


# --- what is not to blame -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("output", ["cut"], indirect=True)
def test_what_was_learned_is_kept_if_something_else_fails(
    output: Path, whole: Path, data: Path, monkeypatch
):
    """CLIP's weights cannot be read, an image is gone: mended, the training goes on."""

    def fail(_: object) -> None:
        raise CheckpointError("/clip/ViT-B-16.pt is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(execute_module.train, "main", fail)
        assert execute(Job(TRAIN, output, str(data))).state == "failed"
    outcome = execute(Job(TRAIN, output, str(data)))
    assert (outcome.accuracy, outcome.note) == (accuracy(TRAIN, whole), "")


def test_a_run_that_fails_the_same_way_again_says_so(tmp_path: Path, monkeypatch):
    def fail(_: object) -> None:
        raise CheckpointError("no such weights")

    monkeypatch.setattr(execute_module.train, "main", fail)
    notes = [execute(Job(TRAIN, tmp_path, "data")).note for _ in range(2)]
    assert notes == ["", " (as before)"]


def test_a_run_at_work_by_hand_is_waited_for(tmp_path: Path, monkeypatch):
    """Somebody resumes a run of the sweep with `train.py`: nothing of it is touched."""
    monkeypatch.setattr(execute_module, "LOOKING", 0.0)
    folder = RunFolder(TRAIN, tmp_path)
    record(TRAIN, tmp_path, float("nan"))
    for name in ("run.json", ".progress.pt.x.part", "predictions.csv"):
        (folder.path / name).write_text("")
    with file_lock(folder.path / run_folder.LOCK):
        before = {path.name for path in folder.path.iterdir()}
        assert execute(Job(TRAIN, tmp_path, "data")).state == "busy"
        assert folder.state() == "running"
        assert {path.name for path in folder.path.iterdir()} == {*before, "lock"}
    assert folder.state() == "waiting"


# --- beginning anew ------------------------------------------------------------------------------


def test_what_begins_anew_leaves_nothing_to_go_on_from(tmp_path: Path, monkeypatch):
    """A kill in the middle of it as well."""
    folder = RunFolder(TRAIN, tmp_path)
    names = ("results.jsonl", "run.json", "config.yaml", "progress-2.pt", "log.txt")
    moved = []

    def replace_and_stop(source: Path, target: Path) -> None:
        if len(moved) == stop_at:
            raise KeyboardInterrupt
        moved.append(Path(source).name)
        os.rename(source, target)

    monkeypatch.setattr("sweep.work.folder.os.replace", replace_and_stop)
    for stop_at in range(len(names)):
        shutil.rmtree(folder.path, ignore_errors=True)
        moved.clear()
        record(TRAIN, tmp_path)
        for name in names[1:]:
            (folder.path / name).write_text("{}")
        with pytest.raises(KeyboardInterrupt):
            folder.start_anew()
        assert moved == [*names[:2], *sorted(names[2:])][:stop_at]


@pytest.mark.parametrize("stop_at", range(6))
def test_old_numbers_outlive_attempts_without_results(tmp_path: Path, monkeypatch, stop_at: int):
    """However often the run is begun anew after them, and wherever that was cut off."""
    folder, replace_file, moved = RunFolder(TRAIN, tmp_path), os.replace, []

    def replace_and_stop(source: Path, target: Path) -> None:
        if len(moved) == stop_at:
            raise KeyboardInterrupt
        moved.append(source)
        replace_file(source, target)

    record(TRAIN, tmp_path, 40.0)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("sweep.work.folder.os.replace", replace_and_stop)
        for name in ("run.json", "config.yaml", "progress.pt", "log.txt"):
            (folder.path / name).write_text("{}")
        folder.start_anew()
    for _ in range(3):
        folder.start_anew()
        (folder.path / "progress.pt").write_text("damaged")
        (folder.path / "results.jsonl").write_text("")
    assert "40.0" in (folder.path / ".before/results.jsonl").read_text()
    record(TRAIN, tmp_path, 50.0)
    folder.start_anew()
    assert "50.0" in (folder.path / ".before/results.jsonl").read_text()
    assert folder.record() is None


def test_other_seeds_are_left_alone(tmp_path: Path):
    other = replace(TRAIN, seed=2)
    record(TRAIN, tmp_path)
    path = record(other, tmp_path)
    RunFolder(TRAIN, tmp_path).start_anew()
    assert path.is_file()
    assert RunFolder(TRAIN, tmp_path).record() is None
    RunFolder(TRAIN, tmp_path / "none").start_anew()
