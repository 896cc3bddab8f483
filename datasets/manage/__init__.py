"""What `python -m datasets` does: lists, fetches and checks datasets."""
