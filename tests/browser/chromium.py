"""A thin wrapper of selenium's Chromium: sizes, colour schemes, and what a page asked for."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Chromium:
    """One browser process with one window."""

    def __init__(self, *, binary: Path, driver: Path, profile: Path) -> None:
        options = Options()
        options.binary_location = str(binary)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # The driver is named, so that selenium looks for none in the network.
        self._driver = Chrome(options=options, service=Service(str(driver)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.quit()

    def open(
        self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        """Open a file in a window of this size and colour scheme, with empty logs."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.emulate(scheme=scheme)
        for name in ("browser", "performance"):
            self._log(name)
        self._driver.get(page.as_uri())

    def emulate(self, *, scheme: str = "light", media: str = "") -> None:
        """Set the colour scheme, and the medium ("print", or the screen)."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the page does on its own time; an error after ten seconds."""
        WebDriverWait(self._driver, 10, poll_frequency=0.05).until(lambda _: condition())

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of the devtools protocol."""
        return self._driver.execute_cdp_cmd(name, parameters)

    def script(self, source: str, *arguments: Any) -> Any:
        """Run a script in the page and return its value."""
        return self._driver.execute_script(source, *arguments)

    def find(self, selector: str) -> list[WebElement]:
        """Elements by CSS selector."""
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def hover(self, element: WebElement, *, right: float = 0.5, down: float = 0.5) -> None:
        """Move the mouse to a place in an element, given as shares of its size."""
        size = element.size
        x, y = (right - 0.5) * size["width"], (down - 0.5) * size["height"]
        ActionChains(self._driver).move_to_element_with_offset(element, int(x), int(y)).perform()

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        ActionChains(self._driver).send_keys(key).perform()

    def console(self) -> list[str]:
        """Whatever the page wrote to the console since it was opened, errors included."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, name: str) -> list[dict[str, Any]]:
        """What came since the last time."""
        log: list[dict[str, Any]] = self._driver.get_log(name)  # type: ignore[no-untyped-call]
        return log

    def requests(self) -> list[str]:
        """Addresses that the page asked for since it was opened, its own first."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def pdf(self) -> bytes:
        """Print the page on A4."""
        printed = self.command(
            "Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69
        )
        return base64.b64decode(printed["data"])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, scrolled parts too."""
        size = self.script(
            "const e = document.documentElement; return [e.clientWidth, e.scrollHeight]"
        )
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
