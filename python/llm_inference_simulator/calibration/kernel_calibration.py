"""The calibration file of kind ``op_table``: kernel tables, overheads and where they come from."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration.front_end import FrontEndLatency
from llm_inference_simulator.calibration.kernel_tables import (
    SCHEMA_VERSION,
    KernelTables,
    read_document,
)
from llm_inference_simulator.calibration.overheads import HostOverheads
from llm_inference_simulator.catalog import XpuSpec, canonical_xpu_name
from llm_inference_simulator.errors import CalibrationError, ConfigError, unknown_name
from llm_inference_simulator.files import atomic_path

KEYS = ("schema_version", "kind", "xpu", "overheads", "front_end", "provenance", "tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCalibration:
    """Everything measured of one accelerator."""

    xpu: str
    tables: KernelTables
    overheads: HostOverheads = field(default_factory=HostOverheads)
    front_end: FrontEndLatency | None = None
    """What a server adds to a request, where it was measured."""
    provenance: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    """File or shipped name that it was read from."""
    sha256: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> KernelCalibration:
        """Read a file; raises :class:`CalibrationError` with the file and what is wrong."""
        data, sha256 = read_document(Path(path))
        return cls.from_document(data, str(path), sha256)

    @classmethod
    def from_document(cls, data: dict[str, Any], source: str, sha256: str) -> KernelCalibration:
        """Check plain data of kind ``op_table``."""
        label = f"calibration file {source}"
        for key in data:
            if key not in KEYS:
                raise CalibrationError(f"{label}: {unknown_name('key', key, KEYS)}")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise CalibrationError(
                f"{label}: schema_version={version!r}, this program reads {SCHEMA_VERSION}"
            )
        xpu = data.get("xpu")
        if not isinstance(xpu, str):
            raise CalibrationError(f"{label}: xpu={xpu!r} must name the measured accelerator")
        provenance = data.get("provenance", {})
        if not isinstance(provenance, dict):
            raise CalibrationError(f"{label}: provenance must be a mapping")
        try:
            overheads = HostOverheads.parse(_reals(data, "overheads", label), source=label)
            front_end = (
                None
                if data.get("front_end") is None
                else FrontEndLatency.parse(_reals(data, "front_end", label), source=label)
            )
        except ConfigError as error:
            raise CalibrationError(str(error)) from None
        return cls(
            xpu=canonical_xpu_name(xpu),
            tables=KernelTables.from_json(data.get("tables"), label),
            overheads=overheads,
            front_end=front_end,
            provenance=provenance,
            source=source,
            sha256=sha256,
        )

    def document(self) -> dict[str, Any]:
        """Plain data, as the file holds them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "op_table",
            "xpu": self.xpu,
            "overheads": self.overheads.model_dump(mode="json"),
            "front_end": self.front_end and self.front_end.model_dump(mode="json"),
            "provenance": self.provenance,
            "tables": self.tables.to_json(),
        }

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; compressed where its name ends in ``.gz``."""
        text = json.dumps(self.document(), separators=(",", ":"))
        raw = (text + "\n").encode()
        with atomic_path(path) as temporary:
            # Without a time stamp: the same measurements give the same bytes.
            temporary.write_bytes(gzip.compress(raw, 9, mtime=0) if path.suffix == ".gz" else raw)

    def with_overheads_of(self, name_or_path: str) -> KernelCalibration:
        """These tables with the overheads and the front end of another calibration.

        What the host and a server add depends little on the accelerator; the provenance says where
        the constants were fitted.
        """
        from llm_inference_simulator.calibration.shipped import open_calibration

        other = open_calibration(name_or_path)
        if not isinstance(other, KernelCalibration):
            raise CalibrationError(f"calibration {name_or_path} has no overheads of kernel tables")
        provenance = {**self.provenance, "overheads": f"fitted on runs on {other.xpu}"}
        return replace(
            self, overheads=other.overheads, front_end=other.front_end, provenance=provenance
        )

    def require_xpu(self, xpu: XpuSpec) -> None:
        """Raise :class:`CalibrationError` for another accelerator's kernels."""
        if canonical_xpu_name(xpu.name) != self.xpu:
            raise CalibrationError(
                f"calibration {self.source or 'given'} was measured on xpu={self.xpu}, not on "
                f"{xpu.name}: use a calibration of this accelerator, or the roofline model"
            )

    def describe(self) -> str:
        """Name the source and its size in a few words."""
        return f"{self.source or 'given tables'}, {self.tables.points:,} points"


def _reals(data: dict[str, Any], key: str, label: str) -> dict[str, Any]:
    """JSON writes 300 and 300.0 alike: whole numbers become floats."""
    section = data.get(key, {})
    if not isinstance(section, dict):
        raise CalibrationError(f"{label}: {key} must be a mapping")
    return {name: float(value) if type(value) is int else value for name, value in section.items()}
