"""What `signllava` alone prints: its commands in the order of a study, one line each."""

STUDY = {
    "prepare": "import annotations, pack features, check and describe a dataset",
    "init": "write a recipe for the data at hand",
    "pretrain": "train the projectors of a frozen LLM",
    "finetune": "train projectors and a LoRA adapter of the quantized LLM",
    "generate": "translate a split, with or without context",
    "eval": "score predictions, compare systems, write a report",
    "study": "all of these for several recipes and seeds, in one table",
    "serve": "translate in the browser",
}
OTHERS = {
    "demo": "all steps on a generated corpus, to try signllava",
    "recipes": "list, show, explain, copy, validate and import recipes",
    "checkpoint": "inspect, convert, merge and share checkpoints",
    "plot": "draw the losses and scores of runs",
    "env": "print the machine and the versions, for a bug report",
    "completion": "install Tab completion of commands, options and recipes",
}


def format_command_map(version: str) -> str:
    """The map, as text of at most 80 columns."""
    lines = [f"signllava {version}: sign-language translation with a large language model", ""]
    lines += ["A study, in its order:", *map(_format_line, STUDY.items()), ""]
    lines += ["Also:", *map(_format_line, OTHERS.items()), ""]
    lines += ["`signllava COMMAND --help` describes a command and its options."]
    return "\n".join(lines)


def _format_line(command: tuple[str, str]) -> str:
    name, description = command
    return f"  {name:<10}  {description}"
