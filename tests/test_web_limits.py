"""What `carjax serve` refuses, and that it stays small and alive while it does."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.parse

import av
import httpx
import numpy as np
import pytest
from web_server import SAMPLE, client, serving

from carjax import files, video
from carjax.errors import CarjaxError
from carjax.web import app, child, tasks, upload
from carjax.web import limits as bounds
from carjax.web.jobs import Busy, Jobs, Missing, Outdated
from carjax.web.limits import Limits
from carjax.web.process import Child, Fault, NoRoom, TaskDied, TaskOverrun, Unavailable

FLAGS = ("--megabytes=3", "--seconds=20", "--megapixels=1", "--queue=4", "--idle_seconds=2")
# As RGB, a frame of the bomb below has 300 MB.
BOMB_BYTES = 10_000 * 10_000 * 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("limits"), *FLAGS) as server:
        yield server


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch):
    """Whatever room the machine has left, queues of this process take jobs."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=10**12))


def put(server, path, **rest):
    """Asks over a connection of its own: the server may close it."""
    with client(server.address) as own:
        return own.put(path, **rest)


def write_video(path, frames, size, rate=10, codec="libx264", pixels="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        # One picture serves all: a large one takes its time to fill.
        picture = av.VideoFrame(*size, pixels)
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        for i in range(frames):
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def detail(answer):
    return answer.status_code, answer.json()["detail"]


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


def test_a_small_file_of_huge_frames_is_refused_by_decoding(server, tmp_path):
    bomb = write_video(tmp_path / "bomb.mov", 2, (10_000, 10_000), codec="png", pixels="gray")
    assert bomb.stat().st_size < 500_000
    status, says = detail(server.post(bomb.read_bytes(), "small.mp4"))
    assert status == 422
    assert "10000 × 10000" in says
    assert "at most 1 megapixels" in says


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "car.mp4", "is an image"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "car.mp4", "not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "car.mkv", "not a video"),
        (b"", "car.mp4", "empty"),
        (b"<html></html>" * 50, "../../../car.mov", "not a video"),
    ],
)
def test_a_name_or_an_ending_says_nothing(server, content, name, says):
    status, text = detail(server.post(content, name))
    assert status == 422
    assert says in text
    assert "/" not in text


def test_a_video_that_is_too_long_or_has_too_many_frames(server, tmp_path):
    slow = write_video(tmp_path / "long.mp4", 25, (64, 48), rate=1)
    status, says = detail(server.post(slow.read_bytes()))
    assert (status, "25 s is too long: at most 20 s" in says) == (422, True)
    fast = write_video(tmp_path / "fast.mp4", 300, (64, 48), rate=100)
    limits = dataclasses.replace(Limits(), frames=200)
    with pytest.raises(CarjaxError, match="300 frames are too many: at most 200"):
        bounds.check(fast, limits)


def test_a_body_over_the_limit_is_refused_and_leaves_nothing(server):
    status, says = detail(server.post(bytes(4_000_000)))
    assert status == 413
    assert "larger than 3 MB" in says
    assert server.job_folders() == []


@pytest.mark.parametrize("path", ["/jobs/none/crop", "/jobs/none/photos/type", "/nowhere"])
def test_a_large_edit_is_refused_before_it_is_read(server, path):
    status, says = detail(put(server, path, content=bytes(200_000)))
    assert (status, says) == (413, "the request is too large")
    status, _ = detail(put(server, path, json={"crop": "4:3", "frame": 1}))
    assert status in (404, 405)


def connect(server):
    address = urllib.parse.urlsplit(server.address)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def head(length=None):
    body = '--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
    size = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
    start = (
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{size}\r\n\r\n"
    )
    return start.encode(), body.encode()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def push(sock, block, most):
    """Sends until the other side hangs up; returns how many bytes went."""
    sent = 0
    with contextlib.suppress(OSError):  # reset, or a broken pipe
        while sent < most:
            sock.sendall(block)
            sent += len(block)
    return sent


def test_an_endless_stream_is_cut_off(server):
    start, body = head()
    with connect(server) as sock:
        sock.sendall(start + chunk(body))
        sent = push(sock, chunk(bytes(65_536)), 3_000_000_000)
    assert sent < 3_000_000_000
    wait_until(lambda: server.job_folders() == [])
    held = max(resident(pid) for pid in server.processes()[:1])
    assert held < 250_000_000


