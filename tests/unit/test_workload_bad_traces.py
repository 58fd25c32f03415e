"""What is wrong with a trace is said with the file, the row and the remedy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.traces import load_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n"
MOONCAKE = '{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [1]}\n'
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,100,10\n"
TURNS = [{"from": "human", "value": "h" * 40}, {"from": "gpt", "value": "g" * 40}]


def row_of(base: str, row: str) -> bytes:
    return (base + row).encode()


def mooncake(**changes: object) -> bytes:
    row = {"timestamp": 1, "input_length": 5, "output_length": 2, **changes}
    return (MOONCAKE + json.dumps(row) + "\n").encode()


def bench(**changes: object) -> bytes:
    result = {"input_lens": [1, 2], "output_lens": [3, 4], "start_times": [5.0, 6.0], **changes}
    return json.dumps({k: v for k, v in result.items() if v is not None}).encode()


CASES: dict[str, tuple[bytes, list[str]]] = {
    # Any format.
    "empty": (b"", ["is empty"]),
    "only blanks": (b" \n\n", ["is empty"]),
    "only a byte-order mark": (b"\xef\xbb\xbf", ["is empty"]),
    "not UTF-8": (AZURE.encode() + b"2023-11-16 18:15:47,\xff,1\n", ["line 3", "not UTF-8"]),
    "UTF-16": (AZURE.encode("utf-16"), ["line 1", "not UTF-8"]),
    "half a gzip": (gzip.compress(AZURE.encode(), mtime=0)[:-9], ["gzip", "truncated"]),
    "damaged gzip": (b"\x1f\x8bnonsense and more", ["gzip", "damaged"]),
    "prose": (b"hello world\n", ["unknown format", "'hello world'", "azure", "mooncake"]),
    "foreign CSV": (b"a,b\n1,2\n", ["unknown format", "'a,b'"]),
    "foreign JSON": (b'{"a": 1}\n', ["unknown format"]),
    # CSV.
    "header only": (AZURE.splitlines()[0].encode(), ["no rows"]),
    "short row": (row_of(AZURE, "2023-11-16 18:15:47.5,37"), ["row 2 (line 3)", "2 values", "3"]),
    "long row": (row_of(AZURE, "2023-11-16 18:15:47.5,1,2,3"), ["row 2 (line 3)", "4 values"]),
    "blank lines count": (row_of(AZURE, "\n\nx,1,2"), ["row 2 (line 5)", "TIMESTAMP='x'"]),
    "doubled column": (
        b"num_prefill_tokens,num_decode_tokens,NUM_DECODE_TOKENS\n1,2,3\n",
        ["twice"],
    ),
    "negative": (row_of(AZURE, "2023-11-16 18:15:47,-5,1"), ["row 2", "ContextTokens='-5'", "neg"]),
    "NaN": (row_of(AZURE, "2023-11-16 18:15:47,nan,1"), ["row 2", "'nan' is NaN"]),
    "infinite": (row_of(AZURE, "2023-11-16 18:15:47,5,inf"), ["GeneratedTokens='inf' is infinite"]),
    "not whole": (row_of(AZURE, "2023-11-16 18:15:47,5,1.5"), ["'1.5' is not whole"]),
    "missing value": (row_of(AZURE, "2023-11-16 18:15:47,,1"), ["ContextTokens='' is empty"]),
    "words": (row_of(AZURE, "2023-11-16 18:15:47,many,1"), ["'many' is not a number"]),
    "underscore": (row_of(AZURE, "2023-11-16 18:15:47,1_0,1"), ["'1_0' is not a number"]),
    "foreign digits": (row_of(AZURE, "2023-11-16 18:15:47,٣,1"), ["is not a number"]),
    "too many tokens": (row_of(AZURE, "2023-11-16 18:15:47,4294967296,1"), ["too large"]),
    "leading zeros": (row_of(AZURE, "2023-11-16 18:15:47,002147483648,1"), ["too large"]),
    "thousands of digits": (
        row_of(AZURE, "2023-11-16 18:15:47," + "9" * 5000 + ",1"),
        ["too large"],
    ),
    # Times.
    "no such month": (row_of(AZURE, "2023-13-16 18:15:47,1,1"), ["row 2", "2023-13-16", "like"]),
    "no such day": (row_of(AZURE, "2023-02-30 18:15:47,1,1"), ["row 2", "2023-02-30"]),
    "date only": (row_of(AZURE, "2023-11-16,1,1"), ["row 2", "is not a time"]),
    "another zone": (row_of(AZURE, "2023-11-16 18:15:47+02:00,1,1"), ["row 2", "UTC"]),
    "far future": (row_of(AZURE, "9999-01-01 00:00:00,1,1"), ["row 2", "is not a time"]),
    "negative time": (row_of(VIDUR, "-1.5,1,1"), ["row 2", "arrived_at='-1.5' is negative"]),
    "NaN time": (row_of(VIDUR, "NaN,1,1"), ["row 2", "arrived_at='NaN' is NaN"]),
    "infinite time": (row_of(VIDUR, "inf,1,1"), ["row 2", "is infinite"]),
    "huge time": (row_of(VIDUR, "1e300,1,1"), ["row 2", "too large"]),
    "word for a time": (row_of(BURSTGPT, "noon,ChatGPT,1,1"), ["row 2", "Timestamp='noon'"]),
    "all failed": (
        b"Timestamp,Request tokens,Response tokens\n5,1,0\n",
        ["no request is left", "1 rows have no response tokens"],
    ),
    # Mooncake.
    "half a line": ((MOONCAKE + MOONCAKE[:20]).encode(), ["row 2", "cut off"]),
    "half the only line": (MOONCAKE[:40].encode(), ["row 1", "cut off"]),
    "broken JSON": (
        row_of(MOONCAKE, '{"timestamp": 1,,}\n'),
        ["row 2", "not valid JSON", "column"],
    ),
    "a list": (row_of(MOONCAKE, "[1]\n"), ["row 2", "JSON object"]),
    "key missing": (
        row_of(MOONCAKE, '{"timestamp": 1, "input_length": 2}'),
        ["row 2", "output_length"],
    ),
    "no time": (
        row_of(MOONCAKE, '{"input_length": 2, "output_length": 2}'),
        ["row 2", "timestamp"],
    ),
    "null": (mooncake(input_length=None), ["row 2", "input_length=null is not a number"]),
    "string": (mooncake(input_length="7"), ["row 2", 'input_length="7" is not a number']),
    "bool": (mooncake(input_length=True), ["row 2", "input_length=true is not a number"]),
    "fraction": (mooncake(input_length=7.5), ["row 2", "input_length=7.5 is not whole"]),
    "negative length": (mooncake(output_length=-1), ["row 2", "output_length=-1 is negative"]),
    "NaN length": (mooncake(output_length=float("nan")), ["row 2", "NaN"]),
    "long length": (mooncake(output_length=2**31), ["row 2", "too large"]),
    "negative timestamp": (mooncake(timestamp=-1), ["row 2", "negative"]),
    "null timestamp": (mooncake(timestamp=None), ["row 2", "timestamp=null"]),
    "list timestamp": (mooncake(timestamp=[1]), ["row 2", "timestamp"]),
    "NaN timestamp": (mooncake(timestamp=float("nan")), ["row 2", "NaN"]),
    "huge timestamp": (mooncake(timestamp=10**40), ["row 2", "timestamp"]),
    "hash ids": (mooncake(hash_ids=[1, -2]), ["row 2", "hash_ids holds -2", "negative"]),
    "hash id words": (mooncake(hash_ids=["a"]), ["row 2", 'hash_ids holds "a"']),
    "hash id number": (mooncake(hash_ids=3), ["row 2", "hash_ids=3 is not a list"]),
    "digits in JSON": (
        row_of(MOONCAKE, '{"timestamp": ' + "9" * 5000 + "}"),
        ["row 2", "too long"],
    ),
    "deep JSON": (row_of(MOONCAKE, "[" * 100_000), ["row 2", "nested too deeply"]),
    # ShareGPT.
    "no conversation left": (b'[{"conversations": []}]', ["no request is left", "1 of 1"]),
    "no conversations": (b"[]", ["no request is left"]),
    "half a list": (json.dumps([{"conversations": TURNS}]).encode()[:-30], ["cut off", "line 1"]),
    "not an object": (b"[3]", ["row 1", "JSON object"]),
    "turn without text": (json.dumps([{"conversations": [{}, {}]}]).encode(), ["row 1", "'value'"]),
    "one count only": (b'[{"prompt_tokens": 5}]', ["row 1", "'output_tokens' is missing"]),
    "turns no list": (b'[{"conversations": 3}]', ["row 1", "'conversations' is not a list"]),
    # vllm bench serve.
    "not detailed": (
        b'{"request_throughput": 1.0}',
        ["'input_lens' is missing", "--save-detailed"],
    ),
    "outputs missing": (bench(output_lens=None), ["'output_lens' is missing"]),
    "uneven lists": (bench(output_lens=[1]), ["output_lens has 1 values", "2"]),
    "uneven starts": (bench(start_times=[1.0]), ["start_times has 1 values", "2"]),
    "bad length": (bench(input_lens=[1, -2]), ["row 2", "input_lens=-2 is negative"]),
    "bad start": (bench(start_times=[1.0, None]), ["row 2", "start_times=null"]),
    "NaN start": (bench(start_times=[1.0, float("nan")]), ["row 2", "start_times=NaN"]),
    "starts no list": (bench(start_times=3), ["start_times"]),
    "half a run appended": (bench() + b"\n" + bench()[:30], ["row 2", "cut off"]),
    "half a run": (bench()[:50], ["cut off"]),
}


@pytest.mark.parametrize(("data", "parts"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_message(tmp_path: Path, data: bytes, parts: list[str]) -> None:
    path = tmp_path / "given"
    path.write_bytes(data)
    with pytest.raises(WorkloadError) as caught:
        load_trace(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "given", "parts"),
    [
        (AZURE, "burstgpt", ["trace_format=burstgpt", "looks like azure"]),
        (MOONCAKE, "vllm-bench", ["trace_format=vllm-bench", "looks like mooncake"]),
        ("a,b\n1,2\n", "azure", ["column 'TIMESTAMP' is missing", "a, b"]),
        ("hello\n", "mooncake", ["row 1", "not valid JSON"]),
        ('{"a": 1}', "sharegpt", ["JSON list"]),
        ("[1, 2]", "vllm-bench", ["looks like sharegpt"]),
        (AZURE, "azur", ["unknown trace_format 'azur'", "did you mean 'azure'"]),
    ],
)
def test_a_wrong_format_names_what_was_found(
    tmp_path: Path, text: str, given: str, parts: list[str]
) -> None:
    path = tmp_path / "given"
    path.write_text(text)
    with pytest.raises(WorkloadError) as caught:
        load_trace(path, given)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"nowhere\.csv does not exist"):
        load_trace(tmp_path / "nowhere.csv")


def test_a_name_the_system_refuses_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot be read"):
        load_trace(tmp_path / ("x" * 300))
    with pytest.raises(WorkloadError, match="cannot be read"):
        load_trace(tmp_path / "a\0b")
