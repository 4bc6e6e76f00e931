"""The doctor of a dataset folder: what in it would corrupt a training or a score, and how to fix it."""
