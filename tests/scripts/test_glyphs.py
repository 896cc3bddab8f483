"""Pictures of glyphs: a seed fixes them, and what is said of them is true."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("fontTools")

from scripts import glyphs

N = 200


@pytest.fixture(scope="module")
def fields() -> glyphs.Fields:
    return glyphs.render_fields()


def draw(fields: glyphs.Fields, seed: int, **more: object):
    return glyphs.draw_glyphs(fields, N, np.random.default_rng(seed), **more)


@pytest.mark.slow
def test_a_seed_fixes_the_pictures(fields: glyphs.Fields):
    first, again, other = draw(fields, 3), draw(fields, 3), draw(fields, 4)
    assert torch.equal(first[0], again[0])
    assert all(np.array_equal(a, b) for a, b in zip(first[1:], again[1:]))
    assert not torch.equal(first[0], other[0])


def test_shapes_and_values(fields: glyphs.Fields):
    images, symbols, facts = draw(fields, 0, held_out=True)
    assert images.shape == (N, glyphs.IMAGE, glyphs.IMAGE)
    assert 0 <= images.min() < images.max() <= 1
    assert facts.shape == (N, len(glyphs.FACTS)) and facts.dtype == bool
    kinds = [glyphs.SYMBOLS[index].kind for index in symbols]
    for kind, share in glyphs.KIND_SHARE.items():
        assert kinds.count(kind) / N == pytest.approx(share, abs=0.12)  # over 3 standard deviations


def test_bright_glyphs_stand_on_dark_paper(fields: glyphs.Fields):
    images, _, facts = draw(fields, 0, strength=0.2)
    facts = dict(zip(glyphs.FACTS, facts.T))
    assert (facts["bright"] ^ facts["dark"]).all()
    flat = images.flatten(1)
    paper = images[:, 0].median(dim=1).values  # the topmost row
    ink_is_brighter = (flat.amax(1) - paper > paper - flat.amin(1)).numpy()
    assert facts["small"].sum() > 20  # with a wide margin
    assert (ink_is_brighter == facts["bright"])[facts["small"]].all()
