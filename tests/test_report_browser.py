"""A report in a browser, opened from disk: no errors, and zoom, swipe, keys and themes work.

Skipped where no Chromium is.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from experiments.report import main
from tests.helpers import write_image

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SHAPE = (700, 1100)
DARK, LIGHT = "rgb(21, 24, 27)", "rgb(251, 251, 250)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A report of two scenes of several tiles; of the second, all is missed."""
    place = tmp_path_factory.mktemp("report")
    for kind in ("found", "labels", "images"):
        (place / kind).mkdir()
    random = np.random.default_rng(0)
    for name in ("town1", "town2"):
        truth = np.zeros((*SHAPE, 1), np.uint8)
        truth[100:600, 300:900] = 255
        found = np.roll(truth, 60, 1) if name == "town1" else np.zeros_like(truth)
        image = cv2.resize(random.integers(0, 255, (35, 55, 3), np.uint8), SHAPE[::-1])
        write_image(place / "found" / f"{name}.tif", found)
        write_image(place / "labels" / f"{name}.tif", truth)
        write_image(place / "images" / f"{name}.tif", image)
    arguments = [f"--{kind}" for kind in ("predictions", "labels", "images")]
    folders = [str(place / kind) for kind in ("found", "labels", "images")]
    words = [word for pair in zip(arguments, folders, strict=True) for word in pair]
    for name, given in (("report", words), ("plain", words[:4])):
        result = CliRunner().invoke(main, [*given, "--output", str(place / name)])
        assert result.exit_code == 0, result.output
    return place / "report"


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        # Without a sandbox, as containers that run as root have none.
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser, folder) -> Iterator["playwright.Page"]:
    """The page, with its first scene drawn; after the test, nothing may have gone wrong."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    opened = context.new_page()
    problems, requests = [], []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("requestfailed", lambda request: problems.append(request.url))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((folder / "index.html").as_uri())
    settle(opened)
    yield opened
    settle(opened)
    assert problems == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}
    context.close()


def settle(page) -> None:
    """Wait until a scene is open and two pictures of it in a row are the same."""
    page.wait_for_selector("#frame[data-ready=yes]", timeout=30_000)
    before = None
    for _ in range(40):
        page.wait_for_timeout(150)
        now = page.locator("#canvas").screenshot()
        if now == before:
            return
        before = now
    raise AssertionError("the viewer does not come to rest")


def picture(page) -> np.ndarray:
    """What the viewer shows, ``(rows, columns, 3)`` of blue, green and red."""
    settle(page)
    content = np.frombuffer(page.locator("#canvas").screenshot(), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Shares of the left and the right half that differ, where no button lies above."""
    differs = np.abs(before - after).max(axis=2)[60:-60] > 25
    middle = differs.shape[1] // 2
    return np.array([differs[:, :middle].mean(), differs[:, middle:-80].mean()])


def focus(page) -> None:
    page.locator("#canvas .openseadragon-canvas").focus()


def press(page, *keys: str) -> np.ndarray:
    focus(page)
    for key in keys:
        page.keyboard.press(key)
    return picture(page)


def test_the_worst_scene_is_open_and_both_sides_show_their_layers(page):
    assert page.locator("#scene-name").inner_text() == "town2"
    assert page.locator("#left-name").inner_text() == "Image"
    assert page.locator("#right-name").inner_text() == "Errors"
    plain = press(page, "1")
    shares = changed(plain, press(page, "4"))
    # Errors tint the right half alone, as the left shows the image.
    assert shares[0] == 0 and shares[1] > 0.2


def test_keys_zoom_move_and_return(page):
    whole = picture(page)
    near = press(page, "+", "+", "+")
    assert changed(whole, near).min() > 0.1
    assert changed(near, press(page, "ArrowRight")).max() > 0.02
    np.testing.assert_array_equal(changed(whole, press(page, "0")), [0, 0])


