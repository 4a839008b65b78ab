"""Frames of a video file: true timestamps, upright pictures, constant memory.

Decoding is PyAV's (FFmpeg); `load_backend` finds others by name. Nothing here imports JAX, so that
a bad path fails at once.

Every frame has one identity: its 0-based index in presentation order at the video's own rate,
whatever is sampled. Frames are counted as `ffprobe -count_frames` counts them: what an edit list
hides is no frame, nor is what cannot be decoded. Only a `Reader` that seeks counts packets: where
some of a damaged file are lost, later frames have greater indices than in a pass from the start,
and the same times.
"""

from carjax.video.backends import Backend, Frames, load_backend
from carjax.video.batch import Batch, batches
from carjax.video.container import is_image
from carjax.video.decoder import (
    SCORED_SIDE,
    Decoder,
    Frame,
    VideoInfo,
    coded_size,
    frames,
    grab,
    probe,
    recorded_at,
)
from carjax.video.reader import Reader, UnprovenIndexError
from carjax.video.timing import AUTO_FPS, Fps, parse_fps, sampler

__all__ = [
    "AUTO_FPS",
    "SCORED_SIDE",
    "Backend",
    "Batch",
    "Decoder",
    "Fps",
    "Frame",
    "Frames",
    "Reader",
    "UnprovenIndexError",
    "VideoInfo",
    "batches",
    "coded_size",
    "frames",
    "grab",
    "is_image",
    "load_backend",
    "parse_fps",
    "probe",
    "recorded_at",
    "sampler",
]
