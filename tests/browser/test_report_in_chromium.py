"""The page in a real browser: it draws, asks for nothing, and works with mouse, keys and paper.

With SCREENSHOTS=FOLDER in the environment every view is written there as a picture, to look at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.report.plan_page import write_plan_page
from llm_inference_simulator.report.result_page import write_report
from llm_inference_simulator.report.saved import SavedResult
from tests.browser.chromium import Chromium
from tests.report_runs import DISAGGREGATED, run, saved

pytestmark = pytest.mark.browser

VIEWS = ("summary", "latency", "time", "engines", "requests", "capacity", "setup")
HOSTILE = "</script><script>document.title='owned'</script>\"'<img src=x onerror=alert(1)>é漢"
PHONE = 390


@pytest.fixture(scope="module")
def results() -> list[tuple[str, SavedResult]]:
    return [("one engine", saved(run())), ("1P2D", saved(run(DISAGGREGATED)))]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, results: list[tuple[str, SavedResult]]) -> Path:
    """Two results side by side."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, results)
    return path


def open_view(chromium: Chromium, name: str) -> None:
    (tab,) = chromium.find(f"#tab-{name}")
    tab.click()


def visible_views(chromium: Chromium) -> list[str]:
    return [
        str(view.get_attribute("id")).removeprefix("view-")
        for view in chromium.find("[role=tabpanel]")
        if view.is_displayed()
    ]


def undrawn(chromium: Chromium) -> list[str]:
    """Charts in sight that hold no drawing, or one that sticks out of its place."""
    found: list[str] = chromium.script(
        """
        return [...document.querySelectorAll(".drawing")].filter((place) => {
          if (!place.clientWidth) return false;
          const svg = place.querySelector("svg");
          return !svg || !svg.querySelector("path") || svg.clientWidth > place.clientWidth + 1;
        }).map((place) => place.id);
        """
    )
    return found


def shade(chromium: Chromium, selector: str, name: str) -> float:
    """Brightness of a colour, 0 black to 1 white."""
    return float(
        chromium.script(
            """
            const [r, g, b] = getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]
              .match(/[0-9.]+/g).map(Number);
            return (0.3 * r + 0.6 * g + 0.1 * b) / 255;
            """,
            selector,
            name,
        )
    )


# --- every view ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, PHONE])
def test_every_view_draws_without_a_request_or_a_word_in_the_console(
    chromium: Chromium, page: Path, scheme: str, width: int
) -> None:
    pictures = os.environ.get("SCREENSHOTS")
    chromium.open(page, width=width, scheme=scheme)
    for view in VIEWS:
        open_view(chromium, view)
        assert visible_views(chromium) == [view]
        assert undrawn(chromium) == []
        scroll, client = chromium.script(
            "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
        )
        assert scroll <= client, f"{view} scrolls sideways"
        if pictures:
            chromium.screenshot(Path(pictures) / f"{scheme}-{width}-{view}.png")
    assert chromium.requests() == [page.as_uri()]
    assert chromium.console() == []
    paper, ink = (shade(chromium, "body", name) for name in ("backgroundColor", "color"))
    assert (paper > 0.9 > 0.2 > ink) if scheme == "light" else (paper < 0.2 < 0.8 < ink)


def test_charts_follow_a_change_of_the_colour_scheme(chromium: Chromium, page: Path) -> None:
    chromium.open(page, scheme="light")
    open_view(chromium, "latency")
    texts = "#chart-ttft-cumulative svg text"
    assert shade(chromium, texts, "fill") < 0.5
    chromium.emulate(scheme="dark")
    chromium.until(lambda: shade(chromium, texts, "fill") > 0.5)


def test_the_console_would_show_an_error(chromium: Chromium, page: Path) -> None:
    chromium.open(page)
    chromium.script("setTimeout(() => { throw new Error('seen') })")
    chromium.script("fetch('file:///nothing').catch(() => {})")
    assert any("seen" in line for line in chromium.console())


def test_the_policy_keeps_the_page_from_loading_anything(chromium: Chromium, page: Path) -> None:
    chromium.open(page)
    chromium.script(
        """
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
        """
    )
    refused = " ".join(chromium.console())
    assert "script-src" in refused
    assert "img-src" in refused
    assert chromium.script("return document.title") == "2 simulations compared"


# --- mouse and keys -----------------------------------------------------------------------------


def tooltip(chromium: Chromium, chart: str, **place: float) -> str:
    (drawing,) = chromium.find(f"#chart-{chart}")
    chromium.script("arguments[0].scrollIntoView({block: 'center'})", drawing)
    chromium.hover(drawing, right=0.3, down=0.4)
    chromium.hover(drawing, **place)
    shown = [tip for tip in chromium.find(f"#chart-{chart} .tip") if tip.is_displayed()]
    return shown[0].text if shown else ""


def test_hovering_shows_the_values_of_each_result(chromium: Chromium, page: Path) -> None:
    chromium.open(page)
    open_view(chromium, "latency")
    text = tooltip(chromium, "ttft-cumulative", right=0.6, down=0.5)
    assert "Time to first token" in text
    assert "ms" in text
    assert "one engine" in text
    assert "1P2D" in text
    assert "%" in text
    open_view(chromium, "time")
    text = tooltip(chromium, "time-running", right=0.5, down=0.5)
    assert "Time, s: " in text
    assert "1P2D · pool1" in text
    open_view(chromium, "requests")
    text = tooltip(chromium, "waterfall-1", right=0.5, down=0.5)
    assert text.startswith("request ")
    for phase in ("Queued", "Prefill", "KV transfer", "Decode"):
        assert phase in text
    open_view(chromium, "engines")
    text = tooltip(chromium, "components-0-0", right=0.5, down=0.3)
    assert "memory" in text
    assert "%" in text


