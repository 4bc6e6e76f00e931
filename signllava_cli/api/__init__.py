"""The Python API: a trained model as one object, and its exchange through folders and the Hugging Face hub."""
