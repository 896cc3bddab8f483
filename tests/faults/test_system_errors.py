"""A full disk, a lost folder, a dead process: one sentence, and the run goes on afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train
from dassl.data import DatasetWrapper
from dassl.engine import SimpleTrainer
from dassl.utils import files, load_checkpoint, sealed
from dassl.utils.cli import run_cli
from dassl.utils.errors import UserError
from dassl.utils.results import read_records
from dassl.utils.system_errors import (
    GO_ON,
    SystemTroubleError,
    explain,
    system_errors_explained,
)
from sweep.plan.run import Run
from sweep.work.execute import Job, execute
from tests.runs import arguments, make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
FEW = (*FEW, "TRAIN.CHECKPOINT_SECONDS", "0.0001")
CODES = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "ENOTDIR", "EEXIST",
         "EIO", "ENOENT", "EMFILE", "ESTALE", "EFBIG")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """What an undisturbed run learns in three epochs."""
    out = tmp_path_factory.mktemp("whole")
    run(data, out, *FEW, epoch=3)
    return learned(out)


def learned(out: Path) -> torch.Tensor:
    return load_checkpoint(str(out / "prompt_learner/model.pth.tar-3"))["state_dict"]["ctx"]


def failing(capsys: pytest.CaptureFixture, args: Namespace) -> str:
    """Runs what shall fail with one sentence; returns it."""
    assert run_cli(lambda: train.main(args)) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("name", CODES)
def test_each_error_of_the_system_is_one_sentence(name: str, tmp_path: Path):
    error = OSError(getattr(errno, name), "words of the system", str(tmp_path / "file"))
    with pytest.raises(SystemTroubleError) as told, system_errors_explained():
        raise error
    assert str(told.value).startswith(f"{tmp_path / 'file'}: ")
    assert "\n" not in str(told.value) and "--resume" not in str(told.value)


def test_a_training_s_says_how_it_goes_on():
    with pytest.raises(SystemTroubleError) as told, system_errors_explained(GO_ON):
        raise OSError(errno.EIO, "words of the system")
    assert str(told.value) == f"the disk reports an error. {GO_ON}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("DataLoader worker (pid(s) 3, 4) exited unexpectedly", "PROCESSES 1"),
        ("DataLoader worker (pid 3) is killed by signal: Killed. ", "is killed by signal: Killed"),
        ("DataLoader worker (pid 3) is killed by signal: Bus error. It is ...", "/dev/shm"),
        ("unable to write to file </torch_3_1_0>: No space left on device (28)", "/dev/shm"),
        ("CUDA error: out of memory\nCompile with ...", "memory of cuda"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ...", "memory of cuda"),
        ("[enforce fail] PytorchStreamWriter failed writing file data/0", "disk is full"),
    ],
)
def test_torchs_words_for_them(text: str, part: str):
    assert part in explain(RuntimeError(text))


def test_errors_of_ours_are_not_hidden():
    extension = RuntimeError("Error building extension in /root/.cache/torch_extensions/x")
    for error in (RuntimeError("shapes differ"), extension, OSError("no number"), ValueError("x")):
        with pytest.raises(type(error)) as told, system_errors_explained():
            raise error
        assert not isinstance(told.value, UserError)


WRITERS = ("progress.pt", "model.pth.tar-3", "config.yaml", "results.jsonl", "log.txt")


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> Iterator[None]:
    """From the `count`-th writing of a file on, it cannot be written."""
    left = [count]

    def check(path: object) -> None:
        left[0] -= name in Path(str(path)).name
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def after(plain, place):
        def call(*args: object, **kwargs: object) -> object:
            check(args[place])
            return plain(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for module in (files, sealed):
            patch.setattr(module, "write_atomically", after(files.write_atomically, 0))
        import dassl.engine.trainer as trainer
        from dassl.utils.logger import Logger

        patch.setattr(trainer, "append_record", after(trainer.append_record, 0))
        if name == "log.txt":
            write = Logger.write

            def full(self: Logger, msg: str) -> None:
                if self.file is not None and "epoch [2" in msg:
                    check("log.txt")
                write(self, msg)

            patch.setattr(Logger, "write", full)
        yield


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(data, whole, tmp_path, monkeypatch, capsys, name: str):
    out = tmp_path / "out"
    with full_disk(monkeypatch, name, 3 if name == "progress.pt" else 1):
        message = failing(capsys, arguments(data, out, *FEW, epoch=3))
    assert "the disk is full" in message
    flags = {"resume": str(out)} if (out / "config.yaml").is_file() else {}
    run(data, out, *FEW, epoch=3, **flags)
    assert torch.equal(learned(out), whole)
    assert len(list(read_records(out / "results.jsonl"))) == 1


def test_a_data_folder_that_vanishes(data, whole, tmp_path, monkeypatch, capsys):
    out, plain = tmp_path / "out", SimpleTrainer.before_epoch
    gone = data.with_name("gone")

    def before_epoch(self: SimpleTrainer) -> None:
        if self.epoch == 1:
            data.rename(gone)
        plain(self)

    opts = (*FEW, "DATALOADER.CACHE_MB", "0")
    with monkeypatch.context() as patch:
        patch.setattr(SimpleTrainer, "before_epoch", before_epoch)
        message = failing(capsys, arguments(data, out, *opts, epoch=3))
    assert str(data) in message
    gone.rename(data)
    run(data, out, *opts, epoch=3, resume=str(out))
    assert torch.equal(learned(out), whole)


def test_a_loader_process_that_dies(data, tmp_path, monkeypatch, capsys):
    plain = DatasetWrapper.__getitem__
    main = os.getpid()

    def dying(self: DatasetWrapper, index: int) -> dict:
        if os.getpid() != main and self.is_train:
            os._exit(1)
        return plain(self, index)

    opts = (*FEW, "DATALOADER.NUM_WORKERS", "2")
    with monkeypatch.context() as patch:
        patch.setattr(DatasetWrapper, "__getitem__", dying)
        message = failing(capsys, arguments(data, tmp_path, *opts, epoch=1))
    assert "a process that loads images ended" in message
    run(data, tmp_path, *opts, epoch=1, resume=str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_the_real_thing(data: Path, tmp_path: Path):
    """Files may have 100 kB: the checkpoint does not fit."""
    args = arguments(data, tmp_path / "out", *FEW, epoch=2)
    code = (
        "import resource, signal, sys; from argparse import Namespace; import train\n"
        "from dassl.utils.cli import run_cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.exit(run_cli(lambda: train.main({args!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=train.__file__.rpartition("/")[0], text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert f"{tmp_path / 'out'}: the file would be larger than is allowed" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_name_in_a_sentence_is_the_one_that_was_wanted():
    """Of a file that is moved into place, its own; TensorBoard names files in bytes."""
    moved = OSError(errno.EISDIR, "text", "/out/.results.x.part", None, "/out/results.jsonl")
    assert explain(moved).startswith("/out/results.jsonl: it is a folder")
    assert explain(OSError(errno.ENOENT, "text", b"/out/events")).startswith("/out/events: it has")


def test_a_run_whose_folder_cannot_be_held_says_so_in_a_sentence(tmp_path: Path, monkeypatch):
    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("sweep.work.folder.file_lock", fail)
    outcome = execute(Job(Run("CoOp", "digits", "CoOp/tiny", 2), tmp_path, "data"))
    assert outcome.state == "failed"
    assert "/lock: the disk may only be read: choose another folder" in outcome.error
