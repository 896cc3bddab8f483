"""Running averages for progress lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor


class AverageMeter:
    """Keeps the last value (`val`), the `sum`, the `count` and the average (`avg`).

    Args:
        ema: make `avg` an exponential moving average, 0.9 * avg + 0.1 * value from avg = 0,
            as in the public implementation, instead of the mean.
    """

    def __init__(self, ema: bool = False) -> None:
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self.val = 0.0
        self.avg = 0.0
        self.sum = 0.0
        self.count = 0

    def update(self, val: float | Tensor, n: int = 1) -> None:
        """Adds `val`, a number or a one-element tensor, with weight `n`."""
        if isinstance(val, Tensor):
            val = val.item()
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.avg * 0.9 + val * 0.1 if self.ema else self.sum / self.count


class MetricMeter:
    """A set of meters by name. As text: "loss 1.2500 (1.8750) acc 50.0000 (37.5000)".

    Each entry is the name, the last value and, in brackets, the average.
    """

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, float | Tensor] | None) -> None:
        """Adds one value per name; None (a step without a summary) is ignored.

        Raises:
            TypeError: `input_dict` is something else than a dictionary.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            raise TypeError(
                f"MetricMeter.update() got {type(input_dict).__name__}; expected a dictionary of "
                "names and values, for example {'loss': loss}"
            )
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(
            f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items()
        )
