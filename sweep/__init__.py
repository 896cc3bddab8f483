"""The papers' protocols as data, a runner that survives being killed, and tables from records.

    python -m sweep run base2new --trainers CoOp CoCoOp --datasets all --seeds 1 2 3 --root data
    python -m sweep status
    python -m sweep table cocoop-1

In the order of the flow; each folder imports only from those before it:

    plan/     what to run: a run and its identity, recipes, protocols, the papers' tables, requests
    work/     run it: a run's folder, one run, the sweep, and where the work is done
    report/   show it: records, means over seeds, tables, charts and pages
    paper/    the papers' numbers, with their sources
    cli.py    the commands

Nothing outside this package imports it but scripts, benchmarks and tests.
"""
