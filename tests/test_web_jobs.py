"""The queue of `carjax serve` and what it answers over HTTP, without processes that score."""

import asyncio
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import types

import httpx
import pytest
from test_web_limits import roomy_disk, with_a_result  # noqa: F401, a fixture

from carjax.web import app, jobs, tasks
from carjax.web.jobs import Jobs
from carjax.web.limits import Limits
from carjax.web.process import Child, NoCar, TaskFailed, TaskOverrun
from carjax.web.upload import Upload


@pytest.fixture
def clock(monkeypatch):
    """The queue's own clock: `now` is what it shows."""
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(jobs, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


async def waiting(queue, expected=100):
    """A job that was uploaded and checked, and waits for its turn."""

    async def checks(task, **arguments):
        return {"frames": 300, "expected": expected}

    queue._help = checks
    job = queue.reserve()
    await queue.submit(job, Upload("walk.mp4", {}), {"views": 8})
    return job


def test_a_job_that_is_asked_for_counts_as_used(tmp_path, clock):
    queue, job = with_a_result(tmp_path)
    job.used = 0.0
    assert queue.get(job.id).used == clock.now


def test_no_result_is_deleted_while_it_is_edited(tmp_path, monkeypatch):
    async def run():
        queue, job = with_a_result(tmp_path)
        job.used = -math.inf
        async with job.editing:
            sweeper = asyncio.create_task(queue._sweep())
            for _ in range(5):
                await asyncio.sleep(0)
            assert job.id in queue._jobs
        while job.folder.exists():
            await asyncio.sleep(0.01)
        sweeper.cancel()
        assert job.id not in queue._jobs

    monkeypatch.setattr(jobs, "_SWEEP_SECONDS", 0)
    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("fault", [NoCar("no frame shows a car"), TaskFailed("is no video")])
def test_a_failed_job_keeps_its_message_and_nothing_else(tmp_path, fault):
    async def fails(task, arguments, **rest):
        raise fault

    async def run():
        queue = Jobs(Limits())
        queue._root = tmp_path
        queue._scorer.run = fails
        job = await waiting(queue)
        await queue._run(job)
        return job

    job = asyncio.run(run())
    assert (job.state, job.error) == ("failed", str(fault))
    assert job.no_car == isinstance(fault, NoCar)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_server_ends(tmp_path, monkeypatch):
    async def loads(task, arguments, **rest):
        await asyncio.Event().wait()

    async def run():
        queue = Jobs(Limits())
        queue._scorer.run = loads
        await queue.start()
        job = queue.reserve()
        (job.folder / "video" / "walk.mp4").touch()
        assert [p.name for p in job.folder.parents[1].glob("carjax-serve-*")]
        await queue.close()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_deleted_while_it_waits_leaves_its_place(tmp_path):
    async def run():
        queue = Jobs(Limits())
        queue._root = tmp_path
        first, second, third = [await waiting(queue) for _ in range(3)]
        assert [queue.position(job) for job in (first, second, third)] == [0, 1, 2]
        await queue.remove(second)
        assert queue._waiting == [first, third]
        assert queue.position(third) == 1

    asyncio.run(run())


def test_how_long_jobs_take_is_told_by_the_pace_of_this_one_and_of_earlier_ones(tmp_path, clock):
    async def scores(task, arguments, *, report, **rest):
        clock.now += 20  # the model is loaded, which the next job does not wait for
        report({"stage": "decoding", "frames": 0})
        clock.now += 5
        report({"stage": "scoring", "frames": 50})
        clock.now += 3
        return ["it is dark"]

    async def run():
        queue = Jobs(Limits())
        queue._root = tmp_path
        queue._scorer.run = scores
        first, running = await waiting(queue, 50), await waiting(queue, 100)
        last = await waiting(queue, 40)
        assert [queue.remaining_s(job) for job in (first, running, last)] == [None] * 3

        queue._waiting.remove(first)
        await queue._run(first)  # 10 frames a second, and 3 s to write the photos
        assert (first.state, first.warnings) == ("done", ["it is dark"])
        assert queue.remaining_s(first) is None
        assert queue.remaining_s(running) == pytest.approx(10 + 3)

        queue._waiting.remove(running)
        running.change(state="running", scoring_since=clock.now)
        assert (queue.position(last), queue.remaining_s(running)) == (1, pytest.approx(10 + 3))
        assert queue.remaining_s(last) == pytest.approx(10 + 3 + 4 + 3)

        clock.now += 5
        running.change(frames=25)  # 5 a second, where earlier jobs had 10
        assert queue.remaining_s(running) == pytest.approx(75 / 7.5 + 3)
        assert queue.remaining_s(last) == pytest.approx(75 / 7.5 + 3 + 4 + 3)

    asyncio.run(run())


class Scorer:
    """A process whose jobs go on until they are cancelled, which ends it."""

    def __init__(self):
        self.asked, self.pid = [], None

    async def run(self, task, arguments, **rest):
        self.asked.append(task)
        self.pid = 7
        if task == "select":
            try:
                await asyncio.Event().wait()
            finally:
                self.pid = None
        return []


def test_after_a_job_that_ended_the_process_the_model_is_loaded_before_the_next(tmp_path):
    async def run():
        queue = Jobs(Limits())
        queue._root, queue._scorer = tmp_path, Scorer()
        loop = asyncio.create_task(queue._serve())
        await asyncio.sleep(0.01)
        assert queue._scorer.asked == ["load", "warm", "warm"]
        job = await waiting(queue)
        await asyncio.sleep(0.01)
        await queue.remove(job)
        await asyncio.sleep(0.01)
        assert queue._scorer.asked[3:] == ["select", "warm", "warm"]
        loop.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_who_waits_hears_that_the_queue_moves(tmp_path, clock):
    told = {}

    async def listens(queue, job, name):
        told[name] = []
        async for _ in queue.watch(job):
            told[name].append((job.state, queue.position(job), queue.remaining_s(job)))

    async def run():
        queue = Jobs(Limits())
        queue._root = tmp_path
        queue._rate, queue._tail = 10.0, 3.0

        async def scores(task, arguments, *, report, **rest):
            report({"stage": "decoding", "frames": 0})
            clock.now += 5
            report({"stage": "scoring", "frames": 50})
            await asyncio.sleep(0.01)
            clock.now += 3
            return []

        queue._scorer.run = scores
        first, second, third = [await waiting(queue) for _ in range(3)]
        listeners = [
            asyncio.create_task(listens(queue, job, name))
            for name, job in (("second", second), ("third", third))
        ]
        await asyncio.sleep(0.01)
        queue._waiting.remove(first)
        await queue._run(first)
        await asyncio.sleep(0.01)
        await queue.remove(second)
        await asyncio.sleep(0.01)
        await queue.remove(third)
        await asyncio.gather(*listeners)

    asyncio.run(asyncio.wait_for(run(), 10))
    # Three of 10 + 3 s, the first of which is then halfway, done, and the second deleted.
    queued = [("queued", 2, 39.0), ("queued", 2, 34.0), ("queued", 1, 26.0), ("queued", 0, 13.0)]
    assert [at for i, at in enumerate(told["third"]) if at not in told["third"][:i]] == [
        *queued,
        ("failed", 0, None),
    ]
    assert [at[:2] for at in told["second"][:2]] == [("queued", 1), ("queued", 1)]


def test_an_end_that_comes_while_an_answer_is_sent_is_told(tmp_path):
    async def run():
        queue, job = with_a_result(tmp_path)
        job.change(state="running")
        told = queue.watch(job)
        await anext(told)
        job.change(state="done")
        assert len([None async for _ in told]) == 1

    asyncio.run(asyncio.wait_for(run(), 10))


# ------------------------------------------------------------------------------ over HTTP


def ask(queue, method, path, **rest):
    """The answer to a request."""

    async def run():
        transport = httpx.ASGITransport(app.create_app(queue))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **rest)

    return asyncio.run(run())


