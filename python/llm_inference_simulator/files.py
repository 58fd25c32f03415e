"""Reading and writing files so that nothing is half read or half written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import IO, Any

from llm_inference_simulator.errors import ConfigError, SimulatorError


def read_text(path: Path, what: str, error: type[SimulatorError] = ConfigError) -> str:
    """Read UTF-8 text; ``what`` says in the message what the file should have been."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise error(
            f"{what} {path} is not UTF-8 text (byte {cause.start}): save it as UTF-8"
        ) from None
    except IsADirectoryError:
        raise error(f"{what} {path} is a folder: give a file") from None
    except FileNotFoundError:
        raise error(f"{what} {path} does not exist: check the path") from None
    except OSError as cause:
        raise error(f"{what} {path} cannot be read: {cause.strerror}") from None


def read_mapping(
    path: Path, what: str, error: type[SimulatorError] = ConfigError
) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one mapping; a repeated key is an error."""
    text = read_text(path, what, error)
    data = (
        _parse_json(text, path, what, error)
        if path.suffix == ".json"
        else _parse_yaml(text, path, what, error)
    )
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise error(f"{what} {path} holds {found}: it must hold one mapping of keys to values")
    return data


def _parse_json(text: str, path: Path, what: str, error: type[SimulatorError]) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise error(f"{what} {path}: key {key!r} stands twice: remove one")
            seen[key] = value
        return seen

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as cause:
        raise error(
            f"{what} {path} is not valid JSON: {cause.msg} (line {cause.lineno}, column "
            f"{cause.colno})"
        ) from None


def _parse_yaml(text: str, path: Path, what: str, error: type[SimulatorError]) -> Any:
    import yaml

    def parse(base: type[yaml.SafeLoader | yaml.CSafeLoader]) -> Any:
        """Parse with a loader of its own that refuses a key that stands twice."""

        def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
            seen: dict[Hashable, Any] = {}
            for key_node, value_node in node.value:
                key = loader.construct_object(key_node, deep=True)
                if key in seen:
                    raise error(
                        f"{what} {path}: key {key!r} stands twice (line "
                        f"{key_node.start_mark.line + 1}): remove one"
                    )
                seen[key] = loader.construct_object(value_node, deep=True)
            return seen

        loader: type[yaml.SafeLoader] = type("Loader", (base,), {})
        loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
        return yaml.load(text, loader)

    try:
        with contextlib.suppress(AttributeError, yaml.YAMLError):
            # libyaml, where PyYAML was built with it: ten times as fast. What it cannot parse is
            # parsed again, for messages that don't depend on it.
            return parse(yaml.CSafeLoader)
        return parse(yaml.SafeLoader)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(cause, "problem", None) or "it cannot be parsed"
        raise error(f"{what} {path} is not valid YAML: {problem}{where}") from None


def real_path(path: Path) -> Path:
    """Return the file that ``path`` leads to through symbolic links, whether it exists or not."""
    return Path(os.path.realpath(path))


def is_stream(path: Path) -> bool:
    """Tell whether ``path`` takes bytes as they come: a device, a FIFO, or a name of an open file.

    ``/dev/stdout`` counts even where it is redirected to a regular file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return True
    name = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the link
    descriptor = name.parent.name == "fd" and name.parts[1] in ("dev", "proc")
    return descriptor or str(name) in ("/dev/stdout", "/dev/stderr")


def check_writable(path: Path, flag: str) -> None:
    """Refuse an output path that could not be written, before the work that fills it is done."""
    if path.is_dir():
        raise ConfigError(f"{flag} {path} is a folder: give a file name")
    target = real_path(path)
    if not is_stream(path):
        _check_folder(path, target, flag)
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{flag} {path} cannot be written: it is read-only")


def _check_folder(path: Path, target: Path, flag: str) -> None:
    if target.is_symlink():
        raise ConfigError(f"{flag} {path} is a symbolic link that leads in a circle: remove it")
    parent = target.parent
    if not parent.is_dir():
        shown = parent if path.is_symlink() else path.parent
        raise ConfigError(f"{flag} {path}: folder {shown} does not exist: create it first")
    try:
        with tempfile.NamedTemporaryFile(dir=parent, prefix=f".{target.name}."):
            pass
    except OSError as cause:
        raise ConfigError(f"{flag} {path} cannot be written: {cause.strerror}") from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces the file ``path`` when the block ends well.

    A symbolic link stays one: what it leads to is replaced. What is no regular file (a device, a
    FIFO, ``/dev/stdout``) is never replaced: its own path is yielded, to be written straight.
    """
    if is_stream(path):
        yield path
        return
    path = real_path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; outputs get the permissions any new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears under its name only when the block ends well."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file
