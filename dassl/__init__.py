"""A clean-room engine with Dassl's public API: data, evaluation, optimisation, training loops.

It knows nothing about CLIP, prompts or any dataset; `trainers` and `datasets` plug into it.
"""

__version__ = "0.2.0"
