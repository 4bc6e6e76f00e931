"""`signllava serve`: a small web app on the Python API, for one's own machine."""
