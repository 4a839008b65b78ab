"""The page in headless Chromium: from upload to zip, by mouse, by keyboard and on a phone."""

import io
import json
import pathlib
import shutil
import zipfile

import av
import cv2
import numpy as np
import pytest
from web_server import ROOT, SAMPLE, serving

from carjax.wording import percent

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = ROOT / ".venv" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"width": 390, "height": 844}
DONE = "#results:not([hidden])"
# Generous: the first job compiles, on machines that do other work.
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("page"), "--megabytes=20") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    arguments = [
        *("--no-sandbox", "--disable-gpu"),
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    ]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """(path, options of the context) → a page; at the end, that nothing went wrong on it."""
    contexts, faults = [], []

    def go(path="/", **options):
        context = browser.new_context(**options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console", lambda m: faults.append(m.text) if "Content Security" in m.text else None
        )
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith((server.address, "blob:", "data:"))
                else faults.append(r.url)
            ),
        )
        page.goto(server.address + path)
        page.wait_for_selector("body[data-ready]")
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def job(server):
    """A finished job of the sample, for the tests that only look."""
    identity = server.submit(name="Looked at.mp4")
    assert server.events(identity)[-1]["state"] == "done"
    return identity


def upload(page, path=SAMPLE):
    page.set_input_files("#file", str(path))
    page.click("#go")


def test_from_upload_to_zip(visit, tmp_path):
    page = visit(accept_downloads=True)
    seen = set()
    page.expose_function("sawStep", lambda step: seen.add(step))
    page.evaluate(
        """() => {
            const steps = document.getElementById("steps");
            const watch = new MutationObserver(() => window.sawStep(steps.dataset.at));
            watch.observe(steps, {attributes: true, subtree: true});
        }"""
    )
    upload(page)
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    assert {"upload", "scoring"} <= seen
    for name in ("type", "brand", "doors", "seats", "view_front", "view_rear-left"):
        image = page.locator(f'button[data-photo="{name}"] img')
        image.scroll_into_view_if_needed()
        page.wait_for_function(
            "(i) => i.complete && i.naturalWidth > 0", arg=image.element_handle()
        )
    assert "8 of 8 views found" in page.inner_text("#results")
    assert "% certain" in page.inner_text("#results")
    assert page.evaluate("document.activeElement.id") == "result-title"
    with page.expect_download() as download:
        page.click("#zip")
    assert download.value.suggested_filename == "prius_walkaround photos.zip"
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as held:
        assert held.testzip() is None
        assert held.namelist()[0] == "01_front.jpg"
        content = json.loads(held.read("selection.json"))
        assert len([n for n in held.namelist() if n.endswith(".jpg")]) == 12
    assert content["video"]["path"] == "prius_walkaround.mp4"
    page.reload()
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)  # the address holds the job


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("holiday.mp4", b"this is no video" * 100, "The file is not a video that can be read"),
        ("empty.mp4", b"", "empty"),
        ("photo.mp4", b"\x89PNG\r\n\x1a\n" + bytes(50), "The file is an image, not a video"),
        ("large.mp4", bytes(21_000_000), "more than 20 MB"),
    ],
)
def test_a_bad_file_is_told_clearly(visit, tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    page = visit()
    page.set_input_files("#file", str(tmp_path / name))
    if page.is_visible("#go"):
        page.click("#go")
    page.wait_for_selector("#problem:not([hidden])", timeout=PATIENCE_MS)
    assert says in page.inner_text("#problem")
    assert page.is_visible("label[for=file]") or page.is_visible("#other")


def test_two_people_at_once_get_their_own_results(visit, tmp_path):
    pages = []
    for name, attribute in (("ann.mp4", "type"), ("bo.mp4", "seats")):
        shutil.copy(SAMPLE, tmp_path / name)
        page = visit()
        for box in page.locator("#attributes input").all():
            if box.get_attribute("value") != attribute:
                box.uncheck()
        page.check("input[name=views][value='0']")
        upload(page, tmp_path / name)
        pages.append((page, name, attribute))
    for page, name, attribute in pages:
        page.wait_for_selector(DONE, timeout=PATIENCE_MS)
        assert name in page.inner_text(".meaning")
        photos = page.locator("button[data-photo]").evaluate_all(
            "(b) => b.map(e => e.dataset.photo)"
        )
        assert photos == [attribute]


def test_what_the_seller_knows_is_told_beside_what_the_video_shows(visit):
    page = visit()
    page.click("#known summary")
    page.select_option("[name=known-doors]", "2")
    page.fill("[name=known-brand]", "Nobody’s")
    upload(page)
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    text = page.inner_text(".cards")
    assert "2 doors, as you state" in text
    assert "The model knows no brand 'Nobody’s'" in text
    assert text.count("Nobody’s") == 1
    page.click('button[data-photo="brand"]')
    assert "the nearest that the model knows" in page.inner_text(".reading")
    assert all("% certain" in thumb for thumb in page.locator(".thumb").all_inner_texts())


def test_missing_directions_are_named(visit, tmp_path):
    half = tmp_path / "half.mp4"
    with av.open(str(SAMPLE)) as source, av.open(str(half), "w") as target:
        stream = target.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i, frame in enumerate(source.decode(video=0)):
            if i < 60:
                target.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24")))
                )
        target.mux(stream.encode(None))
    page = visit(viewport=PHONE)
    upload(page, half)
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    assert "To complete them, film" in page.inner_text("#results")
    assert "Film the rear right side" in page.inner_text(".at-rear-right")
    assert page.locator(".polar .rim.missing").count() >= 3


