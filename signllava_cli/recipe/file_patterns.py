"""Patterns of file names with fields in braces, such as `{split}.{shard}.h5`."""

from string import Formatter


def parse_fields(pattern: str) -> set[str]:
    """The names in braces in `pattern`.

    Raises:
        ValueError: the pattern is malformed, or contains attributes, indices, conversions or format specs, with which
            `str.format` could read other values, or need any amount of memory.

    >>> sorted(parse_fields("{split}.{shard}.h5"))
    ['shard', 'split']
    """
    parsed = [part[1:] for part in Formatter().parse(pattern) if part[1] is not None]
    for field, spec, conversion in parsed:
        if spec or conversion or not field or set(field) & set(".["):
            raise ValueError("braces may hold only a name")
    return {field for field, _, _ in parsed if field is not None}