def test_events_of_a_job_that_stands_still_say_that_the_server_lives(tmp_path, monkeypatch):
    """FastAPI sends comments, which no client sees, so that no proxy ends the connection."""
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.01)

    async def run():
        queue, job = with_a_result(tmp_path)
        job.change(state="running")
        transport = httpx.ASGITransport(app.create_app(queue))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            asking = asyncio.create_task(client.get(f"/jobs/{job.id}/events"))
            await asyncio.sleep(0.1)
            job.change(state="done")
            return (await asking).text

    lines = asyncio.run(asyncio.wait_for(run(), 10)).splitlines()
    states = [json.loads(line[6:])["state"] for line in lines if line.startswith("data: ")]
    assert states == ["running", "done"]
    assert any(line.startswith(":") for line in lines)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/crop"), ("DELETE", "")])
def test_another_site_can_neither_change_nor_delete_a_job(tmp_path, method, path):
    queue, job = with_a_result(tmp_path)
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = ask(queue, method, f"/jobs/{job.id}{path}", headers=headers)
    assert answer.status_code == 403
    assert job.folder.exists()


def test_answers_are_neither_kept_nor_taken_for_another_type(tmp_path):
    queue, job = with_a_result(tmp_path)
    for path in ("/about", f"/jobs/{job.id}", "/jobs/none"):
        headers = ask(queue, "GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    headers = ask(queue, "GET", "/static/page.js").headers
    assert headers["cache-control"] == "no-cache"  # else each visit would load it again
    assert headers["x-content-type-options"] == "nosniff"


def test_another_site_may_look_and_is_refused_with_every_header(tmp_path):
    queue, job = with_a_result(tmp_path)
    headers = {"Sec-Fetch-Site": "cross-site"}
    for method in ("GET", "HEAD"):
        seen = ask(queue, method, "/", headers=headers)
        assert seen.status_code == 200
    refused = ask(queue, "DELETE", f"/jobs/{job.id}", headers=headers)
    for name in ("content-security-policy", "x-content-type-options", "referrer-policy"):
        assert refused.headers[name] == seen.headers[name]
    # The page of the API sets styles from its script: it alone may.
    own = ask(queue, "GET", "/docs").headers["content-security-policy"]
    assert "style-src 'self' 'unsafe-inline';" in own
    assert "unsafe-inline" not in seen.headers["content-security-policy"]


def test_an_edit_that_takes_too_long_may_be_tried_again(tmp_path):
    async def overruns(task, **arguments):
        raise TaskOverrun("this took longer than 60 s and was ended")

    queue, job = with_a_result(tmp_path)
    queue._help = overruns
    answer = ask(queue, "PUT", f"/jobs/{job.id}/crop", json={"crop": "4:3"})
    assert (answer.status_code, "longer than 60 s" in answer.json()["detail"]) == (503, True)


@pytest.mark.parametrize(
    ("asked", "status"), [("bytes=0-1", 206), ("bytes=none", 400), ("bytes=9-", 416)]
)
def test_a_part_of_a_file_is_sent_and_one_that_there_is_not_is_refused(tmp_path, asked, status):
    queue, job = with_a_result(tmp_path)
    (job.folder / "photos.zip").write_bytes(b"PK\x03\x04")
    answer = ask(queue, "GET", f"/jobs/{job.id}/zip", headers={"Range": asked})
    assert answer.status_code == status
    if status == 206:
        assert answer.content == b"PK"
    else:
        assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/zip", 200), ("HEAD", "", 405), ("HEAD", "/events", 405), ("PATCH", "", 405)],
)
def test_methods_that_there_are_not_are_refused(tmp_path, method, path, status):
    queue, job = with_a_result(tmp_path)
    (job.folder / "photos.zip").write_bytes(b"PK")
    answer = ask(queue, method, f"/jobs/{job.id}{path}")
    assert answer.status_code == status
    if status == 405 and method != "HEAD":
        assert answer.json() == {"detail": "Method Not Allowed"}


