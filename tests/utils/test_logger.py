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
    logs = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.read_text() for path in logs] == [f"run {number}\n" for number in range(12)]
    assert [path.name for path in logs[:3]] == [
        "log.txt",
        "log.txt-2026-11-26-06-22-06",
        "log.txt-2026-11-26-06-22-06-2",
    ]
    remove_own_files(tmp_path)
    assert not list(tmp_path.iterdir())
