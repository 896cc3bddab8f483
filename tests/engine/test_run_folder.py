"""Output folders: one run each, nobody else at work in it, and nothing of others deleted."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from dassl.engine import run_folder
from dassl.engine.run_folder import LOCK, remove_own_files, resume_command
from dassl.utils import CheckpointError, ConfigError
from dassl.utils.errors import OutputFolderError
from dassl.utils.locks import file_lock
from dassl.utils.logger import log_files
from dassl.utils.results import read_records
from tests.runs import make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2")
QUIET = ("TEST.NO_TEST", "True")
ZERO = {"trainer": "ZeroshotCLIP", "recipe": "CoOp/vit_b16"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_second_run_is_refused_and_the_first_stays_whole(data: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(data, out, *FEW, epoch=1)
    before = files(out)
    for flags in ({"seed": 2}, {"trainer": "LinearProbe"}, {"no_train": True}, ZERO):
        with pytest.raises(OutputFolderError) as error:
            run(data, out, *FEW, **{"epoch": 1, **flags})
        assert all(word in str(error.value) for word in (str(out), "--resume", "--overwrite"))
    assert files(out) == before


def test_resuming_another_folder_into_a_used_one(data: Path, tmp_path: Path):
    for name in ("a", "b"):
        run(data, tmp_path / name, *FEW, *QUIET, epoch=1)
    with pytest.raises(OutputFolderError, match="holds another run"):
        run(data, tmp_path / "b", *FEW, epoch=2, resume=str(tmp_path / "a"))


def test_evaluations_add_up_but_not_in_a_training(data: Path, tmp_path: Path):
    run(data, tmp_path / "trained", *FEW, epoch=1)
    flags = {"eval_only": True, "model_dir": str(tmp_path / "trained"), "load_epoch": 1}
    for subset in ("base", "new"):
        run(data, tmp_path / "tests", *FEW, subsample_classes=subset, **flags)
    run(data, tmp_path / "tests", *FEW, eval_only=True, **ZERO)
    assert len(list(read_records(tmp_path / "tests/results.jsonl"))) == 3
    before = files(tmp_path / "trained")
    with pytest.raises(OutputFolderError, match="holds a training"):
        run(data, tmp_path / "trained", *FEW, **flags)
    with pytest.raises(ConfigError, match="--overwrite"):
        run(data, tmp_path / "trained", *FEW, overwrite=True, **flags)
    assert files(tmp_path / "trained") == before


def test_overwriting_deletes_what_is_ours_alone(data: Path, tmp_path: Path):
    opts = ("TEST.COMPUTE_CMAT", "True", "TEST.ERROR_ANALYSIS", "True", "TEST.FINAL_MODEL")
    run(data, tmp_path, *FEW, *opts, "best_val", epoch=2)
    theirs = (
        *("notes.txt", "results.jsonl.bak", "log.txt.old", "log.txt-mine", "lock", "run.json"),
        *("error.txt", "my/model.pth", "prompt_learner/mine.pt", "tensorboard/notes"),
    )
    for name in theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("theirs")
    ours = {name for name in files(tmp_path) if name not in theirs}
    assert {"cmat.pt", "predictions.csv", "prompt_learner/model-best.pth.tar"} <= ours
    remove_own_files(tmp_path)
    assert set(files(tmp_path)) == set(theirs)


def test_a_failing_start_overwrites_nothing(data: Path, tmp_path: Path):
    run(data, tmp_path, *FEW, *QUIET, epoch=1)
    before = files(tmp_path)
    with pytest.raises(Exception, match="77"):
        run(data, tmp_path, *FEW, "TRAINER.COOP.N_CTX", "75", "TRAINER.COOP.CTX_INIT", "",
            epoch=1, overwrite=True)  # fmt: skip
    assert files(tmp_path) == before


def test_resuming_and_overwriting_contradict_each_other(data: Path, tmp_path: Path):
    run(data, tmp_path, *FEW, *QUIET, epoch=1)
    with pytest.raises(ConfigError, match="leave one out"):
        run(data, tmp_path, *FEW, epoch=2, resume=str(tmp_path), overwrite=True)


def test_two_runs_at_the_same_time(data: Path, tmp_path: Path):
    """The second refuses; the lock of a run that died counts for nothing."""
    with (
        file_lock(tmp_path / LOCK),
        pytest.raises(OutputFolderError, match="another run is at work"),
    ):
        run(data, tmp_path, *FEW, epoch=1)
    (tmp_path / LOCK).touch()
    run(data, tmp_path, *FEW, *QUIET, epoch=1)
    assert not (tmp_path / LOCK).exists()


def test_without_a_folder_each_run_gets_its_own(data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run(data, "", *FEW, *QUIET, epoch=1)
    first, second = sorted((tmp_path / "output").iterdir())
    assert re.fullmatch(r"CoOp-EuroSAT-\d{8}-\d{6}", first.name)
    assert second.name.startswith("CoOp-EuroSAT-")
    run(data, "", *FEW, *QUIET, epoch=2, resume=str(first))
    assert (first / "prompt_learner/model.pth.tar-2").is_file(), "a resumed run stays at home"
    assert len(list((tmp_path / "output").iterdir())) == 2


def test_runs_that_begin_in_one_second_have_a_folder_each(data: Path, tmp_path: Path, monkeypatch):
    """While none of them has written anything, too; what cannot start leaves none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dassl.engine.run_folder.time.strftime", lambda _: "20261126-062206")
    build, inner = run_folder.RunFolder.at_work, []

    def another_meanwhile(self, *args):
        if len(inner) < 2:
            inner.append(self.path)
            run(data, "", *FEW, *QUIET, epoch=1)
        return build(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "at_work", another_meanwhile)
        run(data, "", *FEW, *QUIET, epoch=1)
    with pytest.raises(Exception, match="77"):
        run(data, "", *FEW, "TRAINER.COOP.N_CTX", "75", "TRAINER.COOP.CTX_INIT", "", epoch=1)
    name = "CoOp-EuroSAT-20261126-062206"
    folders = sorted((tmp_path / "output").iterdir())
    assert [folder.name for folder in folders] == [name, f"{name}-2", f"{name}-3"]
    for folder in folders:
        assert (folder / "prompt_learner/model.pth.tar-1").is_file()
        assert [path.name for path in log_files(folder)] == ["log.txt"]


