"""What a run has learned, taken out of its folder: predict, interpret, export, import.

No dataset and no other configuration has to be there.

    from prompts import Predictor
    predict = Predictor.load("output/coop")
    predict(["cat.jpg", "dog.jpg"])            # [[("cat", 0.98), ("dog", 0.01), …], …]
"""

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from prompts.predictor import Predictor

__all__ = ["Predictor"]
