"""`carjax score --engine=ray`: the rows of one process, also where a worker dies."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
import score_files as files
from test_score import (  # noqa: F401, fixtures
    BROKEN,
    TIMEOUT_S,
    WORDS,
    environment,
    errors,
    mixed,
    rows,
    score,
    weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of this machine, with two CPUs."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    same = {k: v for k, v in environment().items() if k.startswith(("JAX", "PYTHONPATH", "CARJAX"))}
    same["JAX_NUM_CPU_DEVICES"] = "1"
    same["PYTHONPATH"] += os.pathsep + os.fspath(pathlib.Path(__file__).parent)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": same},
    )
    yield ray
    ray.shutdown()


def workers():
    """The process ids of the scorers of this process's cluster; the machine may run others."""
    parents, scorers = {}, []
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_text()
                # After the name, which is in brackets and may hold any character.
                state = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(state[1])
            if title.startswith("ray::") and "_Worker" in title:
                scorers.append(int(folder.name))

    def is_ours(process):
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return [process for process in scorers if is_ours(process)]


def test_a_worker_that_is_killed_loses_no_row_and_doubles_none(
    cluster,
    mixed,  # noqa: F811
    weights,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    from carjax.engine import on_ray

    monkeypatch.chdir(mixed)
    monkeypatch.setattr(on_ray, "_TASK_SOURCES", 2)
    killed = []
    with files.Server({"/stuck.jpg": files.picture(4)}, hold="/stuck.jpg") as server:

        def kill():
            server.held.wait()
            for process in workers():
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            server.release.set()

        words = [*WORDS, f"{server.url}/stuck.jpg", *weights, "--batch=6"]
        thread = threading.Thread(target=kill)
        thread.start()
        out = tmp_path / "ray.parquet"
        assert score(*words, f"--out={out}", "--engine=ray", "--checkpoint_s=0") == 0
        thread.join()
        assert killed
        local = tmp_path / "local.parquet"
        assert score(*words, f"--out={local}") == 0
    assert rows(out) == rows(local)
    assert errors(out) == errors(local)
    assert {source for source, _ in errors(out)} == BROKEN.keys()


def test_workers_import_a_decoder_by_its_name(cluster, mixed, weights, tmp_path):  # noqa: F811
    words = [mixed / "a.mp4", mixed / "c.mkv", *weights, "--batch=6"]
    words.append("--decoder=toy_decoder:Negative")
    for name, extra in (("ray", ["--engine=ray"]), ("local", [])):
        assert score(*words, f"--out={tmp_path / name}", *extra) == 0
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")
    told = [[str(mixed / name), "is a negative"] for name in ("a.mp4", "c.mkv")]
    assert errors(tmp_path / "ray") == errors(tmp_path / "local") == told


def test_a_decoder_that_a_worker_lacks_is_an_error_of_each_source(
    cluster,
    mixed,  # noqa: F811
    weights,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    (tmp_path / "only_here.py").write_text("from carjax.video import Decoder\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = [mixed / "a.mp4", mixed / "c.mkv", *weights, "--batch=6"]
    words += ["--decoder=only_here:Decoder", f"--out={tmp_path / 'x'}"]
    assert score(*words, "--engine=ray") == 1
    says = "cannot import only_here (decoder 'only_here:Decoder'): put its folder on PYTHONPATH"
    says += " (No module named 'only_here')"
    assert errors(tmp_path / "x") == [[str(mixed / name), says] for name in ("a.mp4", "c.mkv")]
    assert score(*words) == 0  # and here it goes on
    assert len(rows(tmp_path / "x")) == 9


def test_a_run_that_is_asked_to_end_says_so(weights, tmp_path):  # noqa: F811
    # In a process, and on a cluster, of its own.
    with files.Server({"/stuck.jpg": files.picture(4)}, hold="/stuck.jpg") as server:
        words = [f"{server.url}/stuck.jpg", f"--out={tmp_path / 'x'}", *weights, "--engine=ray"]
        process = subprocess.Popen(
            [sys.executable, "-m", "carjax", "score", *words],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.held.wait(TIMEOUT_S)
            process.terminate()
            _, error = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
            server.release.set()
    assert process.returncode == 143, error[-3000:]
    assert error.splitlines()[-1] == "carjax: interrupted"
