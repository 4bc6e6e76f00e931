"""Imports the annotation tables of datasets as `annotation.{split}.json`: one module per source."""
