//! What a user should know before a model is quantised: what is lost, and why the file is larger than its type says.

use std::collections::BTreeSet;

use nanovllm_gguf::GgmlType;

use super::conversion::Conversion;
use super::mix::Mix;
use super::source::Source;

/// The warnings, a line each.
pub(crate) fn of(mix: &Mix, source: &Source, conversions: &[Conversion<'_>]) -> Vec<String> {
    let lost = source.lost.iter().map(|what| format!("a GGUF file cannot hold {what}"));
    let notes = source.notes.iter().cloned();
    let changes = kept(conversions).into_iter().chain(requantised(conversions));
    notes.chain(lost).chain(changes).chain(larger(mix, conversions)).collect()
}

/// Tensors that a model was trained in the blocks of.
fn kept(conversions: &[Conversion<'_>]) -> Option<String> {
    let counts = counted(conversions.iter().filter(|c| c.is_kept).map(|c| c.to.name().to_owned()));
    (!counts.is_empty()).then(|| {
        let listed: Vec<String> = counts.iter().map(|(name, n)| format!("{n} of {name}")).collect();
        format!(
            "tensors stay in the blocks that the model was trained in ({}); --pure converts them",
            listed.join(", ")
        )
    })
}

/// Tensors that are quantised already, whose exact values nobody has any more.
fn requantised(conversions: &[Conversion<'_>]) -> Option<String> {
    let again = conversions.iter().filter(|c| c.tensor.dtype.block_size() > 1 && c.tensor.dtype != c.to);
    let counts = counted(again.map(|c| c.tensor.dtype.name().to_owned()));
    (!counts.is_empty()).then(|| {
        let listed: Vec<String> = counts.iter().map(|(name, n)| format!("{n} of {name}")).collect();
        format!(
            "tensors that are quantised already are converted from that ({}): what was lost does not come back, and a model \
             in F32, F16 or BF16 gives a better file",
            listed.join(", ")
        )
    })
}

/// Matrices whose rows are no whole blocks of the type that the mix has for them, and get more bits instead.
fn larger(mix: &Mix, conversions: &[Conversion<'_>]) -> Option<String> {
    let others: Vec<_> = conversions.iter().filter(|c| c.to != c.wanted).collect();
    if others.is_empty() {
        return None;
    }
    let rows: BTreeSet<usize> = others.iter().map(|c| c.tensor.cols()).collect();
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let changes = counted(others.iter().map(|c| format!("{} instead of {}", c.to, c.wanted)));
    let changes: Vec<String> = changes.iter().map(|(change, n)| format!("{n} get {change}")).collect();
    let matrices: Vec<_> = conversions.iter().filter(|c| c.tensor.dims.len() > 1).collect();
    let bits = |dtype: fn(&Conversion<'_>) -> GgmlType| {
        let elements = |c: &Conversion<'_>| c.tensor.dims.iter().map(|&n| n as f64).product::<f64>();
        let bits = |dtype: GgmlType| 8.0 * dtype.type_size() as f64 / dtype.block_size() as f64;
        let total: f64 = matrices.iter().map(|c| elements(c) * bits(dtype(c))).sum();
        total / matrices.iter().map(|c| elements(c)).sum::<f64>()
    };
    Some(format!(
        "the file is larger than {} promises, with {:.1} bits a weight instead of {:.1}: rows of {} are no whole blocks, \
         so of the matrices {}",
        mix.name,
        bits(|c| c.to),
        bits(|c| c.wanted),
        rows.join(" and of "),
        changes.join(", ")
    ))
}

/// How often each of the names comes, in the order of their first coming.
fn counted(names: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for name in names {
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => counts.push((name, 1)),
        }
    }
    counts
}
