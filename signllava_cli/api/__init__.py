"""The Python API: a trained model in one object, for notebooks, services and other people's code."""
