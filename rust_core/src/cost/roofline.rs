//! The roofline of a dense transformer step, operation by operation (`docs/cost_model.md`).
//!
//! Every operation's floating-point operations and bytes are linear in a few sums of the step, so an
//! operation is two coefficient vectors and a constant. They are compiled once per model; a step
//! costs a handful of multiply-adds, and the breakdown comes from the same operations as the total.

use super::{StepShape, StepTotals};
use crate::error::SimError;

/// A dense decoder-only transformer and how it is stored, in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    /// Transformer layers.
    pub num_layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Query heads of the whole model.
    pub num_attention_heads: u32,
    /// Key-value heads of the whole model (1: MQA; as many as query heads: MHA).
    pub num_key_value_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the MLP.
    pub intermediate_size: u32,
    /// Whether the MLP has a gate (three matrices instead of two).
    pub gated_mlp: bool,
    /// Rows of the embedding and of the LM head.
    pub vocab_size: u32,
    /// Accelerators that share every matrix.
    pub tensor_parallel_size: u32,
    /// Stored bytes a weight of the layers' matrices (fractions for 4-bit groups with scales).
    pub weight_bytes: f64,
    /// Stored bytes a weight of the embedding and the LM head.
    pub embedding_bytes: f64,
    /// Bytes an activation.
    pub activation_bytes: f64,
    /// Bytes a key or value element in the cache.
    pub kv_cache_bytes: f64,
}

/// What an accelerator achieves in one phase, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseRates {
    /// Operations of the layers' matrix products.
    pub linear_flops: f64,
    /// Operations of attention and the LM head.
    pub attention_flops: f64,
    /// Bytes to and from memory.
    pub memory_bandwidth: f64,
}

/// How partial results are summed over a tensor-parallel group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllReduce {
    /// 2(t−1) hops of 1/t of the payload each.
    Ring,
    /// A double binary tree: 2⌈log2 t⌉ hops, the payload twice.
    Tree,
    /// Whichever is faster for the payload, as NCCL chooses.
    Auto,
}

/// An accelerator as the roofline sees it: achievable rates and constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RooflineHardware {
    /// Rates in steps that carry prompt tokens.
    pub prefill: PhaseRates,
    /// Rates in pure decode steps.
    pub decode: PhaseRates,
    /// Constant of every kernel, seconds.
    pub kernel_latency_s: f64,
    /// Constant of every step, seconds.
    pub step_overhead_s: f64,
    /// Constant of every request in a step, seconds.
    pub sequence_overhead_s: f64,
    /// Achievable bytes per second and direction between accelerators of a group.
    pub link_bandwidth: f64,
    /// Latency of a hop, seconds.
    pub link_latency_s: f64,
    /// All-reduce algorithm.
    pub all_reduce: AllReduce,
}

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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperationCost {
    /// The component.
    pub name: &'static str,
    /// Floating-point operations.
    pub operations: f64,
    /// Bytes of memory traffic; of link traffic for communication.
    pub bytes: f64,
    /// Seconds.
    pub seconds: f64,
    /// What limits it.
    pub bound: Bound,
}

/// The sums that operations are linear in.
const ONE: usize = 0;
const TOKENS: usize = 1;
const SEQS: usize = 2;
const SAMPLED: usize = 3;
const PREFILL_TOKENS: usize = 4;
const PREFILL_PAIRS: usize = 5;
const PREFILL_CONTEXT: usize = 6;
const DECODE_SEQS: usize = 7;
const DECODE_CONTEXT: usize = 8;
const FEATURES: usize = 9;

/// One number for each feature: coefficients, or the features of a step.
type Linear = [f64; FEATURES];

/// Coefficients from the few that are not 0.
fn linear(terms: &[(usize, f64)]) -> Linear {
    let mut coefficients = [0.0; FEATURES];
    for &(feature, value) in terms {
        coefficients[feature] += value;
    }
    coefficients
}

fn features(step: &StepShape, steps: u64) -> Linear {
    linear(&[
        (ONE, steps as f64),
        (TOKENS, step.tokens() as f64),
        (SEQS, (step.prefill_seqs + step.decode_seqs) as f64),
        (SAMPLED, step.sampled_seqs as f64),
        (PREFILL_TOKENS, step.prefill_tokens as f64),
        (PREFILL_PAIRS, step.prefill_attention_pairs as f64),
        (PREFILL_CONTEXT, step.prefill_context_tokens as f64),
        (DECODE_SEQS, step.decode_seqs as f64),
        (DECODE_CONTEXT, step.decode_context_tokens as f64),
    ])
}

