"""Small sources for the tests of scoring: videos, pictures, archives, and a web server."""

import contextlib
import http.server
import io
import tarfile
import threading

import av
import cv2
import numpy as np


def picture(seed, shape=(60, 80), extension=".jpg"):
    """Bytes of an encoded picture that looks like no other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(extension, image)[1].tobytes()


def write_video(path, frames, *, seed=0, size=(64, 48), rate=10, **mux):
    """A video whose frames differ."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (frames, 6, 8, 3), np.uint8)
    with av.open(str(path), "w", options=mux) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for image in images:
            large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def tar_bytes(members, mode="w:"):
    """An archive of (name, bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Server:
    """A web server on this machine: path → bytes; `hold` makes one path wait for `release`."""

    def __init__(self, files, hold=None):
        self.files = files
        self.held = threading.Event()
        self.release = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                if self.path == hold:
                    server.held.set()
                    server.release.wait()
                self.answer(body=True)

            def answer(self, body):
                data = server.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.send_header("ETag", f'"{hash(data)}"')
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data if body and data else b"")

            def log_message(self, *words):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
