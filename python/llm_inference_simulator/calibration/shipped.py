"""Calibrations that come with the simulator: kernel tables by accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.kernel_tables import read_document
from llm_inference_simulator.catalog import canonical_xpu_name
from llm_inference_simulator.errors import CalibrationError, unknown_name

if TYPE_CHECKING:
    from llm_inference_simulator.calibration.parameters import CalibrationFile

_FOLDER = Path(__file__).parent / "shipped_tables"
_SUFFIX = ".json.gz"


def shipped_names() -> list[str]:
    """Accelerators that a calibration comes for."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


def shipped_calibration(xpu: str) -> Path | None:
    """File of an accelerator's shipped calibration; None where there is none."""
    path = _FOLDER / f"{canonical_xpu_name(xpu)}{_SUFFIX}"
    return path if path.is_file() else None


def find_calibration(name_or_path: str) -> tuple[Path, str]:
    """Find a file, or a shipped calibration by its accelerator's name; (path, what to call it).

    A file wins. Raises :class:`CalibrationError` with the nearest shipped name.
    """
    path = Path(name_or_path)
    if path.exists():
        return path, name_or_path
    if "/" not in name_or_path and not path.suffix:
        shipped = shipped_calibration(name_or_path)
        if shipped is not None:
            return shipped, shipped.name.removesuffix(_SUFFIX)
        raise CalibrationError(
            unknown_name(
                "calibration",
                name_or_path,
                shipped_names(),
                remedy=f"(a file, or one of those that come along: {', '.join(shipped_names())})",
            )
        )
    raise CalibrationError(f"calibration file {name_or_path} does not exist: check the path")


def open_calibration(name_or_path: str) -> CalibrationFile | KernelCalibration:
    """Read a calibration of either kind, from a file or by a shipped name.

    Raises :class:`CalibrationError`.
    """
    path, label = find_calibration(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        data, sha256 = read_document(path)
        if data.get("kind") == "op_table":
            return KernelCalibration.from_document(data, label, sha256)
    from llm_inference_simulator.calibration.parameters import CalibrationFile

    return CalibrationFile.read(path)[0]
