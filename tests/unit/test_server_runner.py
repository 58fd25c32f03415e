"""The server runner against a real HTTP server: what fails is counted, the rest is kept."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_inference_simulator.errors import CalibrationError, ConfigError
from tests.openai_server import serving
from vllm_benchmarks.benchmark_runner import run_plan
from vllm_benchmarks.calibrate import main
from vllm_benchmarks.data_collector import collect, read_points
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
    # a is a token ahead of b: it has two of its tokens where b has one.
    assert [sum(s.contexts) for s in steps] == [42 + 41, 43 + 42, 0]
    assert [s.longest_context for s in steps] == [42, 43, 40]


def test_clients_that_see_a_step_at_slightly_other_times_share_it() -> None:
    a, b = timing(0.0, 10.0, (5.1, 4.8, 5.2)), timing(0.0, 10.1, (4.9, 5.2, 4.9))
    point = PlannedPoint(kind="decode", batch_size=2, context_tokens=40)
    header = BenchmarkHeader(runner="server", model="m", xpu="cpu")
    points = (BenchmarkPoint(point=point, requests=((a, b),)),)
    steps = server_steps(BenchmarkData(header=header, points=points), front_end_ms=0.0)
    assert [sum(s.contexts) for s in steps] == [82, 84, 86]


SERVER = [
    "--model", "llama-3.2-1b", "--xpu", "h100", "--runner", "server", "--sparse",
    "--sparse-points", "8", "--repeats", "1", "--decode-steps", "4", "--max-num-seqs", "4",
    "--max-model-len", "1024", "--bootstrap-samples", "20",
]  # fmt: skip


def test_a_server_that_goes_away_ends_the_plan_and_the_rerun_repairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SERVER, "--output", str(tmp_path / "c.json")]
    points = tmp_path / "c_data" / "raw" / "points.jsonl"
    # The warm-up and the first points are answered, then nothing any more.
    gone = threading.Event()
    numbers = itertools.count()

    def script(_: object) -> str:
        return "http 503" if gone.is_set() and next(numbers) >= 6 else ""

    with serving(script) as server:
        server.first_s = server.gap_s = 0.001
        gone.set()
        assert main([*words, "--base-url", server.url]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: no request of 3 points in a row was answered (http 503)")
        assert "the same command again" in told
        kept = read_points(points).points
        assert sum(not point.has_data for point in kept) == 3
        assert any(point.has_data for point in kept)
        gone.clear()
        assert main([*words, "--base-url", server.url]) == 2  # times that no rate can be told from
    assert all(point.has_data for point in read_points(points).points)
    assert len(read_points(points).points) > len(kept)


class Answers:
    """Gives each point what ``kinds`` says: data, or failures of that kind."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = iter(kinds)

    def measure(self, point: PlannedPoint) -> BenchmarkPoint:
        kind = next(self.kinds)
        if kind == "good":
            return BenchmarkPoint(point=point, requests=((timing(0, 25.0, ()),),))
        return BenchmarkPoint(point=point, failures={kind: 1})


@pytest.mark.parametrize(
    ("kinds", "measured"),
    [
        (("connect", "connect", "good", "connect", "connect"), 5),
        (("http 400",) * 5, 5),  # refused by a server that is there
        (("good", "timeout", "connect", "timeout", "good"), None),
    ],
)
def test_only_points_in_a_row_that_nobody_answered_end_the_plan(
    tmp_path: Path, kinds: tuple[str, ...], measured: int | None
) -> None:
    plan = [PlannedPoint(kind="prefill", batch_size=1, prompt_tokens=n) for n in range(1, 6)]
    header = BenchmarkHeader(runner="server", model="m", xpu="cpu")
    with collect(tmp_path / "points.jsonl", header) as collector:
        if measured is None:
            with pytest.raises(CalibrationError, match=r"\(timeout\)"):
                run_plan(Answers(*kinds), plan, collector)
            assert len(collector.missing(plan)) == 4
        else:
            assert run_plan(Answers(*kinds), plan, collector) == measured


@contextmanager
def ssh() -> Iterator[str]:
    """A port where something else than HTTP answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(5)


def test_a_port_that_speaks_something_else_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ssh() as url:
        assert main([*SERVER, "--output", str(tmp_path / "c.json"), "--base-url", url]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: --base-url {url} does not speak HTTP (SSH-2.0-OpenSSH_9.6)")
    assert told.count("\n") == 1


def test_a_data_folder_below_a_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = [*SERVER, "--output", str(tmp_path / "c.json"), "--data-dir", str(tmp_path / "file/d")]
    with serving() as server:
        server.first_s = server.gap_s = 0.001
        assert main([*words, "--base-url", server.url]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: points file ")
    assert "give another --data-dir" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("runner_name", ["offline", "server"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_plan_without_points_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runner_name: str, dry: bool
) -> None:
    words = ["--model", "llama-3.2-1b", "--xpu", "h100", "--runner", runner_name]
    words += ["--max-num-batched-tokens", "1", "--max-model-len", "4"]
    words += ["--output", str(tmp_path / "c.json"), "--base-url", "http://127.0.0.1:9"]
    assert main([*words, "--dry-run"] if dry else words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: no point to measure fits the engine: ")
    assert "--max-num-batched-tokens 1, --max-model-len 4" in told.err
    assert told.err.count("\n") == 1


def test_calibrating_from_a_server_needs_an_address_and_keeps_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "calibration.json"
    words = [*SERVER, "--output", str(output)]
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
