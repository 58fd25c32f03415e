//! Changes of a cluster from Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::simulation::{Autoscaling, Change, FleetSettings, Planned};
use crate::time::{SimDuration, SimTime};

/// `cluster.FleetSettings`, by its attributes.
#[derive(FromPyObject)]
pub(crate) struct FleetArgument {
    planned: Vec<(u64, u32, String)>,
    max_retries: u32,
    timeout_ns: Option<u64>,
    max_queue: Option<u32>,
    autoscaling: Option<AutoscalingArgument>,
}

/// `cluster.AutoscalingSettings`, by its attributes.
#[derive(FromPyObject)]
struct AutoscalingArgument {
    min_engines: u32,
    interval_ns: u64,
    start_above: u32,
    drain_below: u32,
    startup_ns: u64,
}

impl FleetArgument {
    pub(crate) fn settings(&self) -> PyResult<FleetSettings> {
        let planned = |&(time_ns, engine, ref change): &(u64, u32, String)| {
            let change = match change.as_str() {
                "fail" => Change::Fail,
                "drain" => Change::Drain,
                "up" => Change::Up,
                other => {
                    let message = format!("{other:?}: must be 'fail', 'drain' or 'up'");
                    return Err(PyValueError::new_err(message));
                }
            };
            Ok(Planned { time: SimTime::from_nanos(time_ns), engine, change })
        };
        let autoscaling = self.autoscaling.as_ref().map(|argument| Autoscaling {
            min_engines: argument.min_engines,
            interval: SimDuration::from_nanos(argument.interval_ns),
            start_above: argument.start_above,
            drain_below: argument.drain_below,
            startup: SimDuration::from_nanos(argument.startup_ns),
        });
        Ok(FleetSettings {
            planned: self.planned.iter().map(planned).collect::<PyResult<_>>()?,
            max_retries: self.max_retries,
            timeout: self.timeout_ns.map(SimDuration::from_nanos),
            max_queue: self.max_queue,
            autoscaling,
        })
    }
}
