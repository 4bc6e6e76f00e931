"""signllava: sign-language translation with a large language model."""

__version__ = "0.1.0"