fn dot(coefficients: &Linear, x: &Linear) -> f64 {
    let mut sum = 0.0;
    for (coefficient, value) in coefficients.iter().zip(x) {
        sum += coefficient * value;
    }
    sum
}

/// The steps in which an operation runs at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    Always,
    WithPrefill,
    WithDecode,
    WithSampling,
}

impl Runs {
    const fn in_step(self, step: &StepShape) -> bool {
        match self {
            Self::Always => true,
            Self::WithPrefill => step.prefill_tokens > 0,
            Self::WithDecode => step.decode_seqs > 0,
            Self::WithSampling => step.sampled_seqs > 0,
        }
    }
}

/// How an operation's time follows from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A kernel at the rate of the layers' weights.
    LinearKernel,
    /// A kernel at the rate of 16-bit operands.
    Kernel,
    /// An all-reduce; its bytes are the payload.
    AllReduce,
    /// An all-gather; its bytes are what one accelerator receives.
    AllGather,
}

/// One operation of the model.
#[derive(Clone, Debug)]
struct Operation {
    name: &'static str,
    runs: Runs,
    kind: Kind,
    /// How often it runs in a step.
    repeat: f64,
    /// Floating-point operations of one run.
    operations: Linear,
    /// Bytes of one run.
    bytes: Linear,
}

/// A collective's time: `wire` × bytes / bandwidth + `hops` × latency.
#[derive(Clone, Copy, Debug)]
struct Collective {
    wire: f64,
    hops: f64,
}

/// A linear function of a pure decode step: (constant, per sequence, per key read).
type DecodeLinear = [f64; 3];

/// A compiled roofline.
#[derive(Clone, Debug)]
pub struct Roofline {
    hardware: RooflineHardware,
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
    /// Compile the roofline of `model` on `hardware`.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] naming a number that is not finite or not positive.
    pub fn new(model: &ModelShape, hardware: RooflineHardware) -> Result<Self, SimError> {
        check_model(model)?;
        check_hardware(&hardware)?;
        let ranks = f64::from(model.tensor_parallel_size);
        let tree_depth = f64::from(model.tensor_parallel_size.next_power_of_two().trailing_zeros());
        let ring = Collective { wire: 2.0 * (ranks - 1.0) / ranks, hops: 2.0 * (ranks - 1.0) };
        let tree = Collective { wire: 2.0, hops: 2.0 * tree_depth };
        let mut roofline = Self {
            hardware,
            operations: operations(model),
            all_reduces: match hardware.all_reduce {
                AllReduce::Ring => vec![ring],
                AllReduce::Tree => vec![tree],
                AllReduce::Auto => vec![ring, tree],
            },
            all_gather: Collective { wire: 1.0, hops: ranks - 1.0 },
            decode_kernels: Vec::new(),
            decode_collectives: Vec::new(),
            decode_constant: [hardware.step_overhead_s, hardware.sequence_overhead_s, 0.0],
        };
        roofline.compile_decode();
        Ok(roofline)
    }

    /// Seconds of a step.
    #[inline]
    pub fn step_seconds(&self, step: &StepShape) -> f64 {
        if step.prefill_seqs == 0 && step.sampled_seqs == step.decode_seqs && step.decode_seqs > 0 {
            return self.decode_seconds(step.decode_seqs as f64, step.decode_context_tokens as f64);
        }
        let x = features(step, 1);
        let mut seconds = self.overhead_seconds(&x);
        for operation in &self.operations {
            if operation.runs.in_step(step) {
                seconds += operation.repeat * self.run_seconds(operation, step, &x).0;
            }
        }
        seconds
    }

    /// The step's components; their seconds sum to [`Roofline::step_seconds`].
    pub fn breakdown(&self, step: &StepShape) -> Vec<OperationCost> {
        let x = features(step, 1);
        let mut components: Vec<OperationCost> = self
            .operations
            .iter()
            .filter(|operation| operation.runs.in_step(step))
            .map(|operation| {
                let (seconds, bound) = self.run_seconds(operation, step, &x);
                OperationCost {
                    name: operation.name,
                    operations: operation.repeat * dot(&operation.operations, &x),
                    bytes: operation.repeat * dot(&operation.bytes, &x),
                    seconds: operation.repeat * seconds,
                    bound,
                }
            })
            .collect();
        components.push(OperationCost {
            name: "overhead",
            operations: 0.0,
            bytes: 0.0,
            seconds: self.overhead_seconds(&x),
            bound: Bound::Overhead,
        });
        components
    }

