//! The roofline of a transformer step, operation by operation (`docs/cost_model.md`).
//!
//! Every operation's floating-point operations and bytes are linear in a few sums of the step, so an
//! operation is two coefficient vectors and a constant. They are compiled once per model; a step
//! costs a handful of multiply-adds, and the breakdown comes from the same operations as the total.

mod experts;
mod inputs;

use std::sync::Arc;

use experts::AwakeExperts;
pub use inputs::{AllReduce, Mixture, PhaseRates, RooflineHardware};

use super::operation::{
    DECODE_CONTEXT, DECODE_SEQS, DECODE_WINDOW, EXPERTS, Kind, Linear, ONE, Operation, Runs,
    SAMPLED, SEQS, TOKENS, dot, features, invalid,
};
use super::{StepShape, StepTotals};
use crate::error::SimError;

/// What limits an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Memory traffic.
    Memory,
    /// The constant of the kernel outweighs its work.
    Latency,
    /// The link between accelerators.
    Communication,
    /// Host work.
    Overhead,
}

/// Where a component's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    /// A measured point of this very shape.
    Measured,
    /// Between measured shapes or sizes.
    Interpolated,
    /// A constant estimated on whole runs.
    Fitted,
    /// Beyond the measured ones.
    Extrapolated,
    /// The roofline's formula.
    Analytic,
}

impl Provenance {
    /// The word in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Interpolated => "interpolated",
            Self::Fitted => "fitted",
            Self::Extrapolated => "extrapolated",
            Self::Analytic => "analytic",
        }
    }
}

impl Bound {
    /// The bound's word in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Latency => "latency",
            Self::Communication => "communication",
            Self::Overhead => "overhead",
        }
    }
}

/// One component of a step, summed over the layers, per accelerator.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationCost {
    /// The component.
    pub name: Arc<str>,
    /// Floating-point operations.
    pub operations: f64,
    /// Bytes of memory traffic; of link traffic for communication.
    pub bytes: f64,
    /// Seconds.
    pub seconds: f64,
    /// What limits it.
    pub bound: Bound,
    /// Where its time comes from.
    pub provenance: Provenance,
    /// Whether it runs at the rate of the layers' matrices.
    pub linear: bool,
}

/// A collective's time: `wire` × bytes / bandwidth + `hops` × latency.
#[derive(Clone, Copy, Debug)]
struct Collective {
    wire: f64,
    hops: f64,
}

/// Every accelerator sends to all others at once.
const ALL_TO_ALL: [Collective; 1] = [Collective { wire: 1.0, hops: 1.0 }];

/// A linear function of a pure decode step: (constant, per sequence, per key read, per key read in
/// a window, per expert).
type DecodeLinear = [f64; 5];

/// A compiled roofline.
#[derive(Clone, Debug)]
pub struct Roofline {
    hardware: RooflineHardware,
    awake: AwakeExperts,
    operations: Vec<Operation>,
    all_reduces: Vec<Collective>,
    all_gather: Collective,
    /// Compute and memory seconds of each kernel of a pure decode step.
    decode_kernels: Vec<(DecodeLinear, DecodeLinear)>,
    /// Seconds of each collective of a pure decode step, by algorithm.
    decode_collectives: Vec<Vec<DecodeLinear>>,
    /// Everything else of a pure decode step, in seconds.
    decode_constant: DecodeLinear,
}

