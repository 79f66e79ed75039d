//! The report as text for people.

use std::io::{self, Write};

use super::report::{Report, Tally};
use crate::units::{bytes, count, printable};

pub(crate) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut line = |label: &str, text: &str| writeln!(out, "{label:<15}{}", printable(text));
    line("Model", &report.path)?;
    if let Some(name) = &report.name {
        line("Name", name)?;
    }
    line("Format", &report.format)?;
    line("Architecture", &report.architecture)?;
    if let Some(reason) = &report.unsupported {
        line("", &format!("does not run here: {reason}"))?;
    }
    let active = match report.active_parameters {
        active if active == report.parameters => String::new(),
        active => format!(" ({} for a token)", count(active)),
    };
    line("Parameters", &format!("{}{active}, {:.2} bits a weight", count(report.parameters), report.bits_per_weight))?;
    if let Some(s) = &report.shape {
        let tied = if s.tie_word_embeddings { ", embedding tied to the output" } else { "" };
        line("Layers", &format!("{} of width {}, MLP {}", s.num_hidden_layers, s.hidden_size, s.intermediate_size))?;
        if let (Some(count), Some(per_token)) = (s.num_experts, s.num_experts_per_tok) {
            line("Experts", &format!("{count}, of which a token goes through {per_token}"))?;
        }
        line(
            "Heads",
            &format!("{} query, {} key/value, of {}", s.num_attention_heads, s.num_key_value_heads, s.head_dim),
        )?;
        line("Vocabulary", &format!("{} tokens{tied}", s.vocab_size))?;
        line("Context", &format!("{} tokens", s.max_position_embeddings))?;
    }
    let tokenizer = &report.tokenizer;
    match (&tokenizer.unsupported, &tokenizer.chat_template) {
        (Some(reason), _) => line("Tokenizer", &format!("cannot be used: {reason}"))?,
        (None, Some(template)) => line("Chat template", &format!("yes, {} characters", template.chars().count()))?,
        (None, None) => line("Chat template", "none")?,
    }
    table(out, "Quantisation", &report.quantization)?;
    table(out, "Kind", &report.kinds)?;
    memory(report, out)?;
    for (i, tensor) in report.tensors.iter().flatten().enumerate() {
        if i == 0 {
            writeln!(out, "\n{:<48}{:>8}{:>12}  Shape", "Tensor", "Type", "Size")?;
        }
        writeln!(
            out,
            "{:<48}{:>8}{:>12}  {:?}",
            printable(&tensor.name),
            tensor.dtype.name(),
            bytes(tensor.bytes),
            tensor.shape
        )?;
    }
    Ok(())
}

fn table(out: &mut impl Write, title: &str, tallies: &[Tally]) -> io::Result<()> {
    writeln!(out, "\n{title:<15}{:>8}{:>12}{:>12}{:>7}", "Tensors", "Parameters", "Size", "Share")?;
    let total: u64 = tallies.iter().map(|t| t.bytes).sum();
    for t in tallies {
        let percent = t.bytes as f64 * 100.0 / total.max(1) as f64;
        writeln!(
            out,
            "{:<15}{:>8}{:>12}{:>12}{percent:>6.1}%",
            t.name,
            t.tensors,
            count(t.parameters),
            bytes(t.bytes)
        )?;
    }
    Ok(())
}

fn memory(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let memory = &report.memory;
    let (stored, loaded) = (bytes(memory.weight_bytes), bytes(memory.loaded_bytes));
    writeln!(out, "\n{:<15}{stored} stored, {loaded} in memory", "Weights")?;
    if let (Some(context), Some(kv), Some(dtype)) = (memory.context, memory.kv_cache_bytes, &memory.kv_cache_dtype) {
        writeln!(out, "{:<15}{} for {context} tokens in {dtype}", "KV cache", bytes(kv))?;
    }
    if let Some(speed) = &report.speed {
        let (rate, threads) = (speed.bandwidth.bytes_per_second / 1e9, speed.bandwidth.threads);
        let plural = if threads == 1 { "" } else { "s" };
        writeln!(out, "{:<15}{rate:.1} GB/s read by {threads} thread{plural}", "Memory")?;
        write!(out, "{:<15}at most {:.0} tokens a second at batch 1", "Speed", speed.tokens_per_second)?;
        if let (Some(limit), Some(context)) = (speed.tokens_per_second_at_context, memory.context) {
            write!(out, ", {limit:.0} after {context} tokens")?;
        }
        writeln!(out, " (memory's limit)")?;
    }
    Ok(())
}