def test_an_upload_that_stands_still_is_given_up(server):
    start, body = head(length=1_000_000)
    with connect(server) as sock:
        sock.sendall(start + body + bytes(1000))
        wait_until(lambda: server.job_folders() != [])
        answer = sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert server.job_folders() == []


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(server):
    start, body = head(length=1_000_000)
    with connect(server) as sock:
        sock.sendall(start + body + bytes(1000))
        wait_until(lambda: server.job_folders() != [])
    wait_until(lambda: server.job_folders() == [])
    assert not server.client.get("/about").json()["busy"]


def test_what_is_no_json_is_told_as_such(server):
    headers = {"Content-Type": "application/json"}
    answer = put(server, "/jobs/none/crop", content=b"{crop", headers=headers)
    assert detail(answer) == (422, "body: JSON decode error")


def test_twenty_jobs_at_once_are_taken_or_told_that_it_is_busy(server):
    video = SAMPLE.read_bytes()
    ready = threading.Barrier(20)

    def send(i):
        with client(server.address) as own:
            ready.wait()
            return own.post("/jobs", files={"video": (f"{i}.mp4", video)})

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    taken = [a.json()["id"] for a in answers if a.status_code == 202]
    refused = [a for a in answers if a.status_code != 202]
    # One may run already while the others come.
    assert 5 <= len(taken) <= 6
    assert {a.status_code for a in refused} == {503}
    assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
    assert all("busy" in a.json()["detail"] for a in refused)
    assert server.client.get("/about").json()["busy"]
    positions = [server.client.get(f"/jobs/{job}").json()["position"] for job in taken]
    assert len(set(positions)) >= len(taken) - 1
    for job in taken:
        assert server.client.delete(f"/jobs/{job}").status_code == 204
    assert server.job_folders() == []
    assert not server.client.get("/about").json()["busy"]


def test_after_all_that_it_is_small_and_connected_to_nothing(server):
    assert resident(server.process.pid) < 250_000_000
    # The helpers, which met the bomb; another child, which may have ended, holds the model.
    allowed = "3000000000"  # bytes that a helper may use
    children = server.processes()[1:]
    helpers = [p for p in children if allowed in pathlib.Path(f"/proc/{p}/cmdline").read_text()]
    assert len(helpers) == 2
    assert max(map(resident, helpers)) < BOMB_BYTES
    assert server.connections == []


