"""`signllava prepare`: make datasets and LLM folders, and check them."""

from collections.abc import Callable

import typer

from signllava_cli.cli.prepare import importers
from signllava_cli.cli.prepare.annotation_texts import keywords, paraphrases
from signllava_cli.cli.prepare.check import check
from signllava_cli.cli.prepare.describe import describe
from signllava_cli.cli.prepare.index import index
from signllava_cli.cli.prepare.llm import llm
from signllava_cli.cli.prepare.packing import link, pack
from signllava_cli.cli.prepare.toy import toy

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Annotations, from the tables and captions that labs have": {
        "how2sign": importers.how2sign,
        "youtube-asl": importers.youtube_asl,
        "openasl": importers.openasl,
        "phoenix14t": importers.phoenix14t,
        "csv": importers.csv,
        "keywords": keywords,
        "paraphrases": paraphrases,
    },
    "Features": {"pack": pack, "link": link, "index": index},
    "Before training": {"check": check, "describe": describe},
    "To try it out": {"toy": toy, "llm": llm},
}

app = typer.Typer(help="Make datasets and LLM folders, and check them.", no_args_is_help=True)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
