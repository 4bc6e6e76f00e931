"""The annotation tables that labs have, turned into `annotation.{split}.json`: one file per source."""
