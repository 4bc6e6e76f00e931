"""Projectors, the LLM in its precision, the module that joins them, and the checkpoint files."""
