"""CLIP's two towers, exact and fast, without a trainer, a dataset or a configuration.

towers = encoders.load("ViT-B/16")
images = normalize(towers.image(pixels))
texts = normalize(towers.text.encode_tokens(towers.tokenizer(["a photo of a cat."])))
logits = towers.logit_scale * images @ texts.t()
"""

from encoders.image import ImageEncoder
from encoders.load import Towers, load
from encoders.text import TextEncoder
from encoders.tokens import tokenize
from encoders.tower import normalize

__all__ = ["ImageEncoder", "TextEncoder", "Towers", "load", "normalize", "tokenize"]
