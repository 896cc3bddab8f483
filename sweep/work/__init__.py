"""How it is run: what a run leaves in its folder, one run, a whole sweep, and where."""
