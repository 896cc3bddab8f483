"""KgCoOp: knowledge-guided context optimization (Yao et al., CVPR 2023, arXiv 2303.13283).

CoOp whose class features w_i may not go far from w_i^clip, those of the data set's hand-written
prompt: L = L_ce + lambda L_kg, with L_kg the mean over classes of the distance between them. As in
the public implementation the distance is 1 - cos(w_i, w_i^clip), half the squared Euclidean one.

Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from trainers.clip_trainer import frozen_clip
from trainers.hand_written import GuidedTrainer, KnowledgeGuidedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.KGCOOP = CN()
    cfg.TRAINER.KGCOOP.N_CTX = 4  # number of context vectors, M
    cfg.TRAINER.KGCOOP.CTX_INIT = "a photo of a"  # words to start from; empty: random
    cfg.TRAINER.KGCOOP.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.KGCOOP.W = 8.0  # weight of the guidance, lambda


class CustomCLIP(KnowledgeGuidedCLIP):
    config_node = "KGCOOP"


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class KgCoOp(GuidedTrainer):
    """Knowledge-guided context optimization, https://arxiv.org/abs/2303.13283."""

    config_node = "KGCOOP"
    custom_clip_class = CustomCLIP
    frozen_names = ("bias_vectors", "meta_net.")  # public files hold them; nothing reads them
