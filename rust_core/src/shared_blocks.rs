//! Which blocks of which requests have the same content.

use crate::error::SimError;

/// Which blocks of which requests have the same content.
///
/// Contents are named by numbers: two requests' blocks have the same one exactly when all their
/// tokens up to the end of the block are equal. Kept are those that may be looked for where another
/// request, or the same one in an earlier life, has left them; whatever follows is a request's own.
#[derive(Clone, Debug, Default)]
pub struct SharedBlocks {
    /// Where each request's contents begin, and one end more; empty: nothing is shared.
    offsets: Vec<usize>,
    contents: Vec<u32>,
    count: u32,
    /// Whether the first request's contents are those of all others.
    alike: bool,
}

impl SharedBlocks {
    /// Find what is shared: request i's blocks have the contents `ids[offsets[i]..offsets[i + 1]]`,
    /// from its first block on. Contents that a single request has are kept if requests `return`:
    /// begin anew where a cache may have outlived them.
    ///
    /// # Errors
    /// [`SimError::InvalidRequest`] where the offsets do not delimit `ids`.
    pub fn new(offsets: &[i64], ids: &[i64], returns: bool) -> Result<Self, SimError> {
        let bounds = check_offsets(offsets, ids.len())?;
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let fewest = if returns { 1 } else { 2 };
        let runs = sorted.chunk_by(|a, b| a == b).filter(|run| run.len() >= fewest);
        let shared: Vec<i64> = runs.map(|run| run[0]).collect();
        let mut table = Self { offsets: vec![0], contents: Vec::new(), count: 0, alike: false };
        for pair in bounds.windows(2) {
            for id in &ids[pair[0]..pair[1]] {
                // Contents are chained, so nothing after a content of one's own is shared.
                let Ok(content) = shared.binary_search(id) else { break };
                table.contents.push(to_u32(content)?);
            }
            table.offsets.push(table.contents.len());
        }
        table.count = to_u32(shared.len())?;
        Ok(table)
    }

    /// The same first `blocks` blocks in every request, however many there will be.
    pub fn for_everyone(blocks: u32) -> Self {
        let contents: Vec<u32> = (0..blocks).collect();
        Self { offsets: vec![0, contents.len()], contents, count: blocks, alike: true }
    }

    /// What is shared by requests that are renumbered: request i was `requests[i]`.
    pub(crate) fn subset(&self, requests: &[u32]) -> Self {
        if self.alike || self.offsets.is_empty() {
            return self.clone();
        }
        let mut table =
            Self { offsets: vec![0], contents: Vec::new(), count: self.count, alike: false };
        for &request in requests {
            table.contents.extend_from_slice(self.of(request));
            table.offsets.push(table.contents.len());
        }
        table
    }

    /// Contents of a request's first blocks.
    #[inline]
    pub(crate) fn of(&self, request: u32) -> &[u32] {
        let request = if self.alike { 0 } else { request as usize };
        match (self.offsets.get(request), self.offsets.get(request + 1)) {
            (Some(&from), Some(&to)) => &self.contents[from..to],
            _ => &[],
        }
    }

    /// How many contents are shared.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }
}

fn to_u32(index: usize) -> Result<u32, SimError> {
    let limit = u64::from(u32::MAX);
    u32::try_from(index).map_err(|_| SimError::TooMany { what: "shared blocks", limit })
}

fn check_offsets(offsets: &[i64], total: usize) -> Result<Vec<usize>, SimError> {
    let mut bounds = Vec::with_capacity(offsets.len());
    let mut previous = 0;
    for (row, &offset) in offsets.iter().enumerate() {
        match usize::try_from(offset) {
            Ok(bound) if bound >= previous && bound <= total => {
                bounds.push(bound);
                previous = bound;
            }
            _ => {
                return Err(SimError::InvalidRequest {
                    row,
                    field: "block_offsets",
                    value: offset.to_string(),
                    remedy: "must rise up to the number of ids",
                });
            }
        }
    }
    Ok(bounds)
}
