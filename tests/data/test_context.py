"""The context rule, compared with a direct implementation."""

import pytest

from signllava_cli.data.context import context_indices


@pytest.mark.parametrize("window", range(5))
@pytest.mark.parametrize("prelude", range(5))
@pytest.mark.parametrize("position", range(14))
def test_context_rule(window: int, prelude: int, position: int) -> None:
    if position >= window + prelude:
        expected = [p for p in range(position) if p < prelude or p >= position - window]
    else:
        expected = list(range(position))
    assert context_indices(position, window, prelude) == expected
    assert position not in expected
