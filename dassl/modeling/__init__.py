"""What other people's methods take from Dassl's models: operations on batches and probabilities.

Its backbones, heads and networks (`build_backbone`, `SimpleNet`) are not here.
"""
