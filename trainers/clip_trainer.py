"""What every trainer on a frozen CLIP shares: its settings' check, and how CLIP is loaded."""

from __future__ import annotations

from yacs.config import CfgNode

from dassl.utils import ConfigError
from trainers.clip_utils import CLIP, backbone_name, backbone_problems, freeze, load_clip
from trainers.image_features import FrozenImageSide
from trainers.shared_clip import load_frozen_clip


class CLIPTrainer(FrozenImageSide):
    """A trainer on a frozen CLIP.

    A class whose runs leave CLIP exactly as it is may say so, by `shares_clip = True`: runs that
    follow each other in one process then get the same CLIP. As with `frozen_image_side`, a
    subclass must repeat it and loads its own as long as it does not.
    """

    shares_clip = False

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        """Returns a sentence for each setting that does not suit this method."""
        return backbone_problems(cfg)

    def check_cfg(self, cfg: CfgNode) -> None:
        problems = self.config_problems(cfg)
        if problems:
            raise ConfigError(problems)

    def load_clip(self) -> CLIP:
        """Returns CLIP in `self.precision`, without gradients.

        A shared one is on the trainer's device, an own one on the CPU, where other people's prompt
        learners look up their words.
        """
        print(f"Loading CLIP (backbone: {backbone_name(self.cfg)})")
        if vars(type(self)).get("shares_clip", False):
            return load_frozen_clip(self.cfg, self.precision, self.device)
        clip_model = load_clip(self.cfg, self.precision)
        freeze(clip_model)
        return clip_model

    def inference_precision(self) -> str:
        """Returns the precision of methods without gradients: half on a GPU, float32 else."""
        return "fp16" if self.device.type == "cuda" else "fp32"
