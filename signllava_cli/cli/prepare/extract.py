"""`signllava prepare extract`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from signllava_cli.errors import UserError

STREAMS = ("pose", "dino")


def extract(
    out: Annotated[Path, typer.Option(metavar="DATA", help="The dataset folder, with the annotation in it.")],
    split: Annotated[str, typer.Option(help="The split whose clips are extracted.")],
    videos: Annotated[
        Path | None,
        typer.Argument(metavar="VIDEOS", help="Folder with CLIP.mp4 or RECORDING.mp4.", show_default=False),
    ] = None,
    streams: Annotated[str, typer.Option(help="Streams to make, separated by commas: `pose`, `dino`.")] = "pose",
    pose_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model file of HolisticLandmarker. Default: in the user's cache."),
    ] = None,
    download_pose_model: Annotated[
        bool, typer.Option("--download-pose-model", help="Fetch the official model into the user's cache, once.")
    ] = False,
    pose_layout: Annotated[
        Literal["mediapipe", "sign-llava"],
        typer.Option(help="`sign-llava`: points and normalization of Sign_LLaVA, for its checkpoints."),
    ] = "mediapipe",
    min_body: Annotated[
        float, typer.Option(min=0, max=1, help="Share of frames with a body below which a clip is skipped.")
    ] = 0.8,
    dino: Annotated[
        str, typer.Option(metavar="MODEL", help="Image backbone of stream dino: a folder, or a hub id.")
    ] = "facebook/dinov2-with-registers-small",
    dino_hands: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Backbone for the hands. Default: that of --dino.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Extract only this share of the recordings, in job I of N.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: the number of CPU cores.")
    ] = None,
    stall_seconds: Annotated[
        float, typer.Option(min=1, help="Skip a clip if no new frame of it comes for so long.")
    ] = 120,
    shard_mb: Annotated[
        float, typer.Option(min=0, help="Maximum size of a shard in MiB. A recording is never split.")
    ] = 1024,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the streams of an earlier run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Extract a sample, and print the hours and the disk that all will take.")
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Extract nothing: compare the streams with those of this dataset folder."),
    ] = None,
) -> None:
    """Make streams from videos: landmarks, and vectors of an image backbone. After a kill, run it again to continue.

    Cuts are `start` and `end` of the annotation, in seconds. docs/video.md describes all.
    """
    from signllava_cli.data.work_shard import WorkShard
    from signllava_cli.prepare.extract.clip_extractor import ExtractorSettings
    from signllava_cli.prepare.extract.compare_streams import compare_streams
    from signllava_cli.prepare.extract.dino_extractor import DinoSettings
    from signllava_cli.prepare.extract.extract import ExtractRequest, extract
    from signllava_cli.prepare.extract.extract_cost import estimate_cost
    from signllava_cli.prepare.extract.landmarks import require_mediapipe
    from signllava_cli.prepare.extract.pose_extractor import PoseSettings
    from signllava_cli.prepare.extract.pose_model import find_pose_model
    from signllava_cli.processes import cpu_cores

    names = [name.strip() for name in streams.split(",")]
    if unknown := [name for name in names if name not in STREAMS]:
        raise UserError(f"--streams {streams}: unknown stream {unknown[0]!a}; choose from {', '.join(STREAMS)}.")
    if compare is not None:
        for name in names:
            compare_streams(out, compare, split, name)
        return
    if videos is None:
        raise UserError("Name the folder of the videos: signllava prepare extract VIDEOS --out DATA --split SPLIT.")
    settings: dict[str, ExtractorSettings] = {}
    if "pose" in names:
        require_mediapipe()
        settings["pose"] = PoseSettings(find_pose_model(pose_model, download_pose_model), pose_layout, min_body)
    if "dino" in names:
        settings["dino"] = DinoSettings.load(dino, dino_hands)
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of a launcher, on this machine
    num_workers, share = workers or max(1, cpu_cores() // ranks_here), WorkShard.of_process(shard)
    request = ExtractRequest(videos, out, split, settings, num_workers, share, stall_seconds, shard_mb, overwrite)
    if dry_run:
        estimate_cost(request)
    else:
        extract(request)
