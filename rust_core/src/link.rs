//! The links between engines: how transfers that run at the same time share them.
//!
//! Bandwidth is shared max-min fairly: every transfer gets as much as every other one, unless
//! another link leaves it less. All arithmetic is whole: rates are bytes per second, amounts are
//! billionths of a byte, so that rate times nanoseconds is an amount.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::SimError;
use crate::time::{SimDuration, SimTime};

const NANOS_PER_S: u128 = 1_000_000_000;

/// One transfer at work.
#[derive(Clone, Copy, Debug)]
struct Flow {
    sender: u32,
    receiver: u32,
    /// What was left at `since`.
    left: u128,
    /// Bytes per second since then.
    rate: u64,
    since: SimTime,
    /// When it ends if nothing changes.
    end: SimTime,
}

/// The links of a cluster and the transfers that use them.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// Bytes per second by engine.
    capacity: Vec<u64>,
    /// Bytes per second of all transfers together.
    fabric: Option<u64>,
    flows: BTreeMap<u32, Flow>,
    /// The transfers of each engine.
    of_engine: Vec<Vec<u32>>,
}

/// A link while bandwidth is shared out.
#[derive(Clone, Copy, Debug)]
struct Link {
    left: u64,
    flows: u64,
}

impl Link {
    /// What each of its transfers would get.
    const fn share(self) -> u64 {
        self.left / self.flows
    }
}

impl Links {
    pub(crate) fn new(capacity: Vec<u64>, fabric: Option<u64>) -> Self {
        let of_engine = vec![Vec::new(); capacity.len()];
        Self { capacity, fabric, flows: BTreeMap::new(), of_engine }
    }

    /// How long `bytes` take alone between two engines.
    pub(crate) fn alone(&self, sender: u32, receiver: u32, bytes: u64) -> SimDuration {
        let slowest = self.capacity[sender as usize].min(self.capacity[receiver as usize]);
        let rate = self.fabric.map_or(slowest, |fabric| slowest.min(fabric));
        duration(u128::from(bytes) * NANOS_PER_S, rate)
    }

    /// When a transfer ends, as things stand; None if there is none.
    pub(crate) fn end(&self, transfer: u32) -> Option<SimTime> {
        self.flows.get(&transfer).map(|flow| flow.end)
    }

    /// A transfer of at least one byte begins; `changed` gets the new ends of all that it affects.
    pub(crate) fn begin(
        &mut self,
        now: SimTime,
        transfer: u32,
        (sender, receiver): (u32, u32),
        bytes: u64,
        changed: &mut Vec<(u32, SimTime)>,
    ) -> Result<(), SimError> {
        let left = u128::from(bytes) * NANOS_PER_S;
        // It has no rate yet, so sharing gives it one and an end.
        let end = SimTime::from_nanos(u64::MAX);
        self.flows.insert(transfer, Flow { sender, receiver, left, rate: 0, since: now, end });
        self.of_engine[sender as usize].push(transfer);
        self.of_engine[receiver as usize].push(transfer);
        self.share(now, (sender, receiver), changed)
    }

    /// A transfer has ended or is given up.
    pub(crate) fn finish(
        &mut self,
        now: SimTime,
        transfer: u32,
        changed: &mut Vec<(u32, SimTime)>,
    ) -> Result<(), SimError> {
        let Some(Flow { sender, receiver, .. }) = self.flows.remove(&transfer) else {
            return Ok(());
        };
        for engine in [sender, receiver] {
            self.of_engine[engine as usize].retain(|&other| other != transfer);
        }
        self.share(now, (sender, receiver), changed)
    }

    /// Share the bandwidth anew among the transfers that a change at these engines can affect.
    fn share(
        &mut self,
        now: SimTime,
        (sender, receiver): (u32, u32),
        changed: &mut Vec<(u32, SimTime)>,
    ) -> Result<(), SimError> {
        let affected = self.affected(sender, receiver);
        for (transfer, rate) in self.fill(affected) {
            let Some(flow) = self.flows.get_mut(&transfer) else { continue };
            // What ends now is beyond change.
            if rate == flow.rate || flow.end <= now {
                continue;
            }
            let elapsed = now.as_nanos() - flow.since.as_nanos();
            flow.left -= u128::from(flow.rate) * u128::from(elapsed);
            flow.rate = rate;
            flow.since = now;
            flow.end = now.after(duration(flow.left, rate))?;
            changed.push((transfer, flow.end));
        }
        Ok(())
    }

