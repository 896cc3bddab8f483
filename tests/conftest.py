"""Puts the repository root on the path (the project runs from there); marks and skips tests."""

import atexit
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
_cache = tempfile.TemporaryDirectory(prefix="test-cache-")  # the user's own stays as it is
atexit.register(_cache.cleanup)
os.environ["XDG_CACHE_HOME"] = _cache.name
torch.set_num_threads(1)  # tiny models: more threads only wait for each other

# What `scripts/test.sh --quick` leaves out, beside tests that carry the marker themselves: file →
# its slow tests. `pytest --durations=50` names candidates; a file keeps a test that is not slow.
SLOW = {
    "test_captured_step.py": ("test_replayed_training_equals_plain_training",),
    "test_clip_loading.py": ("test_damaged_file",),
    "test_digests.py": ("test_published_samples",),
    "test_encode_ahead.py": ("test_same_draws_and_losses",),
    "test_error_analysis.py": (
        "test_finished_runs_are_tested_again_and_not_trained",
        "test_the_command_and_the_report",
    ),
    "test_feature_store.py": ("test_killed_while_computing", "test_two_processes_compute_once"),
    "test_image_cache.py": ("test_memory_is_what_is_counted",),
    "test_image_encoding.py": ("test_report",),
    "test_image_families.py": ("test_families",),
    "test_layouts.py": (
        "test_built_split_has_the_official_test_images_and_counts",
        "test_official_layout",
    ),
    "test_linear_probe.py": ("test_search_keeps_the_model_of_its_last_step",),
    "test_lr_scheduler.py": ("test_resume_at_every_epoch_continues_the_schedule",),
    "test_prefix_sharing.py": ("test_text_widths",),
    "test_shared_clip.py": (
        "test_a_changed_file_is_read_again",
        "test_a_process_of_its_own_gives_the_same_numbers",
        "test_a_spoilt_model_is_not_handed_on",
        "test_all_jobs_of_a_worker_load_and_fold_once",
        "test_the_first_run_and_later_ones_give_the_same_numbers",
        "test_the_generator_is_left_as_loading_leaves_it",
    ),
    "test_streaming.py": ("test_images", "test_encoded_and_kept"),
    "test_whole_job.py": ("test_bars_are_not_for_small_models",),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.originalname in SLOW.get(item.path.name, ()):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
