"""The arithmetic of frozen layers: products, folding, attention. Exact but for rounding."""
