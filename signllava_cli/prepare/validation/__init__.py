"""Checks a dataset folder for errors that would corrupt a training or a score, and fixes some of them."""