def test_a_video_that_says_less_than_it_holds_is_stopped(tmp_path):
    (tmp_path / "video").mkdir()
    write_video(tmp_path / "video" / "a.mp4", 120, (64, 48), rate=8)
    limits = dataclasses.asdict(dataclasses.replace(Limits(), seconds=2))
    reports = []

    class Long:
        """Stands for the pipeline on a video that goes on."""

        @staticmethod
        def select(model, path, out, options, *, progress):
            for frames in range(0, 100, 12):
                progress(frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carjax.pipeline.select", Long.select)
        patch.setattr(tasks, "_model", lambda *names: None)
        patch.chdir(tmp_path)
        with pytest.raises(CarjaxError, match="longer than it says"):
            tasks.select(reports.append, str(tmp_path), "a.mp4", {"views": 8}, limits, None, None)
    assert max(r["frames"] for r in reports) <= bounds.frames_allowed(Limits(**limits))


def checked(folder):
    """The arguments of the task `check` for the sample in `folder`."""
    (folder / "video").mkdir()
    (folder / "video" / "a.mp4").write_bytes(SAMPLE.read_bytes())
    limits = dataclasses.asdict(Limits())
    return {"folder": str(folder), "name": "a.mp4", "limits": limits}


@pytest.mark.parametrize(("seeks", "expected"), [(True, 75), (False, 120)])
def test_how_many_frames_will_be_scored_depends_on_whether_they_can_be_jumped_to(
    monkeypatch, seeks, expected
):
    monkeypatch.setattr(video.Reader, "seeks", property(lambda self: seeks))
    assert bounds.check(SAMPLE, Limits())["expected"] == expected


def test_the_system_refuses_a_child_more_memory():
    code = (
        "from carjax.web.child import limit_memory; limit_memory(300_000_000); "
        "small = bytearray(50_000_000); big = bytearray(400_000_000)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert process.returncode == 1
    assert process.stderr.strip().endswith(b"MemoryError")


def test_a_child_that_dies_is_told_as_such_and_replaced(tmp_path):
    arguments = checked(tmp_path)

    async def run():
        child = Child(3_000_000_000)
        await child.run("check", arguments, seconds=60)
        first = child.pid
        os.kill(first, signal.SIGSTOP)  # so that the next task is still being done
        task = asyncio.create_task(child.run("check", arguments, seconds=60))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TaskDied, match="memory"):
            await task
        info = await child.run("check", arguments, seconds=60)
        assert child.pid != first
        await child.close()
        return info

    assert asyncio.run(run())["frames"] == 180


def test_a_task_that_takes_too_long_is_ended_and_the_next_one_runs(tmp_path):
    arguments = checked(tmp_path)

    async def run():
        child = Child(3_000_000_000)
        with pytest.raises(TaskOverrun):
            await child.run("check", arguments, seconds=0.01)
        assert child.pid is None
        info = await child.run("check", arguments, seconds=60)
        await child.close()
        return info

    assert asyncio.run(run())["frames"] == 180


@pytest.mark.parametrize("fault", [OSError("no process"), ValueError("no line")])
def test_a_child_that_cannot_be_started_fails_its_job(tmp_path, monkeypatch, caplog, fault):
    async def refuses(*args, **kwargs):
        raise fault

    async def run():
        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuses)
        jobs = Jobs(Limits())
        jobs._root = tmp_path
        job = jobs.reserve()
        await jobs._run(job)
        return job

    job = asyncio.run(run())
    assert job.state == "failed"
    assert "try again later" in job.error
    assert str(fault) in caplog.text


def test_memory_is_told_as_such_whoever_runs_out_of_it(monkeypatch):
    class Answers(io.StringIO):
        said = property(lambda self: json.loads(self.getvalue()))

    def raises(report):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating")

    monkeypatch.setitem(tasks.TASKS, "load", raises)
    answers = Answers()
    child._answer("load", {}, answers)
    assert answers.said["kind"] == "memory"

    start = asyncio.create_subprocess_exec
    says = f"input(); print({answers.getvalue()!r}, flush=True); input()"

    async def run(task):
        monkeypatch.setattr(
            asyncio,
            "create_subprocess_exec",
            lambda *words, **rest: start(sys.executable, "-c", says, **rest),
        )
        small = Child(100_000_000)
        with pytest.raises(TaskDied) as caught:
            await small.run(task, {}, seconds=60)
        assert small.pid is None
        return str(caught.value)

    assert "the model needs more memory than --memory_gb" in asyncio.run(run("load"))
    assert "film at a lower resolution" in asyncio.run(run("select"))


def test_a_full_disk_is_told_as_such(monkeypatch):
    def raises(report):
        try:
            raise OSError(errno.ENOSPC, "no space left on device")
        except OSError as error:
            raise CarjaxError("cannot write out; give another --out") from error

    monkeypatch.setitem(tasks.TASKS, "load", raises)
    answers = io.StringIO()
    child._answer("load", {}, answers)
    start = asyncio.create_subprocess_exec
    says = f"input(); print({answers.getvalue()!r}, flush=True); input()"

    async def run():
        monkeypatch.setattr(
            asyncio,
            "create_subprocess_exec",
            lambda *words, **rest: start(sys.executable, "-c", says, **rest),
        )
        full = Child(100_000_000)
        with pytest.raises(NoRoom, match="no room left; try again later"):
            await full.run("select", {}, seconds=60)
        await full.close()

    asyncio.run(run())


def asked(jobs, method, path, *, local=False, **rest):
    """The answer to a request, without a server."""

    async def run():
        transport = httpx.ASGITransport(app.create_app(jobs, local=local))
        async with httpx.AsyncClient(transport=transport, base_url="http://car.example") as client:
            return await client.request(method, path, **rest)

    return asyncio.run(run())


