"""Packs feature files of other tools into the shards of a stream, and links shards that have this layout already."""
