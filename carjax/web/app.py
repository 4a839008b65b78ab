"""The HTTP side: the page, and the jobs as an API with OpenAPI pages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import os
import pathlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import fastapi_offline
from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect
from starlette.staticfiles import NotModifiedResponse
from starlette.types import Receive, Scope, Send

import carjax
from carjax import files, result_folder
from carjax.errors import CarjaxError, UsageError, is_full
from carjax.listing import known as statements
from carjax.web import answers, upload
from carjax.web.bodies import SmallBodies
from carjax.web.guard import API_POLICY, guard
from carjax.web.jobs import Busy, Job, Jobs, Missing, Outdated
from carjax.web.limits import NO_ROOM
from carjax.web.process import Fault, NoCar, NoRoom, TaskDied, TaskOverrun, Unavailable

_PACKAGE = pathlib.Path(str(importlib.resources.files("carjax")))
_STATIC = _PACKAGE / "web" / "static"
_SWAGGER = pathlib.Path(str(importlib.resources.files(fastapi_offline))) / "static"
# What the page loads: its own files, and those that it shares with the report.
_FILES = {
    **{path.name: path for path in _STATIC.iterdir()},
    **{name: _PACKAGE / "report" / name for name in ("style.css", "components.js")},
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
_STATUS = {
    Missing: 404,
    upload.TooLarge: 413,
    upload.TooSlow: 408,
    Outdated: 409,
    Busy: 503,
    NoRoom: 503,
    TaskOverrun: 503,
    Unavailable: 503,
    Fault: 500,
    TaskDied: 422,
    NoCar: 422,
    UsageError: 422,
}
# How long the rest of a refused upload is read and thrown away, so that the client, which is still
# sending, gets to read the answer.
_LINGER_S = 5.0
_DESCRIPTION = """From a walk-around video of a car, the photos that sell it.

`POST /jobs` uploads a video; `GET /jobs/{id}/events` tells how far it is; then
`GET /jobs/{id}/selection.json` says what was chosen and `GET /jobs/{id}/zip` has all of it.
A job belongs to whoever knows its id, and is deleted some time after its last use.
"""

# The form is read by `upload`, as it arrives: FastAPI would first keep all of it.
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["video"],
                "properties": {
                    "video": {"type": "string", "format": "binary"},
                    "attributes": {
                        "type": "string",
                        "description": "Such as `type,brand,orientation`; default: all.",
                    },
                    "views": {"type": "integer", "enum": [8, 4], "default": 8},
                    "known": {
                        "type": "string",
                        "description": "What the seller states, such as `brand:BMW,doors:5`.",
                    },
                },
            }
        }
    },
}

Id = Annotated[str, Path(description="As `POST /jobs` gave it.", max_length=64)]
FrameIndex = Annotated[int, Path(description="Of a scored frame.", ge=0, lt=10**9)]
PhotoName = Annotated[
    str, Path(description="An attribute, or `view_` and a view.", pattern=r"^[\w-]{1,64}$")
]
_REFUSED: dict[int | str, dict[str, Any]] = {404: {"model": answers.Problem}}
_REFUSED_EDIT = _REFUSED | {code: {"model": answers.Problem} for code in (409, 422)}


def create_app(jobs: Jobs, *, local: bool = False) -> FastAPI:
    """Returns the application; `jobs` starts and ends with it.

    Args:
        jobs: the queue.
        local: it answers to this computer's own names alone: another name may be that of a site
            which has it point here, to read what a visitor's browser may see.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await jobs.start()
        try:
            yield
        finally:
            await jobs.close()

    app = FastAPI(
        title="carjax",
        version=carjax.__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(SmallBodies, idle_seconds=jobs.limits.idle_seconds)
    app.middleware("http")(functools.partial(guard, local))
    app.exception_handler(CarjaxError)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_words)
    app.exception_handler(ClientDisconnect)(_answer_nobody)
    app.mount("/swagger", StaticFiles(directory=_SWAGGER))
    _add_page(app)
    _add_jobs(app, jobs)
    _add_results(app, jobs)
    _add_edits(app, jobs)
    return app


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    # A refused upload may still be coming: the connection ends with the answer.
    headers = {"Connection": "close"} if request.method == "POST" else {}
    status = _STATUS.get(type(error), 422)
    if status == 503:
        headers["Retry-After"] = str(round(error.retry_s if isinstance(error, Busy) else 60))
    return JSONResponse({"detail": str(error)}, status, headers)


