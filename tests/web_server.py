"""A `carjax serve` of its own for tests, that cannot reach any network, and a client for it."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys

import httpx

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "prius_walkaround.mp4"

# Python runs this at the start of the server and of each of its children.
_NO_NETWORK = """
import sys
def refuse(event, args):
    if event == "socket.connect" or (event == "socket.getaddrinfo" and args[0] != "127.0.0.1"):
        with open({log!r}, "a") as f:
            f.write(f"{{event}} {{args[1:]}}\\n")
        raise OSError("no network in this test")
sys.addaudithook(refuse)
"""


def client(address):
    """A client that asks the server itself, whatever proxy the machine's environment names."""
    return httpx.Client(base_url=address, timeout=120, trust_env=False)


class Server:
    """A running server: its address, its process, and what it tried to connect to."""

    def __init__(self, process, address, folder):
        self.process = process
        self.address = address
        self.folder = folder
        self.client = client(address)

    @property
    def connections(self):
        log = self.folder / "connections.log"
        return log.read_text().splitlines() if log.exists() else []

    def post(self, video, name="walk.mp4", **fields):
        return self.client.post("/jobs", files={"video": (name, video)}, data=fields)

    def submit(self, video=SAMPLE, name="walk.mp4", **fields):
        answer = self.post(pathlib.Path(video).read_bytes(), name, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def events(self, job):
        """All statuses of a job, until its end."""
        with self.client.stream("GET", f"/jobs/{job}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def processes(self):
        """The server's process id and those of its children."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def job_folders(self):
        roots = self.folder.glob("carjax-serve-*")
        return [p for root in roots for p in root.iterdir() if p.is_dir()]


@contextlib.contextmanager
def serving(folder, *flags):
    """Starts a server that keeps its files in `folder`, and ends it."""
    (folder / "sitecustomize.py").write_text(
        _NO_NETWORK.format(log=str(folder / "connections.log"))
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "TMPDIR": str(folder),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "carjax", "serve", "--port=0", *flags],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )
    try:
        line = process.stdout.readline()
        yield Server(process, re.search(r"http://\S+", line)[0], folder)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
