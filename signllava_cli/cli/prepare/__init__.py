"""`signllava prepare`: make datasets and LLM folders, and check them."""

import typer

from signllava_cli.cli.prepare import importers
from signllava_cli.cli.prepare.annotation_texts import keywords, paraphrases
from signllava_cli.cli.prepare.index import index
from signllava_cli.cli.prepare.llm import llm
from signllava_cli.cli.prepare.packing import link, pack
from signllava_cli.cli.prepare.toy import toy

app = typer.Typer(help="Make datasets and LLM folders, and check them.", no_args_is_help=True)
app.command("toy")(toy)
app.command("llm")(llm)
app.command("how2sign")(importers.how2sign)
app.command("youtube-asl")(importers.youtube_asl)
app.command("openasl")(importers.openasl)
app.command("phoenix14t")(importers.phoenix14t)
app.command("csv")(importers.csv)
app.command("index")(index)
app.command("keywords")(keywords)
app.command("paraphrases")(paraphrases)
app.command("pack")(pack)
app.command("link")(link)
