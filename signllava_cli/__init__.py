"""signllava: sign-language translation with a large language model."""

from typing import TYPE_CHECKING, Any

from signllava_cli._version import __version__

if TYPE_CHECKING:
    from signllava_cli.api.translator import SignLlava, Translation

__all__ = ["SignLlava", "Translation", "__version__"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import signllava_cli` alone brings no torch."""
    if name in ("SignLlava", "Translation"):
        from signllava_cli.api import translator

        return getattr(translator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
