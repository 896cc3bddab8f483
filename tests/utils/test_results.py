"""Run records: what a kill, a full disk or another setting does to them."""

import errno
import os
from pathlib import Path

import pytest

from dassl.config import get_cfg_default, not_determining
from dassl.utils.results import append_record, config_digest, determining_settings, read_records


def test_a_line_cut_short_costs_no_other_record(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "results.jsonl"
    append_record(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2, "half')
    append_record(path, {"n": 3})
    assert [record["n"] for record in read_records(path)] == [1, 3]
    assert "incomplete line" in capsys.readouterr().out


def test_a_full_disk_is_an_error_and_leaves_earlier_records(tmp_path: Path, monkeypatch):
    path = tmp_path / "results.jsonl"
    append_record(path, {"n": 1})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:4]))
        with pytest.raises(OSError, match="cut short") as error:
            append_record(path, {"n": 2})
    assert error.value.errno == errno.ENOSPC
    append_record(path, {"n": 3})
    assert [record["n"] for record in read_records(path)] == [1, 3]


def test_where_files_lie_and_how_often_they_are_saved_is_no_part_of_a_digest():
    cfg = {"SEED": 1, "OUTPUT_DIR": "a", "DATASET": {"ROOT": "b", "NAME": "c"}}
    other = {"SEED": 1, "OUTPUT_DIR": "x", "DATASET": {"ROOT": "y", "NAME": "c"}}
    other["TRAIN"] = {"CHECKPOINT_FREQ": 3}
    cfg["TRAIN"] = {"CHECKPOINT_FREQ": 0}
    cfg["MODEL"], other["MODEL"] = {"CUDA_GRAPH": True}, {"FEATURES": {"STORE_MB": 1}}
    but = (*not_determining(get_cfg_default()), "MODEL.CUDA_GRAPH", "MODEL.FEATURES")
    assert config_digest(cfg, but) == config_digest(other, but)
    assert config_digest(cfg) != config_digest(other), "the engine knows no key of its users"
    assert config_digest(cfg, but) != config_digest({**cfg, "SEED": 2}, but)
    assert determining_settings(cfg, but) == {
        "SEED": 1,
        "DATASET": {"NAME": "c"},
        "TRAIN": {},
        "MODEL": {},
    }
    assert cfg["OUTPUT_DIR"] == "a"


@pytest.mark.parametrize(
    ("key", "determines"),
    [
        ("DATALOADER.NUM_WORKERS", True),
        ("OPTIM.LR", True),
        ("DATALOADER.PROCESSES", False),
        ("DATALOADER.CACHE_MB", False),
        ("TRAIN.PRINT_FREQ", False),
    ],
)
def test_which_settings_belong_to_a_run_s_identity(key: str, determines: bool):
    """NUM_WORKERS is the number of random streams, PROCESSES how many processes carry them."""
    cfg = get_cfg_default()
    cfg.merge_from_list([key, 3])
    assert (config_digest(cfg) != config_digest(get_cfg_default())) is determines
