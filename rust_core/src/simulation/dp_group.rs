//! Engines that step together: data-parallel attention, shared experts (`docs/spec.md`,
//! section 15).

use std::collections::VecDeque;
use std::ops::Range;

use super::{Pool, Simulation};
use crate::config::EngineSettings;
use crate::cost::StepShape;
use crate::engine::{DUMMY, Decided, GroupStep};
use crate::error::SimError;
use crate::ids::NONE;
use crate::scheduler::StepPlan;
use crate::time::SimTime;

/// The groups of a cluster.
#[derive(Clone, Debug)]
pub(super) struct DpGroups {
    /// The group of each engine; [`NONE`]: it steps alone.
    of_engine: Vec<u32>,
    groups: Vec<DpGroup>,
}

/// One group.
#[derive(Clone, Debug)]
struct DpGroup {
    members: Range<u32>,
    /// Steps that may be in flight together.
    depth: usize,
    /// Ends of the steps in flight.
    ends: VecDeque<SimTime>,
    /// Scratch: what the members decided for the next step; empty where that is nothing.
    plans: Vec<StepPlan>,
    /// Scratch: how long that step takes.
    step: GroupStep,
}

impl DpGroups {
    /// None for a cluster whose engines all step alone.
    pub(super) fn new(pools: &[Pool]) -> Result<Option<Self>, SimError> {
        let engines = pools.iter().flat_map(|pool| (0..pool.count).map(|_| &pool.settings));
        let mut of_engine = Vec::new();
        let mut groups: Vec<(&EngineSettings, DpGroup)> = Vec::new();
        for (index, settings) in (0_u32..).zip(engines) {
            let Some(group) = settings.data_parallel_group else {
                of_engine.push(NONE);
                continue;
            };
            let known = groups.iter().position(|(of, _)| of.data_parallel_group == Some(group));
            if known.is_none() {
                groups.push((settings, DpGroup::new(index, settings)));
            }
            let place = known.unwrap_or(groups.len() - 1);
            let (first, own) = &mut groups[place];
            if own.members.end != index || !step_alike(first, settings) {
                return Err(SimError::InvalidSetting {
                    field: "data_parallel_group",
                    value: group.to_string(),
                    remedy: "engines that step together follow one another and have the same role, \
                             async_scheduling, step_overhead and pipeline_parallel_size",
                });
            }
            own.members.end += 1;
            of_engine.push(u32::try_from(place).unwrap_or(NONE));
        }
        let groups: Vec<DpGroup> = groups.into_iter().map(|(_, group)| group).collect();
        Ok((!groups.is_empty()).then_some(Self { of_engine, groups }))
    }

    /// The number of an engine's group.
    fn of(&self, engine: u32) -> Option<usize> {
        let group = self.of_engine[engine as usize];
        (group != NONE).then_some(group as usize)
    }

    /// All engines that step with this one.
    fn members(&self, engine: u32) -> Option<Range<u32>> {
        self.of(engine).map(|group| self.groups[group].members.clone())
    }

    /// The steps in flight of an engine's group are lost.
    fn lose(&mut self, engine: u32) {
        if let Some(group) = self.of(engine) {
            self.groups[group].ends.clear();
        }
    }
}

/// Whether two engines can have the same timeline.
fn step_alike(one: &EngineSettings, other: &EngineSettings) -> bool {
    one.role == other.role
        && one.batches_in_flight() == other.batches_in_flight()
        && one.step_overhead == other.step_overhead
        && one.pipeline_parallel_size == other.pipeline_parallel_size
}

impl DpGroup {
    /// A group whose first engine is `first`, as yet without any.
    fn new(first: u32, settings: &EngineSettings) -> Self {
        Self {
            members: first..first,
            depth: settings.batches_in_flight(),
            ends: VecDeque::new(),
            plans: Vec::new(),
            step: GroupStep::default(),
        }
    }
}

