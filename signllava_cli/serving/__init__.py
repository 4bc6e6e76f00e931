"""`signllava serve`: a small web app on the Python API, for the local machine."""
