"""A large run from the command line, result files included: seconds and memory of the process.

    python -m benchmarks.end_to_end                       # 1,000,000 requests
    python -m benchmarks.end_to_end 20000000 --streaming  # what follows the number goes to the run

512 prompt tokens, 128 output tokens, 16 engines of Llama-3.1-8B on H100, routed to the least
outstanding requests, JSON and parquet written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.startup import environment

RATE_PER_S = 16 * 11.0


def main(words: Sequence[str]) -> int:
    """Run it once and print what it took; the run's exit code."""
    requests = int(words[0].replace("_", "")) if words else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("results.json", "requests.parquet")]
        command = [
            *(sys.executable, "-m", "llm_inference_simulator", "--quiet"),
            *("--model", "llama-3.1-8b", "--xpu", "h100-sxm", "--data-parallel-size", "16"),
            *("--n-xpus-per-node", "16", "--router", "least_outstanding"),
            *("--request-rate", str(RATE_PER_S), "--num-prompts", str(requests)),
            *("--random-input-len", "512", "--random-output-len", "128"),
            *("--output", str(outputs[0]), "--requests-output", str(outputs[1])),
            *words[1:],
        ]
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - started
        code = os.waitstatus_to_exitcode(status)
        if code:
            return code
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in outputs)
    print(
        f"{requests:,} requests: {elapsed:.2f} s, {usage.ru_maxrss / 1024:,.0f} MiB at most "
        f"({elapsed / requests * 1e6:.2f} us a request); {sizes}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
