"""What is read off the parts' results: the bars of a GPU, and figures that are only shown."""

from __future__ import annotations

from benchmarks.bars import GPU_BARS, GPU_JOB_BARS, Bar
from benchmarks.gpu_day.plan import FAMILY

HOMEWORK = "eurosat CoCoOp"
JOBS = ("eurosat CoOp", "caltech101 CoCoOp", "caltech101 CoOp")
PROFILED = ("step CoCoOp 5 b4", "step CoCoOp 500 b1", "step CoCoOp 1000 b1", "step CoOp 50 b32")
STEPS = ("step CoCoOp 5 b4", "step CoCoOp 1000 b1")
HALVES = (
    *("half step CoCoOp 5 b4", "half step CoCoOp 100 b1"),
    *("half step CoOp 50 b32", "half step CoOp 500 b32"),
)
SWEEPS = ("sweep first", "sweep again", "sweep by --devices UUID", "sweep with UUID visible")


def _figure(
    text: str, key: str, field: str, least: float | None = None, most: float | None = None
) -> Bar:
    return Bar(text, (key,), lambda r: r[key][field], least, most, to_plain=False)


def _capture(precision: str) -> tuple[Bar, ...]:
    key, name = f"capture {precision}", f"recording that fails, {precision}"
    return (
        _figure(f"{name}: warnings", key, "failing_warnings", least=1),
        _figure(f"{name}: warnings in the run after it", key, "after_warnings", most=0),
        _figure(f"{name}: difference from plain steps", key, "failing_difference", most=0.05),
        _figure(f"{name}: the run after it, likewise", key, "after_difference", most=0.05),
        _figure(f"{name}: the stream is the default one", key, "failing_leaves_default_stream", 1),
    )


def _job(key: str) -> tuple[Bar, ...]:
    return (
        _figure(f"{key}: points apart by graphs", key, "replayed_points", most=0.5),
        _figure(f"{key}: seconds without graphs", key, "plain_total_seconds"),
        _figure(f"{key}: seconds with graphs", key, "replayed_total_seconds"),
        _figure(f"{key}: times faster by graphs, text and steps", key, "gain"),
        _figure(f"{key}: difference of what is learned", key, "replayed_difference"),
    )


FIGURES: dict[str, tuple[Bar, ...]] = {
    "machine": (
        _figure("fp16 product of 8192: flop/s", "rates", "float16_flops_per_s"),
        _figure("copy on the card: bytes/s", "rates", "copy_bytes_per_s"),
        _figure("copy to the card: bytes/s", "rates", "host_to_device_bytes_per_s"),
        _figure("launch by torch: seconds", "rates", "launch_seconds"),
        _figure("kernel in a graph: seconds", "rates", "replay_seconds"),
        _figure("TF32 in float32 products", "card", "tf32_products", most=0),
        _figure("TF32 in float32 convolutions", "card", "tf32_convolutions", most=0),
        _figure("fp16 sums of fp16 products", "card", "fp16_sums_in_fp16", most=0),
    ),
    "capture": (*_capture("fp32"), *_capture("fp16"), *_capture("amp")),
    "text": (
        *GPU_BARS,
        *(_figure(f"{key}: steps are replayed", key, "captured", least=1) for key in STEPS),
    ),
    # A tenth is left to chance: the errors are of a few images.
    "half": tuple(
        _figure(f"{key}: error of {what} over the public path's", key, f"{what}_ratio", most=1.1)
        for key in HALVES
        for what in ("logits", "gradient")
    ),
    "profile": (
        *(_figure(f"{k}, replayed: gaps", f"replayed {k}", "gaps", most=0.2) for k in PROFILED),
        *(_figure(f"{k}, plain: gaps", f"plain {k}", "gaps") for k in PROFILED),
        *(_figure(f"{k}: kernels", f"plain {k}", "kernels") for k in PROFILED),
        _figure("epochs of the homework: gaps", "epochs of the homework", "gaps"),
    ),
    "tests": (
        _figure("tests that passed", "tests", "passed", least=1),
        _figure("tests that failed", "tests", "failed", most=0),
        _figure("tests that were skipped", "tests", "skipped", most=0),
        _figure("exit code of pytest", "tests", "exit_code", most=0),
    ),
    "homework": (
        *GPU_JOB_BARS,
        *_job(HOMEWORK),
    ),
    "family": tuple(
        figure
        for key in FAMILY
        for figure in (
            _figure(f"{key}: seconds", key, "ours_seconds"),
            _figure(f"{key}: times faster", key, "ratio"),
            _figure(f"{key}: steps are replayed", key, "captured", least=1),
        )
    ),
    "jobs": tuple(figure for key in JOBS for figure in _job(key)),
    "image": tuple(
        _figure(f"{backbone}, {n} images: images/s", f"{backbone} b{n}", "ours_images_per_s")
        for backbone in ("ViT-B/16", "RN50")
        for n in (32, 256)
    ),
    "sweep": (
        *(_figure(f"{key}: exit code", key, "exit_code", most=0) for key in SWEEPS),
        *(_figure(f"{key}: seconds", key, "seconds") for key in SWEEPS),
        *(
            _figure(f"{key}: points from the first one", key, "points_apart", most=0.5)
            for key in SWEEPS[1:]
        ),
    ),
    "loaders": (
        _figure("training images/s, 8 workers", "train 8", "ours_images_per_s"),
        _figure("test images/s, 8 workers", "test 8", "ours_images_per_s"),
        _figure("test images/s to the encoder, all cores", "bytes 8", "ours_images_per_s"),
    ),
}
