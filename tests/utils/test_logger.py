"""The files that a run's log goes to."""

from __future__ import annotations

import time
from pathlib import Path

from dassl.engine.run_folder import remove_own_files
from dassl.utils import setup_logger


def test_each_log_has_a_file_of_its_own(tmp_path: Path, monkeypatch):
    """Also those of one second: a run may be killed and continued within it."""
    monkeypatch.setattr(time, "strftime", lambda form: "-2026-11-26-06-22-06")
    for number in range(12):
        with setup_logger(str(tmp_path)):
            print(f"run {number}")
    stamp = "log.txt-2026-11-26-06-22-06"
    names = ["log.txt", stamp, *(f"{stamp}-{number}" for number in range(2, 12))]
    logs = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert logs == {name: f"run {number}\n" for number, name in enumerate(names)}
    remove_own_files(tmp_path)
    assert not list(tmp_path.iterdir())