async def _refuse_words(request: Request, error: Exception) -> JSONResponse:
    """One line in the place of pydantic's list."""
    assert isinstance(error, RequestValidationError)
    told = []
    for fault in error.errors():
        # Of what is no JSON the place is a byte, not a field.
        place = () if fault["type"] == "json_invalid" else fault["loc"][1:]
        told.append(f"{'.'.join(map(str, place)) or 'body'}: {fault['msg']}")
    return JSONResponse({"detail": "; ".join(told)}, 422)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """A client that left in mid-upload is no fault for the log."""
    return Response(status_code=400)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    @app.head("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_STATIC / "api.html", headers={"Content-Security-Policy": API_POLICY})

    kept = StaticFiles(directory=_STATIC)  # knows what a browser has already

    @app.get("/static/{name}", include_in_schema=False)
    @app.head("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        if name not in _FILES:
            raise Missing("no such file")
        path = _FILES[name]
        answer = FileResponse(
            path,
            media_type=_TYPES[path.suffix],
            headers={"Cache-Control": "no-cache"},
            stat_result=path.stat(),
        )
        if kept.is_not_modified(answer.headers, request.headers):
            return NotModifiedResponse(answer.headers)
        return answer


def _add_jobs(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/about", tags=["server"])
    @app.head("/about", include_in_schema=False)
    async def about() -> answers.About:
        """What this server can do, and what it takes."""
        limits = jobs.limits
        return answers.About(
            version=carjax.__version__,
            ready=jobs.attributes is not None,
            busy=jobs.full,
            attributes=[answers.Attribute(**a) for a in jobs.attributes or []],
            megabytes=limits.megabytes,
            seconds=limits.seconds,
            megapixels=limits.megapixels,
            frames=limits.frames,
            keep_minutes=limits.keep_minutes,
        )

    @app.post(
        "/jobs",
        status_code=202,
        tags=["jobs"],
        responses={code: {"model": answers.Problem} for code in (408, 413, 422, 503)},
        openapi_extra={"requestBody": _FORM},
    )
    async def create(request: Request, response: Response) -> answers.JobStatus:
        """Uploads a video and queues it.

        The video is judged by decoding its first frame, whatever its name. A full queue answers
        503 with `Retry-After`; an upload over the limit 413; what is no video 422.
        """
        length = request.headers.get("content-length", "")
        try:
            if length.isdigit() and int(length) > 1.01 * jobs.limits.bytes + 100_000:
                raise upload.TooLarge(
                    f"the upload is larger than {jobs.limits.megabytes:g} MB; film a shorter "
                    "video or at a lower resolution"
                )
            job = jobs.reserve()
        except CarjaxError:
            await _linger(request, jobs.limits.bytes)
            raise
        try:
            received = await upload.receive(
                request.headers.get("content-type", ""),
                request.stream(),
                job.folder / "video",
                jobs.limits,
            )
            options = _options(received.fields, jobs.attributes)
            await jobs.submit(job, received, options)
            if await request.is_disconnected():
                raise ClientDisconnect  # else nobody would know of the job
        except ClientDisconnect:
            await jobs.remove(job)
            raise
        except BaseException as error:
            await jobs.remove(job)
            if is_full(error):
                error = Busy(NO_ROOM, 60)
            if isinstance(error, CarjaxError) and not isinstance(error, upload.TooSlow):
                await _linger(request, jobs.limits.bytes)
            raise error
        response.headers["Location"] = f"/jobs/{job.id}"
        return _status(jobs, job)

    @app.get("/jobs/{id}", tags=["jobs"], responses=_REFUSED)
    async def status(id: Id) -> answers.JobStatus:
        """Where the job stands."""
        return _status(jobs, jobs.get(id))

    @app.delete("/jobs/{id}", status_code=204, tags=["jobs"], responses=_REFUSED)
    async def delete(id: Id) -> None:
        """Ends the job and deletes all of it at once."""
        await jobs.remove(jobs.get(id))

    def exists(id: Id) -> None:
        jobs.get(id)

    @app.get(
        "/jobs/{id}/events",
        response_class=EventSourceResponse,
        tags=["jobs"],
        responses=_REFUSED,
        # Before the stream begins: after that no status can tell.
        dependencies=[Depends(exists)],
    )
    async def events(id: Id) -> AsyncIterator[ServerSentEvent]:
        """The job's status as server-sent events, from now until it is done or failed."""
        job = jobs.get(id)
        async for _ in jobs.watch(job):
            yield ServerSentEvent(data=_status(jobs, job))


def _add_results(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/jobs/{id}/selection.json", tags=["results"], responses=_REFUSED)
    @app.head("/jobs/{id}/selection.json", include_in_schema=False)
    async def selection(id: Id) -> Response:
        """What was chosen, as `carjax select` writes it."""
        name = f"out/{result_folder.SELECTION}"
        return _AsItIs(jobs.done(id), name, media_type="application/json")

    @app.get("/jobs/{id}/details", tags=["results"], responses=_REFUSED)
    @app.head("/jobs/{id}/details", include_in_schema=False)
    async def details(id: Id) -> Response:
        """What the page shows beside the photos: series over time, charts, next best frames."""
        return _AsItIs(jobs.done(id), "details.json", media_type="application/json")

    @app.get("/jobs/{id}/photos/{photo}.jpg", tags=["results"], responses=_REFUSED)
    @app.head("/jobs/{id}/photos/{photo}.jpg", include_in_schema=False)
    async def photo(id: Id, photo: PhotoName, size: str = "full") -> Response:
        """A chosen photo; with `size=small` at most 960 pixels wide or high."""
        folder = "small" if size == "small" else "out/photos"
        return _AsItIs(jobs.done(id), f"{folder}/{photo}.jpg", media_type="image/jpeg")

    @app.get("/jobs/{id}/frames/{frame}.jpg", tags=["results"], responses=_REFUSED)
    @app.head("/jobs/{id}/frames/{frame}.jpg", include_in_schema=False)
    async def frame(id: Id, frame: FrameIndex) -> FileResponse:
        """A scored frame, at most 640 pixels wide or high."""
        return FileResponse(await jobs.frame(jobs.done(id), frame))

    @app.get("/jobs/{id}/zip", tags=["results"], responses=_REFUSED)
    @app.head("/jobs/{id}/zip", include_in_schema=False)
    async def everything(id: Id) -> Response:
        """All photos at full size, named in walking order, with the report and `selection.json`."""
        job = jobs.done(id)
        name = f"{pathlib.PurePath(job.name).stem} photos.zip"
        return _AsItIs(job, "photos.zip", media_type="application/zip", filename=name)


class _AsItIs(FileResponse):
    """A file of a job as it is now: an edit may put another in its place while it is sent."""

    def __init__(self, job: Job, name: str, **rest: Any) -> None:
        # Beside the job's folder, which holds what the job has and nothing in passing.
        self._link = files.unique(job.folder)
        try:
            os.link(job.folder / name, self._link)
            found = os.stat(self._link)
        except FileNotFoundError:
            raise Missing("the job has no such file") from None
        super().__init__(self._link, stat_result=found, **rest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._link.unlink(missing_ok=True)


def _add_edits(app: FastAPI, jobs: Jobs) -> None:
    @app.put("/jobs/{id}/photos/{photo}", tags=["edits"], responses=_REFUSED_EDIT)
    async def swap(id: Id, photo: PhotoName, choice: answers.FrameChoice) -> answers.JobStatus:
        """Takes another frame for a photo; `selection.json`, report and zip follow."""
        job = jobs.done(id)
        await jobs.edit(job, choice.revision, "swap", photo=photo, frame=choice.frame)
        return _status(jobs, job)

    @app.put("/jobs/{id}/frames/{frame}/blur", tags=["edits"], responses=_REFUSED_EDIT)
    async def redact(id: Id, frame: FrameIndex, regions: answers.Regions) -> answers.JobStatus:
        """Blurs regions of a chosen frame in every export of it; an empty list takes them back."""
        job = jobs.done(id)
        boxes = [list(box) for box in regions.boxes]
        await jobs.edit(job, regions.revision, "redact", frame=frame, boxes=boxes)
        return _status(jobs, job)

    @app.put("/jobs/{id}/crop", tags=["edits"], responses=_REFUSED_EDIT)
    async def crop(id: Id, shape: answers.Shape) -> answers.JobStatus:
        """Cuts all photos to the car with a margin, or not."""
        job = jobs.done(id)
        await jobs.edit(job, shape.revision, "crop", shape=shape.crop)
        return _status(jobs, job)


def _options(
    fields: dict[str, list[str]], attributes: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """The form's fields as `tasks.select` takes them.

    Raises:
        UsageError: a field or its value is none that there is.
    """
    unknown = set(fields) - {"attributes", "views", "known"}
    if unknown:
        raise UsageError(f"there is no field {min(unknown)!r}")
    wanted = _words(fields, "attributes")
    known = statements.parse(_words(fields, "known"))
    names = {"attributes": [a["name"] for a in attributes or []]}
    names["known"] = [a["name"] for a in attributes or [] if a["classes"]]
    for field, given in (("attributes", wanted), ("known", known)):
        for name in given:
            if names[field] and name not in names[field]:
                raise UsageError(f"{field}: no {name!r}; there are: {', '.join(names[field])}")
    for name in known:
        statements.check_chosen(name, wanted or None)
    views = fields.get("views", ["8"])[-1]
    if views not in ("8", "4"):
        raise UsageError(f"views is {views[:20]!r}; it must be 8 or 4")
    return {"attributes": wanted or None, "views": int(views), "known": known}


def _words(fields: dict[str, list[str]], name: str) -> list[str]:
    """The words of a field that came once or more often, between commas."""
    words = ",".join(fields.get(name, [])).split(",")
    return [word.strip() for word in words if word.strip()]


async def _linger(request: Request, most: int) -> None:
    """Reads on for a moment, at most that many bytes, and throws it away; see `_LINGER_S`."""
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_LINGER_S):
            async for chunk in request.stream():
                most -= len(chunk)
                if most < 0:
                    return


def _status(jobs: Jobs, job: Job) -> answers.JobStatus:
    assert job.state != "uploading"
    remaining = jobs.remaining_s(job)
    return answers.JobStatus(
        id=job.id,
        name=job.name,
        state=job.state,
        stage=job.stage,
        position=jobs.position(job) if job.state == "queued" else 0,
        frames=job.frames,
        expected_frames=max(job.expected, job.frames),
        remaining_s=None if remaining is None else round(remaining, 1),
        video=None if job.video is None else answers.Video(**job.video),
        error=job.error,
        no_car=job.no_car,
        warnings=job.warnings,
        revision=job.revision,
    )
