"""Downloads from a local server that truncates, corrupts, drops connections or ignores Range.

And `carjax weights fetch`, which is built on them.
"""

import dataclasses
import fcntl
import hashlib
import http.server
import re
import socket
import sys
import threading

import numpy as np
import pytest

from carjax import download
from carjax.backbones import pretrained, registry
from carjax.backbones.convert import inception_resnet_v2
from carjax.cli import main
from carjax.errors import CarjaxError, UsageError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Serves CONTENT; `faults` says what goes wrong with the next responses, one each.

    'drop': the connection is reset half-way · 'truncate': it is closed half-way · 'refuse': closed
    before an answer · an int: that HTTP status · None: nothing.
    """

    def __init__(self):
        self.faults = []
        self.content = CONTENT
        self.ranges = True
        self.whole = False  # where a part is asked for, the whole is sent as one that starts at 0
        self.seen = []  # each request's Range
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.h5"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.seen.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "refuse":
            return handler.connection.shutdown(socket.SHUT_RDWR)
        if isinstance(fault, int):
            return handler.send_error(fault)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked and self.ranges else 0
        part = start > 0
        start = 0 if self.whole else start
        if start >= len(self.content):
            return handler.send_error(416)
        body = self.content[start:]
        handler.send_response(206 if part else 200)
        if part:
            end = len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if fault else body)
        if fault == "drop":
            handler.wfile.flush()
            # Closing with this set sends a reset instead of an orderly end.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" * 2)
            handler.connection.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_whole_file_and_its_progress(server, tmp_path):
    told = []
    target = tmp_path / "new" / "weights.h5"
    download.download(server.url, target, MD5, lambda *now: told.append(now))
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    download.download(server.url, target, MD5)  # it is there: nothing is asked for
    assert server.seen == [None]


@pytest.mark.parametrize("fault", ["truncate", "drop"])
def test_a_cut_connection_is_resumed(fault, server, tmp_path):
    server.faults = [fault, fault, None]
    told = []
    download.download(server.url, tmp_path / "w", MD5, lambda *now: told.append(now))
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert server.seen[0] is None
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in server.seen[1:]]
    # A reset may lose bytes that were on the way, never more.
    assert 0 < starts[0] <= len(CONTENT) // 2
    assert starts == sorted(starts)


def test_a_later_run_goes_on_where_one_was_stopped(server, tmp_path):
    (tmp_path / "w.part").write_bytes(CONTENT[:1_000_000])
    told = []
    download.download(server.url, tmp_path / "w", MD5, lambda *now: told.append(now))
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert server.seen == ["bytes=1000000-"]
    assert told[0] == (1_000_000, len(CONTENT))


def test_a_run_stopped_before_renaming_downloads_nothing(server, tmp_path):
    (tmp_path / "w.part").write_bytes(CONTENT)
    download.download(server.url, tmp_path / "w", MD5)  # the server answers 416
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_server_that_ignores_range_starts_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "w.part").write_bytes(b"x" * 1000 + CONTENT[1000:5000])
    told = []
    download.download(server.url, tmp_path / "w", MD5, lambda *now: told.append(now))
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    server.faults = ["truncate", None]
    download.download(server.url, tmp_path / "v", MD5)
    assert (tmp_path / "v").read_bytes() == CONTENT


def test_a_part_that_starts_elsewhere_than_asked_starts_again(server, tmp_path):
    server.whole = True
    (tmp_path / "w.part").write_bytes(CONTENT[:5000])
    download.download(server.url, tmp_path / "w", MD5)
    assert (tmp_path / "w").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"wrong" * 1000, CONTENT + b"more"])
def test_wrong_bytes_are_deleted(part, server, tmp_path):
    if not part:
        server.content = CONTENT[:-1] + b"!"
    (tmp_path / "w.part").write_bytes(part)
    with pytest.raises(CarjaxError, match=r"checksum is wrong .* run again"):
        download.download(server.url, tmp_path / "w", MD5)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    download.download(server.url, tmp_path / "w", MD5)  # as the message says
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_damaged_target_is_downloaded_again(server, tmp_path):
    (tmp_path / "w").write_bytes(CONTENT[:-9])
    download.download(server.url, tmp_path / "w", MD5)
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_connection_that_keeps_dropping_keeps_what_came(server, tmp_path):
    server.faults = ["truncate", "refuse"]
    with pytest.raises(CarjaxError, match=r"dropped after 1\.5 MB .*run again to go on from there"):
        download.download(server.url, tmp_path / "w", MD5)
    assert (tmp_path / "w.part").read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert not (tmp_path / "w").exists()
    server.faults = ["truncate"] * 99  # each brings half of the rest: there is an end to it
    (tmp_path / "w.part").unlink()
    with pytest.raises(CarjaxError, match="dropped after"):
        download.download(server.url, tmp_path / "w", MD5)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_http_errors(status, server, tmp_path):
    server.faults = [status]
    with pytest.raises(CarjaxError, match=f"weights.h5: the server answered {status}"):
        download.download(server.url, tmp_path / "w", MD5)
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/w"
        with pytest.raises(CarjaxError, match=r"cannot be reached \(.*refused.*check the network"):
            download.download(url, tmp_path / "w", MD5)
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_left_alone(server, tmp_path):
    with open(tmp_path / "w.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CarjaxError, match=r"w\.part: another process is downloading it"):
            download.download(server.url, tmp_path / "w", MD5)
    assert server.seen == []


def test_targets_and_addresses_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        download.download(server.url, tmp_path / "file" / "w", MD5)
    with pytest.raises(UsageError, match="not an address that starts with http"):
        download.download("file:///etc/passwd", tmp_path / "w", MD5)
    for url in ("http://[bad/w", "http://a b/w", "http://host:port/w"):
        with pytest.raises(UsageError, match="not an address"):
            download.download(url, tmp_path / "w", MD5)


# --- carjax weights fetch -------------------------------------------------------------------------

NAME = "inception_resnet_v2"
FILE = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5"


@pytest.fixture
def publish(server, monkeypatch, tmp_path):
    """Makes the server's file the published one, and the cache a new folder, which it returns."""

    def make(content):
        server.content = content
        published = registry.BACKBONES[NAME].published
        assert published.url.endswith(f"/{FILE}")
        there = registry.Published(
            f"{server.url.removesuffix('weights.h5')}{FILE}?a=b", hashlib.md5(content).hexdigest()
        )
        backbone = dataclasses.replace(registry.BACKBONES[NAME], published=there)
        monkeypatch.setitem(registry.BACKBONES, NAME, backbone)
        monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path / "cache"))
        return tmp_path / "cache" / "weights"

    return make


