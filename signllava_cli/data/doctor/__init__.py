"""The doctor of a dataset folder: what in it would spoil a training or a score, and how to mend it."""
