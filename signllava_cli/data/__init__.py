"""Reads annotations and feature streams, and builds contexts, prompts, examples and batches."""
