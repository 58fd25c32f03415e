"""However a trace is damaged, it is read or refused with one message: never another exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.traces import load_trace

WHOLE = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
    "mooncake": '{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [1, 2]}\n'
    '{"timestamp": 1.5, "input_length": 50, "output_length": 20}\n',
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45.0,GPT-4,1087,0,1087,API log\n",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,100,10\n1e-3,7,5.0\n",
    "sharegpt": json.dumps(
        [{"conversations": [{"from": "human", "value": "h" * 40}, {"value": "g" * 40}]}]
    ),
    "vllm-bench": json.dumps(
        {"input_lens": [1, 2], "output_lens": [3, 0], "start_times": [5.0, 6.25]}
    ),
    "servegen": "0,2,1.0,Gamma,1.0,0.5\n600,0.5,1.0,Weibull,1.0,0.5\n1200,,,,,\n",
}
DATASET = json.dumps({"0": {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{10: 1}"}})
TOKENS = (
    rb""" , " { } [ ] - . : e9 NaN inf null true 0 1_0 {} [] '' 999999999999999999999999999999 """
).split()
PIECES = st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b"\x00", b"\xff", *TOKENS]))


@pytest.mark.parametrize("trace_format", WHOLE)
@pytest.mark.parametrize("given_format", ["auto", "named"])
@settings(deadline=None)
@given(data=st.data())
def test_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    trace_format: str,
    given_format: str,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path, dataset = folder / "chunk-0-trace.csv", folder / "chunk-0-dataset.json"
    texts = {path: WHOLE[trace_format].encode()}
    if trace_format == "servegen":
        texts[dataset] = DATASET.encode()
    victim = data.draw(st.sampled_from(list(texts)))
    text = texts[victim]
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, len(text) - start))
    texts[victim] = text[:start] + data.draw(PIECES) + text[start + length :]
    for file, content in texts.items():
        file.write_bytes(content)
    try:
        trace = load_trace(path, "auto" if given_format == "auto" else trace_format)
    except WorkloadError as error:
        assert str(folder) in str(error)  # noqa: PT017 - a refusal is one of two good ends
        return
    assert len(trace) == len(trace.output_tokens) >= 1
    assert trace.prompt_tokens.min() >= 0
    assert trace.output_tokens.min() >= 0
    if trace.arrival_ns is not None:
        assert (trace.arrival_ns[1:] >= trace.arrival_ns[:-1]).all()
        assert trace.arrival_ns[0] >= 0
