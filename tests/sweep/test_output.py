"""An output folder that cannot be used: one sentence, exit code 2, and nothing is begun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.utils import UserError, files
from sweep.cli import main
from sweep.plan.run import ROOT
from sweep.work import execute as execute_module
from sweep.work.execute import Job, execute
from tests.sweep.test_damaged_files import REQUEST
from tests.sweep.work.test_runner import TRAIN, record

FLAGS = ["base2new", "--trainers", "ZeroshotCLIP", "--datasets", "digits", "--seeds", "1"]


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("in the way")
    return folder / "file"


def sweeps_is_a_file(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "sweeps").write_text("x")
    return folder / "out"


PLACES = {
    "a file": a_file,
    "below a file": lambda folder: a_file(folder) / "out",
    "sweeps is a file": sweeps_is_a_file,
    "a name too long": lambda folder: folder / ("x" * 300),
    "a path too long": lambda folder: folder / "/".join(["y" * 200] * 30),
    "no folder can be there": lambda folder: Path("/proc/sweep"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_run_says_it_in_a_sentence(kind: str, tmp_path: Path):
    output = PLACES[kind](tmp_path)
    with pytest.raises(UserError) as error:
        main(["run", *FLAGS, "--root", str(tmp_path), "--output", str(output)])
    assert len(str(error.value).splitlines()) == 1
    assert "--output" in str(error.value)


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("command", ["status", "table", "report"])
def test_readers_say_it_or_find_nothing(command: str, kind: str, tmp_path: Path, capsys):
    output = str(PLACES[kind](tmp_path))
    what = FLAGS if command == "table" else []
    try:
        assert main([command, *what, "--output", output]) == 0
        assert "missing" in (text := capsys.readouterr().out) or "No sweep" in text
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.slow
def test_the_command_prints_no_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "sweep", "run", *FLAGS, "--output", str(a_file(tmp_path))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("number", [28, 122, 30, 13, 5])  # full, quota, read-only, denied, I/O
def test_a_disk_that_fails_is_a_sentence_and_leaves_what_is_whole(
    number: int, tmp_path: Path, monkeypatch
):
    REQUEST.save(tmp_path)
    path = record(TRAIN, tmp_path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(files.tempfile, "mkstemp", fail)
    with pytest.raises(UserError, match=os.strerror(number)):
        main(["report", "--output", str(tmp_path)])
    with pytest.raises(UserError, match=os.strerror(number)):
        main(["run", *FLAGS, "--root", str(tmp_path), "--output", str(tmp_path / "new")])
    assert path.read_bytes() == before
    other = Job(TRAIN.__class__(**{**vars(TRAIN), "seed": 7}), tmp_path, str(tmp_path))
    outcome = execute(other)
    assert (outcome.state, os.strerror(number) in outcome.error) == ("failed", True)


def test_a_run_whose_folder_is_a_file_fails_alone(tmp_path: Path):
    folder = TRAIN.folder(tmp_path)
    folder.parent.mkdir(parents=True)
    folder.write_text("x")
    outcome = execute(Job(TRAIN, tmp_path, "data"))
    assert outcome.state == "failed"
    assert main(["status", "--output", str(tmp_path)]) == 0


def test_looking_at_a_run_does_not_make_it_busy(tmp_path: Path, monkeypatch):
    """`sweep status` holds a run's lock for a moment; a worker that comes then waits for it."""
    from sweep.work.folder import RunFolder

    held = RunFolder(TRAIN, tmp_path).lock()
    held.__enter__()
    monkeypatch.setattr(
        execute_module.time, "sleep", lambda seconds: held.__exit__(None, None, None)
    )
    record(TRAIN, tmp_path)
    assert execute(Job(TRAIN, tmp_path, "data")).state == "known"
