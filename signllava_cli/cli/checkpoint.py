"""`signllava checkpoint`: what is inside a checkpoint."""

import typer

from signllava_cli.cli.options import CheckpointArgument

app = typer.Typer(help="Look into checkpoints.", no_args_is_help=True)


@app.command()
def inspect(checkpoint: CheckpointArgument) -> None:
    """Print what a checkpoint holds: stage, LLM, tensors, versions."""
    from signllava_cli.console import say, show_table
    from signllava_cli.model.checkpoint import find_checkpoint, read_config, tensors_of

    found = find_checkpoint(checkpoint)
    config = read_config(found)
    say(f"{found}: {config.stage}, step {config.step}, LLM {config.llm['path']}")
    say(f"training data {config.data[:16]}; " + ", ".join(f"{k} {v}" for k, v in config.versions.items()))
    rows = [[name, dtype, " x ".join(map(str, shape)), f"{size:,}"] for name, dtype, shape, size in tensors_of(found)]
    show_table("Tensors", ["name", "dtype", "shape", "bytes"], rows)
