"""The files that a run's log goes to."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

import pytest

from dassl.engine.progress import cut_to
from dassl.engine.run_folder import remove_own_files
from dassl.utils import Logger, setup_logger
from dassl.utils.logger import current_log, log_files
from sweep.report.parse import parse_folder

STAMP = "2026-11-26-06-22-06"
OTHERS = ("log.txt.old", "log.txt-mine", "log.txt-2026", "my log.txt", f"log.txt-{STAMP}.bak")


def at(monkeypatch: pytest.MonkeyPatch, *stamps: str) -> None:
    """Has the clock say the stamps in turn, the last one again and again."""
    calls = count()
    monkeypatch.setattr(time, "strftime", lambda _: stamps[min(next(calls), len(stamps) - 1)])


def texts(folder: Path) -> list[str]:
    return [path.read_text() for path in log_files(folder)]


def test_each_log_has_a_file_of_its_own(tmp_path: Path, monkeypatch):
    """Also those of one second: a run may be killed and continued within it."""
    at(monkeypatch, STAMP)
    for number in range(12):
        with setup_logger(str(tmp_path)):
            print(f"run {number}")
    names = ["log.txt", f"log.txt-{STAMP}", *(f"log.txt-{STAMP}-{n}" for n in range(2, 12))]
    assert [path.name for path in log_files(tmp_path)] == names
    assert texts(tmp_path) == [f"run {number}\n" for number in range(12)]
    remove_own_files(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_clock_that_jumps_back_changes_no_order(tmp_path: Path, monkeypatch):
    at(monkeypatch, STAMP, "2026-10-25-02-59-59", "2026-10-25-02-00-00", "2027-01-01-00-00-00")
    for number in range(5):
        with setup_logger(str(tmp_path)):
            print(f"run {number}")
    assert texts(tmp_path) == [f"run {number}\n" for number in range(5)]


def test_the_newest_log_is_the_one_that_counts(tmp_path: Path, monkeypatch):
    at(monkeypatch, STAMP)
    for number in range(12):
        with setup_logger(str(tmp_path / "seed1")):
            print(f"=> result\n* accuracy: {number}.0%")
    assert parse_folder(tmp_path)["seed1"].accuracy == 11


def test_a_name_is_taken_when_the_file_is_made(tmp_path: Path):
    """Of two runs that start at the same time, the first may end before the second writes."""
    logs = [Logger(str(tmp_path / "log.txt"), delay=True) for _ in range(3)]
    for number, log in enumerate(logs):
        log.open()
        log.file.write(f"run {number}\n")
        log.close()
    assert texts(tmp_path) == [f"run {number}\n" for number in range(3)]


def test_what_others_call_alike_is_theirs(tmp_path: Path):
    for name in OTHERS:
        (tmp_path / name).write_text("Found checkpoint at x\nmore")
    assert log_files(tmp_path) == []
    cut_to(tmp_path, {})
    remove_own_files(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(
        OTHERS, "Found checkpoint at x\nmore"
    )


def test_the_log_at_work_stays_whole(tmp_path: Path, monkeypatch):
    """However the folder is spelled; earlier ones lose what will come again."""
    (tmp_path / "log.txt").write_text("one\ntwo\n")
    monkeypatch.chdir(tmp_path)
    with setup_logger(os.curdir):
        print("Found checkpoint at x")
        cut_to(tmp_path, {"log.txt": 4}, current_log())
        print("three")
    assert texts(tmp_path) == ["one\n", "Found checkpoint at x\nthree\n"]