def styled(browser, body, **options):
    """A page of that content in the page's style, without a server."""
    sheets = [ROOT / "carjax" / name for name in ("report/style.css", "web/static/page.css")]
    page = browser.new_page(**options)
    page.set_content(body)
    for sheet in sheets:
        page.add_style_tag(path=sheet)
    return page


def heights(page, selector):
    return page.locator(selector).evaluate_all("(e) => e.map((x) => x.offsetHeight)")


@pytest.mark.parametrize("shape", [(640, 360), (360, 640)])
def test_a_missing_view_stands_as_tall_as_a_photo(browser, shape):
    width, height = shape
    picture = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'/>"
    kind = "portrait" if height > width else ""
    page = styled(
        browser,
        f"""<div id=results class="{kind}"><input type=radio name=crop value=none checked>
        <div class=ring>
        <figure class="view at-left"><button class=photo>
        <img src="data:image/svg+xml,{picture}" width={width} height={height}></button></figure>
        <figure class="view at-right"><button class="photo empty">Film it</button></figure>
        </div></div>""",
    )
    photo, empty = heights(page, ".photo")
    assert photo > 200
    assert empty == pytest.approx(photo, abs=3)
    page.close()


def test_the_four_cards_of_a_car_stand_in_one_row_on_screen_and_on_paper(browser):
    card = "<article class=card><h3>Looks like a car</h3></article>"
    size = {"width": 1000, "height": 800}
    page = styled(browser, f"<main><div class=cards>{4 * card}</div></main>", viewport=size)
    for media, width in (("screen", 1000), ("print", 750)):
        page.emulate_media(media=media)
        page.set_viewport_size({"width": width, "height": 800})
        tops = page.locator(".card").evaluate_all("(e) => e.map((x) => x.offsetTop)")
        assert len(set(tops)) == 1, media
    page.close()


@pytest.mark.parametrize("kind", ["button", "button primary"])
def test_a_button_that_is_disabled_looks_it_and_does_not_ask_for_a_click(browser, kind):
    page = styled(browser, f'<button class="{kind}" disabled>Save</button>')
    look = """(e) => { const {cursor, opacity, borderColor, filter} = getComputedStyle(e);
        return {cursor, opacity, borderColor, filter}; }"""
    button = page.locator("button")
    before = button.evaluate(look)
    button.hover(force=True)
    assert button.evaluate(look) == before
    assert before["cursor"] == "default"
    assert float(before["opacity"]) < 0.7
    page.close()