def test_an_upload_that_fills_the_disk_is_told_that_there_is_no_room(tmp_path, monkeypatch):
    def full(form, data, start, end):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(upload._Form, "_part_data", full)
    jobs = Jobs(Limits())
    jobs._root = tmp_path

    answer = asked(jobs, "POST", "/jobs", files={"video": ("a.mp4", b"bytes")})
    assert detail(answer) == (503, "the server has no room left; try again later")
    assert int(answer.headers["retry-after"]) == 60
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "status", "after"),
    [
        (TaskOverrun("too slow"), 503, "60"),
        (Unavailable("not now"), 503, "60"),
        (NoRoom("no room"), 503, "60"),
        (Busy("busy", 7.2), 503, "7"),
        (Fault("the server failed"), 500, None),
        (TaskDied("too large"), 422, None),
    ],
)
def test_a_refusal_says_whose_fault_it_is_and_when_to_ask_again(tmp_path, failure, status, after):
    async def fails(task, **arguments):
        raise failure

    jobs = Jobs(Limits())
    jobs._root = tmp_path
    jobs._help = fails
    answer = asked(jobs, "POST", "/jobs", files={"video": ("a.mp4", b"bytes")})
    assert detail(answer) == (status, str(failure))
    assert answer.headers.get("retry-after") == after


def test_a_client_that_leaves_in_mid_upload_is_no_fault_for_the_log(tmp_path):
    jobs = Jobs(Limits())
    jobs._root = tmp_path
    start, body = head()
    kind = start.split(b"Content-Type: ")[1].split(b"\r\n")[0]
    scope = {
        **{"type": "http", "method": "POST", "path": "/jobs", "raw_path": b"/jobs"},
        **{"query_string": b"", "headers": [(b"host", b"localhost"), (b"content-type", kind)]},
    }
    coming = [
        {"type": "http.request", "body": body, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message):
        pass

    asyncio.run(app.create_app(jobs)(scope, receive, send))  # raises nothing
    assert list(tmp_path.iterdir()) == []


def test_room_is_kept_for_the_uploads_that_are_coming(tmp_path, monkeypatch):
    async def run():
        jobs = Jobs(Limits())
        jobs._root = tmp_path
        free = 2.5 * jobs.limits.bytes + 500_000_000
        monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=free))
        first = jobs.reserve()
        jobs.reserve()
        with pytest.raises(Busy, match="no room left"):
            jobs.reserve()
        first.change(state="queued")
        jobs.reserve()

    asyncio.run(run())


def test_failed_jobs_take_no_place_of_results(tmp_path):
    async def run():
        jobs = Jobs(dataclasses.replace(Limits(), keep=2))
        jobs._root = tmp_path
        made = [jobs.reserve()]
        for _ in range(5):
            made[-1].change(state="failed", error="no car")
            made.append(jobs.reserve())
        for job in made[:3]:
            with pytest.raises(Missing):
                jobs.get(job.id)
        assert jobs.get(made[4].id).error == "no car"
        made[-1].change(state="done")
        jobs.reserve().change(state="done")
        with pytest.raises(Busy, match="keeps as many results"):
            jobs.reserve()

    asyncio.run(run())


def with_a_result(folder):
    """Jobs without children, and the one that is done."""
    jobs = Jobs(Limits())
    jobs._root = folder
    job = jobs.reserve()
    job.change(state="done")
    return jobs, job


def test_frames_that_could_not_be_decoded_are_tried_again(tmp_path):
    async def run():
        jobs, job = with_a_result(tmp_path)
        calls = []

        async def decodes(task, **arguments):
            calls.append(task)
            if len(calls) == 1:
                raise TaskOverrun("this took too long")
            if len(calls) == 3:
                await asyncio.Event().wait()
            (job.folder / "frames").mkdir()
            (job.folder / "frames" / "7.jpg").touch()

        jobs._help = decodes
        with pytest.raises(TaskOverrun):
            await jobs.frame(job, 7)
        assert (await jobs.frame(job, 7)).name == "7.jpg"
        with pytest.raises(Missing, match="no such frame"):
            await jobs.frame(job, 8)
        job.frames_task = None
        with pytest.raises(Busy, match="being decoded"):
            await jobs.frame(job, 9, patience_s=0)
        await jobs.remove(job)

    asyncio.run(run())


