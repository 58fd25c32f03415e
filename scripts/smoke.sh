#!/usr/bin/env bash
# Install a wheel into an empty virtual environment outside the checkout, without a Rust toolchain on
# the path, and run the main job from there. PARQUET=no leaves out what needs pyarrow, which has no wheels
# for some platforms.
set -euo pipefail
wheel=$(realpath "$1")
python=$(realpath "${PYTHON:-.venv/bin/python}")
recording=$(realpath tests/golden/vllm_engine/tiny_async.jsonl.gz)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m venv "$folder/venv"
bin="$folder/venv/bin"
[ -d "$bin" ] || bin="$folder/venv/Scripts" # Windows
"$bin/python" -m pip install --quiet --upgrade "pip>=25.1"
requests=requests.parquet
extra="[parquet,report]"
if [ "${PARQUET:-yes}" = no ]; then
    requests=requests.csv
    extra="[report]"
fi
"$bin/python" -m pip install --quiet "$wheel$extra"
cd "$folder"
export PATH="$bin:/usr/bin:/bin"
llm-inference-simulator --model llama-3.1-8b --xpu h100-sxm --trace azure-conv-2023 \
    --output results.json --requests-output "$requests" --report results.html
python -m vllm_benchmarks.replay_decisions "$recording"
echo '{"timestamp": 0, "input_length": 20, "output_length": 4}' > requests.jsonl
if python -m vllm_benchmarks.record_decisions requests.jsonl --output trace.jsonl 2>message; then
    echo "record_decisions ran without vLLM" >&2 && exit 1
fi
grep -qi "install.*vllm" message
python - "$requests" <<'PY'
import csv
import json
import sys
import sysconfig

import llm_inference_simulator._core
import vllm_benchmarks

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    assert not sys._is_gil_enabled(), "importing the core has turned the interpreter's lock on"

name = sys.argv[1]
if name.endswith(".parquet"):
    import pyarrow.parquet as pq

    rows = pq.read_table(name).num_rows
else:
    with open(name, newline="", encoding="utf-8") as file:
        rows = sum(1 for _ in csv.DictReader(file))

result = json.load(open("results.json", encoding="utf-8"))
assert result["completed"] == 19366, result["completed"]
assert rows == 19366, rows
assert vllm_benchmarks.__doc__
assert "echarts" in open("results.html", encoding="utf-8").read()
print("the wheel works:", result["completed"], "requests")
PY
