"""The page to look around in, in a real browser: every control changes what it says, nothing is
asked of a network, no error.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil

import numpy as np
import pytest

from fgda_cli.data.classes import CITYSCAPES
from fgda_cli.studies.look import safe_palette
from fgda_cli.training import stages
from tests.helpers import QUIET, fgda, needs

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
pytestmark = needs("playwright")


@pytest.fixture(scope="module")
def two(trained, data_root, tiny_preset, tmp_path_factory):
    """A start, and what a few steps made of it."""
    preset = tiny_preset("adapt.iterations=6", "adapt.lr=0.05")
    job = stages.Job(
        preset, data_root, tmp_path_factory.mktemp("two") / "adapted", device="cpu", reporter=QUIET
    )
    return trained, stages.adapt(job, trained)


@pytest.fixture(scope="module")
def page_file(two, data_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "look.html"
    done = fgda(
        "compare", *two, "--images", data_root / "playground-street", "--frames", "3", "--out", out
    )
    assert done.returncode == 0 and "3 images, 2 checkpoints" in done.stdout, done.stderr
    return out


def test_the_page_allows_its_own_script_alone(page_file):
    text = page_file.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (rules,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{digest}'" in rules and "default-src 'none'" in rules
    assert text.index("Content-Security-Policy") < text.index("<script")


@pytest.fixture
def page(page_file):
    """The page in Chromium; at the end no error was seen and nothing but the file was asked for."""
    sync_api = pytest.importorskip("playwright.sync_api")
    trouble = []
    asked = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 900})
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page_file.as_uri())
        tab.wait_for_function("document.querySelectorAll('#shares tr').length > 1")
        yield tab
        browser.close()
    assert not trouble and all(url.startswith((page_file.as_uri(), "data:")) for url in asked), (
        trouble,
        asked,
    )


def seen(tab) -> list[str]:
    """What the canvases show."""
    return tab.evaluate(
        "[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
    )


def facts(tab) -> str:
    return tab.text_content("#facts")


def changes(tab, act) -> list[str]:
    """The canvases after an act that changed them."""
    before = seen(tab)
    act()
    tab.wait_for_timeout(50)
    after = seen(tab)
    assert before != after
    return after


@browser_only
def test_layers_opacity_colours_and_classes(page):
    assert page.locator("figcaption").all_text_contents() == ["run", "adapted", "truth"]
    pictures = {"classes": seen(page)}
    for layer in ("entropy", "disagreement", "errors", "photograph"):
        pictures[layer] = changes(
            page, lambda layer=layer: page.get_by_role("button", name=layer, exact=True).click()
        )
        assert (
            page.get_by_role("button", name=layer, exact=True).get_attribute("aria-pressed")
            == "true"
        )
    assert len({tuple(canvases) for canvases in pictures.values()}) == 5
    assert pictures["photograph"][0] == pictures["photograph"][1] == pictures["photograph"][2]
    page.keyboard.press("1")
    assert seen(page) == pictures["classes"]
    changes(page, lambda: page.fill("#opacity", "100"))
    changes(page, lambda: page.select_option("#palette", "safe"))
    colour = page.locator("#shares i").first.evaluate("(swatch) => swatch.style.background")
    assert colour.replace(" ", "") == "rgb({},{},{})".format(*safe_palette(1)[0])
    changes(page, lambda: page.get_by_label("road", exact=True).uncheck())
    changes(page, lambda: page.click("#none"))
    # the photograph alone
    assert seen(page)[:2] == [seen(page)[0]] * 2
    changes(page, lambda: page.click("#all"))


@browser_only
def test_frames_by_button_key_and_list_and_in_other_orders(page):
    names = page.locator("#frame option").all_text_contents()
    assert (
        len(names) == 3 and facts(page).startswith(f"1 of 3 · {names[0]}") and "mIoU" in facts(page)
    )
    for act, place in (
        (lambda: page.click("#next"), 2),
        (lambda: page.keyboard.press("ArrowRight"), 3),
        (lambda: page.click("#previous"), 2),
        (lambda: page.select_option("#frame", "0"), 1),
    ):
        changes(page, act)
        page.wait_for_function(
            f"document.getElementById('facts').textContent.startsWith('{place} of 3')"
        )

    def values(pattern):
        found = []
        for place in range(3):
            page.select_option("#frame", str(place))
            page.wait_for_function(
                f"document.getElementById('facts').textContent.startsWith('{place + 1} of 3')"
            )
            found.append(float(re.search(pattern, facts(page))[1]))
        return found

    for order, pattern, sign in (
        ("changed", r"([\d.]+) % of the pixels", -1),
        ("unsure", r"entropy [\d.]+, ([\d.]+)", -1),
        ("worst", r"mIoU [\d.]+, ([\d.]+)", 1),
    ):
        page.select_option("#sort", order)
        found = values(pattern)
        assert found == sorted(found, key=lambda value, sign=sign: sign * value), order
    page.select_option("#sort", "class 0")
    shares = []
    for place in range(3):
        page.select_option("#frame", str(place))
        page.wait_for_function(
            f"document.getElementById('facts').textContent.startsWith('{place + 1} of 3')"
        )
        road = page.locator("#shares tr").nth(1).locator("td").all_text_contents()
        # tick, name, the share by either checkpoint
        shares.append(float(road[3]))
    assert shares == sorted(shares, reverse=True)


@browser_only
def test_slider_zoom_and_pan_with_the_same_spot_in_all_views(page):
    whole = seen(page)
    zoomed = changes(page, lambda: page.click("#in"))
    assert all(one != two for one, two in zip(whole, zoomed, strict=True))
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)

    def drag():
        page.mouse.down()
        page.mouse.move(box["x"] + 40, box["y"] + 80)
        page.mouse.up()

    moved = changes(page, drag)
    assert all(one != two for one, two in zip(zoomed, moved, strict=True))  # all views move
    changes(page, lambda: page.mouse.wheel(0, -200))
    changes(page, lambda: page.click("#out"))
    page.keyboard.press("0")
    assert seen(page) == whole
    page.click("#slide")
    assert page.locator("canvas").count() == 1 and page.is_visible("#split")
    assert page.text_content("figcaption") == "run | adapted"
    left = changes(page, lambda: page.fill("#split", "0"))
    right = changes(page, lambda: page.fill("#split", "100"))
    assert left != right
    page.fill("#split", "0")
    changes(page, lambda: page.select_option("#right", "0"))
    page.fill("#split", "100")
    changes(page, lambda: page.select_option("#left", "1"))
    # in a list, a letter is a choice
    page.click("#whole")
    page.keyboard.press("s")
    assert page.locator("canvas").count() == 3


@browser_only
def test_names_under_the_pointer_and_a_telephone(page):
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.text_content("#at")
    assert re.match(
        r"\d+, \d+ · run: [\w ]+ · adapted: [\w ]+ · truth: [\w ]+ · entropy 0\.\d\d, 0\.\d\d", told
    ), told
    assert page.locator("canvas").first.get_attribute("title").startswith("run: ")
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    boxes = [canvas.bounding_box() for canvas in page.locator("canvas").all()]
    # one below the other
    assert len({box["x"] for box in boxes}) == 1 and all(box["width"] > 360 for box in boxes)
    assert page.get_by_role("button", name="next").bounding_box()["height"] >= 30


def test_the_page_is_one_file_and_names_cannot_end_its_script(two, raw_playground, tmp_path):
    photo = tmp_path / "a<b> & c.png"
    shutil.copy(next((raw_playground / "street/leftImg8bit").rglob("*.png")), photo)
    out = tmp_path / "page.html"
    done = fgda("compare", two[0], "--images", photo, "--out", out)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert (
        "a<b>" not in text
        and "a\\u003cb> & c" in text
        and "@DATA@" not in text
        and "@SCRIPT@" not in text
    )
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "fetch(" not in text


def test_more_checkpoints_than_a_page_shows_are_refused_before_work(two, raw_playground, tmp_path):
    done = fgda(
        "compare", *(two[0],) * 5, "--images", raw_playground, "--out", tmp_path / "page.html"
    )
    assert (
        done.returncode == 2
        and "a page shows up to 4 checkpoints, not 5" in done.stderr
        and not os.listdir(tmp_path)
    )


def test_colours_for_colour_blindness_are_as_many_as_classes_and_apart():
    colours = np.array(safe_palette(len(CITYSCAPES)), float)
    apart = np.abs(colours[:, None] - colours[None]).sum(2)[~np.eye(len(colours), dtype=bool)]
    assert len(colours) == 19 and apart.min() > 30 and colours.min() >= 0 and colours.max() <= 255


@pytest.mark.parametrize("command", ["evaluate", "verdict", "rank"])
def test_reports_show_their_frames(command, two, data_root, raw_playground, tmp_path):
    photos = raw_playground / "street/leftImg8bit/train"
    arguments = {
        "evaluate": (*two, "--data-root", data_root, "--report", tmp_path / "out"),
        "verdict": (
            two[1],
            "--baseline",
            two[0],
            "--data-root",
            data_root,
            "--frames",
            "4",
            "--report",
            tmp_path / "out",
        ),
        "rank": (two[1], photos, "-r", "--top", "2", "--out", tmp_path / "out"),
    }[command]
    done = fgda(command, *arguments)
    assert done.returncode == 0, done.stderr
    page = "look.html" if command == "rank" else "index.html"
    text = (tmp_path / "out" / page).read_text()
    assert text.count('"photo"') == {"evaluate": 3, "verdict": 4, "rank": 2}[command]
