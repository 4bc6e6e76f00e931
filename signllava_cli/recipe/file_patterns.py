"""Patterns of file names with fields in braces, such as `metadata.{split}.json`."""

from string import Formatter


def pattern_fields(pattern: str) -> set[str]:
    """The names in braces in `pattern`.

    >>> sorted(pattern_fields("mae.{split}.{shard}.h5"))
    ['shard', 'split']

    Raises:
        ValueError: the pattern is malformed, or contains attributes, indices, conversions or format specs.
    """
    parsed = list(Formatter().parse(pattern))
    for _, field, spec, conversion in parsed:
        if field is not None and (spec or conversion or not field or set(field) & set(".[")):
            raise ValueError(f"{{{field}}} is not only a name in braces")
    return {field for _, field, _, _ in parsed if field is not None}
