//! Disaggregated serving (`docs/spec.md`, section 12): requests go from prefill to decode engines.

use std::collections::BTreeMap;

use super::{Options, Pool, Simulation, members};
use crate::config::Role;
use crate::error::SimError;
use crate::event::{Event, Rank};
use crate::ids::{NONE, SlotId};
use crate::link::Links;
use crate::recorder::RequestColumns;
use crate::router::{Router, RoutingPolicy};
use crate::scheduler::NewRequest;
use crate::time::{SimDuration, SimTime};
use crate::workload::Workload;

/// How keys and values are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferSettings {
    /// Keys and values of one token, in bytes.
    pub kv_bytes_per_token: u64,
    /// Bytes per second of all transfers together.
    pub fabric_bytes_per_s: Option<u64>,
    /// From the reservation, or the first bytes if these come later, until bytes flow.
    pub latency: SimDuration,
    /// Layers of the model whose keys and values are sent one after the other while the last step
    /// of a prompt runs; 0: all of them after it.
    pub layers: u32,
}

/// What goes from prefill to decode engines.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    settings: TransferSettings,
    /// Of requests with their first token, to decode engines.
    pub(super) router: Router,
    decodes: Vec<bool>,
    links: Links,
    /// Requests between their first step in a prefill engine and the end of their transfer.
    transfers: BTreeMap<u32, Transfer>,
    /// Scratch: transfers whose ends move.
    changed: Vec<(u32, SimTime)>,
}

/// A request on its way from one engine to another.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    request: NewRequest,
    sender: u32,
    sender_slot: SlotId,
    receiver: u32,
    receiver_slot: SlotId,
    bytes: u64,
    /// When the first of its bytes exist.
    available: SimTime,
    /// When the last of its bytes exist.
    complete: SimTime,
    /// Whether the step with its first token has ended.
    prompt_is_done: bool,
    state: State,
}

/// A request that is in a prefill engine, and perhaps in a decode engine too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    pub(super) sender: u32,
    pub(super) sender_slot: SlotId,
    /// Whether it is outstanding in the prefill engine no more.
    pub(super) prompt_is_done: bool,
    /// [`NONE`]: it was not handed over yet.
    pub(super) receiver: u32,
    pub(super) receiver_slot: SlotId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the prefill engine.
    Prefill,
    /// In the decode engine's queue.
    Queued,
    /// Blocks are reserved; bytes flow from then on.
    Reserved { begins: SimTime },
    /// Bytes flow.
    Flowing,
    /// Nothing is left to be sent but what is computed last; everything has arrived then.
    Arriving { ends: SimTime },
}

impl Handover {
    /// None for a cluster of aggregated engines only.
    pub(super) fn new(
        pools: &[Pool],
        policy: &RoutingPolicy,
        workload: &Workload,
        options: Options,
    ) -> Result<Option<Self>, SimError> {
        let engines: Vec<_> =
            pools.iter().flat_map(|pool| (0..pool.count).map(|_| pool.settings)).collect();
        let count = |role| engines.iter().filter(|engine| engine.role == role).count();
        let (prefill, decode) = (count(Role::Prefill), count(Role::Decode));
        if prefill + decode == 0 {
            return Ok(None);
        }
        let refuse =
            |value: String, remedy| Err(SimError::InvalidSetting { field: "pools", value, remedy });
        if prefill == 0 || decode == 0 || prefill + decode < engines.len() {
            let value = format!(
                "{prefill} prefill, {decode} decode and {} aggregated engines",
                engines.len() - prefill - decode
            );
            return refuse(value, "a disaggregated cluster has prefill and decode engines only");
        }
        let Some(settings) = options.transfer else {
            return refuse("disaggregated".to_owned(), "give the settings of its transfers");
        };
        Ok(Some(Self {
            settings,
            router: Router::new(
                policy,
                members(pools, |role| role == Role::Decode),
                workload,
                options.seed,
                1,
            ),
            decodes: engines.iter().map(|engine| engine.role == Role::Decode).collect(),
            links: Links::new(
                engines.iter().map(|engine| engine.link_bytes_per_s).collect(),
                settings.fabric_bytes_per_s,
            ),
            transfers: BTreeMap::new(),
            changed: Vec::new(),
        }))
    }

    /// Whether an engine is a decode engine.
    pub(super) fn decodes(&self, engine: u32) -> bool {
        self.decodes[engine as usize]
    }

