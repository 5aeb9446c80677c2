"""A real browser for tests: headless Chromium, what a test does on a page and reads from it, and what axe-core finds there."""

import importlib.resources
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
LEFT, UP, RIGHT, DOWN, ENTER, ESCAPE = "\ue012", "\ue013", "\ue014", "\ue015", "\ue007", "\ue00c"


@contextmanager
def open_browser(profile: Path) -> Iterator[Any]:
    """Yield headless Chromium with a new profile and with logs; skip the test where there is none."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver on the PATH (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        # Leave the start page of the browser, which sends requests.
        driver.get("about:blank")
        yield driver
    finally:
        driver.quit()


@contextmanager
def open_tab(driver: Any) -> Iterator["Tab"]:
    """Yield a tab of desktop size; at the end its console must be empty."""
    tab = Tab(driver)
    tab.console_messages()
    tab.requests()
    tab.size(1280)
    yield tab
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    messages = tab.console_messages()
    assert not messages, messages


def find_violations(driver: Any) -> list[str]:
    """Return what axe-core finds on the page: the rule and the element of each violation."""
    pytest.importorskip("axe_playwright_python", reason="needs axe-core: pip install --no-deps axe-playwright-python")
    script = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    driver.execute_script(script)
    run = "const done = arguments[0]; axe.run(document).then(done, (error) => done({error: String(error)}));"
    result = driver.execute_async_script(run)
    assert "error" not in result, result["error"]
    assert len(result["passes"]) > 10
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


class Tab:
    """The actions of a test on the page, and what it can read."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, state: str = "") -> None:
        """Open a page with a state, unfolded; a page that is open already only reads the state, which is much faster."""
        state = f"open=all&{state}"
        if self.run("return location.href").split("#")[0] == path.as_uri():
            self.run("scrollTo(0, 0); document.activeElement.blur(); location.hash = arguments[0]", state)
            self.run("return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")
        else:
            self.driver.get(f"{path.as_uri()}#{state}")

    def reload(self, path: Path, state: str = "") -> None:
        """Load a page anew, unfolded."""
        self.driver.get("about:blank")
        self.driver.get(f"{path.as_uri()}#open=all&{state}")

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def attributes(self, selector: str, *names: str) -> list[list[str]]:
        """Return attributes of every element that fits, in the order of the names."""
        return self.run(
            "const [selector, names] = arguments;"
            "return [...document.querySelectorAll(selector)].map((node) => names.map((name) => node.getAttribute(name)))",
            selector,
            names,
        )

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", selector)

    def overflowing(self) -> list[str]:
        """Return the elements that stick out of the window to the right, and not of a box that scrolls."""
        return self.run(
            "return [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('.scroll, pre, svg, select')).map((e) => e.outerHTML.slice(0, 120))"
        )

    def text(self, selector: str) -> str:
        return self.one(selector).get_property("textContent")

    def shown(self, selector: str) -> list[Any]:
        return [element for element in self.all(selector) if element.is_displayed()]

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def hover(self, element: Any, x: int = 0, y: int = 0) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).scroll_to_element(element).move_to_element_with_offset(element, x, y).perform()

    def wait(self, happened: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 60, poll_frequency=0.05).until(lambda _: happened())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def state(self) -> dict[str, str]:
        """Return what the address keeps, but for the folds."""
        pairs = self.run("return location.hash").lstrip("#").split("&")
        return {name: value for name, value in (pair.split("=") for pair in pairs if pair) if name != "open"}

    def size(self, width: int, *, scheme: str = "light") -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def requests(self) -> set[str]:
        """Return every address that was requested since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        addresses = {
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        }
        # Without the start page of the browser.
        return {address for address in addresses if not address.startswith("chrome://")}

    def console_messages(self) -> list[str]:
        """Return the errors and warnings on the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
