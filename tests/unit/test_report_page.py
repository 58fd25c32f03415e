"""The page as text: complete, self-contained, and safe with names that come from files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.report import Answer, Axis, Chart, Series, Tab, Table, render_page
from llm_inference_simulator.report.charts import log_ticks
from llm_inference_simulator.report.result_page import render_report, unique_names
from llm_inference_simulator.report.saved import DIGEST_KEY, SavedResult
from llm_inference_simulator.results import strict_json
from tests.report_runs import DISAGGREGATED, run, saved

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>{{7*7}}\u2028é"
WORDS = ["--model", "llama-7b", "--xpu", "h100-sxm", "--quiet"]
WORDS += ["--num-prompts", "20", "--request-rate", "10"]


class Reader(HTMLParser):
    """Collects the tags, the texts of the page and those of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.texts.append(data)

    @property
    def charts(self) -> list[dict[str, Any]]:
        """What is drawn."""
        return list(json.loads(self.scripts[0]))

    def attribute(self, tag: str, name: str) -> list[str | None]:
        """Values of an attribute of all such tags."""
        return [attributes.get(name) for kind, attributes in self.tags if kind == tag]


@pytest.fixture(scope="module")
def plain() -> SavedResult:
    return saved(run({"measurement": {"goodput": {"ttft": 60.0}}}))


@pytest.fixture(scope="module")
def apart() -> SavedResult:
    return saved(run(DISAGGREGATED))


# --- what is there ------------------------------------------------------------------------------


def test_a_page_has_every_view_and_chart(plain: SavedResult) -> None:
    page = Reader(render_report([("run", plain)]))
    assert [text for text in page.attribute("section", "id") if text] == [
        f"view-{name}"
        for name in ("summary", "latency", "time", "engines", "requests", "capacity", "setup")
    ]
    assert [chart["id"] for chart in page.charts] == [
        "ttft-cumulative",
        "ttft-histogram",
        "tpot-cumulative",
        "tpot-histogram",
        "e2el-cumulative",
        "e2el-histogram",
        "time-waiting",
        "time-running",
        "time-kv-share",
        "time-busy-share",
        "time-tokens-0",
        "components-0-0",
        "waterfall-0",
        "capacity",
    ]
    drawn = {f"chart-{chart['id']}" for chart in page.charts}
    assert drawn <= set(page.attribute("div", "id"))


def test_the_answer_comes_first(plain: SavedResult) -> None:
    text = " ".join(Reader(render_report([("run", plain)])).texts)
    served = f"Served {plain.request_throughput:,.2f} requests/s"
    assert served in text
    assert text.index("llama-3.1-8b on 1 x h100-sxm") < text.index(served) < text.index("Summary")
    assert f"{plain.slo_attainment:.1%} of the requests met their objectives" in text


def test_an_objective_is_marked_where_it_lies(plain: SavedResult) -> None:
    charts = {chart["id"]: chart for chart in Reader(render_report([("r", plain)])).charts}
    ((mark,),) = [charts["ttft-cumulative"]["marks"]]
    assert 10 ** mark["at"] == pytest.approx(60.0)
    assert not charts["tpot-cumulative"]["marks"]


def test_histograms_sum_to_all_requests(plain: SavedResult, apart: SavedResult) -> None:
    charts = Reader(render_report([("a", plain), ("b", apart)])).charts
    for chart in charts:
        if chart["id"].endswith("histogram"):
            for series in chart["series"]:
                assert sum(y for _, y in series["values"]) == pytest.approx(1)


def test_several_results_stand_side_by_side(plain: SavedResult, apart: SavedResult) -> None:
    page = Reader(render_report([("one", plain), ("two", apart), ("two", plain)]))
    text = " ".join(page.texts)
    assert "3 simulations compared" in text
    assert "Side by side" in text
    assert "two (1)" in text
    assert "two (2)" in text
    names = {series["name"] for chart in page.charts for series in chart["series"]}
    assert {"one", "two (1) · pool0", "two (1) · pool1"} <= names


def test_classes_of_requests_have_a_row_each() -> None:
    classes = [
        {"name": "<chat>", "share": 0.8, "goodput": {"ttft": 100.0}},
        {"name": "batch", "share": 0.2, "random_output_len": 300},
    ]
    load = {"num_prompts": 100, "request_rate": 20.0, "classes": classes}
    result = run({"workload": load})
    page = Reader(render_report([("run", saved(result))]))
    assert "Classes of requests" in page.texts
    first = page.texts.index("<chat>")
    row = [text for text in page.texts[first : first + 7] if text.strip()]
    (chat, _) = result.summary()["classes"]
    assert row[1] == str(chat["counted"])
    assert row[-1] == f"{chat['slo_attainment']:.1%}"


