"""What people see of an evaluation: tables on the screen and in papers, charts, a page."""