    /// A request goes to a prefill engine; it will generate `output` tokens in all.
    pub(super) fn note_sent(
        &mut self,
        columns: &mut RequestColumns,
        new: &NewRequest,
        output: u32,
        sender: u32,
    ) {
        if let Some(columns) = &mut columns.handover {
            columns.prefill_engine[new.request] = i32::try_from(sender).unwrap_or(i32::MAX);
        }
        if new.hands_over {
            let request = NewRequest {
                output,
                generated: new.output,
                remote: true,
                hands_over: false,
                ..*new
            };
            let transfer = Transfer {
                request,
                sender,
                sender_slot: NONE,
                receiver: NONE,
                receiver_slot: NONE,
                bytes: 0,
                available: SimTime::ZERO,
                complete: SimTime::ZERO,
                prompt_is_done: false,
                state: State::Prefill,
            };
            self.transfers.insert(new.request, transfer);
        }
    }

    /// The slot of a request in the prefill engine that it was sent to.
    pub(super) fn note_slot(&mut self, request: u32, slot: SlotId) {
        if let Some(transfer) = self.transfers.get_mut(&request) {
            transfer.sender_slot = slot;
        }
    }

    /// From the end of the last step of a prompt until its last layer has arrived, at best.
    fn last_layer(&self, transfer: &Transfer) -> SimDuration {
        if self.settings.layers == 0 || transfer.bytes == 0 {
            return SimDuration::default();
        }
        let bytes = transfer.bytes.div_ceil(u64::from(self.settings.layers));
        self.links.alone(transfer.sender, transfer.receiver, bytes)
    }
}

impl Simulation {
    /// A prompt is complete; unless layers were sent before, its transfer is due now.
    pub(super) fn prompt_is_done(
        &mut self,
        engine: u32,
        request: u32,
        slot: SlotId,
    ) -> Result<(), SimError> {
        let Some(handover) = &mut self.handover else { return Ok(()) };
        let Some(transfer) = handover.transfers.get_mut(&request) else { return Ok(()) };
        debug_assert_eq!(transfer.sender, engine);
        transfer.prompt_is_done = true;
        if handover.settings.layers > 0 {
            return Ok(());
        }
        self.hand_over(request, slot, self.now, self.now)
    }

    /// A request is ready for a decode engine; its keys and values exist from `available` on, all
    /// of them at `complete`.
    fn hand_over(
        &mut self,
        request: u32,
        slot: SlotId,
        available: SimTime,
        complete: SimTime,
    ) -> Result<(), SimError> {
        let Some(handover) = &mut self.handover else { return Ok(()) };
        let Some(transfer) = handover.transfers.get_mut(&request) else { return Ok(()) };
        transfer.sender_slot = slot;
        transfer.available = available;
        transfer.complete = complete;
        self.route_handover(request)
    }

    /// A request that is ready joins a decode engine, if one is up.
    pub(super) fn route_handover(&mut self, request: u32) -> Result<(), SimError> {
        let Some(handover) = &mut self.handover else { return Ok(()) };
        if self.fleet.is_some() && !handover.router.any_up() {
            return self.hold_handover(request);
        }
        let Some(transfer) = handover.transfers.get_mut(&request) else { return Ok(()) };
        let receiver = handover.router.route(self.now, request, self.source.workload())?;
        self.records.requests.routed(request, receiver);
        let engine = &mut self.engines[receiver as usize];
        let slot = engine.enqueue(&transfer.request, self.now, &mut self.records);
        transfer.receiver = receiver;
        transfer.receiver_slot = slot;
        transfer.state = State::Queued;
        if let Some(fleet) = &mut self.fleet {
            fleet.remember(request, slot);
        }
        if !self.is_busy(receiver) {
            self.mark_due(receiver);
        }
        Ok(())
    }