def test_the_attributes_are_headed_once_they_are_known(browser):
    page = styled(browser, "<fieldset id=attributes><legend>Photos that show</legend></fieldset>")
    assert page.locator("legend").is_hidden()
    page.evaluate("document.querySelector('#attributes').innerHTML += '<label class=chip>type'")
    assert page.locator("legend").is_visible()
    page.close()


def test_paper_shows_no_controls(visit, job):
    page = visit(f"/#{job}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    shown = ("#result-title", ".card", ".ring", ".chart")
    controls = (".top nav", "#zip", ".segments", ".toolbar", "#time-title + .lead", ".readout")
    assert all(page.locator(one).first.is_visible() for one in (*shown, *controls))
    page.emulate_media(media="print")
    assert all(page.locator(one).first.is_visible() for one in shown)
    assert not any(page.locator(one).first.is_visible() for one in controls)


def test_a_photo_is_swapped_from_the_timeline_by_keyboard(visit, server):
    identity = server.submit(name="mine.mp4")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    own = server.client.get(f"/jobs/{identity}/selection.json").json()["attributes"]["doors"]
    track = page.locator('figure[data-series="doors"] [role=slider]')
    track.focus()
    before = track.get_attribute("aria-valuetext")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert track.get_attribute("aria-valuetext") != before
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .large img")
    page.wait_for_function("() => document.querySelector('.large img').naturalWidth > 0")
    assert "frame" in page.inner_text(".reading")
    page.focus("#use")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog:not([open])", state="attached")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('doors')")
    assert page.evaluate("document.activeElement.dataset.photo") == "doors"
    status = server.client.get(f"/jobs/{identity}").json()
    assert status["revision"] == 1
    page.keyboard.press("Enter")
    assert page.locator(".thumb").nth(0).inner_text().endswith("✓")
    assert page.locator(".thumb").nth(1).inner_text().endswith("carjax’s choice")
    page.locator(".thumb").nth(1).click()
    page.click("#use")
    page.wait_for_selector("dialog:not([open])", state="attached")
    doors = server.client.get(f"/jobs/{identity}/selection.json").json()["attributes"]["doors"]
    assert doors == own