def test_the_zip_is_named_after_the_video(tmp_path):
    queue, job = with_a_result(tmp_path)
    job.name = "My.walk.mp4"
    (job.folder / "photos.zip").write_bytes(b"PK")
    answer = ask(queue, "GET", f"/jobs/{job.id}/zip")
    assert answer.headers["content-disposition"].endswith("''My.walk%20photos.zip")


@pytest.mark.parametrize(("count", "status"), [(20, 200), (21, 422)])
def test_at_most_twenty_regions_of_a_frame_are_blurred(tmp_path, count, status):
    asked = []

    async def edits(task, **arguments):
        asked.append(arguments)

    queue, job = with_a_result(tmp_path)
    queue._help = edits
    boxes = [[0.1, 0.1, 0.2, 0.2]] * count
    answer = ask(queue, "PUT", f"/jobs/{job.id}/frames/7/blur", json={"boxes": boxes})
    assert answer.status_code == status
    assert [len(one["boxes"]) for one in asked] == [20] * (status == 200)


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path):
    queue = Jobs(dataclasses.replace(Limits(), idle_seconds=0.01))
    first = [{"type": "http.request", "body": b'{"crop"', "more_body": True}]
    sent = []

    async def receive():
        if first:
            return first.pop()
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "PUT", "path": "/jobs/none/crop", "headers": []}
    scope |= {"query_string": b"", "root_path": "", "asgi": {"version": "3.0"}}
    asyncio.run(asyncio.wait_for(app.create_app(queue)(scope, receive, send), 10))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert "stood still" in json.loads(sent[1]["body"])["detail"]


