//! Tokens that end a generation, found by their text.
//!
//! A GGUF file names one end, or three; models have more, such as the end of a call of a tool, and converters often named
//! the end of a text where a model ends its turns otherwise. llama.cpp finds the others by their text (`llama-vocab.cpp`),
//! and so do we, but only among the tokens that are matched in the text as a whole; an ordinary `</s>` ends nothing. The
//! tokens of filling in the middle, which llama.cpp counts as ends too, are none in any model's own settings.

const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>", // gpt-oss
    "<|call|>",   // gpt-oss
    "<|flush|>",  // Solar
    "<|calls|>",  // Solar
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]", // Kimi
    "[EOS]", // Kimi
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",            // Gemma 4
    "<turn|>",          // Gemma 4
    "<|tool_response>", // Gemma 4
    "<｜end▁of▁sentence｜>",
    "[e~[", // MiniMax
];

/// Whether a token ends a generation wherever it is one that is matched as a whole.
pub(super) fn is_one(text: &str) -> bool {
    ENDS.contains(&text)
}

/// The ends among the tokens that `has` knows.
pub(super) fn by_text(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut ends: Vec<&str> = ENDS.into_iter().filter(|text| has(text)).collect();
    // Between the messages of one answer, in models that have another token for its end.
    let calls = has("<|call|>") || has("<|calls|>");
    if calls && (has("<|return|>") || has("<|flush|>")) {
        ends.retain(|text| *text != "<|end|>");
    }
    // An ordinary tag in these vocabularies.
    if has("<|tool_response>") || has("<|plamo:eos|>") {
        ends.retain(|text| *text != "</s>");
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::by_text;

    fn ends(tokens: &[&str]) -> Vec<&'static str> {
        by_text(|text| tokens.contains(&text))
    }

    #[test]
    fn of_each_family() {
        assert_eq!(ends(&["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), ["<|im_end|>", "<|endoftext|>"]);
        assert_eq!(ends(&["<|end|>", "<|endoftext|>", "<|user|>"]), ["<|end|>", "<|endoftext|>"]);
        let gpt_oss = ["<|start|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>"];
        assert_eq!(ends(&gpt_oss), ["<|return|>", "<|call|>", "<|endoftext|>"]);
        assert_eq!(ends(&["<|end|>", "<|flush|>", "<|calls|>"]), ["<|flush|>", "<|calls|>"]);
        assert_eq!(ends(&["<|end|>", "<|flush|>"]), ["<|end|>", "<|flush|>"]);
        assert_eq!(ends(&["</s>", "<eos>", "<turn|>", "<|tool_response>"]), ["<eos>", "<turn|>", "<|tool_response>"]);
        assert_eq!(ends(&["<s>", "</s>"]), ["</s>"]);
    }
}
