//! What a router believes each engine has cached.

use std::collections::VecDeque;

use super::tournament::Tournament;
use crate::time::{SimDuration, SimTime};

/// Nobody is known to have it.
const NOBODY: u32 = u32::MAX;

/// Sends requests where their prefix was sent before, as far as the router has heard of it.
#[derive(Clone, Debug)]
pub(super) struct PrefixAware {
    /// Outstanding requests by engine.
    loads: Tournament,
    /// The engine that each content was sent to last.
    view: Vec<u32>,
    /// What the view does not know yet: when it will, the request and its engine.
    news: VecDeque<(SimTime, u32, u32)>,
    delay: SimDuration,
    imbalance: u64,
}

impl PrefixAware {
    pub(super) fn new(engines: usize, contents: u32, delay: SimDuration, imbalance: u64) -> Self {
        Self {
            loads: Tournament::new(engines),
            view: vec![NOBODY; contents as usize],
            news: VecDeque::new(),
            delay,
            imbalance,
        }
    }

    /// Choose an engine for a request; `contents_of` gives the contents of its blocks and those of
    /// earlier ones.
    pub(super) fn route<'a>(
        &mut self,
        now: SimTime,
        request: u32,
        contents_of: impl Fn(u32) -> &'a [u32],
    ) -> u32 {
        while let Some(&(known, request, engine)) = self.news.front()
            && known <= now
        {
            for &content in contents_of(request) {
                self.view[content as usize] = engine;
            }
            self.news.pop_front();
        }
        let contents = contents_of(request);
        // Whoever was sent a block was sent all before it, so the known ones come first.
        let known = contents.partition_point(|&content| self.view[content as usize] != NOBODY);
        let idlest = self.loads.winner();
        let engine = match known {
            0 => idlest,
            _ => self.view[contents[known - 1] as usize],
        };
        let spread = self.loads.load(engine).saturating_sub(self.loads.load(idlest));
        let avoid = spread > self.imbalance || self.loads.is_down(engine);
        let engine = if avoid { idlest } else { engine };
        if !contents.is_empty() {
            let known = SimTime::from_nanos(now.as_nanos().saturating_add(self.delay.as_nanos()));
            self.news.push_back((known, request, engine));
        }
        self.loads.add(engine, 1);
        engine
    }

    pub(super) fn set_up(&mut self, engine: u32, up: bool) {
        self.loads.set_up(engine, up);
    }

    pub(super) fn answered(&mut self, engine: u32) {
        self.loads.remove(engine, 1);
    }
}
