"""Readers of published data sets, one file for each family of folder layouts; `training.datasets` is their front."""
