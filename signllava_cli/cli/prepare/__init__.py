"""`signllava prepare`: creates and checks datasets and LLM folders."""

from collections.abc import Callable

from signllava_cli.cli.output_options import CommandGroup
from signllava_cli.cli.prepare import importers
from signllava_cli.cli.prepare.annotation_texts import keywords, paraphrases
from signllava_cli.cli.prepare.check import check
from signllava_cli.cli.prepare.describe import describe
from signllava_cli.cli.prepare.extract import extract
from signllava_cli.cli.prepare.hub import pull, push
from signllava_cli.cli.prepare.index import index
from signllava_cli.cli.prepare.llm import llm
from signllava_cli.cli.prepare.packing import link, pack
from signllava_cli.cli.prepare.toy import toy

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Annotations": {
        "how2sign": importers.how2sign,
        "youtube-asl": importers.youtube_asl,
        "openasl": importers.openasl,
        "phoenix14t": importers.phoenix14t,
        "csv": importers.csv,
        "keywords": keywords,
        "paraphrases": paraphrases,
    },
    "Features": {"extract": extract, "pack": pack, "link": link, "index": index},
    "Before training": {"check": check, "describe": describe},
    "On the Hugging Face hub": {"push": push, "pull": pull},
    "To try signllava": {"toy": toy, "llm": llm},
}

app = CommandGroup(help="Create and check datasets and LLM folders.", no_args_is_help=True)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
