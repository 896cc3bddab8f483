"""Puts the repository root on the path (the project runs from there); marks and skips tests."""

import atexit
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
_cache = tempfile.TemporaryDirectory(prefix="test-cache-")  # the user's own stays as it is
atexit.register(_cache.cleanup)
os.environ["XDG_CACHE_HOME"] = _cache.name
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in background jobs of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tiny models: more threads only wait for each other

# What `scripts/test.sh --quick` leaves out, beside tests that carry the marker themselves. Found by
# `pytest --durations=50`; every file keeps a test that is not slow.
SLOW = frozenset(
    {
        "test_a_changed_file_is_read_again",
        "test_a_process_of_its_own_gives_the_same_numbers",
        "test_a_spoilt_model_is_not_handed_on",
        "test_agrees_with_topk_and_scikit_learn",
        "test_all_jobs_of_a_worker_load_and_fold_once",
        "test_any_window",
        "test_bars_are_not_for_small_models",
        "test_base_classes_belong_to_the_published_sample",
        "test_built_split_has_the_official_test_images_and_counts",
        "test_damaged_file",
        "test_download_then_verify",
        "test_encoded_and_kept",
        "test_families",
        "test_finished_runs_are_tested_again_and_not_trained",
        "test_fixed_views_are_shared",
        "test_flat_val_folder",
        "test_images",
        "test_killed_while_computing",
        "test_log_and_tensorboard_are_the_same",
        "test_memory_is_what_is_counted",
        "test_official_layout",
        "test_one_is_kept",
        "test_published_samples",
        "test_replayed_training_equals_plain_training",
        "test_report",
        "test_resume_at_every_epoch_continues_the_schedule",
        "test_resumed_run",
        "test_same_draws_and_losses",
        "test_same_draws_with_an_evaluation_after_each_epoch",
        "test_search_keeps_the_model_of_its_last_step",
        "test_several_bad_images_are_counted",
        "test_sweep_encodes_each_test_image_once",
        "test_text_named_jpg",
        "test_text_widths",
        "test_the_command_and_the_report",
        "test_the_first_run_and_later_ones_give_the_same_numbers",
        "test_the_generator_is_left_as_loading_leaves_it",
        "test_two_processes_compute_once",
        "test_whole_runs",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.originalname in SLOW:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
