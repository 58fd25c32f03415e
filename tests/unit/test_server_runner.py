"""The server runner against a real HTTP server: what fails is counted, the rest is kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from llm_inference_simulator.errors import ConfigError
from tests.openai_server import serving
from vllm_benchmarks.calibrate import main
from vllm_benchmarks.roofline_estimator import server_steps
from vllm_benchmarks.runners.server import ServerRunner
from vllm_benchmarks.runners.sse_client import Endpoint
from vllm_benchmarks.schema import (
    BenchmarkData,
    BenchmarkHeader,
    BenchmarkPoint,
    PlannedPoint,
    RequestTiming,
)

DECODE = PlannedPoint(kind="decode", batch_size=6, context_tokens=40)
PREFILL = PlannedPoint(kind="prefill", batch_size=1, prompt_tokens=64)


def runner(
    url: str, *, repeats: int = 2, decode_steps: int = 5, idle_s: float = 20
) -> ServerRunner:
    return ServerRunner(
        endpoint=Endpoint(base_url=url, idle_timeout_s=idle_s, total_timeout_s=30),
        model="tiny",
        vocabulary=1000,
        repeats=repeats,
        decode_steps=decode_steps,
    )


def test_requests_have_the_lengths_asked_for_and_no_common_beginning() -> None:
    with serving() as server:
        measured = runner(server.url).measure(DECODE)
        lone = runner(server.url + "/v1/").measure(PREFILL)
    assert measured.failures == {}
    assert [len(repeat) for repeat in measured.requests] == [6, 6]
    assert all(len(r.gaps_ms) == 4 for repeat in measured.requests for r in repeat)
    assert all(r.prompt_tokens == 40 for repeat in measured.requests for r in repeat)
    # The server waits 20 ms before the first token: no client sees it earlier.
    assert lone.median_ms is not None
    assert lone.median_ms >= 20
    decoding = [body for body in server.seen if body["max_tokens"] == 5]
    assert {len(body["prompt"]) for body in decoding} == {40}
    assert len({tuple(body["prompt"][:8]) for body in decoding}) == 12
    assert all(body["min_tokens"] == 5 and body["ignore_eos"] for body in decoding)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ("http 503", "http 503"),
        ("garbage", "malformed"),
        ("disconnect", "disconnect"),
        ("malformed", "malformed"),
        ("server error", "server error"),
        ("short", "short"),
        ("no end", "disconnect"),
        ("silent", "timeout"),
    ],
)
def test_a_failure_is_counted_and_the_other_requests_are_kept(trouble: str, kind: str) -> None:
    numbers = itertools.count()
    with serving(lambda _: trouble if next(numbers) % 3 == 0 else "") as server:
        measured = runner(server.url, repeats=1, idle_s=0.5).measure(DECODE)
    assert measured.failures == {kind: 2}
    (answered,) = measured.requests
    assert len(answered) == 4
    assert all(len(request.gaps_ms) == 4 for request in answered)


def test_a_server_that_is_not_there_is_told() -> None:
    with serving() as server:
        url = server.url
    measured = runner(url, repeats=1).measure(DECODE)
    assert measured.failures == {"connect": 6}
    assert measured.requests == ()
    assert measured.median_ms is None
    assert "connect" in str(runner(url).warm_up([DECODE]))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:port"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="--base-url"):
        Endpoint(base_url=url).address()


def timing(start_s: float, ttft_ms: float, gaps: tuple[float, ...]) -> RequestTiming:
    return RequestTiming(
        prompt_tokens=40,
        output_tokens=len(gaps) + 1,
        start_s=start_s,
        ttft_ms=ttft_ms,
        gaps_ms=gaps,
    )


def test_steps_are_taken_where_all_requests_decode() -> None:
    # b starts while a decodes already, and a ends before b: two steps hold both.
    a = timing(0.0, 10.0, (30.0, 5.0, 6.0))
    b = timing(0.01, 30.0, (5.0, 6.0, 4.0))
    point = PlannedPoint(kind="decode", batch_size=2, context_tokens=40)
    lone = BenchmarkPoint(point=PREFILL, requests=((timing(0, 25.0, ()),),))
    header = BenchmarkHeader(runner="server", model="m", xpu="cpu")
    points = (BenchmarkPoint(point=point, requests=((a, b),)), lone)
    steps = server_steps(BenchmarkData(header=header, points=points), front_end_ms=8.0)
    assert [(s.decode_seqs, s.prefill_tokens) for s in steps] == [(2, 0), (2, 0), (0, 40)]
    assert [s.seconds for s in steps] == pytest.approx([0.005, 0.006, 0.017])


def test_calibrating_from_a_server_needs_an_address_and_keeps_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "calibration.json"
    words = ["--model", "llama-3.2-1b", "--xpu", "h100", "--runner", "server", "--sparse"]
    words += [
        "--sparse-points",
        "8",
        "--repeats",
        "1",
        "--decode-steps",
        "4",
        "--max-num-seqs",
        "4",
    ]
    words += ["--max-model-len", "1024", "--bootstrap-samples", "20", "--output", str(output)]
    assert main(words) == 2
    assert "--runner server needs --base-url" in capsys.readouterr().err
    with serving() as server:
        server.first_s = server.gap_s = 0.001
        # Its times do not depend on lengths: no rate can be told, and that is said in one line.
        assert main([*words, "--base-url", server.url]) == 2
        asked = len(server.seen)
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: ")
        assert "measure" in told
        assert main([*words, "--base-url", server.url]) == 2
    # Only the warm-up was sent again.
    assert len(server.seen) - asked <= 4
    lines = (tmp_path / "calibration_data" / "raw" / "points.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["runner"] == "server"
    assert len(lines) > 8
    assert not output.exists()
