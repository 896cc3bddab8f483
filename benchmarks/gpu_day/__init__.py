"""A day with a GPU: everything that only a GPU can show, measured by one command.

`__main__` runs the parts, `plan` lists them, `figures` says what is read off them and judged; the
other modules are a part each. `plan` and `figures` need Python alone.
"""
