"""What the trainers beside this file share: how they get a CLIP, and their text tower."""

import torch
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from torch import nn

from clip import clip

_tokenizer = _Tokenizer()


def get_clip(cfg, **design):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    try:
        weights = torch.jit.load(path, map_location="cpu").state_dict()
    except RuntimeError:
        weights = torch.load(path, map_location="cpu")
    model = clip.build_model(weights, design) if design else clip.build_model(weights)
    return model.float() if cfg.TRAINER.MINI.PREC in ("fp32", "amp") else model


class Prompts(nn.Module):
    """M vectors in front of the names of C classes; C * M where each class has its own."""

    def __init__(self, cfg, classnames, model):
        super().__init__()
        words = cfg.TRAINER.MINI.CTX_INIT
        self.n_ctx = cfg.TRAINER.MINI.N_CTX
        names = [name.replace("_", " ") for name in classnames]
        self.lengths = [len(_tokenizer.encode(name)) for name in names]
        self.tokens = torch.cat([clip.tokenize(f"{words} {name}.") for name in names])  # (C, 77)
        with torch.no_grad():
            known = model.token_embedding(self.tokens).type(model.dtype)  # (C, 77, D)
        self.ctx = nn.Parameter(known[0, 1 : 1 + self.n_ctx].clone())
        self.register_buffer("token_prefix", known[:, :1])
        self.register_buffer("token_suffix", known[:, 1 + self.n_ctx :])

    def forward(self):
        ctx = self.ctx.expand(len(self.tokens), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class TextTower(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.transformer, self.ln_final = model.transformer, model.ln_final
        self.positional_embedding = model.positional_embedding
        self.text_projection = model.text_projection
        self.dtype = model.dtype

    def forward(self, prompts, tokens, deep=None):
        x = (prompts + self.positional_embedding.type(self.dtype)).permute(1, 0, 2)
        x = self.transformer(x) if deep is None else self.transformer([x, deep, 0])[0]
        x = self.ln_final(x.permute(1, 0, 2)).type(self.dtype)
        return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ self.text_projection


def cosines(images, texts, scale):
    images = images / images.norm(dim=-1, keepdim=True)
    texts = texts / texts.norm(dim=-1, keepdim=True)
    return scale.exp() * images @ texts.t()
