"""A browser without a window, for the pages' tests, pictures and benchmarks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """Say what keeps browser tests from running here; "" if nothing does."""
    try:
        import selenium  # noqa: F401 - whether it is there
    except ImportError:
        return "needs selenium: pip install selenium"
    if not any(map(shutil.which, NAMES)):
        return "needs Chromium: apt-get install chromium chromium-driver"
    if not shutil.which("chromedriver"):
        return "needs Chromium's driver: apt-get install chromium-driver"
    return ""


class Browser:
    """Chromium, driven by selenium.

    Args:
        width: Of its window, in CSS pixels.
        height: Likewise.
    """

    def __init__(self, width: int = 1440, height: int = 900) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = next(filter(None, map(shutil.which, NAMES)))
        for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = shutil.which("chromedriver")
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def resize(self, width: int, height: int) -> None:
        """Give the page another size; that of a phone makes it one."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, **media: str) -> None:
        """Set what a user prefers, such as ``color_scheme="dark"``."""
        features = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in media.items()
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, page: Path | str, fragment: str = "") -> None:
        """Open a page anew, and wait until its charts in view are drawn."""
        url = page.absolute().as_uri() if isinstance(page, Path) else page
        self.driver.get("about:blank")  # another fragment alone would not load it again
        self.driver.get(f"{url}#{fragment}")
        self.settle()

    def settle(self) -> None:
        """Wait until no curve is being loaded, and what was loaded is painted."""
        self.wait("return document.documentElement.dataset.busy === '0'")
        self.ask("requestAnimationFrame(() => requestAnimationFrame(() => done()))", later=True)

    def wait(self, script: str, timeout: float = 20.0) -> Any:
        """Wait until a script returns something true; return that."""
        end = time.monotonic() + timeout
        while not (found := self.ask(script)):
            assert time.monotonic() < end, f"{script} was not true within {timeout} s"
            time.sleep(0.02)
        return found

    def ask(self, script: str, *arguments: Any, later: bool = False) -> Any:
        """Run a script in the page; with `later` it calls ``done`` with the result."""
        if later:
            script = f"const done = arguments[arguments.length - 1]; {script}"
            return self.driver.execute_async_script(script, *arguments)
        return self.driver.execute_script(script, *arguments)

    def type(self, text: str) -> None:
        """Press keys, whatever has the focus."""
        from selenium.webdriver import ActionChains

        for key in text:
            ActionChains(self.driver, duration=0).send_keys(key).perform()

    def picture(self, path: Path) -> None:
        """Write what is seen to a PNG file."""
        self.driver.save_screenshot(str(path))

    def complaints(self) -> list[str]:
        """Return what the page has written to the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def until(self, check: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Wait until a check is true."""
        end = time.monotonic() + timeout
        while not (found := check()):
            assert time.monotonic() < end, f"not within {timeout} s"
            time.sleep(0.02)
        return found
