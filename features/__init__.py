"""What a frozen encoder makes of images, computed once.

`batches` puts features in the place of a loader's images: training views are encoded `ahead` of the
steps, or drawn anew the same way for all methods (`views`); features of test images are looked up
in the `store`, under `keys` that say what they are the features of.
"""

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from features.batches import ImageFeatures

__all__ = ["ImageFeatures"]
