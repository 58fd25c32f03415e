#!/usr/bin/env bash
# Install a wheel into an empty virtual environment outside the checkout, without a Rust toolchain on
# the path, and run the main job from there.
set -euo pipefail
wheel=$(realpath "$1")
python=$(realpath "${PYTHON:-.venv/bin/python}")
recording=$(realpath tests/golden/vllm_engine/tiny_async.jsonl.gz)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
"$folder/venv/bin/python" -m pip install --quiet "$wheel[parquet,report]"
cd "$folder"
export PATH="$folder/venv/bin:/usr/bin:/bin"
llm-inference-simulator --model llama-3.1-8b --xpu h100-sxm --trace azure-conv-2023 \
    --output results.json --requests-output requests.parquet --report results.html
python -m vllm_benchmarks.replay_decisions "$recording"
echo '{"timestamp": 0, "input_length": 20, "output_length": 4}' > requests.jsonl
if python -m vllm_benchmarks.record_decisions requests.jsonl --output trace.jsonl 2>message; then
    echo "record_decisions ran without vLLM" >&2 && exit 1
fi
grep -qi "install.*vllm" message
python - <<'PY'
import json

import pyarrow.parquet as pq
import vllm_benchmarks

result = json.load(open("results.json", encoding="utf-8"))
assert result["completed"] == 19366, result["completed"]
assert pq.read_table("requests.parquet").num_rows == 19366
assert vllm_benchmarks.__doc__
assert "echarts" in open("results.html", encoding="utf-8").read()
print("the wheel works:", result["completed"], "requests")
PY
