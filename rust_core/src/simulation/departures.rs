//! Requests that leave engines before they are done: lost, timed out, without an engine to go to
//! (`docs/spec.md`, section 13).

use super::Simulation;
use super::fleet::router_of;
use crate::error::SimError;
use crate::ids::NONE;
use crate::recorder::Status;

/// A dead engine that has lost a request, and the tokens that the request had got there.
type Death = (u32, u32);

impl Simulation {
    /// An engine has died, with its group if it has one: their requests go elsewhere, or fail.
    pub(super) fn fail(&mut self, engine: u32) -> Result<(), SimError> {
        self.lose_group_steps(engine);
        let mut dead = Vec::new();
        for member in self.comrades(engine) {
            let processed = self.engines[member as usize].processed();
            for lost in self.engines[member as usize].fail(self.now)? {
                if let Some(span) = lost.span {
                    self.records.requests.span_broken(member, span);
                }
                if lost.token_was_due {
                    self.records.requests.span_shortened(member, lost.request, processed);
                }
                dead.push((lost.request, (member, lost.generated)));
            }
        }
        dead.sort_unstable();
        let mut all_lost = Vec::with_capacity(dead.len());
        for (request, death) in dead {
            all_lost.push((request, self.take_out(request, Some(death))?));
        }
        for (request, generated) in all_lost {
            self.records.requests.transfer_lost(request);
            let most = self.fleet.as_ref().map_or(0, |fleet| fleet.settings.max_retries);
            let Some(retries) = &mut self.records.requests.retries else { continue };
            let retries = &mut retries[request];
            if *retries < most {
                *retries += 1;
                self.send_to_engine(request, generated)?;
            } else {
                self.give_up(request, Status::Failed, generated)?;
            }
        }
        Ok(())
    }

    /// A request's time is over.
    pub(super) fn time_out(&mut self, request: u32) -> Result<(), SimError> {
        if self.records.requests.status[request] != Status::Unfinished {
            return Ok(());
        }
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let held = &mut fleet.held[0];
        let generated = match held.iter().position(|&(held, _)| held == request) {
            Some(place) => held.remove(place).map_or(0, |(_, generated)| generated),
            None => self.take_out(request, None)?,
        };
        self.give_up(request, Status::TimedOut, generated)
    }

    /// A request finds no engine up to arrive at: it waits for one, or fails if none will come.
    pub(super) fn hold(&mut self, request: u32, generated: u32) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        if fleet.may_come_up(0) {
            fleet.held[0].push_back((request, generated));
            return Ok(());
        }
        self.give_up(request, Status::Failed, generated)
    }

    /// A request finds no engine up to be handed over to: its blocks stay where they are.
    pub(super) fn hold_handover(&mut self, request: u32) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        if fleet.may_come_up(1) {
            fleet.held[1].push_back((request, 0));
            return Ok(());
        }
        let generated = self.take_out(request, None)?;
        self.give_up(request, Status::Failed, generated)
    }

    /// A request ends without all its tokens.
    fn give_up(&mut self, request: u32, status: Status, generated: u32) -> Result<(), SimError> {
        let seen = self.now.after(self.options.response_latency)?;
        self.records.requests.gave_up(request, status, generated, seen);
        self.source.answered(request, seen);
        self.look_ahead()
    }

    /// A request leaves every engine that it is in; its tokens whose steps have ended.
    fn take_out(&mut self, request: u32, death: Option<Death>) -> Result<u32, SimError> {
        let Some(handed) = self.cut_transfer(request)? else {
            let engine = u32::try_from(self.records.requests.engine[request]);
            let (Ok(engine), Some(fleet)) = (engine, &self.fleet) else { return Ok(0) };
            let slot = fleet.slot(request);
            self.not_outstanding(engine, request);
            return self.leave_engine(engine, slot, death);
        };
        if !handed.prompt_is_done {
            self.not_outstanding(handed.sender, request);
        }
        // What the decode engine takes for known may still be on its way in the prefill engine.
        let generated = self.leave_engine(handed.sender, handed.sender_slot, death)?;
        if handed.receiver == NONE {
            if let Some(fleet) = &mut self.fleet {
                fleet.held[1].retain(|&(held, _)| held != request);
            }
        } else {
            self.not_outstanding(handed.receiver, request);
            self.leave_engine(handed.receiver, handed.receiver_slot, death)?;
        }
        Ok(generated)
    }

    /// A request leaves one engine, unless that is dead; the tokens that it had got.
    fn leave_engine(
        &mut self,
        engine: u32,
        slot: u32,
        death: Option<Death>,
    ) -> Result<u32, SimError> {
        if let Some((dead, generated)) = death
            && dead == engine
        {
            return Ok(generated);
        }
        let lost = self.engines[engine as usize].abort(slot)?;
        if !self.is_busy(engine) {
            self.mark_due(engine);
        }
        Ok(lost.generated)
    }

    fn not_outstanding(&mut self, engine: u32, request: u32) {
        let router = router_of(&mut self.router, &mut self.handover, engine);
        router.answered(engine, request, self.source.workload());
    }
}
