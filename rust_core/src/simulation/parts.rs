//! Engines that know nothing of one another run on several threads.
//!
//! Where a router does not look at the engines, and no request waits for another, it is settled
//! beforehand which engine gets which request. Each thread then simulates some of the engines with
//! their requests, as a cluster of its own, and its rows are put back to their places. Everything an
//! engine sees comes in the same order as in one loop, so the results are the same, bit for bit.

use super::{Options, Pool, Progress, RoutingPolicy, Simulation};
use crate::engine::Engine;
use crate::error::SimError;
use crate::gap_histogram::GapHistogram;
use crate::ids::NONE;
use crate::recorder::RequestColumns;
use crate::router::Router;
use crate::rows::Rows;
use crate::time::SimTime;
use crate::workload::{NewRequests, Workload};

/// Requests between two meetings of the threads, for every so many events that a slice may have.
const EVENTS_PER_REQUEST: u64 = 16;

/// The clusters of the threads.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    clusters: Vec<Part>,
    /// Requests of the workload that the threads may know of before they meet again.
    open_to: u32,
    /// Whether rows have changed since they were last put to their places.
    is_dirty: bool,
}

/// Some of the engines, their requests, and what these are called outside.
#[derive(Clone, Debug)]
struct Part {
    simulation: Simulation,
    /// The cluster's number of each of its engines.
    engines: Vec<u32>,
    /// The workload's number of each of its requests.
    requests: Rows<u32>,
    /// What the latest slice led to.
    progress: Progress,
}

/// Whether it can be settled beforehand which engine gets which request.
pub(super) fn are_independent(
    pools: &[Pool],
    policy: &RoutingPolicy,
    workload: &Workload,
    options: &Options,
) -> bool {
    let blind = matches!(policy, RoutingPolicy::RoundRobin | RoutingPolicy::Random);
    let repeatable = |pool: &Pool| pool.stages.iter().all(crate::cost::CostModel::is_repeatable);
    let alone = |pool: &Pool| pool.settings.data_parallel_group.is_none();
    blind
        && pools.iter().map(|pool| pool.count).sum::<u32>() > 1
        && pools.iter().all(|pool| repeatable(pool) && alone(pool))
        && workload.max_concurrency.is_none()
        && workload.predecessors.is_empty()
        && !options.record_steps
        && !options.record_decisions
}

impl Parts {
    /// Divide a cluster and the requests that are known so far.
    pub(super) fn new(
        pools: &[Pool],
        cluster: &mut Simulation,
        threads: usize,
    ) -> Result<Self, SimError> {
        let single: Vec<Pool> = pools
            .iter()
            .flat_map(|pool| (0..pool.count).map(|_| Pool { count: 1, ..pool.clone() }))
            .collect();
        let count = threads.min(single.len());
        let shares = cluster.assign(0, count)?;
        let mut parts = Vec::with_capacity(count);
        for (index, share) in shares.into_iter().enumerate() {
            let own: Vec<usize> = (index..single.len()).step_by(count).collect();
            let pools: Vec<Pool> = own.iter().map(|&engine| single[engine].clone()).collect();
            let options = Options { threads: 1, ..cluster.options };
            let workload = cluster.source.workload().subset(&share.requests);
            // It is told which engine takes each request.
            let mut simulation =
                Simulation::new(&pools, &RoutingPolicy::RoundRobin, workload, options, None)?;
            // A request that any engine could not take is rejected, whoever would get it.
            simulation.pools.clone_from(&cluster.pools);
            simulation.router = Router::assigned(own.len(), share.places);
            parts.push(Part {
                progress: simulation.progress(),
                simulation,
                engines: own.iter().map(|&engine| to_u32(engine)).collect(),
                requests: share.requests.into(),
            });
        }
        Ok(Self { clusters: parts, open_to: 0, is_dirty: false })
    }

    /// Append requests of the cluster's workload from number `first` on.
    fn feed(
        &mut self,
        shares: Vec<Share>,
        workload: &Workload,
        last: bool,
    ) -> Result<(), SimError> {
        let until_ns = crate::recorder::nanos(workload.known_until);
        for (part, share) in self.clusters.iter_mut().zip(shares) {
            let own = workload.columns_of(&share.requests);
            let new = NewRequests {
                arrival_ns: &own.arrival_ns,
                prompt_tokens: &own.prompt_tokens,
                output_tokens: &own.output_tokens,
                priorities: Some(&own.priorities),
            };
            part.simulation.feed(&new, until_ns, last)?;
            part.simulation.router.assign(share.places);
            part.requests.extend(share.requests);
        }
        Ok(())
    }

