"""`signllava prepare toy`."""

from pathlib import Path
from typing import Annotated

import typer


def toy(
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")] = Path("data/toy"),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Create the toy corpus: several streams, and sentences that need context."""
    from signllava_cli.console import info
    from signllava_cli.prepare.toy_corpus import RECORDINGS, STREAMS, write_toy_corpus

    write_toy_corpus(out, seed)
    splits = ", ".join(f"{split} {RECORDINGS[split]}" for split in ("train", "dev", "test"))
    info(f"toy corpus in {out}: recordings {splits}; streams {', '.join(STREAMS)}")
