"""The page in a real browser, over a scripted line: what an engineer sees and does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web_client import TOKEN
from web_scene import CHROMIUM, Scene, chromium

from differad_edge.errors import RefusedError
from differad_edge.runtime.settings import WebSettings
from differad_edge.web import WebServer

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")
if not CHROMIUM.exists():
    pytest.skip(f"{CHROMIUM} is not there: no browser tests", allow_module_level=True)

from playwright.sync_api import Browser, Page, expect

SIZES = [(360, 780), (820, 1180), (1180, 820), (1920, 1080)]
EXPECTED = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "409 (Conflict)")
"""What the browser itself notes when a test stops the server, or the line refuses."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Line:
    """A scene behind a dashboard; its heart beats until it is told to stop."""

    def __init__(self, token: str | None = None) -> None:
        self.scene = Scene(320)
        self.fake = self.scene.line
        self._settings = WebSettings(address="127.0.0.1:*", token=token)
        self.server = WebServer(self.fake, self._settings).start()
        self.beats = True
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat)
        self._heart.start()

    def restart(self) -> None:
        self.server = WebServer(self.fake, WebSettings(address=self.server.address)).start()

    def close(self) -> None:
        self._stop.set()
        self._heart.join()
        self.server.close()

    def _beat(self) -> None:
        while not self._stop.wait(0.2):
            if self.beats:
                self.fake.heartbeat()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


@pytest.fixture
def open_page(browser: Browser, line: Line) -> Iterator[Callable[..., Page]]:
    """open_page(width=..., ...): the page of ``line``; afterwards it may have complained about nothing."""
    pages: list[Page] = []
    complaints: list[str] = []

    def start(width: int = 1280, height: int = 900, **options: Any) -> Page:
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        pages.append(page)
        page.goto(line.server.url)
        expect(page.locator("#state")).to_have_attribute("data-tone", "good")
        return page

    yield start
    for page in pages:
        page.close()
    assert [text for text in complaints if not any(known in text for known in EXPECTED)] == []