    /// Operations and bytes of memory traffic of all steps behind `totals`.
    pub fn work(&self, totals: &StepTotals) -> (f64, f64) {
        let every = features(&totals.shape, totals.steps);
        let sampling = features(&totals.shape, totals.sampling_steps);
        let mut work = (0.0, 0.0);
        for operation in self.operations.iter().filter(|operation| operation.is_kernel()) {
            let x = if operation.runs == Runs::WithSampling { &sampling } else { &every };
            work.0 += operation.repeat * dot(&operation.operations, x);
            work.1 += operation.repeat * dot(&operation.bytes, x);
        }
        work
    }

    /// Seconds of one run of an operation and what limits it.
    fn run_seconds(&self, operation: &Operation, step: &StepShape, x: &Linear) -> (f64, Bound) {
        let bytes = dot(&operation.bytes, x);
        if operation.is_kernel() {
            let rates = self.rates(step.prefill_seqs > 0);
            let compute = dot(&operation.operations, x) / operation.flops(rates);
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
        let seconds = self
            .collectives(operation.kind)
            .iter()
            .map(|collective| {
                collective.wire * bytes / self.hardware.link_bandwidth
                    + collective.hops * self.hardware.link_latency_s
            })
            .fold(f64::INFINITY, f64::min);
        (seconds, Bound::Communication)
    }

    fn overhead_seconds(&self, x: &Linear) -> f64 {
        self.hardware.step_overhead_s + self.hardware.sequence_overhead_s * x[SEQS]
    }

    const fn rates(&self, with_prefill: bool) -> &PhaseRates {
        if with_prefill { &self.hardware.prefill } else { &self.hardware.decode }
    }

    fn collectives(&self, kind: Kind) -> &[Collective] {
        match kind {
            Kind::AllReduce => &self.all_reduces,
            Kind::AllGather => std::slice::from_ref(&self.all_gather),
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
            if operation.is_kernel() {
                let rates = self.rates(false);
                let per = |value: f64, rate: f64| operation.repeat * value / rate;
                let flops = operation.flops(rates);
                let bandwidth = rates.memory_bandwidth;
                let compute = decode_linear(&operation.operations).map(|value| per(value, flops));
                let memory = bytes.map(|value| per(value, bandwidth));
                self.decode_kernels.push((compute, memory));
                self.decode_constant[0] += operation.repeat * self.hardware.kernel_latency_s;
                continue;
            }
            let hardware = self.hardware;
            let by_algorithm = self
                .collectives(operation.kind)
                .iter()
                .map(|collective| {
                    let wire = operation.repeat * collective.wire / hardware.link_bandwidth;
                    let mut seconds = bytes.map(|value| value * wire);
                    seconds[0] += operation.repeat * collective.hops * hardware.link_latency_s;
                    seconds
                })
                .collect();
            self.decode_collectives.push(by_algorithm);
        }
    }

    #[inline]
    fn decode_seconds(&self, seqs: f64, context: f64) -> f64 {
        let at = |term: &DecodeLinear| term[0] + term[1] * seqs + term[2] * context;
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

impl Operation {
    const fn is_kernel(&self) -> bool {
        matches!(self.kind, Kind::LinearKernel | Kind::Kernel)
    }

    const fn flops(&self, rates: &PhaseRates) -> f64 {
        match self.kind {
            Kind::LinearKernel => rates.linear_flops,
            Kind::Kernel | Kind::AllReduce | Kind::AllGather => rates.attention_flops,
        }
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
    ]
}

/// A matrix product of every token with an `inputs` × `outputs` matrix.
fn projection(
    name: &'static str,
    layers: f64,
    inputs: f64,
    outputs: f64,
    model: &ModelShape,
) -> Operation {
    let activations = (inputs + outputs) * model.activation_bytes;
    Operation {
        name,
        runs: Runs::Always,
        kind: Kind::LinearKernel,
        repeat: layers,
        operations: linear(&[(TOKENS, 2.0 * inputs * outputs)]),
        bytes: linear(&[(ONE, inputs * outputs * model.weight_bytes), (TOKENS, activations)]),
    }
}

/// The operations of a dense transformer, in the order in which they run (`docs/cost_model.md`).
fn operations(model: &ModelShape) -> Vec<Operation> {
    let ranks = f64::from(model.tensor_parallel_size);
    let layers = f64::from(model.num_layers);
    let hidden = f64::from(model.hidden_size);
    let head_dim = f64::from(model.head_dim);
    let query = f64::from(model.num_attention_heads) / ranks * head_dim;
    // Where there are more ranks than key-value heads, each rank keeps a copy of one.
    let key = (f64::from(model.num_key_value_heads) / ranks).max(1.0) * head_dim;
    let matrices = if model.gated_mlp { 2.0 } else { 1.0 };
    let mlp = f64::from(model.intermediate_size) / ranks;
    let vocabulary = f64::from(model.vocab_size) / ranks;
    let activation = model.activation_bytes;
    let cached = 2.0 * key * model.kv_cache_bytes;

    let kernel =
        |name, runs, repeat, operations: &[(usize, f64)], bytes: &[(usize, f64)]| Operation {
            name,
            runs,
            kind: Kind::Kernel,
            repeat,
            operations: linear(operations),
            bytes: linear(bytes),
        };
    let collective = |name, runs, kind, repeat, bytes: &[(usize, f64)]| Operation {
        name,
        runs,
        kind,
        repeat,
        operations: linear(&[]),
        bytes: linear(bytes),
    };
    let mut all = vec![
        kernel("embedding", Runs::Always, 1.0, &[], &[(TOKENS, 2.0 * hidden * activation)]),
        kernel(
            "norms",
            Runs::Always,
            2.0 * layers + 1.0,
            &[(TOKENS, 4.0 * hidden)],
            &[(TOKENS, 4.0 * hidden * activation)],
        ),
        projection("qkv_projection", layers, hidden, query + 2.0 * key, model),
        kernel(
            "kv_cache_write",
            Runs::Always,
            layers,
            &[],
            &[(TOKENS, 2.0 * key * activation + cached)],
        ),
        kernel(
            "attention_prefill",
            Runs::WithPrefill,
            layers,
            &[(PREFILL_PAIRS, 4.0 * query)],
            &[(PREFILL_TOKENS, 2.0 * query * activation), (PREFILL_CONTEXT, cached)],
        ),
        kernel(
            "attention_decode",
            Runs::WithDecode,
            layers,
            &[(DECODE_CONTEXT, 4.0 * query)],
            &[(DECODE_SEQS, 2.0 * query * activation), (DECODE_CONTEXT, cached)],
        ),
        projection("output_projection", layers, query, hidden, model),
        projection("mlp_up", layers, hidden, matrices * mlp, model),
        kernel(
            "mlp_activation",
            Runs::Always,
            layers,
            &[(TOKENS, 4.0 * mlp)],
            &[(TOKENS, (matrices + 1.0) * mlp * activation)],
        ),
        projection("mlp_down", layers, mlp, hidden, model),
        kernel(
            "lm_head",
            Runs::WithSampling,
            1.0,
            &[(SAMPLED, 2.0 * hidden * vocabulary)],
            &[
                (ONE, hidden * vocabulary * model.embedding_bytes),
                (SAMPLED, (hidden + vocabulary) * activation),
            ],
        ),
    ];
    if model.tensor_parallel_size > 1 {
        let payload = [(TOKENS, hidden * activation)];
        let logits = [(SAMPLED, vocabulary * (ranks - 1.0) * activation)];
        // After the embedding, the attention and the MLP, whose weights are split over the ranks.
        let sums = 2.0 * layers + 1.0;
        all.push(collective("all_reduce", Runs::Always, Kind::AllReduce, sums, &payload));
        all.push(collective(
            "logits_all_gather",
            Runs::WithSampling,
            Kind::AllGather,
            1.0,
            &logits,
        ));
    }
    all
}

fn check_model(model: &ModelShape) -> Result<(), SimError> {
    let counts = [
        ("num_layers", model.num_layers),
        ("hidden_size", model.hidden_size),
        ("num_attention_heads", model.num_attention_heads),
        ("num_key_value_heads", model.num_key_value_heads),
        ("head_dim", model.head_dim),
        ("intermediate_size", model.intermediate_size),
        ("vocab_size", model.vocab_size),
        ("tensor_parallel_size", model.tensor_parallel_size),
    ];
    for (field, value) in counts {
        if value == 0 {
            return Err(invalid(field, &value, "must be at least 1"));
        }
    }
    let sizes = [
        ("weight_bytes", model.weight_bytes),
        ("embedding_bytes", model.embedding_bytes),
        ("activation_bytes", model.activation_bytes),
        ("kv_cache_bytes", model.kv_cache_bytes),
    ];
    sizes.iter().try_for_each(|&(field, value)| positive(field, value))
}

fn check_hardware(hardware: &RooflineHardware) -> Result<(), SimError> {
    for rates in [&hardware.prefill, &hardware.decode] {
        positive("linear_flops", rates.linear_flops)?;
        positive("attention_flops", rates.attention_flops)?;
        positive("memory_bandwidth", rates.memory_bandwidth)?;
    }
    positive("link_bandwidth", hardware.link_bandwidth)?;
    let constants = [
        ("kernel_latency_s", hardware.kernel_latency_s),
        ("step_overhead_s", hardware.step_overhead_s),
        ("sequence_overhead_s", hardware.sequence_overhead_s),
        ("link_latency_s", hardware.link_latency_s),
    ];
    constants.iter().try_for_each(|&(field, value)| {
        if value.is_finite() && value >= 0.0 {
            return Ok(());
        }
        Err(invalid(field, &value, "must be finite and at least 0"))
    })
}

fn positive(field: &'static str, value: f64) -> Result<(), SimError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(invalid(field, &value, "must be finite and above 0"))
}

fn invalid(field: &'static str, value: &dyn std::fmt::Display, remedy: &'static str) -> SimError {
    SimError::InvalidSetting { field, value: value.to_string(), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama_2_7b() -> ModelShape {
        ModelShape {
            num_layers: 32,
            hidden_size: 4096,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            intermediate_size: 11008,
            gated_mlp: true,
            vocab_size: 32000,
            tensor_parallel_size: 1,
            weight_bytes: 2.0,
            embedding_bytes: 2.0,
            activation_bytes: 2.0,
            kv_cache_bytes: 2.0,
        }
    }

    fn hardware() -> RooflineHardware {
        let rates =
            PhaseRates { linear_flops: 5e14, attention_flops: 5e14, memory_bandwidth: 2e12 };
        RooflineHardware {
            prefill: rates,
            decode: rates,
            kernel_latency_s: 3e-6,
            step_overhead_s: 1e-3,
            sequence_overhead_s: 1e-6,
            link_bandwidth: 4e11,
            link_latency_s: 2e-6,
            all_reduce: AllReduce::Auto,
        }
    }

    fn relative(a: f64, b: f64) -> f64 {
        (a - b).abs() / b
    }

    #[test]
    fn the_compiled_decode_step_is_the_sum_of_its_parts() {
        for ranks in [1, 2, 8] {
            let model = ModelShape { tensor_parallel_size: ranks, ..llama_2_7b() };
            let roofline = Roofline::new(&model, hardware()).unwrap();
            for (seqs, context) in [(1, 1), (7, 5000), (256, 300_000), (2048, 2048 * 4000)] {
                let step = StepShape {
                    decode_seqs: seqs,
                    decode_context_tokens: context,
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
        let model = ModelShape { tensor_parallel_size: 8, ..llama_2_7b() };
        let with = |all_reduce| {
            Roofline::new(&model, RooflineHardware { all_reduce, ..hardware() }).unwrap()
        };
        let small = StepShape::decode(1, 100);
        let large = StepShape::prefill(1, 8192, 0);
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
        let roofline = Roofline::new(&llama_2_7b(), hardware()).unwrap();
        let weights = |seqs: u64| {
            let step = StepShape::decode(seqs, 1);
            roofline.breakdown(&step).iter().find(|part| part.name == "mlp_down").unwrap().bytes
        };
        let activations = 32.0 * (4096.0 + 11008.0) * 2.0;
        assert!(relative(weights(65) - weights(1), 64.0 * activations) < 1e-12);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let broken = RooflineHardware { link_bandwidth: f64::NAN, ..hardware() };
        let error = Roofline::new(&llama_2_7b(), broken).unwrap_err().to_string();
        assert!(error.starts_with("link_bandwidth=NaN"), "{error}");
        let broken = ModelShape { head_dim: 0, ..llama_2_7b() };
        assert!(Roofline::new(&broken, hardware()).is_err());
    }
}