def test_a_frame_that_is_there_is_not_waited_for(tmp_path):
    async def run():
        jobs, job = with_a_result(tmp_path)
        (job.folder / "frames").mkdir()
        (job.folder / "frames" / "7.jpg").touch()
        assert (await jobs.frame(job, 7)).name == "7.jpg"
        assert job.frames_task is None

    asyncio.run(run())


def test_what_an_edit_still_writes_goes_with_its_job(tmp_path):
    async def run():
        jobs, job = with_a_result(tmp_path)
        writes = asyncio.Event()

        async def edits(task, **arguments):
            await writes.wait()
            (job.folder / "late.jpg").touch()

        jobs._help = edits
        first, second = (asyncio.create_task(jobs.edit(job, None, "crop")) for _ in range(2))
        await asyncio.sleep(0)
        removal = asyncio.create_task(jobs.remove(job))
        await asyncio.sleep(0)
        writes.set()
        await first
        with pytest.raises(Missing):
            await second
        await removal
        assert not job.folder.exists()

    asyncio.run(run())


def test_a_download_is_whole_though_an_edit_replaces_the_file(tmp_path):
    jobs, job = with_a_result(tmp_path)
    job.change(name="Käfer 1.mp4")
    (job.folder / "photos.zip").write_bytes(b"before" * 1_000_000)
    application = app.create_app(jobs)

    async def replacing(scope, receive, send):
        async def late(message):
            if message["type"] == "http.response.start":
                files.write(job.folder / "photos.zip", b"after")
            await send(message)

        await application(scope, receive, late)

    async def run():
        transport = httpx.ASGITransport(replacing)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.get(f"/jobs/{job.id}/zip") for _ in range(2)]

    first, second = asyncio.run(run())
    assert first.content == b"before" * 1_000_000
    assert int(first.headers["content-length"]) == len(first.content)
    assert "K%C3%A4fer%201%20photos.zip" in first.headers["content-disposition"]
    assert second.content == b"after"
    assert asked(jobs, "GET", f"/jobs/{job.id}/details").status_code == 404


def test_of_two_edits_of_one_revision_the_second_is_refused(tmp_path):
    async def run():
        jobs, job = with_a_result(tmp_path)
        done = []

        async def edits(task, **arguments):
            done.append(arguments["shape"])

        jobs._help = edits
        first = jobs.edit(job, 0, "crop", shape="4:3")
        second = jobs.edit(job, 0, "crop", shape="16:9")
        _, refusal = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(refusal, Outdated)
        await jobs.edit(job, 1, "crop", shape="none")
        await jobs.edit(job, None, "crop", shape="16:9")  # as clients do that know no revision
        assert (done, job.revision) == (["4:3", "none", "16:9"], 3)

    asyncio.run(run())


def test_old_results_are_deleted_by_themselves(tmp_path):
    async def run():
        jobs = Jobs(dataclasses.replace(Limits(), keep_minutes=1e-6, queue=1))
        jobs._root = tmp_path
        first, second = jobs.reserve(), jobs.reserve()
        with pytest.raises(Busy):
            jobs.reserve()
        first.change(state="done")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("carjax.web.jobs._SWEEP_SECONDS", 0.01)
            sweeper = asyncio.create_task(jobs._sweep())
            while first.folder.exists():
                await asyncio.sleep(0.01)
            sweeper.cancel()
        with pytest.raises(Missing):
            jobs.get(first.id)
        assert second.folder.exists()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_server_for_others_answers_to_any_name(tmp_path):
    jobs = Jobs(Limits())
    assert asked(jobs, "GET", "/about").status_code == 200
    assert asked(jobs, "GET", "/about", local=True).status_code == 403
    own = {"Origin": "https://car.example"}  # of a proxy that ends the encryption
    assert asked(jobs, "DELETE", "/jobs/none", headers=own).status_code == 404


def test_limits_are_positive_numbers():
    assert all(v > 0 for v in dataclasses.asdict(Limits()).values())
    assert np.isclose(Limits(megabytes=1.5).bytes, 1.5e6)
