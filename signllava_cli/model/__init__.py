"""The LLM, the projectors, the model that joins them, its caches, and checkpoint files."""
