"""Other tools' feature files made into the shards of a stream, and shards of our layout taken up where they lie."""
