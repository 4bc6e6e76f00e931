"""The endpoint of the web app that says which frames were read for which word: one forward pass for each request."""

import numpy as np
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from signllava_cli.api.answer_attention import AnswerAttention, StreamAttention
from signllava_cli.api.translator import SignLlava
from signllava_cli.serving.answers import ErrorDetail, Name, not_found
from signllava_cli.serving.recent_clips import RecentClips

DIGITS = 6


class StreamAttentionInfo(BaseModel):
    """The attention on one stream, or on joined streams.

    `edges`: the frame with which each embedding begins, and at last the number of frames. `weights`: for each word,
    the attention on each embedding.
    """

    name: str
    edges: list[int]
    weights: list[list[float]]


class AttentionInfo(BaseModel):
    """Which frames were read for which word of a translation.

    `shares`: what the words attend to (each stream, `context`, `answer`: the words before, `instructions`) -> the
    share of each word's attention.
    """

    words: list[str]
    streams: list[StreamAttentionInfo]
    shares: dict[str, list[float]]


def add_attention_endpoint(app: FastAPI, model: SignLlava, recent: RecentClips) -> None:
    """Add the endpoint to `app`, for the clips that are among `recent`."""

    @app.post("/api/attention", response_model=AttentionInfo, responses={404: {"model": ErrorDetail}})
    def attention(key: Name) -> AttentionInfo | Response:
        """Which frames were read for which word of a translated clip; `key` is in the line of its translation."""
        clip = recent.get(key)
        if clip is None:
            return not_found("This clip was translated too long ago, or never; translate it again.")
        return describe_attention(clip.attention(model))


def describe_attention(attention: AnswerAttention) -> AttentionInfo:
    """The attention in JSON values, rounded."""
    return AttentionInfo(
        words=list(attention.words),
        streams=[_describe_stream(name, stream) for name, stream in attention.streams.items()],
        shares={name: _rounded(share) for name, share in attention.shares.items()},
    )


def _describe_stream(name: str, stream: StreamAttention) -> StreamAttentionInfo:
    edges = [*stream.spans[:, 0].tolist(), stream.num_frames]
    return StreamAttentionInfo(name=name, edges=edges, weights=[_rounded(row) for row in stream.weights])


def _rounded(values: np.ndarray) -> list[float]:
    return [round(value, DIGITS) for value in values.tolist()]