def test_buttons_and_wheel_zoom(page):
    whole = picture(page)
    page.locator("#zoom-in").click()
    assert changed(whole, picture(page)).min() > 0.02
    page.locator("#fit").click()
    focus(page)
    page.mouse.move(500, 600)
    page.mouse.wheel(0, -400)
    assert changed(whole, picture(page)).min() > 0.02


def test_the_swipe_shows_more_of_either_side(page):
    middle = picture(page)
    right = press(page, "}")
    # The image now reaches to the right edge.
    shares = changed(middle, right)
    assert shares[0] < 0.02 and shares[1] > 0.2
    assert page.locator("#divider").get_attribute("aria-valuenow") == "100"
    assert changed(right, press(page, "[")).max() < 0.2
    left = press(page, "{")
    assert changed(middle, left)[0] > 0.2
    box = page.locator("#frame").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200, steps=4)
    page.mouse.up()
    assert page.locator("#divider").get_attribute("aria-valuenow") == "50"
    np.testing.assert_array_equal(changed(middle, picture(page)) < 0.02, [True, True])


def test_the_divider_is_a_slider_for_keys(page):
    page.locator("#divider").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#divider").get_attribute("aria-valuenow") == "52"
    page.keyboard.press("Home")
    assert page.locator("#divider").get_attribute("aria-valuenow") == "0"


def test_layers_are_chosen_on_both_sides(page):
    before = picture(page)
    after = press(page, "Shift+Digit2", "3")
    assert page.locator("#left-name").inner_text() == "Truth"
    assert page.locator("#right-name").inner_text() == "Prediction"
    assert page.locator("#left-picture input[value=truth]").is_checked()
    assert changed(before, after).min() > 0.2
    assert changed(after, press(page, "b")).min() > 0.2


def test_the_next_scene_has_other_errors_however_fast_one_goes(page):
    before = picture(page)
    after = press(page, "n", "n", "n")
    assert page.locator("#scene-name").inner_text() == "town1"
    assert changed(before, after).max() > 0.2
    assert page.url.endswith("#scene-1")
    press(page, "p")
    assert page.locator("#scene-name").inner_text() == "town2"
    page.locator("table.scenes a", has_text="town1").click()
    settle(page)
    assert page.locator("#scene-name").inner_text() == "town1"
    assert page.locator("#rail [aria-current=true]").inner_text().startswith("town1")


def test_scenes_without_imagery_show_masks_alone(page, folder):
    page.goto((folder.parent / "plain" / "index.html").as_uri())
    before = picture(page)
    assert page.locator("#left-name").inner_text() == "Truth"
    assert page.locator("#left-picture input[value=image]").is_disabled()
    np.testing.assert_array_equal(changed(before, press(page, "1", "b")), [0, 0])
    # Nothing was found in this scene: the right half empties.
    assert changed(before, press(page, "3"))[1] > 0.2


def test_help_opens_and_closes(page):
    focus(page)
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()


def background(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_follows_the_system_and_the_button(page):
    assert background(page) == LIGHT
    page.emulate_media(color_scheme="dark")
    assert background(page) == DARK
    page.locator("#theme").click()
    assert background(page) == LIGHT


def test_columns_sort(page):
    names = page.locator("table.scenes tbody th")
    assert names.all_inner_texts() == ["town2", "town1"]
    page.locator("table.scenes thead button", has_text="scene").click()
    assert names.all_inner_texts() == ["town1", "town2"]
    page.locator("table.scenes thead button", has_text="scene").click()
    assert names.all_inner_texts() == ["town2", "town1"]


def test_a_print_has_pictures_in_place_of_the_viewer(page):
    assert page.locator("#viewer").is_visible()
    assert not page.locator(".sheet").first.is_visible()
    page.emulate_media(media="print")
    assert not page.locator("#viewer").is_visible()
    assert page.locator(".sheet").first.is_visible()
    page.emulate_media(media="screen")
