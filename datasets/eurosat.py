"""EuroSAT: satellite images of land use, ten classes (Helber et al., arXiv 1709.00029)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import BenchmarkDataset

CLASSNAMES = {  # folder → name in the prompt
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class EuroSAT(BenchmarkDataset):
    """27,000 images in `eurosat/2750/<class>/<class>_<number>.jpg`."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    other_places = (("eurosat", "eurosat/2750"), ("eurosat", "EuroSAT_RGB"))  # nested; Zenodo's
    split_file = "split_zhou_EuroSAT.json"
    new_cnames = CLASSNAMES
    template = "a centered satellite photo of {}."
