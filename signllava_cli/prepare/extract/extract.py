"""`signllava prepare extract`: makes streams from videos, recording by recording, and packs them into shards."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.clip_source import ClipSource
from signllava_cli.data.work_shard import WorkShard
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.files import acquire_lock, exclusive_access, read_json, write_json
from signllava_cli.prepare.extract.clip_extractor import ExtractorSettings
from signllava_cli.prepare.extract.contact_sheet import SheetClip, write_contact_sheet
from signllava_cli.prepare.extract.extract_report import make_report, print_report
from signllava_cli.prepare.extract.find_videos import ClipVideos, find_videos
from signllava_cli.prepare.extract.pose_quality import PoseQuality
from signllava_cli.prepare.extract.recording_files import (
    ExtractPaths,
    RecordingResult,
    fingerprint_of,
    read_fingerprint,
    read_result,
    remove_temporary_files,
)
from signllava_cli.prepare.extract.recording_pool import PoolSettings, RecordingJob, extract_recordings
from signllava_cli.prepare.extract.video_cuts import VideoCut, require_av
from signllava_cli.prepare.pack.find_clips import ClipLocations
from signllava_cli.prepare.pack.pack import pack_locations, print_result
from signllava_cli.prepare.pack.request import PackRequest
from signllava_cli.prepare.pack.stream_paths import StreamPaths

POSE = "pose"  # the stream whose boxes others need


@dataclass(frozen=True)
class ExtractRequest:
    """Which videos become streams, and how.

    `videos`: the folder of the videos. `root`: the dataset folder, with the annotation. `streams`: name -> settings
    of its extractor, in the order of extraction. `stall_seconds`: see `PoolSettings`. `shard_mb`: see `PackRequest`.
    """

    videos: Path
    root: Path
    split: str
    streams: Mapping[str, ExtractorSettings]
    workers: int
    share: WorkShard = field(default_factory=WorkShard)
    stall_seconds: float = 120
    shard_mb: float = 1024
    overwrite: bool = False


def extract(request: ExtractRequest) -> None:
    """Extract all streams of `request`, or continue where a killed run stopped.

    Raises:
        UserError: no video is found, the stream exists already with other settings, or a file cannot be written.
        RunStopped: a signal arrived; the same command continues.
    """
    require_av()
    recordings = read_annotations(request.root, request.split)
    videos = find_videos(request.videos, recordings)
    for stream, settings in request.streams.items():
        _StreamExtraction(request, stream, settings, recordings, videos).run()


class _StreamExtraction:
    """The extraction of one stream of a split."""

    def __init__(
        self,
        request: ExtractRequest,
        stream: str,
        settings: ExtractorSettings,
        recordings: Sequence[Recording],
        videos: ClipVideos,
    ) -> None:
        self.request, self.stream, self.settings = request, stream, settings
        self.recordings, self.videos = recordings, videos
        self.out = StreamPaths(request.root, stream, request.split)
        self.paths = ExtractPaths(self.out)
        pose = ExtractPaths(StreamPaths(request.root, POSE, request.split))
        self.boxes = pose if settings.needs_boxes else None

    def run(self) -> None:
        """Extract this job's share of the recordings; the job that completes the last recording packs them."""
        self.settings_fingerprint = self.settings.fingerprint()
        self.fingerprints = self._fingerprints()
        if self._is_finished():
            return
        share = self.request.share
        names = list(self.fingerprints)[share.index :: share.count]
        self._require_boxes(names)
        lock = self.out.folder / f".extract.{self.stream}.{self.request.split}.{share}.lock"
        message = (
            f"Another process extracts the same share of stream {self.stream} in {self.out.folder}; wait for it, or "
            "give each job its own --shard I/N."
        )
        with acquire_lock(lock, message):
            self._extract(names)
        self.fingerprints = self._fingerprints()  # other jobs may have stored boxes in the meantime
        if waiting := [name for name in self.fingerprints if not self._is_extracted(name)]:
            count = format_count(len(waiting), "recording is", "recordings are")
            info(f"stream {self.stream}: {count} left to other jobs; the last of them packs the stream")
            return
        with exclusive_access(self.paths.features_folder.parent):  # jobs that end at the same time
            if not self._is_finished():
                self._finish()

    def _extract(self, names: Sequence[str]) -> None:
        """Extract those of the recordings `names` that are not complete."""
        remove_temporary_files(self.paths, set(names))
        by_name = {recording.name: recording for recording in self.recordings}
        jobs = [
            RecordingJob(name, self._cuts(by_name[name]), self.fingerprints[name])
            for name in names
            if not self._is_extracted(name)
        ]
        if len(jobs) < len(names):
            num_done = len(names) - len(jobs)
            info(f"stream {self.stream}: {num_done} of {len(names)} recordings were extracted before")
        if jobs:
            request = self.request
            extract_recordings(
                jobs, PoolSettings(self.settings, self.paths, self.boxes, request.workers, request.stall_seconds)
            )

    def _fingerprints(self) -> dict[str, str]:
        """Recording -> fingerprint, of the recordings with a video."""
        fingerprints = {}
        for recording in self.recordings:
            if cuts := self._cuts(recording):
                settings = dict(self.settings_fingerprint)
                if self.boxes is not None:
                    settings["boxes"] = read_fingerprint(self.boxes.arrays(recording.name))
                fingerprints[recording.name] = fingerprint_of(settings, cuts)
        return fingerprints

    def _digest(self) -> str:
        """SHA-256 of all that the stream and its report depend on."""
        content = [self.fingerprints, self.videos.unusable, self.videos.missing]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _require_boxes(self, names: Sequence[str]) -> None:
        """Check that stream pose has extracted the recordings `names`, if boxes are needed.

        Raises:
            UserError: it has not.
        """
        if self.boxes is None or self.boxes.report.is_file():
            return
        if lacking := [name for name in names if not self.boxes.features(name).is_file()]:
            raise UserError(
                f"Stream {self.stream} needs the boxes of face and hands of stream {POSE}, which are missing of "
                f"{format_count(len(lacking), 'recording')} ({summarize_names(lacking)}): extract stream {POSE} of "
                f"split {self.request.split} first, with the same --shard, or both (--streams {POSE},{self.stream})."
            )

    def _cuts(self, recording: Recording) -> dict[str, VideoCut]:
        return {clip.name: self.videos.cuts[clip.id] for clip in recording.clips if clip.id in self.videos.cuts}

    def _is_finished(self) -> bool:
        """Whether the stream was extracted with these settings and videos.

        Raises:
            UserError: it was extracted with others, or packed from other files, and --overwrite is not given.
        """
        if self.paths.report.is_file():
            earlier = read_json(self.paths.report)
            if earlier.get("digest") == self._digest() and self.out.metadata.is_file():
                info(f"stream {self.stream} of split {self.request.split} was extracted before: nothing to do")
                shutil.rmtree(self.paths.features_folder, ignore_errors=True)
                return True
            if not self.request.overwrite:
                differences = _describe_differences(earlier.get("settings"), self.settings_fingerprint)
                raise UserError(
                    f"{self.paths.report} was made with other settings, videos or cuts{differences}; give "
                    "--overwrite to replace the stream, or name another --out."
                )
        elif not self.request.overwrite and not self.paths.features_folder.is_dir():
            files = (self.out.metadata, *(self.out.list_shards() if self.out.folder.is_dir() else ()))
            if existing := [file.name for file in files if file.exists() or file.is_symlink()]:
                raise UserError(
                    f"{self.out.folder} holds {summarize_names(existing)}, which `prepare extract` did not write; "
                    "name another --out, or give --overwrite to replace them."
                )
        return False

    def _is_extracted(self, recording: str) -> bool:
        return read_fingerprint(self.paths.features(recording)) == self.fingerprints[recording]

    def _finish(self) -> None:
        """Pack the extracted recordings, write the report, and remove what was packed."""
        results = {name: read_result(self.paths.features(name)) for name in self.fingerprints}
        request = PackRequest(
            (self.paths.features_folder.resolve(),), "hdf5", "{recording}.h5", "{clip}", self.request.shard_mb
        )
        locations = self._locations(results)
        with self.out.lock():
            self.paths.report.unlink(missing_ok=True)
            result, plan = pack_locations(
                request, self.recordings, locations, self.out, self.request.workers, self.request.overwrite
            )
        fix = f"look at the videos, then repeat with --overwrite. {self.paths.report} lists all of them."
        print_result(result, self.out, plan, faulty_fix=fix, missing_fix=fix)
        report = make_report(
            self.stream, self.request.split, self._digest(), self.settings_fingerprint, results, locations
        )
        if worst := report.get("worst"):
            title = f"Stream {self.stream} of split {self.request.split}"
            write_contact_sheet(self.paths.contact_sheet, title, [self._sheet_clip(clip, results) for clip in worst])
        write_json(self.paths.report, report)
        print_report(report, self.paths)
        shutil.rmtree(self.paths.features_folder)

    def _sheet_clip(self, clip_id: str, results: Mapping[str, RecordingResult]) -> SheetClip:
        recording, _, clip = clip_id.partition("/")
        quality = PoseQuality.from_json(results[recording].quality[clip] or {})
        files = self.paths.features(recording), self.paths.arrays(recording)
        return SheetClip(clip_id, self.videos.cuts[clip_id], quality, *files)

    def _locations(self, results: Mapping[str, RecordingResult]) -> ClipLocations:
        sources, unusable = {}, dict(self.videos.unusable)
        for recording in self.recordings:
            for clip in recording.clips:
                if clip.id not in self.videos.cuts:
                    continue
                if reason := results[recording.name].skipped.get(clip.name):
                    unusable[clip.id] = f"{reason} ({self.videos.cuts[clip.id].file})"
                else:
                    sources[clip.id] = ClipSource(self.paths.features(recording.name), "hdf5", clip.name)
        return ClipLocations(sources, unusable, self.videos.missing)


def _describe_differences(earlier: object, current: Mapping[str, object]) -> str:
    """What differs between the settings of an earlier report and the current ones, for a message."""
    if not isinstance(earlier, dict):
        return ""
    names = [name for name in {**earlier, **current} if earlier.get(name) != current.get(name)]
    return "".join(f" ({name} {earlier.get(name)}, now {current.get(name)})" for name in names)
