"""What to run: a run and its identity, the recipes, protocols and tables of the papers."""
