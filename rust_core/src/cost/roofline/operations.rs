//! The operations of a dense transformer step, as coefficients of the step's sums.

use super::inputs::{MixtureShape, ModelShape, PhaseRates};
use crate::cost::StepShape;

/// The sums that operations are linear in.
pub(super) const ONE: usize = 0;
pub(super) const TOKENS: usize = 1;
pub(super) const SEQS: usize = 2;
pub(super) const SAMPLED: usize = 3;
const PREFILL_TOKENS: usize = 4;
const PREFILL_PAIRS: usize = 5;
const PREFILL_CONTEXT: usize = 6;
pub(super) const DECODE_SEQS: usize = 7;
pub(super) const DECODE_CONTEXT: usize = 8;
pub(super) const EXPERTS: usize = 9;
const FEATURES: usize = 10;

/// One number for each feature: coefficients, or the features of a step.
pub(super) type Linear = [f64; FEATURES];

/// Coefficients from the few that are not 0.
fn linear(terms: &[(usize, f64)]) -> Linear {
    let mut coefficients = [0.0; FEATURES];
    for &(feature, value) in terms {
        coefficients[feature] += value;
    }
    coefficients
}

/// The features of a step, or of `steps` steps; `experts` is how many distinct ones they wake.
pub(super) fn features(step: &StepShape, steps: u64, experts: f64) -> Linear {
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
        (EXPERTS, experts),
    ])
}

pub(super) fn dot(coefficients: &Linear, x: &Linear) -> f64 {
    let mut sum = 0.0;
    for (coefficient, value) in coefficients.iter().zip(x) {
        sum += coefficient * value;
    }
    sum
}

/// The steps in which an operation runs at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    Always,
    WithPrefill,
    WithDecode,
    WithSampling,
}

impl Runs {
    pub(super) const fn in_step(self, step: &StepShape) -> bool {
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
pub(super) enum Kind {
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
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) runs: Runs,
    pub(super) kind: Kind,
    /// How often it runs in a step.
    pub(super) repeat: f64,
    /// Floating-point operations of one run.
    pub(super) operations: Linear,
    /// Bytes of one run.
    pub(super) bytes: Linear,
}

impl Operation {
    pub(super) const fn is_kernel(&self) -> bool {
        matches!(self.kind, Kind::LinearKernel | Kind::Kernel)
    }

    pub(super) const fn flops(&self, rates: &PhaseRates) -> f64 {
        match self.kind {
            Kind::LinearKernel => rates.linear_flops,
            Kind::Kernel | Kind::AllReduce | Kind::AllGather => rates.attention_flops,
        }
    }
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

/// A gated or plain MLP of a fixed `width` that every token visits.
fn dense_mlp(
    names: [&'static str; 3],
    layers: f64,
    width: f64,
    matrices: f64,
    model: &ModelShape,
) -> [Operation; 3] {
    let hidden = f64::from(model.hidden_size);
    let activation = Operation {
        name: names[1],
        runs: Runs::Always,
        kind: Kind::Kernel,
        repeat: layers,
        operations: linear(&[(TOKENS, 4.0 * width)]),
        bytes: linear(&[(TOKENS, (matrices + 1.0) * width * model.activation_bytes)]),
    };
    [
        projection(names[0], layers, hidden, matrices * width, model),
        activation,
        projection(names[2], layers, width, hidden, model),
    ]
}

/// The router and the routed experts: each token visits a few, a step reads those that any visits.
fn experts(mixture: &MixtureShape, matrices: f64, model: &ModelShape) -> [Operation; 4] {
    let hidden = f64::from(model.hidden_size);
    let layers = f64::from(mixture.num_layers);
    let visits = f64::from(mixture.experts_per_token);
    let width = f64::from(mixture.intermediate_size) / f64::from(model.tensor_parallel_size);
    let a = model.activation_bytes;
    let router = f64::from(mixture.num_experts);
    let grouped = |name, inputs: f64, outputs: f64| Operation {
        name,
        runs: Runs::Always,
        kind: Kind::LinearKernel,
        repeat: layers,
        operations: linear(&[(TOKENS, 2.0 * visits * inputs * outputs)]),
        bytes: linear(&[
            (EXPERTS, inputs * outputs * mixture.weight_bytes),
            (TOKENS, visits * (inputs + outputs) * a),
        ]),
    };
    let kernel = |name, operations: f64, fixed: f64, per_token: f64| Operation {
        name,
        runs: Runs::Always,
        kind: Kind::Kernel,
        repeat: layers,
        operations: linear(&[(TOKENS, operations)]),
        bytes: linear(&[(ONE, fixed), (TOKENS, per_token)]),
    };
    [
        kernel("router", 2.0 * hidden * router, hidden * router * a, (hidden + router) * a),
        grouped("experts_up", hidden, matrices * width),
        kernel(
            "experts_activation",
            4.0 * visits * width,
            0.0,
            visits * (matrices + 1.0) * width * a,
        ),
        grouped("experts_down", width, hidden),
    ]
}

/// The operations of a transformer, in the order in which they run (`docs/cost_model.md`).
pub(super) fn operations(model: &ModelShape) -> Vec<Operation> {
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
    if model.dense_layers() > 0 {
        let names = ["mlp_up", "mlp_activation", "mlp_down"];
        all.extend(dense_mlp(names, f64::from(model.dense_layers()), mlp, matrices, model));
    }
    if let Some(mixture) = &model.mixture {
        all.extend(experts(mixture, matrices, model));
        if mixture.shared_intermediate_size > 0 {
            let names = ["shared_expert_up", "shared_expert_activation", "shared_expert_down"];
            let width = f64::from(mixture.shared_intermediate_size) / ranks;
            let layers = f64::from(mixture.num_layers);
            all.extend(dense_mlp(names, layers, width, matrices, model));
        }
    }
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
