"""What several tests of the image side share."""

import pytest

from encoders import ImageEncoder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that went through an encoder together."""
    counts: list[int] = []
    plain = ImageEncoder.__call__
    monkeypatch.setattr(
        ImageEncoder,
        "__call__",
        lambda self, image, *prompts: (counts.append(len(image)), plain(self, image, *prompts))[1],
    )
    return counts
