"""The form reader, however the bytes arrive."""

import asyncio
import dataclasses
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax.errors import CarjaxError
from carjax.web import upload
from carjax.web.limits import Limits

KIND = "multipart/form-data; boundary=XX"
VIDEO = bytes(range(256)) * 8 + b"\r\n--XY\r\n"


def form(*parts):
    """The bytes of a form; a part is (field, file name or None, content)."""
    lines = b""
    for field, name, content in parts:
        file = f'; filename="{name}"' if name is not None else ""
        lines += f'--XX\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'.encode()
        lines += content + b"\r\n"
    return lines + b"--XX--\r\n"


def receive(body, folder, cuts=(), kind=KIND):
    limits = Limits()

    async def stream():
        ends = sorted({*(c % (len(body) + 1) for c in cuts), len(body)})
        start = 0
        for end in ends:
            yield body[start:end]
            start = end

    return asyncio.run(upload.receive(kind, stream(), folder, limits))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_form(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("form")
    body = form(("views", None, b"4"), ("video", "a.mp4", VIDEO), ("views", None, b"8"))
    received = receive(body, folder, cuts)
    assert received == upload.Upload("a.mp4", {"views": ["4", "8"]})
    assert (folder / "a.mp4").read_bytes() == VIDEO


@given(st.text(max_size=300))
def test_a_name_is_only_a_name(text):
    name = upload.safe_name(text)
    assert name
    assert pathlib.PurePath(name).name == name
    assert name not in (".", "..")
    assert not name.startswith(".")
    assert len(name.encode()) <= 240
    assert not any(ord(c) < 32 or c in '/\\:"<>|?*' for c in name)


@pytest.mark.parametrize("letter", ["a", "ä", "車", "😀"])
def test_a_long_name_keeps_its_ending(letter):
    for count in (70, 80, 300):
        name = upload.safe_name(letter * count + ".mp4")
        assert name.endswith(letter + ".mp4")
        assert 55 < len(name) <= 80
        assert len(name.encode()) <= 240


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no file"),
        (form(("video", "a.mp4", VIDEO))[:-20], "cut short|no file"),
        (form(("film", "a.mp4", b"x")), "no file"),
        (form(("video", "a.mp4", b"x"), ("video", "b.mp4", b"y")), "one video"),
        (form(("views", None, bytes(5000))), "too long"),
        (form(*((f"f{i}", None, b"") for i in range(30))), "too many fields"),
        (form(*(("known", None, b"x") for _ in range(30))), "too many fields"),
        (b"--YY\r\n" + bytes(200), "cut short"),
    ],
)
def test_a_form_that_is_none_is_refused(tmp_path, body, says):
    with pytest.raises(CarjaxError, match=says):
        receive(body, tmp_path)


def test_a_header_that_is_too_long_is_refused_whatever_the_parser_takes(tmp_path):
    callbacks = upload._Form(tmp_path).callbacks()
    for _ in range(8):
        callbacks["on_header_value"](bytes(2000), 0, 1000)
    with pytest.raises(CarjaxError, match="too long a header"):
        callbacks["on_header_value"](bytes(2000), 0, 1000)


def test_a_boundary_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(CarjaxError, match="damaged"):
        receive(form(("video", "a.mp4", VIDEO)), tmp_path, kind=KIND + "X" * 300)


def test_another_kind_of_body_is_refused(tmp_path):
    with pytest.raises(CarjaxError, match="multipart/form-data"):
        receive(VIDEO, tmp_path, kind="video/mp4")


def test_reading_stops_at_the_limit(tmp_path):
    limits = dataclasses.replace(Limits(), megabytes=0.1)
    read = 0

    async def endless():
        nonlocal read
        yield form(("video", "a.mp4", b""))[:-10]
        while True:
            read += 10_000
            yield bytes(10_000)

    with pytest.raises(upload.TooLarge):
        asyncio.run(upload.receive(KIND, endless(), tmp_path, limits))
    assert read < 250_000


def test_an_upload_that_drips_is_given_up(tmp_path):
    limits = dataclasses.replace(Limits(), megabytes=0.1, upload_minutes=1e-4)

    async def dripping():
        yield form(("video", "a.mp4", b""))[:-10]
        while True:
            await asyncio.sleep(0)
            yield b"x"

    with pytest.raises(upload.TooSlow):
        asyncio.run(upload.receive(KIND, dripping(), tmp_path, limits))