    /// The transfers that share a link with these engines, or with one that does, and so on.
    fn affected(&self, sender: u32, receiver: u32) -> Vec<u32> {
        if self.fabric.is_some() {
            return self.flows.keys().copied().collect();
        }
        let mut affected = BTreeSet::new();
        let mut seen = BTreeSet::from([sender, receiver]);
        let mut engines = vec![sender, receiver];
        while let Some(engine) = engines.pop() {
            for &transfer in &self.of_engine[engine as usize] {
                if affected.insert(transfer) {
                    let flow = &self.flows[&transfer];
                    engines.extend(
                        [flow.sender, flow.receiver]
                            .into_iter()
                            .filter(|&other| seen.insert(other)),
                    );
                }
            }
        }
        affected.into_iter().collect()
    }

    /// Max-min fair rates: the link with the least for each of its transfers settles theirs, and so
    /// on with what is left; among equals the lowest engine, the fabric last.
    fn fill(&self, mut transfers: Vec<u32>) -> Vec<(u32, u64)> {
        let fabric = u32::MAX;
        let mut links: BTreeMap<u32, Link> = BTreeMap::new();
        let path = |transfer: u32| {
            let flow = &self.flows[&transfer];
            [flow.sender, flow.receiver, fabric]
        };
        for &transfer in &transfers {
            for link in path(transfer) {
                let capacity = match (link, self.fabric) {
                    (u32::MAX, None) => continue,
                    (u32::MAX, Some(capacity)) => capacity,
                    (engine, _) => self.capacity[engine as usize],
                };
                links.entry(link).or_insert(Link { left: capacity, flows: 0 }).flows += 1;
            }
        }
        let mut rates = Vec::with_capacity(transfers.len());
        while let Some((share, tightest)) = links
            .iter()
            .filter(|(_, link)| link.flows > 0)
            .map(|(&index, link)| (link.share(), index))
            .min()
        {
            transfers.retain(|&transfer| {
                let path = path(transfer);
                if !path.contains(&tightest) {
                    return true;
                }
                for link in path {
                    if let Some(link) = links.get_mut(&link) {
                        link.left -= share;
                        link.flows -= 1;
                    }
                }
                // Links that are shared by more transfers than they carry bytes still move.
                rates.push((transfer, share.max(1)));
                false
            });
        }
        rates
    }
}

/// Nanoseconds that an amount takes, rounded up, at least one.
fn duration(amount: u128, rate: u64) -> SimDuration {
    let nanos = amount.div_ceil(u128::from(rate)).max(1);
    SimDuration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(links: &Links, transfers: &[u32]) -> Vec<u64> {
        transfers.iter().map(|&transfer| links.end(transfer).unwrap().as_nanos()).collect()
    }

    #[test]
    fn equal_transfers_share_a_link_and_take_as_many_times_as_long() {
        // 1 byte a nanosecond.
        let mut links = Links::new(vec![1_000_000_000, 5_000_000_000], None);
        for transfer in 0..4 {
            links.begin(SimTime::ZERO, transfer, (0, 1), 100, &mut Vec::new()).unwrap();
        }
        assert_eq!(ends(&links, &[0, 1, 2, 3]), [400; 4]);
    }

    #[test]
    fn what_a_slow_receiver_cannot_take_goes_to_the_others() {
        let gb = 1_000_000_000;
        // Engine 0 sends to a slow engine 1 and a fast engine 2.
        let mut links = Links::new(vec![10 * gb, gb, 20 * gb], None);
        links.begin(SimTime::ZERO, 0, (0, 1), 100, &mut Vec::new()).unwrap();
        links.begin(SimTime::ZERO, 1, (0, 2), 900, &mut Vec::new()).unwrap();
        assert_eq!(ends(&links, &[0, 1]), [100, 100]);
        // At 50 ns engine 2 gets a second sender's; nothing changes where there is enough.
        links.finish(SimTime::from_nanos(50), 0, &mut Vec::new()).unwrap();
        // 450 bytes are left at 10 a nanosecond.
        assert_eq!(ends(&links, &[1]), [95]);
    }

    #[test]
    fn the_fabric_bounds_all_transfers_together() {
        let gb = 1_000_000_000;
        let mut links = Links::new(vec![10 * gb; 4], Some(10 * gb));
        links.begin(SimTime::ZERO, 0, (0, 1), 100, &mut Vec::new()).unwrap();
        links.begin(SimTime::ZERO, 1, (2, 3), 100, &mut Vec::new()).unwrap();
        assert_eq!(ends(&links, &[0, 1]), [20, 20]);
        assert_eq!(links.alone(0, 1, 100).as_nanos(), 10);
    }
}
