"""One reader a format: hand-made files, the shipped traces, the published ones if present."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from llm_inference_simulator.workload.traces import Trace, load_trace, resolve
from llm_inference_simulator.workload.traces.registry import FORMATS
from llm_inference_simulator.workload.traces.shipped import SHIPPED
from llm_inference_simulator.workload_config import TraceFormat

SECOND = 10**9
PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "traces"


def load(folder: Path, text: str | bytes, trace_format: str = "auto", name: str = "trace") -> Trace:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_trace(path, trace_format)


def rows(trace: Trace) -> list[tuple[int, int, int]]:
    assert trace.arrival_ns is not None
    columns = (trace.arrival_ns, trace.prompt_tokens, trace.output_tokens)
    assert all(column.dtype == np.int64 for column in columns)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_the_configuration_names_the_same_formats() -> None:
    assert set(get_args(TraceFormat)) == {"auto", *FORMATS}


def test_azure_2023_is_exact_to_its_seventh_digit(tmp_path: Path) -> None:
    trace = load(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:15:46.6805900,374,44\r\n"
        "2023-11-16 18:15:50.9951691,396,109\r\n"
        "2023-11-16 18:15:50.9951691,879,55",
    )
    assert rows(trace) == [(0, 374, 44), (4_314_579_100, 396, 109), (4_314_579_100, 879, 55)]
    assert trace.span_ns == 4_314_579_100
    assert trace.warnings == ()


def test_azure_2024_has_a_zone_and_may_lack_the_fraction(tmp_path: Path) -> None:
    trace = load(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-11 23:59:59.009930+00:00,2162,5\n"
        "2024-05-12 00:00:10+00:00,200,20\n",
    )
    assert rows(trace) == [(0, 2162, 5), (10_990_070_000, 200, 20)]


def test_azure_images_are_not_simulated_and_said_so(tmp_path: Path) -> None:
    trace = load(
        tmp_path,
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2024-10-01 00:00:00.5,2,10,1\n2024-10-01 00:00:01.5,0,20,2\n",
    )
    assert rows(trace) == [(0, 10, 1), (SECOND, 20, 2)]
    assert trace.warnings == ("1 requests carry images, which are not simulated",)


def test_mooncake_times_are_milliseconds(tmp_path: Path) -> None:
    trace = load(
        tmp_path,
        '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
        '{"timestamp": 27482.000001, "input_length": 7, "output_length": 0}\n',
    )
    assert rows(trace) == [(0, 6955, 52), (1, 7, 0)]
    assert trace.marks is not None
    assert trace.marks.hash_ids == [[46, 47], []]
    assert trace.warnings == ()


def test_mooncake_names_the_keys_it_does_not_use(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 1, "output_length": 1, "delay": 3, "text_input": "a"}
    trace = load(tmp_path, json.dumps(row))
    assert trace.warnings == ('2 keys are not used: "delay", "text_input"',)


def test_mooncake_reads_sessions_and_priorities(tmp_path: Path) -> None:
    base: dict[str, Any] = {"timestamp": 0, "input_length": 1, "output_length": 1}
    given: list[dict[str, Any]] = [
        {"session_id": "a"},
        {"session_id": 7, "priority": -2},
        {},
        {"session_id": "a"},
    ]
    trace = load(tmp_path, "\n".join(json.dumps(base | row) for row in given))
    assert trace.marks is not None
    assert trace.marks.session.tolist() == [0, 1, -1, 0]
    assert trace.marks.priority.tolist() == [0, -2, 0, 0]


def test_burstgpt_drops_failed_requests_and_counts_them(tmp_path: Path) -> None:
    trace = load(
        tmp_path,
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,0,1087,Conversation log\n"
        "118.5,GPT-4,417,276,693,API log\n",
    )
    assert rows(trace) == [(0, 472, 18), (113 * SECOND + SECOND // 2, 417, 276)]
    assert trace.warnings == ("1 rows have no response tokens (failed requests) and were dropped",)


def test_burstgpt_with_sessions(tmp_path: Path) -> None:
    trace = load(
        tmp_path,
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\n",
    )
    assert rows(trace) == [(0, 906, 446)]


def test_vidur_with_and_without_times(tmp_path: Path) -> None:
    timed = load(
        tmp_path,
        ",arrived_at,num_prefill_tokens,num_decode_tokens\n"
        "0,0.25,100,10\n1,0.2500000005,200,20\n2,0.2500000015,300,30\n3,2.5e-1,400,40\n",
    )
    # Half a nanosecond goes to the even neighbour; the last row ties with the first.
    assert rows(timed) == [(0, 100, 10), (0, 200, 20), (0, 400, 40), (2, 300, 30)]
    assert timed.warnings == (
        "1 rows are earlier than the row before: the requests were sorted by time",
    )
    untimed = load(tmp_path, "num_prefill_tokens,num_decode_tokens\n100.0,10\n")
    assert untimed.arrival_ns is None
    assert untimed.prompt_tokens.tolist() == [100]


def sharegpt(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {
            "id": "x",
            "conversations": [
                {"from": "human", "value": "p" * prompt},
                {"from": "gpt", "value": "o" * output},
            ],
        }
        for prompt, output in pairs
    ]


def test_sharegpt_estimates_tokens_and_filters_as_vllm_does(tmp_path: Path) -> None:
    entries = sharegpt((17, 16), (12, 16), (16, 12), (4097, 16), (4096, 4097), (4096, 4096))
    entries.append({"id": "short", "conversations": [{"from": "human", "value": "hello"}]})
    trace = load(tmp_path, json.dumps(entries))
    # ceil(17 / 4) = 5; then: prompt 3, output 3, prompt 1,025 and total 2,049 are dropped.
    assert trace.prompt_tokens.tolist() == [5, 1024]
    assert trace.output_tokens.tolist() == [4, 1024]
    assert trace.arrival_ns is None
    assert "5 of 7 conversations were dropped" in trace.warnings[0]
    assert "2 conversations are estimated at 4 characters a token" in trace.warnings[1]


def test_sharegpt_takes_counts_where_the_file_has_them(tmp_path: Path) -> None:
    entries = [
        {"prompt_tokens": 11, "output_tokens": 22, **entry} for entry in sharegpt((400, 400))
    ]
    trace = load(tmp_path, json.dumps(entries, indent=1))
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([11], [22])
    assert trace.warnings == ()


BENCH = {
    "duration": 3.0,
    "input_lens": [10, 20, 30],
    "output_lens": [1, 0, 3],
    "start_times": [5000.25, 5001.25, 5000.75],
}


@pytest.mark.parametrize("indent", [None, 2])
def test_bench_results_count_from_the_first_start(tmp_path: Path, indent: int | None) -> None:
    trace = load(tmp_path, json.dumps(BENCH, indent=indent))
    assert rows(trace) == [(0, 10, 1), (SECOND // 2, 30, 3), (SECOND, 20, 0)]
    assert trace.warnings == (
        "1 requests failed in the measured run (no output): they are rejected here too",
        "1 rows are earlier than the row before: the requests were sorted by time",
    )


def test_bench_requests_that_were_never_sent_are_left_out(tmp_path: Path) -> None:
    trace = load(tmp_path, json.dumps({**BENCH, "start_times": [5000.0, 0.0, 5002.0]}))
    assert rows(trace) == [(0, 10, 1), (2 * SECOND, 30, 3)]
    assert "1 of them were never sent: left out" in trace.warnings


def test_bench_results_without_starts_have_no_times(tmp_path: Path) -> None:
    trace = load(tmp_path, json.dumps({"input_lens": [4], "output_lens": [2]}))
    assert trace.arrival_ns is None


def test_the_last_of_appended_bench_results_counts(tmp_path: Path) -> None:
    last = {"input_lens": [7], "output_lens": [8], "start_times": [1.5]}
    trace = load(tmp_path, json.dumps(BENCH) + "\n" + json.dumps(last))
    assert rows(trace) == [(0, 7, 8)]
    assert trace.warnings == ("the file holds 2 runs (--append-result): the last is used",)


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n"


@pytest.mark.parametrize(
    "data",
    [
        AZURE.encode(),
        b"\xef\xbb\xbf" + AZURE.encode(),
        AZURE.replace("\n", "\r\n").encode(),
        gzip.compress(AZURE.encode()),
        b"\n" + AZURE.encode() + b"\n\n",
        AZURE.replace("TIMESTAMP", " timestamp ").encode(),
        AZURE.replace("374", '"374"').encode(),
    ],
    ids=["plain", "byte-order-mark", "crlf", "gzip", "blank-lines", "header-case", "quotes"],
)
def test_dressing_of_a_file_does_not_matter(tmp_path: Path, data: bytes) -> None:
    assert rows(load(tmp_path, data)) == [(0, 374, 44)]
    assert rows(load(tmp_path, data, "azure")) == [(0, 374, 44)]


def test_the_shipped_conversation_trace_is_the_published_one() -> None:
    trace = load_trace(resolve("azure-conv-2023"))
    assert len(trace) == 19_366
    # Sums over the published file: 22,361,870 and 4,088,665.
    assert trace.prompt_tokens.mean() == pytest.approx(1154.6974, abs=1e-4)
    assert trace.output_tokens.mean() == pytest.approx(211.1259, abs=1e-4)
    # 18:15:46.6805900 to 19:14:08.4025270.
    assert trace.span_ns == 3_501_721_937_000
    assert trace.warnings == ()
    assert rows(trace)[:2] == [(0, 374, 44), (4_314_579_000, 396, 109)]
    assert rows(trace)[-1] == (3_501_721_937_000, 197, 183)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_traces_carry_their_provenance_and_licence(name: str) -> None:
    path = resolve(name)
    published = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    assert published in (path.parent / "README.md").read_text(encoding="utf-8")
    licence = (path.parent / "LICENSE.azure-CC-BY-4.0").read_text(encoding="utf-8")
    assert "Attribution 4.0 International" in licence


def test_a_file_of_a_shipped_name_needs_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("azure-conv-2023").write_text(AZURE)
    assert len(load_trace(resolve("azure-conv-2023"))) == 19_366
    assert len(load_trace(resolve("./azure-conv-2023"))) == 1


CONVERSATIONS = (19_366, 3_501_721_937_000, 1154.6974, 211.1259)
CODE = (8_819, 3_435_948_056_000, 2047.8483, 27.8825)
WHOLE_FILES = [
    # file, (requests, last arrival in ns, mean prompt, mean output)
    (resolve("azure-conv-2023"), CONVERSATIONS),
    (resolve("azure-code-2023"), CODE),
    (PUBLISHED / "AzureLLMInferenceTrace_conv.csv", CONVERSATIONS),
    (PUBLISHED / "AzureLLMInferenceTrace_code.csv", CODE),
    (PUBLISHED / "mooncake_conversation.jsonl", (12_031, 3_536_999_000_000, 12035.0613, 342.6189)),
    (PUBLISHED / "mooncake_synthetic.jsonl", (3_993, 1_022_025_000_000, 15325.4766, 149.1190)),
]


@pytest.mark.parametrize(
    ("path", "facts"),
    [pytest.param(*row, id=row[0].name) for row in WHOLE_FILES if row[0].exists()],
)
def test_whole_files_have_their_published_facts(
    path: Path, facts: tuple[int, int, float, float]
) -> None:
    trace = load_trace(path)
    n, span_ns, prompt, output = facts
    assert (len(trace), trace.span_ns) == (n, span_ns)
    assert trace.prompt_tokens.mean() == pytest.approx(prompt, abs=1e-4)
    assert trace.output_tokens.mean() == pytest.approx(output, abs=1e-4)