def until(condition: Callable[[], object], limit_s: float = 8.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_results_appear_as_they_come(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    expect(page.locator("#word")).to_have_text("Waiting for the first part")
    line.scene.play("OK")
    expect(page.locator("#word")).to_have_text("OK")
    expect(page.locator("#verdict")).to_have_attribute("data-verdict", "OK")
    sequence = line.scene.play("NG", part_id="P-0042")
    expect(page.locator("#word")).to_have_text("NG")
    expect(page.locator("#part")).to_have_text("Part P-0042")
    expect(page.locator("#live-note")).to_contain_text(f"{sequence} ·")
    expect(page.locator(".reject")).to_have_count(1)
    line.scene.play("UNDECIDED")
    expect(page.locator("#word")).to_have_text("UNDECIDED")
    expect(page.locator("#why")).to_have_text("The part is not where the reference is")
    expect(page.locator("#more")).to_contain_text("64 px")
    expect(page.locator("#figures")).to_contain_text("NG1")
    expect(page.locator("#spoken")).to_contain_text("UNDECIDED", timeout=10_000)


def test_the_live_picture_carries_the_boxes_of_its_own_part(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    sequence = line.scene.play("NG")
    expect(page.locator("#live-note")).to_contain_text(f"{sequence} ·")
    x1, y1, _, y2 = line.fake.records[-1].result.findings[0].box
    red = """([x, y]) => {
        const canvas = document.querySelector('#live-canvas');
        const scale = canvas.width / 320;
        const found = canvas.getContext('2d').getImageData(x * scale - 12, y * scale - 12, 24, 24).data;
        for (let i = 0; i < found.length; i += 4) {
            if (found[i] > 220 && found[i + 1] < 120 && found[i + 2] < 130) return true;
        }
        return false;
    }"""
    assert page.evaluate(red, [x1, (y1 + y2) / 2])
    sequence = line.scene.play("OK")
    expect(page.locator("#live-note")).to_contain_text(f"{sequence} ·")
    assert not page.evaluate(red, [x1, (y1 + y2) / 2])


def test_review_by_click_with_undo(open_page: Callable[..., Page], line: Line) -> None:
    sequence = line.scene.play("NG")
    page = open_page()
    card = page.locator(f'.reject[data-sequence="{sequence}"]')
    page.wait_for_timeout(500)  # a card that has just moved takes no click
    card.get_by_role("button", name="Overrule").click()
    expect(card.locator(".mark")).to_have_text("Overruled")
    until(lambda: line.fake.reviews.get(sequence, {}).get("mark") == "overruled")
    page.get_by_role("button", name="Undo").click()
    expect(card.locator(".mark")).to_have_count(0)
    until(lambda: line.fake.reviews[sequence]["mark"] == "cleared")


def test_review_by_keyboard(open_page: Callable[..., Page], line: Line) -> None:
    older, newer = line.scene.play("NG"), line.scene.play("NG")
    page = open_page()
    expect(page.locator(".reject")).to_have_count(2)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    until(lambda: line.fake.reviews.get(newer, {}).get("mark") == "confirmed")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("o")
    until(lambda: line.fake.reviews.get(older, {}).get("mark") == "overruled")
    page.keyboard.press("n")
    page.keyboard.type("dust on the lens?")  # its letters are no commands
    page.get_by_label("Your name").fill("Ana")
    page.keyboard.press("Enter")
    until(lambda: line.fake.reviews[older]["note"] == "dust on the lens?")
    assert (line.fake.reviews[older]["mark"], line.fake.reviews[older]["by"]) == ("overruled", "Ana")
    until(lambda: line.fake.reviews[newer]["mark"] == "confirmed")
    page.keyboard.press("?")
    expect(page.locator("#ask")).to_contain_text("Overrule: the verdict is wrong")
    page.keyboard.press("Escape")
    expect(page.locator("#ask")).to_be_hidden()


def test_a_mark_outlives_an_older_answer_of_the_journal(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    asked, gate, answered = threading.Event(), threading.Event(), threading.Event()
    results = line.fake.results

    def slowly(query: Any) -> list[dict[str, Any]]:
        found = [dict(record) for record in results(query)]
        asked.set()
        gate.wait(8)
        answered.set()
        return found

    sequence = line.scene.play("NG")
    expect(page.locator(".reject")).to_have_count(1)
    line.fake.results = slowly  # type: ignore[method-assign]
    page.locator("#doubtful").click()
    until(asked.is_set)
    page.wait_for_timeout(500)  # a card that has just come is not clicked by mistake
    page.locator(".reject").get_by_role("button", name="Overrule").click()
    until(lambda: line.fake.reviews.get(sequence, {}).get("mark") == "overruled")
    gate.set()
    until(answered.is_set)
    page.wait_for_timeout(300)
    expect(page.locator(".reject .mark")).to_have_text("Overruled")


def test_a_refused_review_is_not_shown_as_done(open_page: Callable[..., Page], line: Line) -> None:
    sequence = line.scene.play("NG")
    line.fake.failures["review"] = RefusedError("no-journal", "there is no journal to write into")
    page = open_page()
    expect(page.locator(".reject")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    expect(page.locator("#toasts")).to_contain_text("there is no journal to write into")
    expect(page.locator(f'.reject[data-sequence="{sequence}"] .mark')).to_have_count(0)


def test_one_part_in_detail(open_page: Callable[..., Page], line: Line) -> None:
    older, newer = line.scene.play("NG"), line.scene.play("NG")
    page = open_page()
    expect(page.locator(".reject")).to_have_count(2)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    detail = page.locator("#detail")
    expect(detail).to_contain_text(f"Result {newer}")
    for veil in ("#part-veil", "#reference-veil"):
        expect(page.locator(veil)).to_be_hidden()
    for text in ("SHA-256", "a1b2c3d4", "Compare", line.fake.records[-1].image_fingerprint or ""):
        expect(detail).to_contain_text(text)
    detail.locator(".finding").first.click()
    expect(detail.locator(".finding").first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")
    expect(detail).to_contain_text(f"Result {older}")
    page.keyboard.press("c")
    until(lambda: line.fake.reviews.get(older, {}).get("mark") == "confirmed")
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()


def test_a_key_opens_a_card_that_has_only_just_come(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    sequence = line.scene.play("NG")
    expect(page.locator(".reject")).to_have_count(1)
    page.evaluate(
        """() => {
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
            document.activeElement.click();
        }"""
    )
    expect(page.locator("#detail")).to_contain_text(f"Result {sequence}")


def test_a_lost_connection_leaves_no_verdict_on_the_screen(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    line.scene.play("OK")
    expect(page.locator("#word")).to_have_text("OK")
    line.server.close()
    expect(page.locator("#word")).to_have_text("No connection", timeout=6000)
    expect(page.locator("#why")).to_contain_text("No connection since")
    expect(page.locator("#banners")).to_contain_text("Nothing on this page is current")
    expect(page.locator("#live-veil")).to_contain_text("Not live")
    expect(page.locator("#verdict")).not_to_have_attribute("data-verdict", "OK")
    expect(page.locator("#halt")).to_be_disabled()
    line.restart()
    expect(page.locator("#word")).to_have_text("OK", timeout=10_000)
    expect(page.locator("#banners")).to_be_empty()


def test_a_line_that_falls_silent_is_shown_as_such(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    line.scene.play("OK")
    expect(page.locator("#word")).to_have_text("OK")
    line.beats = False  # the web server lives, the line behind it does not
    expect(page.locator("#word")).to_have_text("The line is silent", timeout=8000)
    expect(page.locator("#verdict")).not_to_have_attribute("data-verdict", "OK")
    line.beats = True
    expect(page.locator("#word")).to_have_text("OK")


def test_a_halted_line_shows_no_verdict_either(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    line.scene.play("OK")
    page.locator("#halt").click()
    expect(page.locator("#ask")).to_contain_text("Halt station main?")
    page.get_by_role("button", name="Cancel").click()
    assert line.fake.called("halt") == []
    page.locator("#halt").click()
    page.locator("#ask").get_by_role("button", name="Halt").click()
    expect(page.locator("#word")).to_have_text("Halted")
    expect(page.locator("#why")).to_contain_text("halted by the dashboard")
    assert line.fake.called("halt") == [{"station": "main"}]
    page.locator("#reset").click()
    expect(page.locator("#word")).to_have_text("OK")


def test_a_product_is_changed_only_after_a_question(open_page: Callable[..., Page], line: Line) -> None:
    page = open_page()
    page.locator("#products").select_option("gasket-a")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#products")).to_have_value("board-c")
    assert line.fake.called("select_product") == []
    page.locator("#products").select_option("gasket-a")
    page.get_by_role("button", name="Change to gasket-a").click()
    expect(page.locator("#product-title")).to_have_text("Product gasket-a")
    expect(page.locator("#product-facts")).to_contain_text("calibrated on 120 good parts")
    assert line.fake.called("select_product") == [{"product": "gasket-a", "station": "main"}]


def test_the_picture_that_was_shown_is_the_one_that_is_registered(open_page: Callable[..., Page], line: Line) -> None:
    line.scene.play("OK")
    page = open_page()
    seen = line.fake.frames["main"][0].image
    page.locator("#register").click()
    expect(page.locator("#ask")).to_contain_text("takes its place")
    line.scene.play("NG")
    page.get_by_label("Product", exact=True).fill("../evil")
    page.get_by_role("button", name="Register", exact=True).click()
    assert line.fake.called("register") == []
    page.get_by_label("Product", exact=True).fill("board-d")
    expect(page.locator("#ask")).to_contain_text("A new product")
    page.get_by_role("button", name="Register", exact=True).click()
    until(lambda: line.fake.called("register"))
    (call,) = line.fake.called("register")
    assert (call["product"], call["from_station"]) == ("board-d", None)
    assert (call["images"][0] == seen).all()


def test_a_part_is_inspected_on_request(open_page: Callable[..., Page], line: Line) -> None:
    line.fake.set_station(trigger="request", state="Ready")

    def inspect(trigger_id: str, on_result: Any) -> None:
        line.scene.play("NG")
        on_result(line.fake.records[-1])

    line.fake.on_trigger = inspect
    page = open_page()
    page.get_by_role("button", name="Inspect now").click()
    expect(page.locator("#word")).to_have_text("NG")
    assert len(line.fake.called("trigger")) == 1


def test_names_are_text_and_never_code(open_page: Callable[..., Page], line: Line) -> None:
    evil = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>"
    page = open_page()
    sequence = line.scene.play("NG", part_id=evil)
    line.fake.set_status(alarms=[{"code": evil, "station": evil, "message": evil, "since_utc": "2026-01-01T00:00:00Z"}])
    tag = "<img src=x onerror='window.hit=1'>"
    line.fake.references[tag] = line.fake.references["board-c"]
    line.fake.set_status(products={tag: {"version": 1, "threshold": 0.5, "reference_sha256": evil}})
    line.fake.set_station(product=tag, products=[tag, "gasket-a"], dropped={evil: 3}, why=evil)
    line.fake.tell({"type": "event"})
    expect(page.locator("#part")).to_contain_text("<script>window.hit=1</script>")
    expect(page.locator("#drop-rows")).to_contain_text("onerror")
    expect(page.locator("#banners")).to_contain_text("<script>")
    page.wait_for_timeout(500)
    page.locator(f'.reject[data-sequence="{sequence}"] .shot').click()
    expect(page.locator("#detail h2")).to_contain_text("<script>")
    assert page.evaluate("window.hit") is None
    assert page.locator("#detail img, #detail script, #banners img").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES, ids=lambda value: str(value))
def test_it_fits_every_screen_in_both_themes(
    open_page: Callable[..., Page], line: Line, width: int, height: int, theme: str
) -> None:
    line.scene.run_for(20)
    line.fake.set_status(
        alarms=[{"code": "image-budget", "station": None, "message": "x" * 90, "since_utc": "2026-01-01T00:00:00Z"}]
    )
    page = open_page(width, height, color_scheme=theme, has_touch=True)
    last = line.scene.play("NG")
    expect(page.locator("#live-note")).to_contain_text(f"{last} ·")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(value) for value in ground.removeprefix("rgb(").removesuffix(")").split(",")) / 3 > 128
    assert light == (theme == "light")
    small = page.evaluate(
        """[...document.querySelectorAll('button, select')].filter(one => one.checkVisibility())
           .map(one => [one.textContent, one.getBoundingClientRect()])
           .filter(([, box]) => box.height < 44 || box.width < 44).map(([text]) => text)"""
    )
    assert small == []
    nameless = page.evaluate(
        """[...document.querySelectorAll('button')].filter(one => one.checkVisibility())
           .filter(one => !(one.getAttribute('aria-label') || one.innerText).trim()).map(one => one.outerHTML)"""
    )
    assert nameless == []
    verdict = page.locator("#word").bounding_box()
    assert verdict is not None
    assert verdict["y"] + verdict["height"] < height, "the verdict is not on the first screen"
    assert verdict["height"] >= 60
    page.wait_for_timeout(500)
    page.locator(".reject .shot").first.click()
    expect(page.locator("#detail")).to_be_visible()
    assert (
        page.evaluate("document.querySelector('#detail').scrollWidth - document.querySelector('#detail').clientWidth")
        <= 0
    )


def test_the_theme_can_be_chosen_and_is_kept(open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    for expected in ("light", "dark", "light"):  # chosen light, chosen dark, as the device
        page.locator("#theme").click()
        assert page.evaluate(theme) == expected
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate(theme) == "dark"


def test_without_motion_nothing_moves(open_page: Callable[..., Page]) -> None:
    page = open_page(reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].some(one => getComputedStyle(one).transitionDuration !== '0s')"
    assert page.evaluate(moving) is False


def test_cards_wait_while_somebody_is_at_work_on_them(open_page: Callable[..., Page], line: Line) -> None:
    first = line.scene.play("NG")
    page = open_page()
    card = page.locator(f'.reject[data-sequence="{first}"]')
    card.hover()
    line.scene.play("NG")
    expect(page.locator("#fresh")).to_have_text("Show 1 new")
    expect(page.locator(".reject")).to_have_count(1)
    page.locator("#fresh").click()
    expect(page.locator(".reject")).to_have_count(2)
    expect(page.locator("#fresh")).to_be_hidden()


def test_several_stations_are_shown_one_at_a_time(browser: Browser) -> None:
    line = Line()
    try:
        other = dict(line.fake.status()["stations"][0], name="side", state="Error", why="the camera is unplugged")
        line.fake.set_status(stations=[*line.fake.status()["stations"], other])
        page = browser.new_page()
        page.goto(line.server.url)
        line.scene.play("OK")
        expect(page.locator("#word")).to_have_text("OK")
        page.get_by_role("button", name="Station side").click()
        expect(page.locator("#word")).to_have_text("Fault")
        expect(page.locator("#why")).to_contain_text("the camera is unplugged")
        page.reload()
        expect(page.locator("#word")).to_have_text("Fault")
        page.get_by_role("button", name="Station main").click()
        expect(page.locator("#word")).to_have_text("OK")
        page.close()
    finally:
        line.close()


def test_a_token_is_asked_for_once(browser: Browser) -> None:
    line = Line(token=TOKEN)
    try:
        context = browser.new_context()
        page = context.new_page()
        page.goto(line.server.url)
        expect(page).to_have_url(f"{line.server.url}login")
        page.get_by_label("Token").fill("not-the-token-at-all")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#state")).to_contain_text("Running")
        line.scene.play("OK")
        expect(page.locator("#word")).to_have_text("OK")
        assert page.evaluate("document.cookie") == ""
        page.locator("#halt").click()
        page.locator("#ask").get_by_role("button", name="Halt").click()
        expect(page.locator("#word")).to_have_text("Halted")
        context.close()
    finally:
        line.close()