def test_tabs_work_with_the_keyboard(chromium: Chromium, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    chromium.open(page)
    assert visible_views(chromium) == ["summary"]
    open_view(chromium, "summary")
    for key, view in (
        (Keys.ARROW_RIGHT, "latency"),
        (Keys.ARROW_LEFT, "summary"),
        (Keys.ARROW_LEFT, "setup"),
        (Keys.HOME, "summary"),
        (Keys.END, "setup"),
    ):
        chromium.press(key)
        assert visible_views(chromium) == [view]
        (chosen,) = chromium.find("[role=tab][aria-selected=true]")
        assert chosen.get_attribute("id") == f"tab-{view}"


# --- paper --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_gets_all_views_in_black_on_white(
    chromium: Chromium, page: Path, scheme: str
) -> None:
    chromium.open(page, width=794, scheme=scheme)
    chromium.emulate(scheme=scheme, media="print")
    try:
        assert visible_views(chromium) == list(VIEWS)
        chromium.until(lambda: undrawn(chromium) == [])
        assert len(chromium.find(".drawing svg")) == len(chromium.find(".drawing"))
        assert shade(chromium, "#chart-ttft-cumulative svg text", "fill") < 0.5
        assert shade(chromium, "body", "backgroundColor") == 1.0
        assert shade(chromium, "body", "color") < 0.2
        assert not chromium.find("nav")[0].is_displayed()
    finally:
        chromium.emulate()
    assert visible_views(chromium) == ["summary"]


def test_printing_gives_pages(chromium: Chromium, page: Path) -> None:
    chromium.open(page)
    pdf = chromium.pdf()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 5


# --- names --------------------------------------------------------------------------------------


def renamed(result: SavedResult, **changes: Any) -> SavedResult:
    pools = [pool.model_copy(update={"name": HOSTILE, "xpu": HOSTILE}) for pool in result.pools]
    digest = result.report_digest
    assert digest is not None
    over_time = digest.over_time.model_copy(
        update={
            "pools": [pool.model_copy(update={"name": HOSTILE}) for pool in digest.over_time.pools]
        }
    )
    own = {
        "model_id": HOSTILE,
        "pools": pools,
        "warnings": [HOSTILE],
        "report_digest": digest.model_copy(update={"over_time": over_time}),
    }
    return result.model_copy(update=own | changes)


def test_a_hostile_name_stays_text(
    chromium: Chromium, results: list[tuple[str, SavedResult]], tmp_path: Path
) -> None:
    path = tmp_path / "hostile.html"
    write_report(path, [(HOSTILE, renamed(results[1][1])), ("other", results[0][1])])
    chromium.open(path)
    for view in VIEWS:
        open_view(chromium, view)
        assert undrawn(chromium) == []
    assert chromium.script("return document.title") == "2 simulations compared"
    assert chromium.find("img") == []
    assert HOSTILE in chromium.find("h2")[0].text
    open_view(chromium, "time")
    assert HOSTILE in tooltip(chromium, "time-running", right=0.5, down=0.5)
    assert chromium.find("img") == []
    assert chromium.requests() == [path.as_uri()]
    assert chromium.console() == []


def test_the_page_of_a_plan(chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    words = "plan --model llama-3.1-8b --xpus h100,l40s --request-rate 4 --num-prompts 200"
    words += " --goodput ttft:1000 tpot:50 --attainment 0.9 --max-xpus 2 --modes aggregated --quiet"
    assert main([*words.split(), "--report", str(page)]) == 0
    chromium.open(page)
    for view in ("why", "fronts", "candidates", "commands"):
        open_view(chromium, view)
        assert visible_views(chromium) == [view]
        assert undrawn(chromium) == []
    (commands,) = chromium.find("#view-commands details[open] pre")
    assert "vllm serve" in commands.text
    assert chromium.console() == []
    assert chromium.requests() == [page.as_uri()]


def test_hostile_names_in_a_plan_stay_text(chromium: Chromium, tmp_path: Path) -> None:
    entry = {
        "parameters": {"xpu": HOSTILE, "n_xpus": 1}, "name": HOSTILE, "metrics": {}, "cost": {},
        "verdict": "refused", "reason": HOSTILE,
    }  # fmt: skip
    request = {
        "request_rate": 1.0, "goodput": {"ttft": 1.0}, "attainment": 0.9, "max_xpus": 1,
        "objective_unit": "USD", "base": {"model": HOSTILE}, "xpus": [HOSTILE], "tolerance": 0.02,
    }  # fmt: skip
    plan: dict[str, Any] = {
        "request": request, "best": None, "nearest": None, "candidates": [entry],
        "warnings": [HOSTILE],
        "pareto": {"speed_per_user_and_per_xpu": [], "cost_and_tail_latency": []},
        "commands": [], "simulations": 0, "not_simulated_because_dearer": 0,
    }  # fmt: skip
    page = tmp_path / "plan.html"
    write_plan_page(page, plan, "0")
    chromium.open(page)
    (title,) = chromium.find("h1")
    assert title.text == f"Plan for {HOSTILE}"
    assert chromium.script("return document.title") == f"Plan for {HOSTILE}"
    assert chromium.console() == []
