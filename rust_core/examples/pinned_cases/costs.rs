//! Cost models of the pinned cases: as large as those of Llama-3.1-8B on an H100, with round numbers.
//!
//! They are written down here, so that neither the catalogue nor a calibration changes a count.

use std::sync::Arc;

use _core::cost::{
    AllReduce, CostModel, Curve, FixedCost, Function, Kind, Operation, PhaseRates, PrefillSurface,
    Provenance, Roofline, RooflineHardware, Runs, Surface, Table, Term,
};
use _core::error::SimError;

/// 8 ms a step, 20 µs a prompt token, 0.1 ms a decoding request.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all models")]
pub(crate) const fn fixed() -> Result<CostModel, SimError> {
    Ok(CostModel::Fixed(FixedCost {
        step_ns: 8_000_000,
        prefill_token_ns: 20_000,
        decode_seq_ns: 100_000,
        context_token_ns: 0,
        shared_token_ns: 0,
    }))
}

/// Twelve operations, bound by memory or by arithmetic.
pub(crate) fn roofline() -> Result<CostModel, SimError> {
    Ok(CostModel::Roofline(Arc::new(compiled_roofline()?)))
}

fn compiled_roofline() -> Result<Roofline, SimError> {
    use Kind::{Kernel, LinearKernel};
    use Runs::{Always, WithDecode, WithPrefill, WithSampling};
    let operations = [
        ("embedding", Always, Kernel, 1.0, vec![], vec![("tokens", 16e3)]),
        ("norms", Always, Kernel, 65.0, vec![("tokens", 16e3)], vec![("tokens", 33e3)]),
        linear("qkv_projection", 32.0, 50e6, 20e3),
        ("rotary", Always, Kernel, 32.0, vec![("tokens", 15e3)], vec![("tokens", 20e3)]),
        ("kv_cache_write", Always, Kernel, 32.0, vec![], vec![("tokens", 8e3)]),
        linear("output_projection", 32.0, 34e6, 16e3),
        (
            "attention_prefill",
            WithPrefill,
            Kernel,
            32.0,
            vec![("prefill_attention_pairs", 16e3)],
            vec![("prefill_tokens", 16e3), ("prefill_context_tokens", 4e3)],
        ),
        (
            "attention_decode",
            WithDecode,
            Kernel,
            32.0,
            vec![("decode_context_tokens", 16e3)],
            vec![("decode_seqs", 16e3), ("decode_context_tokens", 4e3)],
        ),
        linear("mlp_up", 32.0, 235e6, 65e3),
        ("mlp_activation", Always, Kernel, 32.0, vec![("tokens", 57e3)], vec![("tokens", 86e3)]),
        linear("mlp_down", 32.0, 117e6, 37e3),
        (
            "lm_head",
            WithSampling,
            LinearKernel,
            1.0,
            vec![("sampled_seqs", 1e9)],
            vec![("one", 1e9), ("sampled_seqs", 264e3)],
        ),
    ];
    let operations = operations
        .into_iter()
        .map(|(name, runs, kind, repeat, work, bytes)| {
            Operation::new(name, runs, kind, repeat, false, &owned(&work), &owned(&bytes))
        })
        .collect::<Result<Vec<Operation>, SimError>>()?;
    let rates = PhaseRates {
        linear_flops: 650e12,
        attention_flops: 400e12,
        memory_bandwidth: 2.8e12,
        step_overhead_s: 1e-3,
    };
    let hardware = RooflineHardware {
        prefill: rates,
        decode: rates,
        kernel_latency_s: 2e-6,
        sequence_overhead_s: 1e-5,
        link_bandwidth: 400e9,
        link_latency_s: 1e-6,
        all_reduce: AllReduce::Auto,
        exchange_bandwidth: 400e9,
        exchange_latency_s: 1e-6,
    };
    Roofline::new(operations, None, 1, hardware)
}

/// A coefficient of one of the step's sums.
type Coefficient = (&'static str, f64);

/// A matrix of `weights` bytes that tokens are multiplied with.
fn linear(
    name: &'static str,
    repeat: f64,
    weights: f64,
    token_bytes: f64,
) -> (&'static str, Runs, Kind, f64, Vec<Coefficient>, Vec<Coefficient>) {
    let bytes = vec![("one", weights), ("tokens", token_bytes)];
    (name, Runs::Always, Kind::LinearKernel, repeat, vec![("tokens", weights)], bytes)
}

fn owned(coefficients: &[Coefficient]) -> Vec<(String, f64)> {
    coefficients.iter().map(|&(feature, value)| (feature.to_owned(), value)).collect()
}

/// Ten curves and a surface for each kind of attention, with as many knots as measured tables have.
pub(crate) fn op_table() -> Result<CostModel, SimError> {
    let decode = terms(false)?;
    let mixed = terms(true)?;
    Ok(CostModel::Table(Arc::new(Table::new(compiled_roofline()?, decode, mixed)?)))
}

fn terms(mixed: bool) -> Result<Vec<Term>, SimError> {
    let small = ["embedding", "norms", "rotary", "kv_cache_write", "mlp_activation"];
    let large = ["qkv_projection", "output_projection", "mlp_up", "mlp_down"];
    let mut terms = Vec::new();
    for name in small {
        terms.push(term(name, Function::Tokens(curve(22, 2.0, 2e-5, 3e-7)?)));
    }
    for name in large {
        terms.push(term(name, Function::Tokens(curve(75, 1.16, 1.2e-3, 2e-6)?)));
    }
    if mixed {
        let fresh = surface(10, 18, |seqs, tokens| 4e-4 + 2e-9 * seqs * tokens * tokens)?;
        let prefill = PrefillSurface {
            fresh,
            seconds_per_pair: 8e-10,
            saturating_tokens: 375.0,
            seconds_per_key: 5e-8,
            window: 0,
        };
        terms.push(term("attention_prefill", Function::Prefill(prefill)));
    }
    let keys = surface(13, 18, |seqs, keys| 4e-4 + 5e-8 * seqs * keys)?;
    terms.push(term("attention_decode", Function::Decode(keys)));
    terms.push(term("lm_head", Function::Sampled(curve(75, 1.16, 4e-4, 1e-6)?)));
    terms.push(term("overhead", Function::Seqs(curve(2, 2.0, 0.0, 0.0)?)));
    Ok(terms)
}

fn term(name: &str, function: Function) -> Term {
    Term {
        name: name.into(),
        function,
        provenance: Provenance::Measured,
        bound: None,
        shared: false,
    }
}

/// A line through `knots` points, each `ratio` times the one before.
fn curve(knots: i32, ratio: f64, constant: f64, slope: f64) -> Result<Curve, SimError> {
    let knots: Vec<f64> = (0..knots).map(|knot| ratio.powi(knot)).collect();
    let values = knots.iter().map(|x| constant + slope * x).collect();
    Curve::new(knots, values)
}

/// A function at powers of two.
fn surface(rows: i32, columns: i32, value: fn(f64, f64) -> f64) -> Result<Surface, SimError> {
    let axis = |knots: i32| (0..knots).map(|knot| 2.0_f64.powi(knot)).collect::<Vec<f64>>();
    let (x, y) = (axis(rows), axis(columns));
    let values: Vec<f64> = x.iter().flat_map(|&x| y.iter().map(move |&y| value(x, y))).collect();
    Surface::new(x, y, &values)
}
