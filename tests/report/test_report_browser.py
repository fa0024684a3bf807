"""The page in a real browser, opened from its file: no errors, no requests, and everything moves."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
SECONDS = 60  #: after which a browser that does not answer has failed
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # shared memory may be small, and a browser that waits for it never ends
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(DRIVER)
    socket.setdefaulttimeout(SECONDS)  # else requests wait for ever
    try:
        driver = webdriver.Chrome(options=options, service=service)
    finally:
        socket.setdefaulttimeout(None)
    driver.execute_cdp_cmd("Network.enable", {})
    yield driver
    with contextlib.suppress(Exception):  # that it does not close is no fault of the page
        driver.quit()
    service.process.kill()


@pytest.fixture
def page(browser, family_page):
    def show(width=1200, theme="light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(family_page.as_uri())
        return browser

    return show


def style(browser, selector, name):
    return browser.execute_script(
        f"return getComputedStyle(document.querySelector({selector!r})).getPropertyValue({name!r})"
    )


def position(browser):
    return browser.execute_script(
        "const b = document.querySelector('.stage').getBoundingClientRect();"
        "const h = document.querySelector('.handle').getBoundingClientRect();"
        "return (h.left + h.width / 2 - b.left) / b.width"
    )


def test_it_opens_from_its_file_without_errors_or_requests(page):
    import json

    browser = page()
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # The browser loads icons of its own (chrome://resources/...) when it shows a file.
    assert [url for url in sent if not url.startswith(("data:", "chrome:"))] == [browser.current_url]
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert browser.execute_script("return document.images.length") > 20


def test_the_plots_are_there(page):
    browser = page()
    seen = browser.execute_script(
        "return [...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 100)"
        ".map(s => [s.getAttribute('aria-label'), s.querySelectorAll('path, rect, circle').length])"
    )
    labels = [label for label, _ in seen]
    for label in (
        "PSNR over rate of each variant",
        "Rate-distortion cost of the training batches over steps, by phase",
        "Bits per pixel of the teacher's latent channels in falling order",
        "Share of the variance of the teacher's features that the student's explain, by tap",
    ):
        assert labels.count(label) == 1, labels  # the one for a desk, not that for a phone
    assert all(number >= 2 for _, number in seen)
    outside = browser.execute_script(
        "return [...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width).flatMap(s => {"
        " const b = s.getBoundingClientRect();"
        " return [...s.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();"
        "  return r.left < b.left - 8 || r.right > b.right + 8; }).map(t => t.textContent); })"
    )
    assert outside == []


def test_the_slider_moves_by_mouse_and_by_keyboard(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = page()
    assert position(browser) == pytest.approx(0.5, abs=0.01)
    slider = browser.find_element(By.CSS_SELECTOR, ".stage input")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", slider)
    width = slider.size["width"]
    ActionChains(browser).move_to_element_with_offset(slider, 0, 40).click_and_hold().move_by_offset(
        int(width * 0.25), 0
    ).release().perform()
    dragged = position(browser)
    assert dragged == pytest.approx(0.75, abs=0.05)
    clip = style(browser, ".stage img.right", "clip-path")
    assert float(clip.split()[-1].strip("%)")) / 100 == pytest.approx(dragged, abs=0.01)
    slider.send_keys(Keys.ARROW_LEFT * 5)
    assert position(browser) == pytest.approx(dragged - 0.05, abs=0.01)
    slider.send_keys(Keys.HOME)
    assert position(browser) == pytest.approx(0, abs=0.01)
    assert slider.get_attribute("aria-valuetext") == "0 % teacher"


def test_the_versions_can_be_chosen(page):
    from selenium.webdriver.common.by import By

    browser = page()
    tags = browser.find_elements(By.CSS_SELECTOR, ".picture:first-child .tag")
    assert [tag.text.split(" ")[0] for tag in tags] == ["teacher", "feds"]
    browser.execute_script("document.querySelector('input[data-side=left][value=\"0\"]').click()")
    assert tags[0].text == "original"
    shown = browser.execute_script(
        "return [...document.querySelector('.stage').querySelectorAll('img')]"
        ".filter(i => getComputedStyle(i).visibility === 'visible').map(i => i.alt)"
    )
    assert shown == ["original", "feds"]


def test_points_say_what_they_are(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser = page()
    mark = browser.find_element(By.CSS_SELECTOR, ".wide .mark.s-teacher")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    assert browser.find_element(By.ID, "tip").text.startswith("teacher, λ 0.013: ")


@pytest.mark.parametrize("width", [320, 390, 700, 1000])
def test_nothing_hangs_over_the_edge(page, width):
    browser = page(width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    narrow, wide = (style(browser, f"#curve .{name}", "display") for name in ("narrow", "wide"))
    assert (narrow, wide) == (("block", "none") if width <= 640 else ("none", "block"))


def test_the_contents_open_on_a_phone(page):
    browser = page(390)
    menu, link = (browser.find_element("css selector", each) for each in (".menu", "nav a[href='#pictures']"))
    assert not link.is_displayed()
    menu.click()
    assert menu.get_attribute("aria-expanded") == "true"
    link.click()
    assert not link.is_displayed()
    assert browser.current_url.endswith("#pictures")
    assert not page(1200).find_element("css selector", ".menu").is_displayed()


def test_teacher_and_student_stand_side_by_side_on_a_phone(page):
    browser = page(390)
    for row in (".pieces", ".maps"):
        teacher, student = (
            browser.execute_script(
                f"const box = document.querySelector('{row} .v-{side}').getBoundingClientRect();"
                "return [box.left, box.top, box.width]"
            )
            for side in ("teacher", "student")
        )
        assert teacher[1] == pytest.approx(student[1], abs=1)
        assert teacher[0] + teacher[2] <= student[0]
        assert teacher[2] > 96


def test_the_table_of_pictures_is_downloaded(page, tmp_path):
    browser = page()
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    link = browser.find_element("css selector", ".download")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", link)
    link.click()
    for _ in range(50):
        time.sleep(0.1)
        if found := list(tmp_path.glob("*.csv")):
            break
    assert found[0].read_text().startswith("run,variant,lambda,seed,quality,picture,")
    assert browser.get_log("browser") == []


def test_dark_and_light(page):
    browser = page(theme="light")
    names = (("body", "background-color"), ("body", "color"), (".mark.s-student", "fill"), (".tick", "fill"))
    light = [style(browser, *each) for each in names]
    browser = page(theme="dark")
    dark = [style(browser, *each) for each in names]
    assert all(a != b for a, b in zip(light, dark, strict=True))
    button = browser.find_element("css selector", ".theme")
    assert button.text == "Light"
    button.click()
    assert [style(browser, *each) for each in names] == light
    browser.refresh()
    time.sleep(0.1)
    assert [style(browser, *each) for each in names] == light  # it is remembered
    browser.execute_script("localStorage.clear()")
