"""`signllava prepare`: make datasets and LLM folders, and check them."""

import typer

from signllava_cli.cli.prepare.llm import llm
from signllava_cli.cli.prepare.toy import toy

app = typer.Typer(help="Make datasets and LLM folders, and check them.", no_args_is_help=True)
app.command("toy")(toy)
app.command("llm")(llm)