impl Roofline {
    /// Compile the roofline of a model's `operations` on `hardware`, for a group of `ranks`
    /// accelerators.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] naming a number that is out of range.
    pub fn new(
        operations: Vec<Operation>,
        mixture: Option<&Mixture>,
        ranks: u32,
        hardware: RooflineHardware,
    ) -> Result<Self, SimError> {
        hardware.check()?;
        if ranks == 0 {
            return Err(invalid("tensor_parallel_size", &ranks, "must be at least 1"));
        }
        mixture.map_or(Ok(()), Mixture::check)?;
        let tree_depth = f64::from(ranks.next_power_of_two().trailing_zeros());
        let ranks = f64::from(ranks);
        let ring = Collective { wire: 2.0 * (ranks - 1.0) / ranks, hops: 2.0 * (ranks - 1.0) };
        let tree = Collective { wire: 2.0, hops: 2.0 * tree_depth };
        let mut roofline = Self {
            hardware,
            awake: mixture.map(AwakeExperts::new).unwrap_or_default(),
            operations,
            all_reduces: match hardware.all_reduce {
                AllReduce::Ring => vec![ring],
                AllReduce::Tree => vec![tree],
                AllReduce::Auto => vec![ring, tree],
            },
            all_gather: Collective { wire: 1.0, hops: ranks - 1.0 },
            decode_kernels: Vec::new(),
            decode_collectives: Vec::new(),
            decode_constant: [
                hardware.decode.step_overhead_s,
                hardware.sequence_overhead_s,
                0.0,
                0.0,
                0.0,
            ],
        };
        roofline.compile_decode();
        Ok(roofline)
    }

    /// Seconds of a step.
    #[inline]
    pub fn step_seconds(&self, step: &StepShape) -> f64 {
        if step.prefill_seqs == 0 && step.sampled_seqs == step.decode_seqs && step.decode_seqs > 0 {
            return self.decode_seconds(step);
        }
        let x = features(step, 1, self.experts(step));
        self.seconds_of(step, &x, &x)
    }

    /// Seconds of a step in a group whose engines have `group_tokens` tokens in theirs.
    pub fn group_step_seconds(&self, step: &StepShape, group_tokens: u64) -> f64 {
        let own = features(step, 1, self.awake.of_all(group_tokens));
        let mut shared = own;
        shared[TOKENS] = self.mean_tokens(group_tokens);
        self.seconds_of(step, &own, &shared)
    }

    /// Seconds of a step: `shared` has the features of operations that serve several engines.
    fn seconds_of(&self, step: &StepShape, own: &Linear, shared: &Linear) -> f64 {
        let mut seconds = self.overhead_seconds(step, own);
        for operation in &self.operations {
            if operation.runs.in_step(step) {
                let x = if operation.shared { shared } else { own };
                seconds += operation.repeat * self.run_seconds(operation, step, x).0;
            }
        }
        seconds
    }

    /// Tokens of one engine in the mean of all that share the experts.
    pub(in crate::cost) fn mean_tokens(&self, group_tokens: u64) -> f64 {
        group_tokens as f64 / self.awake.engines() as f64
    }

    /// Distinct experts that `group_tokens` tokens of all engines wake.
    pub fn group_experts(&self, group_tokens: u64) -> f64 {
        self.awake.of_all(group_tokens)
    }

    /// Distinct experts that a step wakes in an expert layer; 0 for dense models.
    #[inline]
    pub fn experts(&self, step: &StepShape) -> f64 {
        self.awake.expected(step.tokens())
    }

    /// The step's components; their seconds sum to [`Roofline::step_seconds`].
    pub fn breakdown(&self, step: &StepShape) -> Vec<OperationCost> {
        let x = features(step, 1, self.experts(step));
        let mut components: Vec<OperationCost> = self
            .operations
            .iter()
            .filter(|operation| operation.runs.in_step(step))
            .map(|operation| {
                let (seconds, bound) = self.run_seconds(operation, step, &x);
                OperationCost {
                    name: Arc::clone(&operation.name),
                    operations: operation.repeat * dot(&operation.operations, &x),
                    bytes: operation.repeat * dot(&operation.bytes, &x),
                    seconds: operation.repeat * seconds,
                    bound,
                    provenance: Provenance::Analytic,
                    linear: operation.kind == Kind::LinearKernel,
                }
            })
            .collect();
        components.push(OperationCost {
            name: "overhead".into(),
            operations: 0.0,
            bytes: 0.0,
            seconds: self.overhead_seconds(step, &x),
            bound: Bound::Overhead,
            provenance: Provenance::Analytic,
            linear: false,
        });
        components
    }

    /// Operations and bytes of memory traffic of all steps behind `totals`.
    pub fn work(&self, totals: &StepTotals) -> (f64, f64) {
        self.work_of(totals, totals.shape.tokens() as f64)
    }

