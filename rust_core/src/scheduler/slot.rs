//! A request inside an engine, and the order of the running ones.

use super::NewRequest;
use crate::ids::{NONE, SlotId};
use crate::time::SimTime;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In the waiting queue.
    Waiting,
    /// Running, with tokens of its prompt (or of an earlier life) still to compute.
    Prefill,
    /// Running, next token due, counted by the decode set: `computed` and `num_tokens` are stale.
    Decode,
    /// Running, next token due, taken out of the decode set to be looked at one by one.
    Ready,
    /// Running, its next token on its way through the stages of a pipeline.
    InPipeline,
    /// Last token scheduled: it leaves when that step's output is processed.
    Leaving,
    /// Preempted while its last token was on the way; still in the waiting queue.
    LeavingPreempted,
    /// In the waiting queue of a decode engine, its keys and values in a prefill engine.
    Remote,
    /// Its blocks are reserved and its keys and values on their way.
    Receiving,
    /// Its keys and values have arrived.
    Received,
    /// Out of the running requests of a prefill engine, its blocks held until they are sent.
    Sending,
    /// No request: the slot may be used again.
    Free,
}

/// One request. Most of its life it sits in the decode set and is not touched at all; when it is, it
/// costs one cache line, which is why its numbers are narrow.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Slot {
    pub(crate) request: u32,
    pub(crate) prompt: u32,
    /// Tokens it will generate.
    pub(crate) output: u32,
    pub(crate) state: State,
    /// Whether its blocks are held after its last token here: a decode engine needs them.
    pub(crate) hands_over: bool,
    /// Tokens with keys and values in the cache once the scheduled steps have run.
    pub(crate) computed: u32,
    /// Prompt and generated tokens once the scheduled steps have run.
    pub(crate) num_tokens: u32,
    /// `computed` less the decode set's tick at joining, modulo 2^32.
    pub(crate) base: u32,
    /// The tick at which it generates its last token, modulo 2^32.
    pub(crate) last_tick: u32,
    /// The next request with a last tick in the same bucket.
    pub(crate) bucket_next: SlotId,
    /// Order of admission, modulo 2^32.
    pub(crate) admission: u32,
    /// Neighbours in the running order; of a free slot, `next` is the next free one.
    pub(crate) prev: SlotId,
    pub(crate) next: SlotId,
    /// First step of the unbroken row of steps that gave it tokens; NONE: no such row.
    pub(crate) span_first: u32,
    /// Last step that gave it a token, while it is out of the decode set.
    pub(crate) span_last: u32,
    /// First step of the row before it, which `span_last` ended.
    pub(crate) broken_first: u32,
    /// While preempted: the step whose output brings its latest token; NONE: it has arrived.
    pub(crate) token_due: u32,
}

/// Order under the priority policy, lower first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    pub(crate) priority: i64,
    pub(crate) arrival: u64,
    pub(crate) request: u32,
}

impl Slot {
    pub(crate) const fn new(new: &NewRequest) -> Self {
        Self {
            request: new.request,
            prompt: new.prompt,
            output: new.output,
            state: if new.remote { State::Remote } else { State::Waiting },
            hands_over: new.hands_over,
            computed: 0,
            num_tokens: new.prompt + new.generated,
            base: 0,
            last_tick: 0,
            bucket_next: NONE,
            admission: 0,
            prev: NONE,
            next: NONE,
            span_first: NONE,
            span_last: NONE,
            broken_first: NONE,
            token_due: NONE,
        }
    }

    /// Tokens generated so far, those of scheduled steps included.
    pub(crate) const fn generated(&self) -> u32 {
        self.num_tokens - self.prompt
    }
}

/// The slots of an engine; freed ones are used again.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    all: Vec<Slot>,
    /// The slot freed last, the head of a list through them.
    free: SlotId,
    /// Order and moment of joining of each, where some rule of the engine asks for them.
    joined: Option<Vec<(Order, SimTime)>>,
}

impl Slots {
    /// No slots yet; `ordered`: whether [`Slots::order`] and [`Slots::joined`] will be asked.
    pub(crate) fn new(ordered: bool) -> Self {
        Self { all: Vec::new(), free: NONE, joined: ordered.then(Vec::new) }
    }

    /// A request joins at `now`.
    pub(crate) fn insert(&mut self, new: &NewRequest, now: SimTime) -> SlotId {
        let slot = Slot::new(new);
        let mut id = self.free;
        if id == NONE {
            // Requests are numbered by u32 and each has one slot, so the index fits.
            #[expect(clippy::cast_possible_truncation, reason = "at most one slot per u32 request")]
            let new_id = self.all.len() as SlotId;
            id = new_id;
            self.all.push(slot);
        } else {
            self.free = self[id].next;
            self[id] = slot;
        }
        if let Some(joined) = &mut self.joined {
            let order =
                Order { priority: new.priority, arrival: new.arrival, request: new.request };
            joined.resize(self.all.len(), (Order::default(), SimTime::ZERO));
            joined[id as usize] = (order, now);
        }
        id
    }

    pub(crate) fn release(&mut self, id: SlotId) {
        let free = self.free;
        let slot = &mut self[id];
        slot.state = State::Free;
        slot.next = free;
        self.free = id;
    }

    /// The slots that hold a request.
    pub(crate) fn taken(&self) -> Vec<SlotId> {
        let ids = (0..).zip(&self.all);
        ids.filter(|(_, slot)| slot.state != State::Free).map(|(id, _)| id).collect()
    }

    /// The order of a request under the priority policy.
    pub(crate) fn order(&self, id: SlotId) -> Order {
        self.noted(id).0
    }

    /// When a request joined the engine's queue.
    pub(crate) fn joined(&self, id: SlotId) -> SimTime {
        self.noted(id).1
    }

    fn noted(&self, id: SlotId) -> (Order, SimTime) {
        debug_assert!(self.joined.is_some(), "nobody said that orders would be asked for");
        self.joined.as_ref().map_or_else(Default::default, |joined| joined[id as usize])
    }
}

impl std::ops::Index<SlotId> for Slots {
    type Output = Slot;

    #[inline]
    fn index(&self, id: SlotId) -> &Slot {
        &self.all[id as usize]
    }
}

impl std::ops::IndexMut<SlotId> for Slots {
    #[inline]
    fn index_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.all[id as usize]
    }
}

/// The running requests in order of admission: a list through the slots, so that any of them leaves
/// in constant time and the order stays.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    head: SlotId,
    tail: SlotId,
    len: u32,
    /// Modulo 2^32: what runs at a time lies far closer together.
    admissions: u32,
}

impl Running {
    pub(crate) const fn new() -> Self {
        Self { head: NONE, tail: NONE, len: 0, admissions: 0 }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) const fn head(&self) -> SlotId {
        self.head
    }

    pub(crate) const fn tail(&self) -> SlotId {
        self.tail
    }

    pub(crate) fn push(&mut self, slots: &mut Slots, id: SlotId) {
        let tail = self.tail;
        let slot = &mut slots[id];
        slot.prev = tail;
        slot.next = NONE;
        slot.admission = self.admissions;
        if tail == NONE {
            self.head = id;
        } else {
            slots[tail].next = id;
        }
        self.tail = id;
        self.len += 1;
        self.admissions = self.admissions.wrapping_add(1);
    }

    pub(crate) fn remove(&mut self, slots: &mut Slots, id: SlotId) {
        let (prev, next) = (slots[id].prev, slots[id].next);
        if prev == NONE {
            self.head = next;
        } else {
            slots[prev].next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            slots[next].prev = prev;
        }
        self.len -= 1;
    }
}
