"""Opens the model and the dataset, and serves the web app until Ctrl-C."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signllava_cli.console import info
from signllava_cli.errors import UserError, require_extra

if TYPE_CHECKING:
    from signllava_cli.api.video_features import VideoOptions

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MEBIBYTE = 2**20


def serve(
    checkpoint: str,
    data: str | None,
    split: str,
    host: str,
    port: int,
    max_upload_mb: int,
    videos: Path | None,
    generate_config: dict[str, Any],
    video_options: "VideoOptions",
    max_video_seconds: float,
) -> None:
    """Serve the checkpoint on http://host:port.

    Args:
        data: the dataset folder whose recordings can be chosen; None: the recipe's, if it exists.
        videos: a folder of RECORDING.mp4 or CLIP.mp4 (.webm, .mkv, .mov).
        generate_config: settings of the recipe's section `generate`.
        video_options: how streams are made from videos.
        max_video_seconds: of a cut.

    Raises:
        UserError: the extra `serve` is not installed, the port is in use, or the model or dataset cannot be opened.
    """
    require_extra("serve", "The web app", "fastapi", "uvicorn", "multipart")
    listener = _bind(host, port)
    import uvicorn

    from signllava_cli.serving.app import ServedModel, make_app
    from signllava_cli.serving.connections import BACKLOG, TimedConnection
    from signllava_cli.serving.startup import VideoConfig, open_served_model

    hosts = LOOPBACK if host in LOOPBACK else ("*",)
    video_config = VideoConfig(video_options, max_video_seconds)
    served: ServedModel = open_served_model(
        checkpoint, data, split, max_upload_mb * MEBIBYTE, videos, hosts, generate_config, video_config
    )
    info(f"serving {served.model.checkpoint} at {_format_url(*listener.getsockname()[:2])} (Ctrl-C ends it)")
    config = uvicorn.Config(
        make_app(served), http=TimedConnection, log_level="warning", access_log=False, backlog=BACKLOG
    )
    uvicorn.Server(config).run(sockets=[listener])


def _format_url(address: str, port: int) -> str:
    """The URL of a listener; an IPv6 address has brackets.

    >>> _format_url("127.0.0.1", 8000), _format_url("::1", 8000)
    ('http://127.0.0.1:8000/', 'http://[::1]:8000/')
    """
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def _bind(host: str, port: int) -> socket.socket:
    """Bind the port before the model is loaded, which can take minutes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror or error}; choose another host or port."
        ) from None
    return listener