# ------------------------------------------------------------------------------ processes


def test_the_form_reaches_the_selection_and_its_warnings_come_back(tmp_path, monkeypatch):
    (tmp_path / "video").mkdir()
    asked, told = [], []

    def select(model, path, out, options, *, progress):
        asked.append(options)
        return {"video": {"warnings": ["the video is dark"]}}

    monkeypatch.setattr("carjax.pipeline.select", select)
    monkeypatch.setattr("carjax.web.results.publish_first", lambda job: None)
    monkeypatch.setattr(tasks, "_model", lambda *names: told.append("the model is there"))
    monkeypatch.chdir(tmp_path)  # the task changes it
    options = {"views": 4, "attributes": ["doors"], "known": {"doors": "5"}}
    limits = dataclasses.asdict(Limits())
    found = tasks.select(
        told.append, str(tmp_path), "a.mp4", options, limits, model=None, weights=None
    )
    assert found == ["the video is dark"]
    # The pace of the jobs to come is measured from the first report on.
    assert told[:2] == ["the model is there", {"stage": "decoding", "frames": 0}]
    (got,) = asked
    assert (got.views, got.attributes, got.known) == (4, ("doors",), {"doors": "5"})
    assert got.strip_paths


def test_a_child_whose_server_is_gone_ends():
    words = [sys.executable, "-m", "carjax.web.child", "3000000000"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.close()
        try:
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_what_interrupts_the_server_does_not_reach_its_children(monkeypatch):
    start = asyncio.create_subprocess_exec
    says = "input(); print('{\"result\": 7}', flush=True); input()"

    async def run():
        child = Child(3_000_000_000)
        assert await child.run("check", {}, seconds=60) == 7
        session, own = os.getsid(child.pid), child.pid
        await child.close()
        assert session == own

    monkeypatch.setattr(
        asyncio,
        "create_subprocess_exec",
        lambda *words, **rest: start(sys.executable, "-c", says, **rest),
    )
    asyncio.run(run())
