"""The terminal summary of fabricated results."""

from __future__ import annotations

import io

from rich.console import Console

from llm_inference_simulator.cli.summary import print_summary
from llm_inference_simulator.results import SimulationResult
from tests.fabricate import columns, engine, result

MS = 1_000_000


def shown(outcome: SimulationResult, *, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=80, markup=False, highlight=False, force_terminal=terminal, no_color=False
    )
    print_summary(outcome, outcome.summary(), console)
    return file.getvalue()


def outcome(**given: object) -> SimulationResult:
    requests = columns(
        arrival_ns=[0, 100 * MS, 200 * MS],
        first_token_ns=[40 * MS, 190 * MS, 240 * MS],
        finished_ns=[240 * MS, 190 * MS, 16_000 * MS],
        output_tokens=[5, 1, 3],
    )
    options: dict[str, object] = {
        "config": {"measurement": {"goodput": {"ttft": 50.0}}},
        "setup": {"warnings": ("[red]look[/red] " + "here " * 30,)},
        "pool": {"xpu_name": "h100-sxm", "tensor_parallel_size": 4},
        "engines": [engine(), engine()],
    }
    return result(requests, **(options | given))  # type: ignore[arg-type]


def test_in_a_pipe_it_is_plain_text_with_warnings_last() -> None:
    text = shown(outcome())
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "llama-7b on 2 engines x TP 4 = 8 x h100-sxm"
    assert lines[-1].startswith("warning: [red]look[/red] here")
    assert max(map(len, lines[:-1])) <= 80
    assert all(line == line.rstrip() for line in lines[:-1])


def test_it_tells_what_matters() -> None:
    text = shown(outcome())
    for part in (
        "6.74 B parameters",
        "16,000 tokens (1,001 blocks of 16), 33.00 GiB per accelerator",
        "3 counted: 3 completed",
        "66.7% of the requests meet all objectives",
        "TTFT  time to first token",
        "15,489",  # p99 of E2E: milliseconds without decimals once they are that many
    ):
        assert part in text


def test_on_a_terminal_it_has_colours_and_fits_the_width() -> None:
    assert "\x1b[" in shown(outcome(), terminal=True)


def test_undefined_values_are_dashes() -> None:
    nothing = columns(arrival_ns=[0], finished_ns=[0], status=[2], output_tokens=[0])
    text = shown(result(nothing))
    assert "requests      -" in text
    assert "1 of 1 requests were rejected" in text


def test_one_engine_on_one_accelerator_is_said_shortly() -> None:
    alone = outcome(pool={"xpu_name": "h100-sxm"}, engines=[engine()])
    assert shown(alone).startswith("llama-7b on 1 x h100-sxm\n")
