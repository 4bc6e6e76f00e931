"""Offline work on a dataset folder: importing annotations, packing features, validation, indexes, descriptions."""
