"""What several tests of the image side share."""

import pytest

from trainers import image_features


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that went through an encoder together."""
    counts: list[int] = []
    plain = image_features.ImageEncoder.__call__
    monkeypatch.setattr(
        image_features.ImageEncoder,
        "__call__",
        lambda self, image: (counts.append(len(image)), plain(self, image))[1],
    )
    return counts