def test_equal_names_are_numbered() -> None:
    assert unique_names(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_warnings_are_on_top_of_all_views(plain: SavedResult) -> None:
    warned = plain.model_copy(update={"warnings": ["the queue grew"]})
    page = render_report([("run", warned)])
    assert page.index("the queue grew") < page.index('role="tablist"')


def test_a_result_without_digest_says_which_flag_brings_it(plain: SavedResult) -> None:
    bare = plain.model_copy(update={"report_digest": None})
    page = Reader(render_report([("old", bare)]))
    assert [chart["id"] for chart in page.charts] == ["capacity"]
    text = " ".join(page.texts)
    assert "No digest of the run in old" in text
    assert "--save-digest" in text


def test_lines_have_the_colour_of_their_result(plain: SavedResult) -> None:
    bare = plain.model_copy(update={"report_digest": None})
    charts = {c["id"]: c for c in Reader(render_report([("a", bare), ("b", plain)])).charts}
    for name in ("ttft-cumulative", "time-running"):
        ((line,),) = [charts[name]["series"]]
        assert (line["name"], line["color"]) == ("b", 1)
    assert charts["time-tokens-1"]["title"].endswith(": b")


def test_a_result_without_requests_still_has_a_page(plain: SavedResult) -> None:
    empty = plain.model_copy(
        update={
            "completed": 0,
            "latencies": dict.fromkeys(plain.latencies),
            "request_throughput": None,
            "output_throughput": None,
            "report_digest": None,
        }
    )
    assert "Completed no counted request." in render_report([("run", empty)])


# --- what is not there --------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(plain: SavedResult) -> None:
    page = Reader(render_report([("run", plain)]))
    for name in ("src", "href", "action", "data", "poster", "srcset"):
        values = [a[name] for _, a in page.tags if name in a]
        assert values == (["data:,"] if name == "href" else [])
    assert "@import" not in render_report([("run", plain)])
    (policy,) = [
        a["content"]
        for tag, a in page.tags
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    scripts = re.findall(r"'sha256-([^']+)'", policy)
    assert scripts == [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in page.scripts[1:]
    ]


def test_hostile_names_stay_text(plain: SavedResult) -> None:
    pool = plain.pools[0].model_copy(update={"name": HOSTILE, "xpu": HOSTILE})
    digest = plain.report_digest
    assert digest is not None
    named = digest.over_time.pools[0].model_copy(update={"name": HOSTILE})
    over_time = digest.over_time.model_copy(update={"pools": [named, named]})
    evil = plain.model_copy(
        update={
            "model_id": HOSTILE,
            "pools": [pool, pool],
            "warnings": [HOSTILE],
            "config": {HOSTILE: HOSTILE},
            "report_digest": digest.model_copy(update={"over_time": over_time}),
        }
    )
    source = render_report([(HOSTILE, evil), (HOSTILE, plain)])
    page = Reader(source)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3
    assert "img" not in {tag for tag, _ in page.tags}
    assert f"{HOSTILE} (1)" in page.texts
    assert any(HOSTILE in s["name"] for chart in page.charts for s in chart["series"])
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_chart_library_is_the_one_that_is_written_down() -> None:
    assets = resources.files("llm_inference_simulator.report") / "assets"
    library = (assets / "echarts.common.min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() in (assets / "README.md").read_text("utf-8")
    assert b"</script" not in library
    for licence in ("LICENSE.echarts", "NOTICE.echarts", "LICENSE.zrender", "LICENSE.echarts-d3"):
        assert (assets / licence).is_file()


def test_pages_stay_small(plain: SavedResult, apart: SavedResult) -> None:
    assert len(render_report([("a", plain)]).encode()) < 1_000_000
    many = [(f"run {index}", apart) for index in range(12)]
    assert len(render_report(many).encode()) < 5_000_000


# --- other pages --------------------------------------------------------------------------------


def test_other_pages_are_made_of_the_same_parts() -> None:
    chart = Chart(
        identity="front",
        title="Front",
        x=Axis(title="tokens/s per user"),
        y=Axis(title="tokens/s per GPU"),
        series=[Series(name="plans", x=[1.0], y=[2.0], kind="points", labels=["TP 8 < TP 4"])],
        tooltip="item",
    )
    table = Table(title="Candidates", header=("plan", "USD"), rows=[["<b>", "1"]])
    page = Reader(
        render_page(
            title="Plan",
            answers=[Answer(sentence="Take 5.")],
            tabs=[Tab(identity="all", title="All", items=[chart, table])],
        )
    )
    assert page.charts[0]["series"][0]["labels"] == ["TP 8 < TP 4"]
    assert "<b>" in page.texts


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (9.3, 14.2, [10, 11, 12, 13, 14]),
        (3, 250, [5, 10, 20, 50, 100, 200]),
        (1, 1e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
        (5, 5.2, [5, 5.05, 5.1, 5.15, 5.2]),
    ],
)
def test_logarithmic_axes_have_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


# --- the command line ---------------------------------------------------------------------------


def test_run_writes_the_page_and_the_digest(tmp_path: Path) -> None:
    output, page = tmp_path / "run.json", tmp_path / "r.html"
    assert main([*WORDS, "--output", str(output), "--report", str(page)]) == 0
    data = json.loads(output.read_text())
    again = tmp_path / "again.html"
    assert main(["report", str(output), "--output", str(again)]) == 0
    own, saved_one = (Reader(path.read_text("utf-8")) for path in (page, again))
    assert own.charts == saved_one.charts
    assert DIGEST_KEY in data


def test_a_digest_is_saved_only_when_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    assert main([*WORDS, "--output", str(output)]) == 0
    assert DIGEST_KEY not in json.loads(output.read_text())
    assert main([*WORDS, "--output", str(output), "--save-digest"]) == 0
    assert DIGEST_KEY in json.loads(output.read_text())


def test_results_are_those_of_a_run_without_report(tmp_path: Path) -> None:
    plain, with_page = tmp_path / "a.json", tmp_path / "b.json"
    assert main([*WORDS, "--output", str(plain)]) == 0
    words = ["--report", str(tmp_path / "r.html"), "--timeline", str(tmp_path / "t.json")]
    assert main([*WORDS, "--output", str(with_page), *words]) == 0
    other = json.loads(with_page.read_text())
    del other[DIGEST_KEY]
    assert other == json.loads(plain.read_text())


def test_the_command_reports_several_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json"):
        assert main([*WORDS, "--output", name]) == 0
    assert main(["report", "a.json", "b.json"]) == 0
    assert re.fullmatch(r"wrote report.html, 0\.\d MB\n", capsys.readouterr().out)
    assert "2 simulations compared" in (tmp_path / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    result = run({"workload": {"num_prompts": 5}})
    return dict(strict_json(result.summary()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "schema_version=99 is not 1"),
        ({"completed": "many"}, "completed='many'"),
        ({"pools": []}, "pools"),
        ({"mean_ttft_ms": "fast"}, "mean_ttft_ms='fast'"),
        ({"warnings": None}, "warnings=None"),
        ({DIGEST_KEY: {"version": 1}}, f"{DIGEST_KEY}.distributions is missing"),
        ({DIGEST_KEY: {"version": 2}}, f"{DIGEST_KEY}.version=2"),
        ({"config": []}, "config=[]: must be a mapping"),
        ({"classes": [1]}, "classes.0=1: must be a mapping"),
    ],
)
def test_a_damaged_result_is_refused_in_one_line(
    changes: dict[str, Any],
    message: str,
    summary: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(summary | changes))
    assert main(["report", str(path), "--output", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error
    assert error.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "report needs results"),
        (["report", "none.json"], "does not exist: check the path"),
        (["report", "text.json"], "is not valid JSON (line 1)"),
        (["report", "list.json"], "holds no mapping"),
        (["report", "text.json", "--output", "text.json"], "is one of the results"),
        (["report", "text.json", "--output", "no/r.html"], "does not exist: create it first"),
        (["report", "text.json", "--outputs", "x"], "did you mean '--output'?"),
        ([*WORDS, "--save-digest"], "--save-digest needs --output"),
    ],
)
def test_bad_input_gets_one_message(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("not JSON")
    (tmp_path / "list.json").write_text("[]")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["report", "r.json"], [*WORDS, "--report", "r.html"]])
def test_a_missing_library_names_the_extra(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "jinja2, which is not installed: pip install 'llm-inference-simulator[report]'" in error
    assert not list(tmp_path.iterdir())


def test_no_results_make_no_page() -> None:
    with pytest.raises(ConfigError, match="at least one result"):
        render_report([])