def fetch(capsys, *words):
    status = main.main(["weights", "fetch", NAME, *words])
    return status, *capsys.readouterr()


def keras_file(path, layers):
    """Writes (kind, {part: array}) as a Keras file of the published layout."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install '.[test]'")
    with h5py.File(path, "w") as f:
        names = [f"{kind}_{i}" for i, (kind, _) in enumerate(layers)]
        f.attrs["layer_names"] = [name.encode() for name in names]
        for name, (_, parts) in zip(names, layers, strict=True):
            f.create_group(name).attrs["weight_names"] = [part.encode() for part in parts]
            for part, value in parts.items():
                f[name].create_dataset(part, data=value, compression="gzip", compression_opts=1)
    return path.read_bytes()


def test_fetch_of_a_file_that_does_not_fit(publish, tmp_path, capsys):
    content = keras_file(tmp_path / "w.h5", [("conv2d", {"kernel": np.zeros((3, 3, 3, 32))})])
    cache = publish(content)
    status, _, err = fetch(capsys)
    assert status == 1
    assert err.startswith(f"carjax: not a Keras file of {NAME}")
    assert "missing classifier/kernel (1536, 1000)" in err
    assert err.count("\n") == 1
    # What was downloaded is kept, and nothing is taken for weights.
    assert [p.name for p in cache.iterdir()] == [FILE]
    with pytest.raises(CarjaxError, match="no weights for"):
        pretrained.load_pretrained(NAME)


def test_fetch_of_corrupt_bytes_is_one_line(publish, server, capsys):
    pytest.importorskip("h5py", reason="h5py is not installed: pip install '.[test]'")
    cache = publish(CONTENT)
    server.content = CONTENT[::-1]
    status, _, err = fetch(capsys)
    assert status == 1
    assert "its checksum is wrong" in err
    assert err.count("\n") == 1
    assert list(cache.iterdir()) == []


def test_fetch_into_a_folder_that_cannot_be_is_one_line(publish, server, tmp_path, capsys):
    pytest.importorskip("h5py", reason="h5py is not installed: pip install '.[test]'")
    publish(CONTENT)
    (tmp_path / "cache").write_text("")
    status, _, err = fetch(capsys)
    assert status == 1
    assert err.startswith(f"carjax: cannot write {tmp_path / 'cache' / 'weights' / FILE}: ")
    assert err.endswith(": set CARJAX_CACHE_DIR to another folder\n")
    assert server.seen == []


def test_fetch_downloads_nothing_that_could_not_be_read(publish, server, monkeypatch, capsys):
    publish(CONTENT)
    monkeypatch.setitem(sys.modules, "h5py", None)
    status, _, err = fetch(capsys)
    assert status == 1
    assert "needs h5py: pip install h5py" in err
    assert server.seen == []


@pytest.mark.slow
def test_fetch_over_a_bad_line_then_load(publish, server, tmp_path, capsys):
    # The k-th convolution is k everywhere, and its batch norm does nothing.
    layers = []
    for kind, expected in inception_resnet_v2.keras_shapes().items():
        for k, shapes in enumerate(expected.values()):
            value = {"kernel": k, "moving_variance": 1 - 1e-3}
            parts = {p: np.full(s, value.get(p, 0), np.float32) for p, s in shapes.items()}
            layers.append((kind, parts))
    cache = publish(keras_file(tmp_path / "w.h5", layers))
    server.faults = ["drop", "truncate", None]
    out = tmp_path / "mine.safetensors"
    assert fetch(capsys, f"--out={out}", "--dtype=float16")[0] == 0
    assert [p.name for p in cache.iterdir()] == [FILE]
    asked = len(server.seen)
    assert asked == 3
    status, printed, _ = fetch(capsys)
    assert status == 0
    assert f"{cache / NAME}.safetensors: {NAME}, float32, 223." in printed.replace("\n", "")
    assert len(server.seen) == asked  # the published file was there already
    _, params = pretrained.load_pretrained(NAME)
    layer = pretrained.flatten(params)
    for k, path in enumerate(inception_resnet_v2.keras_shapes()["convolution"]):
        np.testing.assert_allclose(layer[f"{path}/kernel"], k, rtol=1e-6)
        assert not layer[f"{path}/bias"].any()
    _, rounded = pretrained.load_pretrained(NAME, out)
    np.testing.assert_array_equal(rounded["conv2d_7b"]["kernel"], params["conv2d_7b"]["kernel"])