@pytest.mark.parametrize(
    ("place", "part"),
    [("file", "is a file"), ("file/below", "is a file"), ("x" * 300, "too long")],
)
def test_no_folder_can_be_there(data: Path, tmp_path: Path, place: str, part: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match=part):
        run(data, tmp_path / place, *FEW, epoch=1)


@pytest.mark.parametrize(
    "name", ["config.yaml", "results.jsonl", "progress.pt", "predictions.csv", "cmat.pt"]
)
@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_something_else_in_a_files_place(data: Path, tmp_path: Path, name: str, kind: str):
    """Noticed before anything is learned, not when the file is to be written."""
    path = tmp_path / name
    path.mkdir() if kind == "folder" else path.symlink_to("nowhere")
    for flags in ({}, {"overwrite": True}, ZERO):
        with pytest.raises(OutputFolderError, match=rf"{re.escape(str(path))} is no file"):
            run(data, tmp_path, *FEW, epoch=1, **flags)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_home_is_found_behind_an_equals_sign(data: Path, tmp_path: Path, monkeypatch):
    """A shell leaves the ~ of --output-dir=~/run as it is, and so does a notebook."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run(data, "~/run", *FEW, *QUIET, epoch=1)
    run(data, "", *FEW, *QUIET, epoch=2, resume="~/run")
    flags = {"eval_only": True, "model_dir": "~/run", "load_epoch": 2}
    run(data, "", *FEW, "OUTPUT_DIR", "~/test", **flags)
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"run", "test"}


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"load_epoch": 1}, "--load-epoch 1 needs --model-dir"),
        ({"resume": "."}, "--eval-only evaluates one: name its folder with --model-dir"),
        ({"resume": ".", "model_dir": "."}, "--resume goes on with a training"),
    ],
)
def test_it_must_be_clear_what_is_evaluated(data: Path, tmp_path: Path, flags: dict, part: str):
    """Else the context that nothing was learned for would be."""
    with pytest.raises(ConfigError, match=part):
        run(data, tmp_path / "out", *FEW, eval_only=True, **flags)
    assert not (tmp_path / "out").exists()


def test_zero_shot_is_resumed_as_well(data: Path, tmp_path: Path):
    """It learns nothing: finished is finished, and a folder of another run stays that run's."""
    accuracy = run(data, tmp_path / "zero", **ZERO)
    assert run(data, tmp_path / "zero", resume=str(tmp_path / "zero"), **ZERO) == accuracy
    assert len(list(read_records(tmp_path / "zero/results.jsonl"))) == 1
    (tmp_path / "zero/results.jsonl").unlink()
    assert run(data, tmp_path / "zero", resume=str(tmp_path / "zero"), **ZERO) == accuracy
    run(data, tmp_path / "coop", *FEW, *QUIET, epoch=1)
    (tmp_path / "coop/prompt_learner/model.pth.tar-1").unlink()
    before = files(tmp_path / "coop")
    with pytest.raises(CheckpointError, match=r"TRAINER\.NAME was 'CoOp'"):
        run(data, tmp_path / "coop", resume=str(tmp_path / "coop"), **ZERO)
    assert files(tmp_path / "coop") == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read(data: Path, tmp_path: Path):
    tmp_path.chmod(0o555)
    with pytest.raises(OutputFolderError, match="may not be written to"):
        run(data, tmp_path / "out", *FEW, epoch=1)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--trainer", "CoOp", "OPTIM.LR", "1"], ["--trainer", "CoOp", "OPTIM.LR", "1"]),
        (["--resume", "old", "--seed", "1"], ["--seed", "1"]),
        (["--overwrite", "--resume=old"], []),
        (["--root", "a b"], ["--root", "a b"]),
    ],
)
def test_the_command_that_goes_on(monkeypatch, words: list[str], kept: list[str]):
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    command = resume_command("out/my run")
    assert shlex.split(command) == ["python", "train.py", "--resume", "out/my run", *kept]
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "x"])
    assert "resume='out/my run'" in resume_command("out/my run")
