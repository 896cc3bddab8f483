"""Bars: numbers that benchmarks must reach; and those of the text side, on a CPU and a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Results = dict[str, dict[str, Any]]  # key of a case → its result


@dataclass(frozen=True)
class Bar:
    """A number that must be at least (or at most) a limit; without either, one to be shown."""

    text: str
    keys: tuple[str, ...]  # the cases that it needs
    value: Callable[[Results], float]
    least: float | None = None
    most: float | None = None
    to_plain: bool = True  # compares with the plain path
    at_peak: Callable[[Results], float] | None = None  # its value, were our time products alone

    @property
    def has_limit(self) -> bool:
        return self.least is not None or self.most is not None

    @property
    def limit(self) -> str:
        if not self.has_limit:
            return "shown only"
        return f"at least {self.least}" if self.most is None else f"at most {self.most}"

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


def _faster(text: str, key: str, least: float) -> Bar:
    return Bar(
        f"{text}: times faster",
        (key,),
        lambda r: r[key]["ratio"],
        least=least,
        at_peak=lambda r: r[key]["ratio"] / r[key]["share_of_peak"],
    )


def _share(key: str, field: str, text: str, most: float) -> Bar:
    def value(results: Results) -> float:
        return results[key][f"ours_{field}"] / results[key][f"plain_{field}"]

    return Bar(text, (key,), value, most=most)


def _peak(key: str) -> Bar:
    text = f"{key}: share of the matmul peak"
    return Bar(text, (key,), lambda r: r[key]["share_of_peak"], least=0.65, to_plain=False)


def _roofline(key: str) -> Bar:
    text = f"{key}: share of the roofline"
    return Bar(text, (key,), lambda r: r[key]["share_of_roofline"], least=0.6, to_plain=False)


def _text_once(key: str) -> Bar:
    return Bar(
        "CoOp, later test batches: time over the image side's",
        (key,),
        lambda r: r[key]["ours_seconds"] / r[key]["image_seconds"],
        most=1.1,
    )


def _memory(key: str, most: float) -> Bar:
    return _share(key, "bytes", f"{key}: memory over plain", most)


TEXT_METHODS = ("KgCoOp", "ProGrad", "TCP")
FAMILY_BARS = (
    *(_faster(f"{m}, step, 5 classes", f"step {m} 5 b4", 1.8) for m in ("MaPLe", "PromptSRC")),
    *(_faster(f"{m}, step, 50 classes", f"step {m} 50 b4", 5) for m in ("MaPLe", "PromptSRC")),
    *(_faster(f"{m}, step, 500 classes", f"step {m} 500 b4", 15) for m in ("MaPLe", "PromptSRC")),
    _faster("ProMetaR, step, 5 classes", "step ProMetaR 5 b4", 1.8),
    _faster("ProMetaR, step, 50 classes", "step ProMetaR 50 b4", 5),
    *(_faster(f"{m}, text, 50 classes", f"text {m} 50 b4", 20) for m in TEXT_METHODS),
    *(_memory(f"step {m} 5 b4", 0.5) for m in ("MaPLe", "PromptSRC", "ProMetaR")),
    *(_memory(f"step {m} 50 b4", 0.2) for m in ("MaPLe", "PromptSRC", "ProMetaR")),
)
CPU_BARS = (
    _faster("CoOp, text, 50 classes", "text CoOp 50 b1", 25),
    _faster("CoCoOp, text, 50 classes, batch 1", "text CoCoOp 50 b1", 25),
    _faster("CoOp, text, 50 classes, middle", "text CoOp 50 b1 middle", 10),
    _faster("CoOp, text, 50 classes, front", "text CoOp 50 b1 front", 6),
    _faster("CoOp, text, 50 classes, class-specific", "text CoOp 50 b1 csc", 6),
    _faster("CoCoOp, step, 50 classes, batch 1", "step CoCoOp 50 b1", 14),
    _faster("CoCoOp, step, 500 classes, batch 1", "step CoCoOp 500 b1", 25),
    _faster("CoCoOp, step, 5 classes, batch 4", "step CoCoOp 5 b4", 5),
    _faster("CoOp, step, 500 classes, batch 32", "step CoOp 500 b32", 10),
    _faster("CoCoOp, test, 50 classes, batch 10", "test CoCoOp 50 b10", 15),
    _text_once("test CoOp 50 b10"),
    _share("step CoOp 50 b32", "bytes", "CoOp, step, 50 classes, batch 32: memory over plain", 0.1),
    _share("step CoCoOp 100 b1", "bytes", "CoCoOp, step, 100 classes: memory over plain", 0.1),
    _share("text CoOp 50 b1", "flops", "CoOp, text, 50 classes: FLOPs over plain", 0.05),
    _share("text CoCoOp 50 b1", "flops", "CoCoOp, text, 50 classes: FLOPs over plain", 0.05),
    *(_roofline(f"text {m} 5 b1") for m in ("CoOp", "CoCoOp")),
    *(_peak(f"text {m} {n} b1") for m in ("CoOp", "CoCoOp") for n in (50, 100, 500, 1000)),
)


def _seconds(text: str, key: str, most: float) -> Bar:
    return Bar(f"{text}: seconds", (key,), lambda r: r[key]["ours_seconds"], most=most)


def _total_memory(text: str, key: str, most: float) -> Bar:
    return Bar(
        f"{text}: GB on the GPU", (key,), lambda r: r[key]["ours_total_bytes"] / 1e9, most=most
    )


GPU_BARS = (  # of the H200 class, fp16
    _seconds("CoCoOp, step, 5 classes, batch 4", "step CoCoOp 5 b4", 0.003),
    _seconds("CoCoOp, step, 1000 classes, batch 1", "step CoCoOp 1000 b1", 0.025),
    _total_memory("CoCoOp, step, 1000 classes, batch 1", "step CoCoOp 1000 b1", 4.0),
)
# Of a whole job at full length: what is scaled is no run end to end.
GPU_JOB_BARS = (
    Bar(
        "eurosat CoCoOp, the homework: seconds end to end",
        ("eurosat CoCoOp",),
        lambda r: r["eurosat CoCoOp"]["whole_seconds"],
        most=30.0,
    ),
)
BARS = {"cpu": CPU_BARS, "cuda": GPU_BARS}


@dataclass(frozen=True)
class Verdict:
    """What became of a bar."""

    bar: Bar
    value: float | None  # None: not measured
    at_peak: float | None = None  # what the machine would allow; None: not known

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured"
        return "pass" if self.bar.holds(self.value) else "FAIL"

    @property
    def shown(self) -> str:
        return "-" if self.value is None else f"{self.value:.3g}"

    @property
    def limit(self) -> str:
        at_peak = "" if self.at_peak is None else f"; at the machine's peak {self.at_peak:.3g}"
        return f"{self.bar.limit}{at_peak}"


def judge(results: list[dict[str, Any]], bars: tuple[Bar, ...]) -> list[Verdict]:
    """Returns each bar with its value: None where a case, or a number of it, is not there."""
    by_key = {result["key"]: result for result in results}
    return [Verdict(b, _found(b.value, by_key), _found(b.at_peak, by_key)) for b in bars]


def _found(value: Callable[[Results], float] | None, results: Results) -> float | None:
    try:
        return value(results) if value else None
    except (KeyError, TypeError):  # not there, or None where the plain path did not run
        return None


def failures(results: list[dict[str, Any]], bars: tuple[Bar, ...]) -> int:
    """Prints each bar with pass or fail; returns how many fail or were not measured."""
    verdicts = judge(results, bars)
    for v in verdicts:
        print(f"{v.word:12} {v.bar.text}: {v.shown} ({v.limit})")
    return sum(v.word != "pass" for v in verdicts)
