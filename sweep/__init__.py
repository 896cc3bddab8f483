"""The papers' protocols as data, a runner that survives being killed, and tables from records.

    python -m sweep run base2new --trainers CoOp CoCoOp --datasets all --seeds 1 2 3 --root data
    python -m sweep status
    python -m sweep table cocoop-1

Bottom up: `run.py` says what one run is; `recipes.py` and `protocols.py` list the runs of the
papers; `plan.py` orders them; `runner.py` carries them out through an executor (`local.py`,
`ray_pool.py`); `records.py` reads what they left; `grid.py`, `formats.py`, `html.py` and `plots.py`
show it. Nothing outside this package imports it.
"""
