"""The command line: ``python -m llm_inference_simulator`` and ``llm-inference-simulator``.

Only the standard library is imported until a command really runs.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from llm_inference_simulator.cli.streams import (
    drop_stdout,
    open_missing_streams,
    tolerate_unknown_letters,
)
from llm_inference_simulator.errors import (
    ConfigError,
    SimulationError,
    SimulatorError,
    unknown_name,
)

PROGRAM = "llm-inference-simulator"
COMMANDS = ("run", "sweep", "plan", "models", "xpus", "calibrate", "validate", "report")
EXIT_INTERNAL = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
OBJECTS_BETWEEN_COLLECTIONS = 200_000
"""About 50 MB if all were garbage; Python's own number is 700. A small run makes 80,000, most of
them by importing, and keeps them: looking through them for cycles takes a tenth of its time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on ``argv`` (default: the process's own) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # the process is ours
        gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
        # Nor is there anything to find in what the ending process drops all at once.
        atexit.register(gc.freeze)
    open_missing_streams()
    tolerate_unknown_letters()
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except SimulatorError as error:
        _say(f"error: {error}")
        return EXIT_INTERNAL if isinstance(error, SimulationError) else EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except OSError as error:
        return _stdout_error(error, words)
    except Exception as error:  # the last resort: a message instead of a traceback
        return _internal_error(error, words)
    return code


def _dispatch(words: list[str]) -> int:
    try:
        return _run_command(words)
    except SystemExit as exit_:  # argparse's --help
        return exit_.code if isinstance(exit_.code, int) else 0


def _run_command(words: list[str]) -> int:
    # pydantic would look through every installed package for plugins that watch its models.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    command = words[0] if words and not words[0].startswith("-") else None
    if command is None or command == "run":
        return _run(words[1:] if command else words)
    if command not in COMMANDS:
        raise ConfigError(
            unknown_name("command", command, COMMANDS, remedy=f"(known: {', '.join(COMMANDS)})")
        )
    if command == "validate":
        return _validate(words[1:])
    if command == "sweep":
        return _sweep(words[1:])
    if command == "plan":
        return _plan(words[1:])
    return _other_command(command, words[1:])


def _run(words: list[str]) -> int:
    from llm_inference_simulator.cli.run_flags import build_run_parser

    flags = vars(build_run_parser(PROGRAM).parse_all(words))
    if flags.get("command.version"):
        from llm_inference_simulator import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    from llm_inference_simulator.cli.run import run

    return run(flags)


def _validate(words: list[str]) -> int:
    from llm_inference_simulator.cli.validate_flags import build_validate_parser

    flags = vars(build_validate_parser(PROGRAM).parse_all(words))
    from llm_inference_simulator.cli.validate import run_validate

    return run_validate(flags)


def _sweep(words: list[str]) -> int:
    from llm_inference_simulator.cli.sweep_flags import build_sweep_parser

    flags = vars(build_sweep_parser(PROGRAM).parse_all(words))
    from llm_inference_simulator.cli.sweep import run_sweep_command

    return run_sweep_command(flags)


def _plan(words: list[str]) -> int:
    from llm_inference_simulator.cli.plan_flags import build_plan_parser

    flags = vars(build_plan_parser(PROGRAM).parse_all(words))
    from llm_inference_simulator.cli.plan import run_plan

    return run_plan(flags)


def _other_command(command: str, words: list[str]) -> int:
    from llm_inference_simulator.cli.arguments import Parser
    from llm_inference_simulator.cli.calibrate import add_calibrate_parser
    from llm_inference_simulator.cli.catalog import add_models_parser, add_xpus_parser
    from llm_inference_simulator.cli.report import add_report_parser

    subparsers = Parser(prog=PROGRAM).add_subparsers(parser_class=Parser)
    add: dict[str, Callable[[Any], Any]] = {
        "models": add_models_parser,
        "xpus": add_xpus_parser,
        "calibrate": add_calibrate_parser,
        "report": add_report_parser,
    }
    add[command](subparsers)
    parser: Parser = subparsers.choices[command]
    parser.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_all(words)
    handler: Callable[[argparse.Namespace], int | None] = arguments.run
    return handler(arguments) or 0


def _stdout_error(error: OSError, words: list[str]) -> int:
    """Tell what kept standard output from being written; a reader that has left is no error."""
    if error.filename is not None or error.strerror is None:
        return _internal_error(error, words)
    drop_stdout()
    if isinstance(error, BrokenPipeError):
        return 0
    _say(f"error: standard output cannot be written: {error.strerror}")
    return EXIT_BAD_INPUT


def _internal_error(error: Exception, words: list[str]) -> int:
    if "--traceback" in words:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError) and str(error.name).endswith("._core"):
        _say("error: the compiled core is missing: build and install it with 'pip install .'")
        return EXIT_INTERNAL
    _say(
        f"internal error: {type(error).__name__}: {error}\n"
        "This is a bug in the simulator. Please report it with the command line, the output of "
        "--version and that of a second run with --traceback."
    )
    return EXIT_INTERNAL


def _say(text: str) -> None:
    print(text, file=sys.stderr)
