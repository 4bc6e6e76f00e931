"""All sections of a recipe in one class, and the section about launching."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, cast

import yaml
from pydantic import Field, TypeAdapter

from signllava_cli.recipe.data_sections import Context, Data, Tasks
from signllava_cli.recipe.generate_section import Generate
from signllava_cli.recipe.model_sections import LLM, Init, Lora, Stream
from signllava_cli.recipe.setting_types import Count, Positive, section
from signllava_cli.recipe.training_sections import Run, Track, Train


@section
class Launch:
    """How many processes the run is started on. Options of the command line override it.

    Without a profile the command runs in one process, unless `accelerate launch` started it.
    """

    profile: str | None = None
    """Launch profile: the name of one in accelerate_configs/, or a file. `null`: this process alone. In accelerate:
    `--config_file`."""
    num_processes: Positive | None = None
    """Processes over all machines. `null`: the number in the profile. In accelerate: `--num_processes`."""
    num_machines: Positive | None = None
    """Machines, on each of which the same command runs. `null`: the number in the profile. In accelerate:
    `--num_machines`."""
    machine_rank: Count | None = None
    """Number of this machine, counted from 0. `null`: the number in the profile. In accelerate: `--machine_rank`."""
    main_process_ip: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    """Host name or IP address of machine 0. Every machine needs it. In accelerate: `--main_process_ip`."""
    main_process_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Free port of machine 0. In accelerate: `--main_process_port`."""
    rendezvous_timeout: Positive = 900
    """Seconds that a machine waits for the others at the start. In accelerate: `--rdzv_conf timeout=900`."""
    heartbeat_timeout: Annotated[int, Field(ge=2, le=86_400)] = 300
    """Seconds without an answer after which another machine is lost and the run ends. Also the time in which ranks
    that have started must connect to those of other machines."""


@section
class Recipe:
    """All settings of a run. `read_recipe` reads it, `Recipe.to_yaml` writes it."""

    run: Run = dataclasses.field(default_factory=Run)
    llm: LLM = dataclasses.field(default_factory=LLM)
    streams: dict[str, Stream] = dataclasses.field(default_factory=dict)
    data: Data = dataclasses.field(default_factory=Data)
    tasks: Tasks = dataclasses.field(default_factory=Tasks)
    context: Context = dataclasses.field(default_factory=Context)
    lora: Lora = dataclasses.field(default_factory=Lora)
    init: Init = dataclasses.field(default_factory=Init)
    train: Train = dataclasses.field(default_factory=Train)
    generate: Generate = dataclasses.field(default_factory=Generate)
    track: Track = dataclasses.field(default_factory=Track)
    launch: Launch = dataclasses.field(default_factory=Launch)

    def to_dict(self) -> dict[str, Any]:
        """The resolved settings as plain YAML/JSON values."""
        return cast(dict[str, Any], TypeAdapter(Recipe).dump_python(self, mode="json"))

    def to_flat_dict(self) -> dict[str, Any]:
        """The resolved settings, each under its whole key, such as `train.learning_rate`."""
        return {key: value for key, value in flatten(self.to_dict()).items() if value != {}}

    def to_yaml(self) -> str:
        """The resolved recipe as a YAML file that reads back to the same recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)


def flatten(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested objects by dotted keys. An empty object is a value.

    >>> flatten({"versions": {"torch": "2.13.0"}, "seed": 0, "streams": {}})
    {'versions.torch': '2.13.0', 'seed': 0, 'streams': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat
