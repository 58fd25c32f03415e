//! The core of the LLM Inference Simulator: a discrete-event simulation of LLM serving engines
//! that follow vLLM V1's scheduling rules.
//!
//! A request flows one way: [`workload`] → [`router`] → [`engine`] (scheduler, cost model, KV
//! cache) → [`recorder`]. [`simulation`] holds the clock and the loop. The rules are in
//! `docs/spec.md`; the Python binding is the only part that knows Python.

pub mod config;
pub mod cost;
pub mod engine;
pub mod error;
mod event;
pub mod gap_histogram;
mod ids;
mod kv_cache;
mod link;
mod min_tree;
pub mod recorder;
pub mod replay;
mod rng;
pub mod router;
pub mod rows;
pub mod scheduler;
pub mod shared_blocks;
pub mod simulation;
mod source;
pub mod step_ends;
pub mod time;
pub mod token_gaps;
pub mod workload;

#[cfg(feature = "binding")]
mod python;
