"""A headless browser that clicks on the page of `stunet demo`."""

import contextlib
import pathlib
import shutil

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

# Without them, the browser looks for hosts of its maker.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PROGRAMS = ("chromium", "chromedriver")

# Notes each new content of the stage: the state, its text, and the pictures.
_WATCH = """
window.seen = [];
const look = () => {
  const stage = document.querySelector('#stage'), state = stage.querySelector('.state');
  const pictures = [...stage.querySelectorAll('figure img')].map(image => image.src);
  const now = [state ? state.id : '', state ? state.textContent : '', pictures];
  if (JSON.stringify(now) != JSON.stringify(window.seen.at(-1))) window.seen.push(now);
};
window.watcher?.disconnect();
window.watcher = new MutationObserver(look);
window.watcher.observe(document.querySelector('#made'),
  {childList: true, subtree: true, attributes: true, characterData: true});
"""


def missing() -> str:
    """Returns the first program that is not installed, or ""."""
    return next((name for name in PROGRAMS if not shutil.which(name)), "")


class Page:
    """A page in a browser.

    Attributes:
        driver: Selenium's driver of the browser.
        downloads: the directory in which the browser puts what it downloads.
    """

    def __init__(self, address: str, folder: pathlib.Path, size: str = "1280,1000"):
        self.downloads = folder / "downloads"
        profile = folder / "profile"
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={size}"):
            options.add_argument(flag)
        downloads = {"download.default_directory": str(self.downloads)}
        options.add_experimental_option("prefs", downloads)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options, service)
        self.driver.set_page_load_timeout(120)
        self.driver.get(address)

    def find(self, selector: str):
        """Waits for a visible element, and returns it."""
        return self._wait(lambda: next((e for e in self.all(selector) if e.is_displayed()), None))

    def all(self, selector: str):
        """Returns all elements that there are, also those that are hidden."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Clicks on an element as soon as nothing covers it."""

        def clicked() -> bool:
            try:
                self.find(selector).click()
            except ElementClickInterceptedException:
                return False  # The page was laid out again while the mouse moved.
            return True

        self._wait(clicked)

    def fill(self, selector: str, value: object) -> None:
        """Types a value into a field, in place of what is there, and leaves the field."""
        field = self.find(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value), Keys.TAB)

    def download(self, selector: str) -> pathlib.Path:
        """Clicks on a button that downloads a file, and returns the file."""
        before = set(self.downloads.glob("*"))
        self.click(selector)

        def finished():
            # The browser writes to a file with another ending or with a dot in front.
            new = set(self.downloads.glob("[!.]*")) - before
            return next((f for f in new if f.suffix not in (".crdownload", ".tmp")), None)

        return self._wait(finished)

    def watch_stage(self) -> None:
        """Begins to note what the stage shows, for `seen`."""
        self.driver.execute_script(_WATCH)

    def seen(self) -> list[tuple[str, str, list[str]]]:
        """Returns what the stage has shown since `watch_stage`, in order.

        Returns:
            For each content: the id of the state, the text of the state, and the addresses of the
            pictures.
        """
        return [tuple(one) for one in self.driver.execute_script("return window.seen")]

    def click_at(self, selector: str, x: float, y: float) -> None:
        """Clicks on a picture. (0, 0) is its upper left corner, and (1, 1) its lower right one.

        The picture is shown in its own size, in the middle of its element.
        """

        def loaded():
            picture = self.find(selector)
            size = [picture.get_property(name) for name in ("naturalWidth", "naturalHeight")]
            return (picture, *size) if all(size) else None

        # The page replaces the picture, and the new one is loaded later.
        element, width, height = self._wait(loaded)
        offset = round((x - 0.5) * width), round((y - 0.5) * height)
        ActionChains(self.driver).move_to_element_with_offset(element, *offset).click().perform()

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Draws a line. (0, 0) is the middle of an element, and (0.5, 0) lies on its right side."""
        element = self.find(selector)
        size = element.size
        places = [(round(x * size["width"]), round(y * size["height"])) for x, y in (begin, end)]
        drag = ActionChains(self.driver).move_to_element_with_offset(element, *places[0])
        drag.click_and_hold().move_to_element_with_offset(element, *places[1]).release().perform()

    def upload(self, selector: str, path) -> None:
        """Gives a file to the file input, which is hidden, inside an element."""
        self._wait(lambda: self.all(f"{selector} input[type=file]"))[0].send_keys(str(path))

    def value(self, selector: str) -> str:
        """Waits until a field is not empty, and returns what is in it."""
        return self._wait(lambda: self.find(selector).get_attribute("value"))

    def wait_for(self, selector: str, value: str) -> None:
        """Waits until a field holds a value."""
        self._wait(lambda: self.find(selector).get_attribute("value") == value)

    def wait_until(self, condition) -> None:
        """Waits until a function returns True."""
        self._wait(condition)

    def repeat(self, action, condition) -> None:
        """Does something every few seconds until a function returns True.

        An element that the page replaces a moment later, as a canvas that is still loading, takes
        no notice of what was done to it.
        """

        def done():
            action()
            with contextlib.suppress(TimeoutException):
                return self._wait(condition, 10)

        self._wait(done)

    def _wait(self, condition, seconds: float = 120):
        # The page replaces its elements while it is looked at.
        ignored = [StaleElementReferenceException]
        wait = WebDriverWait(self.driver, seconds, 0.2, ignored_exceptions=ignored)
        return wait.until(lambda _: condition())
