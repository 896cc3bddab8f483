"""IVLP: independent vision-language prompting, deep prompts in both of CLIP's towers.

The baseline of MaPLe (Khattak et al., CVPR 2023, arXiv 2210.03117, section 3.2) and the model of
PromptSRC and ProMetaR. Block i <= J of a tower has M vectors of its own, P_i: the first ones enter
with the words or behind the patches, deeper ones take the place of what the block before made of
them. Both towers learn theirs independently.
"""

from __future__ import annotations

from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from trainers.clip_trainer import frozen_clip
from trainers.deep_prompts import VLCustomCLIP, VLTrainer


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.IVLP = CN()
    cfg.TRAINER.IVLP.N_CTX_VISION = 2  # vectors a block in the image tower, N
    cfg.TRAINER.IVLP.N_CTX_TEXT = 2  # vectors a block in the text tower, M
    cfg.TRAINER.IVLP.CTX_INIT = "a photo of a"  # words that the first start from; empty: random
    cfg.TRAINER.IVLP.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.IVLP.PROMPT_DEPTH_VISION = 9  # blocks with vectors of their own; 0: no vectors
    cfg.TRAINER.IVLP.PROMPT_DEPTH_TEXT = 9  # at least 1


class CustomCLIP(VLCustomCLIP):
    config_node = "IVLP"


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=False, capturable_step=True)
class IVLP(VLTrainer):
    """Independent vision-language prompting."""

    config_node = "IVLP"
    custom_clip_class = CustomCLIP
