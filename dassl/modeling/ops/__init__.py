"""Operations on batches and probabilities."""

from dassl.modeling.ops.utils import (
    create_onehot,
    ema_model_update,
    linear_rampup,
    mixup,
    reverse_index,
    sharpen_prob,
    sigmoid_rampup,
)

__all__ = [
    "create_onehot",
    "ema_model_update",
    "linear_rampup",
    "mixup",
    "reverse_index",
    "sharpen_prob",
    "sigmoid_rampup",
]