    /// One slice on every thread.
    fn run(&mut self, max_events: u64, until: SimTime) -> Result<(), SimError> {
        self.is_dirty = true;
        let (first, others) = self.clusters.split_at_mut(1);
        let results: Vec<Result<(), SimError>> = std::thread::scope(|scope| {
            let run = |part: &mut Part| part.run(max_events, until);
            let handles: Vec<_> =
                others.iter_mut().map(|part| scope.spawn(move || run(part))).collect();
            let mut results = vec![first[0].run(max_events, until)];
            results.extend(handles.into_iter().map(|handle| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            results
        });
        results.into_iter().collect()
    }

    fn all(&self, which: impl Fn(&Progress) -> bool) -> bool {
        self.clusters.iter().all(|part| which(&part.progress))
    }

    fn progress(&self) -> Progress {
        let sum = |of: fn(&Progress) -> usize| self.clusters.iter().map(|p| of(&p.progress)).sum();
        Progress {
            done: self.all(|progress| progress.done),
            needs_requests: false,
            now: self.clusters.iter().map(|part| part.progress.now).max().unwrap_or(SimTime::ZERO),
            arrived: sum(|progress| progress.arrived),
            answered: sum(|progress| progress.answered),
            steps: self.clusters.iter().map(|part| part.progress.steps).sum(),
        }
    }

    /// Put rows to their places: all of a run in one piece, of a streamed one those that are final.
    fn collect(&mut self, rows: &mut RequestColumns, streamed: bool) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        if !streamed {
            rows.forget_broken_spans();
        }
        for part in &mut self.clusters {
            let own = &part.simulation.records.requests;
            let first = part.requests.first();
            let last = if streamed {
                first + to_u32(part.simulation.ended_rows())
            } else {
                to_u32(part.requests.end())
            };
            for request in first..last {
                rows.copy_row(part.requests[request], own, request, &part.engines);
            }
            rows.copy_broken_spans(own, &part.requests, &part.engines);
            if streamed {
                part.simulation.drop_rows((last - first) as usize);
                part.requests.drop_before(last);
            }
        }
    }

    /// Free what was put to its place.
    fn forget_requests(&mut self) {
        for part in &mut self.clusters {
            part.simulation.records.requests = RequestColumns::default();
            part.requests = Rows::default();
        }
    }

    /// The cluster's engines, in their order.
    pub(super) fn engines(&self) -> Vec<&Engine> {
        let mut engines: Vec<(u32, &Engine)> = self
            .clusters
            .iter()
            .flat_map(|part| part.engines.iter().copied().zip(&part.simulation.engines))
            .collect();
        engines.sort_by_key(|(index, _)| *index);
        engines.into_iter().map(|(_, engine)| engine).collect()
    }

    /// Gaps of all parts together.
    pub(super) fn gaps(&self) -> GapHistogram {
        let mut gaps = GapHistogram::default();
        for part in &self.clusters {
            if let Some(own) = part.simulation.gap_histogram() {
                gaps.merge(&own);
            }
        }
        gaps
    }

    /// End streamed parts here.
    pub(super) fn close(&mut self) {
        self.is_dirty = true;
        for part in &mut self.clusters {
            part.simulation.close_stream();
        }
    }
}

impl Part {
    fn run(&mut self, max_events: u64, until: SimTime) -> Result<(), SimError> {
        self.simulation.until = until;
        self.progress = self.simulation.run_slice(max_events)?;
        Ok(())
    }
}

/// The requests of one part.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    requests: Vec<u32>,
    /// The place of each one's engine among the part's own.
    places: Vec<u32>,
}

impl Simulation {
    /// Route the requests from `first` on; engine e belongs to part e mod `parts`.
    fn assign(&mut self, first: u32, parts: usize) -> Result<Vec<Share>, SimError> {
        let mut shares = vec![Share::default(); parts];
        for request in first..to_u32(self.source.workload().len()) {
            let workload = self.source.workload();
            let (prompt, output) = workload.lengths(request);
            let is_rejected = self.effective_output(prompt, output).is_none();
            let engine = if is_rejected {
                NONE
            } else {
                self.router.route(self.now, request, self.source.workload())?
            };
            let (part, place) = match engine {
                NONE => (0, NONE),
                engine => (engine as usize % parts, engine / to_u32(parts)),
            };
            shares[part].requests.push(request);
            if place != NONE {
                shares[part].places.push(place);
            }
        }
        Ok(shares)
    }

    /// Have the threads know the requests from `first` on.
    pub(super) fn feed_parts(&mut self, first: u32, last: bool) -> Result<(), SimError> {
        let Some(mut parts) = self.parts.take() else { return Ok(()) };
        let shares = self.assign(first, parts.clusters.len())?;
        let fed = parts.feed(shares, self.source.workload(), last);
        self.parts = Some(parts);
        fed
    }

    /// A slice on all threads. They meet at a moment of the clock, so that a run that is stopped
    /// has got equally far everywhere.
    pub(super) fn run_parts(&mut self, max_events: u64) -> Result<Progress, SimError> {
        let streamed = self.stream.is_some();
        let Some(parts) = &mut self.parts else { return Ok(self.progress()) };
        if parts.all(|progress| progress.done) {
            return Ok(parts.progress());
        }
        let arrivals = &self.source.workload().arrivals;
        let mut until = SimTime::from_nanos(u64::MAX);
        if !streamed {
            if parts.all(|progress| progress.needs_requests || progress.done) {
                let requests = max_events.div_ceil(EVENTS_PER_REQUEST);
                let most = arrivals.end() as u64;
                let open_to = most.min(u64::from(parts.open_to) + requests);
                parts.open_to = u32::try_from(open_to).unwrap_or(u32::MAX);
            }
            until = arrivals.get(parts.open_to).copied().unwrap_or(until);
        }
        parts.run(max_events, until)?;
        let progress = parts.progress();
        let waits = parts.all(|progress| progress.needs_requests || progress.done);
        self.now = progress.now;
        let needs_requests = streamed && waits && !progress.done;
        if streamed || progress.done {
            self.collect();
        }
        if progress.done
            && !streamed
            && let Some(parts) = &mut self.parts
        {
            parts.forget_requests();
        }
        Ok(Progress { needs_requests, ..progress })
    }

    /// Have all rows at their places, wherever they were made.
    pub fn collect(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        parts.collect(&mut self.records.requests, self.stream.is_some());
        if let Some(stream) = &mut self.stream {
            stream.pass_ended(&self.records.requests);
        }
    }
}

/// Engines, parts and requests are numbered by u32.
fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