    /// An engine has scheduled: requests may be ready to be handed over, blocks may be reserved.
    pub(super) fn follow_schedule(&mut self, engine: u32) -> Result<(), SimError> {
        for handing in self.engines[engine as usize].take_handing() {
            let layers = self.handover.as_ref().map_or(1, |handover| handover.settings.layers);
            let step = handing.end.as_nanos() - handing.start.as_nanos();
            let first_layer = SimDuration::from_nanos(step / u64::from(layers.max(1)));
            let available = handing.start.after(first_layer)?;
            self.hand_over(handing.request, handing.slot, available, handing.end)?;
        }
        for reservation in self.engines[engine as usize].take_reserved() {
            let Some(handover) = &mut self.handover else { continue };
            let Some(transfer) = handover.transfers.get_mut(&reservation.request) else { continue };
            transfer.bytes = u64::from(reservation.tokens) * handover.settings.kv_bytes_per_token;
            let starts = self.now.max(transfer.available);
            let begins = starts.after(handover.settings.latency)?;
            transfer.state = State::Reserved { begins };
            self.queue.push(Event {
                time: begins,
                rank: Rank::Transfer,
                index: reservation.request,
            });
            if let Some(columns) = &mut self.records.requests.handover {
                let row = reservation.request;
                columns.transfer_start_ns[row] = crate::recorder::nanos(starts);
                columns.transfer_tokens[row] = reservation.tokens;
            }
        }
        Ok(())
    }

    /// A transfer begins, or has sent its last byte, or has arrived; or the event is out of date.
    pub(super) fn transfer(&mut self, request: u32) -> Result<(), SimError> {
        let now = self.now;
        let Some(handover) = &mut self.handover else { return Ok(()) };
        let Some(&transfer) = handover.transfers.get(&request) else { return Ok(()) };
        let arrives = match transfer.state {
            State::Reserved { begins } if begins == now && transfer.bytes > 0 => {
                let between = (transfer.sender, transfer.receiver);
                let changed = &mut handover.changed;
                handover.links.begin(now, request, between, transfer.bytes, changed)?;
                handover.set(request, State::Flowing);
                None
            }
            State::Reserved { begins } if begins == now => Some(now.after(ONE_NANO)?),
            State::Flowing if handover.links.end(request) == Some(now) => {
                handover.links.finish(now, request, &mut handover.changed)?;
                Some(now)
            }
            State::Arriving { ends } if ends == now => {
                self.arrived(request);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.announce_ends();
        let Some(handover) = &mut self.handover else { return Ok(()) };
        if let Some(arrives) = arrives {
            let ends = arrives.max(transfer.complete.after(handover.last_layer(&transfer))?);
            if ends == now {
                self.arrived(request);
            } else {
                handover.set(request, State::Arriving { ends });
                self.queue.push(Event { time: ends, rank: Rank::Transfer, index: request });
            }
        }
        Ok(())
    }

    /// Transfers whose ends moved have events at the new ones.
    fn announce_ends(&mut self) {
        let Some(handover) = &mut self.handover else { return };
        for (request, end) in handover.changed.drain(..) {
            self.queue.push(Event { time: end, rank: Rank::Transfer, index: request });
        }
    }

    /// What goes from one engine to another is given up; None if nothing does.
    pub(super) fn cut_transfer(&mut self, request: u32) -> Result<Option<Handed>, SimError> {
        let Some(handover) = &mut self.handover else { return Ok(None) };
        let Some(transfer) = handover.transfers.remove(&request) else { return Ok(None) };
        if transfer.state == State::Flowing {
            handover.links.finish(self.now, request, &mut handover.changed)?;
            self.announce_ends();
        }
        Ok(Some(Handed {
            sender: transfer.sender,
            sender_slot: transfer.sender_slot,
            prompt_is_done: transfer.prompt_is_done,
            receiver: transfer.receiver,
            receiver_slot: transfer.receiver_slot,
        }))
    }

    /// A decode engine has all keys and values of a request: the prefill engine's blocks are free.
    fn arrived(&mut self, request: u32) {
        let Some(handover) = &mut self.handover else { return };
        let Some(transfer) = handover.transfers.remove(&request) else { return };
        if let Some(columns) = &mut self.records.requests.handover {
            columns.transfer_end_ns[request] = crate::recorder::nanos(self.now);
        }
        self.engines[transfer.sender as usize].sent(transfer.sender_slot);
        self.engines[transfer.receiver as usize].receive(transfer.receiver_slot);
        for engine in [transfer.sender, transfer.receiver] {
            if !self.is_busy(engine) {
                self.mark_due(engine);
            }
        }
    }
}

impl Handover {
    fn set(&mut self, request: u32, state: State) {
        if let Some(transfer) = self.transfers.get_mut(&request) {
            transfer.state = state;
        }
    }
}

/// The shortest transfer.
const ONE_NANO: SimDuration = SimDuration::from_nanos(1);