    /// The same in a group whose engines had `group_tokens` tokens in those steps.
    pub fn group_work(&self, totals: &StepTotals, group_tokens: u64) -> (f64, f64) {
        self.work_of(totals, self.mean_tokens(group_tokens))
    }

    fn work_of(&self, totals: &StepTotals, shared_tokens: f64) -> (f64, f64) {
        let every = features(&totals.shape, totals.steps, totals.experts);
        let sampling = features(&totals.shape, totals.sampling_steps, totals.experts);
        let mut shared = every;
        shared[TOKENS] = shared_tokens;
        let mut work = (0.0, 0.0);
        for operation in self.operations.iter().filter(|operation| operation.kind.is_kernel()) {
            let x = match operation.runs {
                Runs::WithSampling => &sampling,
                _ if operation.shared => &shared,
                _ => &every,
            };
            work.0 += operation.repeat * dot(&operation.operations, x);
            work.1 += operation.repeat * dot(&operation.bytes, x);
        }
        work
    }

    /// Seconds of one run of an operation and what limits it.
    fn run_seconds(&self, operation: &Operation, step: &StepShape, x: &Linear) -> (f64, Bound) {
        let bytes = dot(&operation.bytes, x);
        if operation.kind.is_kernel() {
            let rates = self.rates(step.prefill_seqs > 0);
            let compute = dot(&operation.operations, x) / rates.flops(operation.kind);
            let memory = bytes / rates.memory_bandwidth;
            let work = compute.max(memory);
            let latency = self.hardware.kernel_latency_s;
            let bound = if latency > work {
                Bound::Latency
            } else if compute > memory {
                Bound::Compute
            } else {
                Bound::Memory
            };
            return (work + latency, bound);
        }
        let (bandwidth, latency_s) = self.hardware.link(operation.kind);
        let seconds = self
            .collectives(operation.kind)
            .iter()
            .map(|collective| collective.wire * bytes / bandwidth + collective.hops * latency_s)
            .fold(f64::INFINITY, f64::min);
        (seconds, Bound::Communication)
    }

    fn overhead_seconds(&self, step: &StepShape, x: &Linear) -> f64 {
        self.rates(step.prefill_seqs > 0).step_overhead_s
            + self.hardware.sequence_overhead_s * x[SEQS]
    }

    const fn rates(&self, with_prefill: bool) -> &PhaseRates {
        if with_prefill { &self.hardware.prefill } else { &self.hardware.decode }
    }

    fn collectives(&self, kind: Kind) -> &[Collective] {
        match kind {
            Kind::AllReduce => &self.all_reduces,
            Kind::AllGather => std::slice::from_ref(&self.all_gather),
            Kind::AllToAll => &ALL_TO_ALL,
            Kind::LinearKernel | Kind::Kernel => &[],
        }
    }

    /// Reduce every operation of a pure decode step to seconds in (1, sequences, context).
    fn compile_decode(&mut self) {
        let decode_only = StepShape { decode_seqs: 1, sampled_seqs: 1, ..StepShape::default() };
        for operation in self.operations.clone() {
            if !operation.runs.in_step(&decode_only) {
                continue;
            }
            let bytes = decode_linear(&operation.bytes);
            if operation.kind.is_kernel() {
                let rates = self.rates(false);
                let per = |value: f64, rate: f64| operation.repeat * value / rate;
                let flops = rates.flops(operation.kind);
                let bandwidth = rates.memory_bandwidth;
                let compute = decode_linear(&operation.operations).map(|value| per(value, flops));
                let memory = bytes.map(|value| per(value, bandwidth));
                self.decode_kernels.push((compute, memory));
                self.decode_constant[0] += operation.repeat * self.hardware.kernel_latency_s;
                continue;
            }
            let (bandwidth, latency_s) = self.hardware.link(operation.kind);
            let by_algorithm = self
                .collectives(operation.kind)
                .iter()
                .map(|collective| {
                    let wire = operation.repeat * collective.wire / bandwidth;
                    let mut seconds = bytes.map(|value| value * wire);
                    seconds[0] += operation.repeat * collective.hops * latency_s;
                    seconds
                })
                .collect();
            self.decode_collectives.push(by_algorithm);
        }
    }