def test_a_click_blurs_and_the_zip_follows(visit, server):
    identity = server.submit(name="mine.mp4")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)

    def exported():
        data = server.client.get(f"/jobs/{identity}/zip").content
        with zipfile.ZipFile(io.BytesIO(data)) as held:
            image = np.frombuffer(held.read("03_left.jpg"), np.uint8)
        return cv2.imdecode(image, cv2.IMREAD_COLOR).astype(int)

    before = exported()
    page.click('button[data-photo="view_left"]')
    page.click("text=Blur something")
    page.wait_for_function("() => document.querySelector('.regions img').naturalWidth > 0")
    page.click(".layer")
    page.keyboard.press("ArrowLeft")
    page.click("#save-blur")
    page.wait_for_selector("dialog:not([open])", state="attached")
    change = np.abs(exported() - before).mean(axis=2)
    height, width = change.shape
    middle = change[int(0.47 * height) : int(0.53 * height), int(0.43 * width) : int(0.55 * width)]
    assert middle.mean() > 3
    assert change[: height // 3].mean() < 2


def open_blur(page, photo):
    page.click(f'button[data-photo="{photo}"]')
    page.click("dialog >> text=/Blur something|Change what is blurred/")
    page.wait_for_function("() => document.querySelector('.regions img').naturalWidth > 0")


def test_regions_are_moved_and_removed_by_pointer(visit, job):
    page = visit(f"/#{job}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    open_blur(page, "view_front")
    page.click("text=Add a region")
    region = page.locator(".region")
    before, layer = region.bounding_box(), page.locator(".layer").bounding_box()
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 30, steps=3)
    page.mouse.up()
    after = region.bounding_box()
    assert after["x"] == pytest.approx(before["x"] - 40, abs=2)
    assert after["y"] == pytest.approx(before["y"] - 30, abs=2)
    assert after["width"] == pytest.approx(before["width"], abs=1)
    # The other button of the mouse draws nothing; a near miss loses nothing.
    page.mouse.click(layer["x"] + 20, layer["y"] + 20, button="right")
    assert region.count() == 1
    dialog = page.locator("dialog").bounding_box()
    for x, y in ((dialog["x"] + 8, dialog["y"] + 200), (4, 4)):
        page.mouse.click(x, y)
        assert page.locator("dialog").evaluate("(d) => d.open")
    page.mouse.click(layer["x"] + 60, layer["y"] + 60)
    assert region.count() == 2
    for left in (1, 0):
        page.click("text=Remove a region")
        assert region.count() == left
    page.keyboard.press("Escape")


def test_the_focus_goes_where_regions_are_made(visit, server):
    identity = server.submit(name="keys.mp4")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    page.focus('button[data-photo="view_front"]')
    page.keyboard.press("Enter")
    page.focus("text=Blur something")
    page.keyboard.press("Enter")
    focused = "document.activeElement.{}"
    assert page.evaluate(focused.format("textContent")) == "Add a region"
    page.keyboard.press("Enter")
    assert page.evaluate(focused.format("ariaLabel")) == "Blurred region 1"
    help = page.evaluate(focused.format("getAttribute('aria-describedby')"))
    assert "arrow keys" in page.inner_text(f"#{help}")
    page.click("#save-blur")
    page.wait_for_selector("dialog:not([open])", state="attached")
    open_blur(page, "view_front")
    assert page.evaluate(focused.format("ariaLabel")) == "Blurred region 1"


def front_without_frames(visit, job, detail):
    """The page with the front's photo open, whose frames the server refuses."""
    page = visit(f"/#{job}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    refusal = {"status": 503, "json": {"detail": detail}}
    page.route("**/frames/*.jpg", lambda route: route.fulfill(**refusal))
    page.click('button[data-photo="view_front"]')
    return page


def test_a_frame_that_the_server_cannot_show_is_told(visit, job):
    page = front_without_frames(visit, job, "the server is decoding still")
    page.click("text=Blur something")
    page.wait_for_selector("dialog .problem:not([hidden])")
    assert "The server is decoding still." in page.inner_text("dialog .problem")
    assert page.is_disabled("#save-blur")


def test_pictures_keep_their_place_and_come_once_they_are_decoded(visit, job):
    page = front_without_frames(visit, job, "the frames are being decoded")
    thumbs = page.locator(".thumb img")
    thumbs.first.scroll_into_view_if_needed()
    page.wait_for_selector("dialog .problem:not([hidden])")
    assert page.inner_text("dialog .problem") == "The frames are being decoded. Trying again."
    size = "(i) => [i.clientWidth, i.clientHeight]"
    before = thumbs.evaluate_all(f"(all) => all.map({size})")
    assert all(width / height == pytest.approx(16 / 9, rel=0.05) for width, height in before)
    page.click("text=Blur something")
    page.click("text=Add a region")
    page.click("text=Add a region")
    first, second = (region.bounding_box() for region in page.locator(".region").all())
    assert second["x"] - first["x"] > 5
    assert second["y"] - first["y"] > 5
    page.click("text=Remove a region")
    empty = page.locator(".region").bounding_box()
    assert empty["width"] > 60
    assert empty["height"] > 20
    page.unroute("**/frames/*.jpg")
    page.wait_for_function(
        "() => [...document.querySelectorAll('dialog img')].every((i) => i.naturalWidth > 0)"
    )
    shown = page.locator(".region").bounding_box()
    for side in ("width", "height"):
        assert shown[side] == pytest.approx(empty[side], abs=1)
    assert thumbs.evaluate_all(f"(all) => all.map({size})") == before
    page.wait_for_selector("dialog .problem", state="hidden")
    assert page.is_enabled("#save-blur")


def test_grey_bands_of_the_timelines_have_a_key(visit, job):
    page = visit(f"/#{job}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    grey = "no car recognised in the frame"
    assert page.locator(".timeline .nocar").count() > 0
    assert grey in page.inner_text(".legend")

    def without(route):
        details = route.fetch().json()
        for timeline in details["timelines"]:
            timeline["chart"] = timeline["chart"].replace('class="nocar"', 'class="band"')
        route.fulfill(json=details)

    page.route("**/details", without)
    page.reload()
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    assert grey not in page.inner_text(".legend")


def test_words_agree_with_the_number_beside_them(visit):
    page = visit()
    words = """async (all) => {
        const {sureness} = await import("/static/results.js");
        return all.map(sureness);
    }"""
    assert page.evaluate(words, [0.595, 0.604, 0.594, 0.846, 0.854]) == [
        *("fairly sure", "fairly sure", "not very sure", "very sure", "very sure")
    ]


def test_a_refused_crop_is_told_and_undone(visit, job):
    page = visit(f"/#{job}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    refusal = {"status": 503, "json": {"detail": "the server cannot do this now"}}
    page.route("**/crop", lambda route: route.fulfill(**refusal))
    page.check('input[value="16:9"]', force=True)
    page.wait_for_selector("#result-problem:not([hidden])")
    assert page.inner_text("#result-problem") == "The server cannot do this now."
    assert page.is_checked('input[name="crop"][value="none"]')


def test_a_change_in_another_window_is_shown_and_not_undone(visit, server):
    identity = server.submit(name="two windows.mp4")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    frame = server.client.get(f"/jobs/{identity}/selection.json").json()["orientation"]["views"][
        "front"
    ]["frame"]
    blur = f"/jobs/{identity}/frames/{frame}/blur"
    open_blur(page, "view_front")
    page.click(".layer")
    boxes = [[0.1, 0.1, 0.2, 0.2]]
    assert server.client.put(blur, json={"boxes": boxes}).status_code == 200
    page.click("#save-blur")
    page.wait_for_selector("#result-problem:not([hidden])")
    assert "have changed meanwhile" in page.inner_text("#result-problem")
    assert not page.locator("dialog").evaluate("(d) => d.open")
    details = server.client.get(f"/jobs/{identity}/details").json()
    assert details["boxes"] == {str(frame): boxes}
    open_blur(page, "view_front")
    assert page.locator(".region").count() == 1
    page.keyboard.press("Escape")
    page.check('input[value="4:3"]', force=True)  # it knows the revision now
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('4:3')")


def test_a_change_waits_for_the_one_before(visit, server):
    identity = server.submit(name="quick.mp4", known="doors:2")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    card = page.locator("article", has=page.locator('[data-photo="doors"]'))
    doors = server.client.get(f"/jobs/{identity}/selection.json").json()["attributes"]["doors"]
    assert doors["known"]["value"] == "2"
    assert f"shows it {percent(doors['probability'])}" in card.inner_text()
    held = []
    page.route("**/crop", lambda route: held.append(route))
    page.check('input[value="4:3"]', force=True)
    page.click('button[data-photo="doors"]')
    assert f"as you state: shows it {percent(doors['probability'])}" in page.inner_text(".reading")
    page.locator(".thumb").nth(1).click()
    page.click("#use")
    page.wait_for_function("() => document.querySelector('dialog').ariaBusy === 'true'")
    held[0].continue_()
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('doors')")
    assert page.is_hidden("#result-problem")
    assert server.client.get(f"/jobs/{identity}").json()["revision"] == 2
    assert server.client.get(f"/jobs/{identity}/details").json()["crop"] == "4:3"


def test_a_late_answer_does_not_close_another_photo(visit, server):
    identity = server.submit(name="slow.mp4")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    held = []
    page.route("**/blur", lambda route: held.append(route))
    open_blur(page, "view_front")
    page.click(".layer")
    page.click("#save-blur")
    page.click("#save-blur")  # the second one is not sent
    page.wait_for_function("() => document.querySelector('dialog').ariaBusy === 'true'")
    page.keyboard.press("Escape")
    page.click('button[data-photo="view_left"]')
    title = page.inner_text("#viewer-title")
    assert len(held) == 1
    with page.expect_response("**/details"):
        held[0].continue_()
    page.wait_for_function("() => !document.querySelector('dialog').ariaBusy")
    assert page.locator("dialog").evaluate("(d) => d.open")
    assert page.inner_text("#viewer-title") == title


def test_the_address_decides_what_the_page_shows(visit, server, job):
    page = visit(f"/#{job}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    # The skip link goes to the content, and not to another address.
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith(f"#{job}")
    assert page.is_visible("#results")
    # From a running job to another one: the first one's end changes nothing.
    other = server.submit(name="other.mp4")
    page.evaluate(f"location.hash = '#{other}'")
    page.wait_for_selector("#working:not([hidden])")
    page.go_back()
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    assert server.events(other)[-1]["state"] == "done"
    assert page.title().startswith("Looked at.mp4")
    # Nor does a change of it that is answered too late, and its dialog goes with it.
    held = []
    page.route(f"**/jobs/{other}/crop", lambda route: held.append(route))
    page.evaluate(f"location.hash = '#{other}'")
    page.wait_for_function("() => document.title.startsWith('other.mp4')")
    page.check('input[value="4:3"]', force=True)
    page.click('button[data-photo="view_left"]')
    page.evaluate(f"location.hash = '#{job}'")
    page.wait_for_function("() => document.title.startsWith('Looked at.mp4')")
    assert not page.locator("dialog").evaluate("(d) => d.open")
    with page.expect_response(f"**/jobs/{other}/details"):
        held[0].continue_()
    page.wait_for_load_state("networkidle")
    assert page.locator("#results a#zip").get_attribute("href").startswith(f"/jobs/{job}/zip")
    # A dialog goes with the page it belongs to.
    page.click('button[data-photo="view_left"]')
    page.evaluate("history.pushState(null, '', '/'); dispatchEvent(new PopStateEvent('popstate'))")
    page.wait_for_selector("#start:not([hidden])")
    assert not page.locator("dialog").evaluate("(d) => d.open")
    assert "Looked at" not in page.title()


def test_a_server_that_does_not_answer_is_told(visit, job):
    page = visit()
    page.route("**/events", lambda route: route.abort())
    answers = [
        lambda route: route.fulfill(json={"id": job, "name": "a.mp4", "state": "running"}),
        lambda route: route.abort(),
    ]
    page.route(f"**/jobs/{job}", lambda route: answers.pop(0)(route) if answers else route.abort())
    page.evaluate(f"location.hash = '#{job}'")
    page.wait_for_function("() => document.getElementById('doing').textContent.includes('again')")
    assert "The server does not answer" in page.inner_text("#doing")
    page.focus("#cancel")
    with page.expect_request("**/events"):  # it tries again, and takes nothing away
        pass
    assert page.evaluate("document.activeElement.id") == "cancel"
    assert "The server does not answer" in page.inner_text("#doing")


def test_one_lost_answer_makes_the_page_forget_nothing(visit, server, job):
    page = visit("/")
    lost = [f"/jobs/{job}", f"/jobs/{job}/details"]

    def once(route):
        path = route.request.url.removeprefix(server.address)
        if path not in lost:
            return route.continue_()
        assert page.url.endswith(f"#{job}")
        lost.remove(path)
        return route.abort()

    page.route(f"**/jobs/{job}**", once)
    page.evaluate(f"location.hash = '#{job}'")
    page.wait_for_selector("#problem:not([hidden])")
    assert "The server does not answer" in page.inner_text("#problem")
    page.wait_for_selector(DONE)
    assert lost == []
    assert page.url.endswith(f"#{job}")
    assert page.locator("#problem").evaluate("(p) => p.hidden")


def test_a_page_that_came_before_its_server_waits_for_it(visit):
    page = visit()
    answers = [
        lambda route: route.abort(),
        lambda route: route.fulfill(status=503, json={"detail": "the server is starting"}),
    ]
    page.route(
        "**/about", lambda route: (answers.pop(0) if answers else type(route).continue_)(route)
    )
    page.reload()
    for says in ("The server does not answer", "The server is starting"):
        page.wait_for_function(
            "(t) => document.getElementById('problem').textContent.includes(t)", arg=says
        )
    page.set_input_files("#file", str(SAMPLE))
    assert page.is_disabled("#go")
    assert "The model is loading" in page.inner_text("#limits")
    page.wait_for_selector("body[data-ready]")
    assert page.is_hidden("#problem")
    assert page.is_enabled("#record")


def test_going_back_works_while_the_browser_asks_for_the_camera(visit):
    page = visit()
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => new Promise(() => null); }")
    page.click("#record")
    assert page.is_disabled("#shutter")
    page.click("#leave")
    page.wait_for_selector("#start:not([hidden])")
    assert page.is_hidden("#problem")


def test_a_recording_is_taken_like_a_file(visit):
    page = visit(permissions=["camera"], accept_downloads=True)
    page.click("#record")
    page.wait_for_function("() => document.getElementById('camera').videoWidth > 0")
    page.click("#shutter")
    page.wait_for_function("() => document.getElementById('clock').textContent >= '0:02'")
    page.dblclick("#shutter")  # the second click changes nothing
    page.wait_for_selector("#chosen:not([hidden])")
    assert page.inner_text("#file-name").startswith("walk-around.")
    # It is nowhere else yet: it can be saved, and is not left without a question.
    with page.expect_download() as download:
        page.click("#save-recording")
    assert download.value.suggested_filename.startswith("walk-around.")
    assert pathlib.Path(download.value.path()).stat().st_size > 1000
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    with page.expect_event("dialog"):
        page.evaluate("() => { setTimeout(() => location.reload()); }")
    page.wait_for_selector("#chosen:not([hidden])")
    assert asked == ["beforeunload"]
    page.click("#go")
    # Chromium's false camera shows a green screen with a clock: no car.
    page.wait_for_selector("#problem:not([hidden])", timeout=PATIENCE_MS)
    assert "No car found" in page.inner_text("#problem")
    leaving = "() => dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert page.evaluate(leaving)  # the server has had it


def test_an_upload_is_not_left_without_a_question(visit):
    page = visit()
    leaving = "() => dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    page.set_input_files("#file", str(SAMPLE))
    assert page.evaluate(leaving)  # a file is still where it was
    page.route("**/jobs", lambda route: None)
    page.click("#go")
    page.wait_for_selector("#working:not([hidden])")
    assert not page.evaluate(leaving)
    page.click("#cancel")
    assert page.evaluate(leaving)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(visit, job, scheme):
    if not AXE.exists():
        pytest.skip("axe-core is not installed (npm install --prefix .venv/npm axe-core)")
    for viewport in (PHONE, {"width": 1280, "height": 900}):
        page = visit(f"/#{job}", color_scheme=scheme, viewport=viewport, bypass_csp=True)
        page.wait_for_selector(DONE, timeout=PATIENCE_MS)
        check(page)
        page.click('button[data-photo="type"]')
        check(page)
        page.click("text=Blur something")
        check(page)
        start = visit("/", color_scheme=scheme, viewport=viewport, bypass_csp=True)
        start.click("#known summary")
        check(start)


def check(page):
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("async () => (await axe.run()).violations")
    serious = [
        f"{v['id']}: {v['help']}: {[n['target'] for n in v['nodes']]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_nothing_is_wider_than_a_phone(visit, job):
    page = visit(viewport=PHONE)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 390
    page = visit(f"/#{job}", viewport=PHONE)
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    assert page.evaluate(wide) == 390
    page.click('button[data-photo="type"]')
    dialog = page.locator("dialog")
    assert dialog.evaluate("(d) => d.scrollWidth <= d.clientWidth")
    box = dialog.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_a_failed_job_is_told_again_and_a_cancelled_one_leaves_no_step(visit, server, tmp_path):
    still = tmp_path / "grey.mp4"
    with av.open(str(still), "w") as target:
        stream = target.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((180, 320, 3), 128, np.uint8), format="rgb24")
        for _ in range(12):
            target.mux(stream.encode(grey))
        target.mux(stream.encode(None))
    page = visit()
    page.set_input_files("#file", str(still))
    assert page.inner_text("#file-size").endswith(" kB")
    page.click("#go")
    page.wait_for_selector("#problem:not([hidden])", timeout=PATIENCE_MS)
    said = page.inner_text("#problem")
    assert "No car found in this video: film the whole car" in said
    page.reload()
    page.wait_for_selector("#problem:not([hidden])", timeout=PATIENCE_MS)
    assert page.inner_text("#problem") == said
    page.go_back()
    page.wait_for_selector("#problem", state="hidden")
    assert page.url == f"{server.address}/"
    steps = page.evaluate("history.length")
    page.route("**/events", lambda route: None)  # it stays where it is
    upload(page)
    page.wait_for_function("() => location.hash")
    identity = page.url.split("#")[1]
    page.click("#cancel")
    page.wait_for_function("() => !location.hash")
    page.wait_for_selector("#start:not([hidden])")
    assert server.client.get(f"/jobs/{identity}").status_code == 404
    assert page.evaluate("history.state") is None
    assert page.evaluate("history.length") == steps  # in place of the failed one


def test_a_job_is_deleted_from_its_page(visit, server):
    identity = server.submit(name="private.mp4")
    page = visit(f"/#{identity}")
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    page.click("#delete")
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "delete"
    assert server.client.get(f"/jobs/{identity}").status_code == 200
    page.click("#delete")
    refusal = {"status": 503, "json": {"detail": "the server cannot do this now"}}
    page.route(f"**/jobs/{identity}", lambda route: route.fulfill(**refusal))
    page.click("#sure")
    page.wait_for_selector("dialog .problem:not([hidden])")
    assert page.inner_text("dialog .problem") == "The server cannot do this now."
    page.unroute(f"**/jobs/{identity}")
    page.click("#sure")
    page.wait_for_selector("#start:not([hidden])")
    assert page.url == f"{server.address}/"
    assert server.client.get(f"/jobs/{identity}").status_code == 404


def test_a_job_that_is_gone_says_so(visit):
    page = visit("/#" + "x" * 22)
    page.wait_for_selector("#problem:not([hidden])", timeout=PATIENCE_MS)
    assert "no such job" in page.inner_text("#problem").lower()


def test_a_download_of_a_job_that_is_gone_is_told(visit, server):
    identity = server.submit(name="gone.mp4")
    page = visit(f"/#{identity}", accept_downloads=True)
    page.wait_for_selector(DONE, timeout=PATIENCE_MS)
    page.click('button[data-photo="view_front"]')
    with page.expect_download() as download:
        page.click("text=Download this photo")
    assert download.value.suggested_filename == "front.jpg"
    assert server.client.delete(f"/jobs/{identity}").status_code == 204
    page.click("text=Download this photo")
    page.wait_for_selector("dialog .problem:not([hidden])")
    assert "No such job" in page.inner_text("dialog .problem")
    page.keyboard.press("Escape")
    page.click("#zip")
    page.wait_for_selector("#result-problem:not([hidden])")
    assert "No such job" in page.inner_text("#result-problem")


def test_the_api_page_loads_without_a_network(browser, server):
    page = browser.new_page()
    foreign = []
    page.on(
        "request",
        lambda r: None if r.url.startswith((server.address, "data:")) else foreign.append(r.url),
    )
    page.goto(f"{server.address}/docs")
    page.get_by_text("/jobs/{id}/zip").first.wait_for(timeout=PATIENCE_MS)
    assert foreign == []
    page.close()


def test_the_report_of_the_zip_reads_its_charts_offline(browser, server, job, tmp_path):
    data = server.client.get(f"/jobs/{job}/zip").content
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        held.extractall(tmp_path)
    page = browser.new_page()
    page.goto((pathlib.Path(tmp_path) / "report.html").as_uri())
    track = page.locator('figure[data-series="type"] [role=slider]')
    track.focus()
    page.keyboard.press("ArrowLeft")
    assert "certainty" in track.get_attribute("aria-valuetext")
    page.close()
