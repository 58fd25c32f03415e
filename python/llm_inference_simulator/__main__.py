"""``python -m llm_inference_simulator``: the command line."""

import sys

from llm_inference_simulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
