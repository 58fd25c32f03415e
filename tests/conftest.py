"""Profiles of hypothesis, chosen by HYPOTHESIS_PROFILE, and signals as a terminal has them."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A job in the background of a script ignores Ctrl-C, and its children with it; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
