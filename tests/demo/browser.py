"""A headless browser that clicks on the page of `stunet demo`."""

import shutil

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

# Without them, the browser looks for hosts of its maker.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PROGRAMS = ("chromium", "chromedriver")


def missing() -> str:
    """Returns the first program that is not installed, or ""."""
    return next((name for name in PROGRAMS if not shutil.which(name)), "")


class Page:
    """A page in a browser.

    Attributes:
        driver: Selenium's driver of the browser.
    """

    def __init__(self, address: str, profile: str, size: str = "1280,1000"):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={size}"):
            options.add_argument(flag)
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
        self.find(selector).click()

    def click_at(self, selector: str, x: float, y: float) -> None:
        """Clicks on a picture. (0, 0) is its upper left corner, and (1, 1) its lower right one.

        The picture is shown in its own size, in the middle of its element.
        """
        element = self.find(selector)
        width, height = map(element.get_property, ("naturalWidth", "naturalHeight"))
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

    def _wait(self, condition, seconds: float = 120):
        # The page replaces its elements while it is looked at.
        ignored = [StaleElementReferenceException]
        wait = WebDriverWait(self.driver, seconds, 0.2, ignored_exceptions=ignored)
        return wait.until(lambda _: condition())
