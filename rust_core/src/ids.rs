//! Indices that several rooms share.

/// Index of a request in an engine's slot table.
pub(crate) type SlotId = u32;

/// No slot, no step, no entry.
pub(crate) const NONE: u32 = u32::MAX;
