"""The results of an evaluation: tables on the terminal and in LaTeX, charts, an HTML page."""