impl Simulation {
    /// Whether a step runs that an engine takes part in: arrivals are then seen when it ends.
    #[inline]
    pub(super) fn is_busy(&self, engine: u32) -> bool {
        match self.dp_group_of(engine) {
            Some((groups, group)) => !groups.groups[group].ends.is_empty(),
            None => self.engines[engine as usize].is_busy(),
        }
    }

    #[inline]
    fn dp_group_of(&self, engine: u32) -> Option<(&DpGroups, usize)> {
        let groups = self.dp_groups.as_deref()?;
        Some((groups, groups.of(engine)?))
    }

    /// The engine that schedules for this one: the first of its group, or itself.
    #[inline]
    pub(super) fn leader(&self, engine: u32) -> u32 {
        let group = self.dp_group_of(engine);
        group.map_or(engine, |(groups, group)| groups.groups[group].members.start)
    }

    /// All engines that come and go with this one: those of its group, or itself.
    pub(super) fn comrades(&self, engine: u32) -> Range<u32> {
        let members = self.dp_groups.as_ref().and_then(|groups| groups.members(engine));
        members.unwrap_or(engine..engine + 1)
    }

    /// A step of an engine ends now: so it does for its group.
    #[cold]
    pub(super) fn group_step_ends(&mut self, engine: u32) {
        let Some(groups) = &mut self.dp_groups else { return };
        let Some(group) = groups.of(engine) else { return };
        let ends = &mut groups.groups[group].ends;
        if ends.front() == Some(&self.now) {
            ends.pop_front();
        }
    }

    /// The steps in flight of an engine's group are lost.
    pub(super) fn lose_group_steps(&mut self, engine: u32) {
        if let Some(groups) = &mut self.dp_groups {
            groups.lose(engine);
        }
    }

    /// All engines of a group schedule; false for an engine that steps alone.
    #[cold]
    pub(super) fn schedule_group(&mut self, engine: u32) -> Result<bool, SimError> {
        let Some(groups) = &mut self.dp_groups else { return Ok(false) };
        let Some(group) = groups.of(engine) else { return Ok(false) };
        let members = groups.groups[group].members.clone();
        while self.next_group_step(group)? {}
        if self.handover.is_some() {
            for member in members {
                self.follow_schedule(member)?;
            }
        }
        Ok(true)
    }

    /// Decide and dispatch one more step of a group; false where no more may be or none is.
    fn next_group_step(&mut self, group: usize) -> Result<bool, SimError> {
        let Some(groups) = &mut self.dp_groups else { return Ok(false) };
        let DpGroup { members, depth, ends, plans, step } = &mut groups.groups[group];
        if ends.len() >= *depth {
            return Ok(false);
        }
        let engines = &mut self.engines[members.start as usize..members.end as usize];
        let mut preempted_any = false;
        plans.resize_with(engines.len(), StepPlan::default);
        for (engine, plan) in engines.iter_mut().zip(&mut *plans) {
            if let Decided::Nothing { preempted } =
                engine.decide(self.now, plan, &mut self.records)?
            {
                preempted_any |= preempted;
            }
        }
        if plans.iter().all(StepPlan::is_empty) {
            // As an engine by itself: schedule again where nothing ends later that would wake it.
            return Ok(preempted_any && ends.is_empty());
        }
        step.reset(plans.iter().map(|plan| shape(plan).tokens()).sum());
        for (engine, plan) in engines.iter().zip(&*plans) {
            engine.price(shape(plan), step)?;
        }
        let mut end = self.now;
        for ((index, engine), plan) in members.clone().zip(engines).zip(&*plans) {
            let works = Some(plan).filter(|plan| !plan.is_empty());
            end = engine.step_in_group(works, self.now, step, &mut self.records)?;
            if works.is_some() {
                self.steps += 1;
                self.queue.set_step_end(index, engine.next_end());
            }
        }
        ends.push_back(end);
        Ok(true)
    }
}

/// The sums of a plan, or of the dummy step that stands in for none.
const fn shape(plan: &StepPlan) -> &StepShape {
    if plan.is_empty() { &DUMMY } else { &plan.shape }
}
