"""The shapes of what the HTTP API takes and gives."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from carjax.web.jobs import Stage


class Attribute(BaseModel):
    """Something that photos are chosen for."""

    name: str
    classes: list[str] = Field(description="The values it can have; empty for the direction.")


class About(BaseModel):
    """What this server can do, and what it takes."""

    version: str
    ready: bool = Field(description="The model is loaded; until then jobs wait.")
    busy: bool = Field(description="A job sent now would be refused.")
    attributes: list[Attribute] = Field(description="Empty until the model is loaded.")
    megabytes: float = Field(description="The largest upload, in 10⁶ bytes.")
    seconds: float = Field(description="The longest video.")
    megapixels: float = Field(description="The largest frame.")
    frames: int = Field(description="The most frames of a video.")
    keep_minutes: float = Field(description="How long a job is kept after its last use.")


class Video(BaseModel):
    """What the upload holds, as decoded."""

    frames: int
    duration_s: float
    width: int
    height: int


class JobStatus(BaseModel):
    """Where a job stands."""

    id: str
    name: str = Field(description="The upload's file name.")
    state: Literal["queued", "running", "done", "failed"]
    stage: Stage | None = None
    position: int = Field(0, description="Jobs before this one.")
    frames: int = Field(0, description="Frames scored so far.")
    expected_frames: int = Field(0, description="About how many will be.")
    remaining_s: float | None = Field(None, description="Null while it is not known.")
    video: Video | None = None
    error: str | None = Field(None, description="What is wrong and what to do.")
    no_car: bool = Field(False, description="It failed because the video shows no car.")
    warnings: list[str] = Field([], description="What to know of the video: one line each.")
    revision: int = Field(0, description="How often the result was edited.")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Edit(BaseModel):
    """What every edit may say."""

    revision: int | None = Field(
        None, description="The job's revision that it is based on: if there is a newer one, 409."
    )


class FrameChoice(Edit):
    """Another frame for a photo."""

    frame: int = Field(description="A scored frame, as in `selection.json`.", ge=0)


class Regions(Edit):
    """What to blur."""

    boxes: list[tuple[float, float, float, float]] = Field(
        description="Left, top, width and height as fractions of the whole frame.", max_length=20
    )


class Shape(Edit):
    """How photos are cut."""

    crop: Literal["none", "4:3", "16:9"]
