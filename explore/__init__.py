"""Runs seen: `python -m explore RUN…` writes one HTML page that needs no server and no network.

runs.py          folders → what each run says, and which runs are seeds of one setting
predictions.py   predictions.csv, and what is computed from it: calibration, confusions
curves.py        the numbers of a training, from its TensorBoard file
mistakes.py      the surest mistakes, with small pictures
learned.py       what stands nearest to learned vectors, and the prompts as tokens
accuracy.py single.py    sections of the page: on settings, on single runs
needs.py         what to type where something is missing
"""
