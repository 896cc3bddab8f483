"""How it is shown: records, means over seeds, tables, charts and pages."""
