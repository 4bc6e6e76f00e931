"""Scores of predictions: metrics with signatures, intervals, comparisons, reports."""