    #[inline]
    fn decode_seconds(&self, step: &StepShape) -> f64 {
        let (seqs, context) = (step.decode_seqs as f64, step.decode_context_tokens as f64);
        let (window, experts) = (step.decode_window_tokens as f64, self.experts(step));
        let at = |term: &DecodeLinear| {
            term[0] + term[1] * seqs + term[2] * context + term[3] * window + term[4] * experts
        };
        let mut seconds = at(&self.decode_constant);
        for (compute, memory) in &self.decode_kernels {
            seconds += at(compute).max(at(memory));
        }
        for by_algorithm in &self.decode_collectives {
            seconds += by_algorithm.iter().map(at).fold(f64::INFINITY, f64::min);
        }
        seconds
    }
}

/// Fold features that coincide in a pure decode step: tokens, requests and samples are one number.
fn decode_linear(coefficients: &Linear) -> DecodeLinear {
    [
        coefficients[ONE],
        coefficients[TOKENS]
            + coefficients[SEQS]
            + coefficients[SAMPLED]
            + coefficients[DECODE_SEQS],
        coefficients[DECODE_CONTEXT],
        coefficients[DECODE_WINDOW],
        coefficients[EXPERTS],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Window;

    /// Matrix products, attention and, in a group, an all-reduce.
    fn operations(ranks: u32) -> Vec<Operation> {
        let own = |terms: &[(&str, f64)]| -> Vec<(String, f64)> {
            terms.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
        };
        let operation = |name, runs, kind, repeat, work: &[(&str, f64)], bytes: &[(&str, f64)]| {
            let shared = name == "experts";
            Operation::new(name, runs, kind, repeat, shared, &own(work), &own(bytes)).unwrap()
        };
        let matrix = 4096.0 * 11008.0;
        let mut all = vec![
            operation(
                "mlp",
                Runs::Always,
                Kind::LinearKernel,
                32.0,
                &[("tokens", 2.0 * matrix)],
                &[("one", 2.0 * matrix), ("tokens", 2.0 * (4096.0 + 11008.0))],
            ),
            operation(
                "attention",
                Runs::WithDecode,
                Kind::Kernel,
                32.0,
                &[("decode_context_tokens", 4.0 * 4096.0)],
                &[("decode_context_tokens", 4.0 * 4096.0), ("decode_window_tokens", 100.0)],
            ),
            operation(
                "experts",
                Runs::Always,
                Kind::LinearKernel,
                4.0,
                &[("tokens", 2.0 * 2.0 * matrix)],
                &[("experts", 2.0 * matrix)],
            ),
        ];
        if ranks > 1 {
            let payload = [("tokens", 2.0 * 4096.0)];
            all.push(operation("all_reduce", Runs::Always, Kind::AllReduce, 65.0, &[], &payload));
        }
        all
    }

    const MIXTURE: Mixture = Mixture { num_experts: 8, experts_per_token: 2, engines: 1 };

    fn compiled(ranks: u32, hardware: RooflineHardware) -> Roofline {
        Roofline::new(operations(ranks), Some(&MIXTURE), ranks, hardware).unwrap()
    }

    fn hardware() -> RooflineHardware {
        let decode = PhaseRates {
            linear_flops: 5e14,
            attention_flops: 5e14,
            memory_bandwidth: 2e12,
            step_overhead_s: 1e-3,
        };
        RooflineHardware {
            prefill: PhaseRates { step_overhead_s: 2e-3, ..decode },
            decode,
            kernel_latency_s: 3e-6,
            sequence_overhead_s: 1e-6,
            link_bandwidth: 4e11,
            link_latency_s: 2e-6,
            all_reduce: AllReduce::Auto,
            exchange_bandwidth: 4e11,
            exchange_latency_s: 2e-6,
        }
    }

    fn relative(a: f64, b: f64) -> f64 {
        (a - b).abs() / b
    }

    #[test]
    fn the_compiled_decode_step_is_the_sum_of_its_parts() {
        for ranks in [1, 2, 8] {
            let roofline = compiled(ranks, hardware());
            for (seqs, context) in [(1, 1), (7, 5000), (256, 300_000), (2048, 2048 * 4000)] {
                let step = StepShape {
                    decode_seqs: seqs,
                    decode_context_tokens: context,
                    decode_window_tokens: context / 2,
                    sampled_seqs: seqs,
                    ..StepShape::default()
                };
                let parts: f64 = roofline.breakdown(&step).iter().map(|part| part.seconds).sum();
                assert!(relative(roofline.step_seconds(&step), parts) < 1e-13);
            }
        }
    }

    #[test]
    fn the_faster_collective_is_taken() {
        let with = |all_reduce| compiled(8, RooflineHardware { all_reduce, ..hardware() });
        let small = StepShape::decode(1, 100, Window::None);
        let large = StepShape::prefill(1, 8192, 0, Window::None);
        for step in [small, large] {
            let seconds = |all_reduce| with(all_reduce).step_seconds(&step);
            let (ring, tree) = (seconds(AllReduce::Ring), seconds(AllReduce::Tree));
            assert!(relative(seconds(AllReduce::Auto), ring.min(tree)) < 1e-13);
        }
        let gap = |step: &StepShape| {
            with(AllReduce::Ring).step_seconds(step) - with(AllReduce::Tree).step_seconds(step)
        };
        assert!(gap(&small) > 0.0, "latency favours the tree");
        assert!(gap(&large) < 0.0, "bandwidth favours the ring");
    }

    #[test]
    fn decode_reads_the_weights_once_whatever_the_batch() {
        let roofline = compiled(1, hardware());
        let bytes = |seqs: u64| {
            let step = StepShape::decode(seqs, 1, Window::None);
            let parts = roofline.breakdown(&step);
            parts.into_iter().find(|part| &*part.name == "mlp").unwrap().bytes
        };
        let activations = 32.0 * (4096.0 + 11008.0) * 2.0;
        assert!(relative(bytes(65) - bytes(1), 64.0 * activations) < 1e-12);
    }

    #[test]
    fn a_step_reads_the_experts_that_its_tokens_wake() {
        let roofline = compiled(1, hardware());
        let awake = |tokens| roofline.experts(&StepShape::decode(tokens, 1, Window::None));
        assert!(relative(awake(1), 2.0) < 1e-15);
        assert!(relative(awake(2), 8.0 * (1.0 - 0.75_f64 * 0.75)) < 1e-15);
        assert!(relative(awake(100_000), 8.0) < 1e-15);
        let together = Mixture { engines: 2, ..MIXTURE };
        let roofline = Roofline::new(operations(1), Some(&together), 1, hardware()).unwrap();
        let one_each = roofline.experts(&StepShape::decode(1, 1, Window::None));
        assert!(relative(one_each, awake(2)) < 1e-15);
    }

    #[test]
    fn equal_engines_of_a_group_take_as_long_as_each_that_stands_for_all() {
        let together = Mixture { engines: 4, ..MIXTURE };
        let roofline = Roofline::new(operations(2), Some(&together), 2, hardware()).unwrap();
        for step in
            [StepShape::decode(7, 900, Window::None), StepShape::prefill(2, 512, 100, Window::None)]
        {
            let alone = roofline.step_seconds(&step);
            let grouped = roofline.group_step_seconds(&step, 4 * step.tokens());
            assert!(relative(grouped, alone) < 1e-13);
            let idle_others = roofline.group_step_seconds(&step, step.tokens() + 3);
            assert!(idle_others < alone, "fewer tokens meet at the experts");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let broken = RooflineHardware { link_bandwidth: f64::NAN, ..hardware() };
        let error = Roofline::new(operations(1), None, 1, broken).unwrap_err().to_string();
        assert!(error.starts_with("link_bandwidth=NaN"), "{error}");
        let impossible = Mixture { experts_per_token: 9, ..MIXTURE };
        assert!(Roofline::new(operations(1), Some(&impossible), 1, hardware()).is_err());
        let unknown = [("tokenz".to_owned(), 1.0)];
        let error = Operation::new("mlp", Runs::Always, Kind::Kernel, 1.0, false, &unknown, &[]);
        assert!(error.is_err());
    }
}
