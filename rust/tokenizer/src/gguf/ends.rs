//! Tokens that end a generation, found by their text.
//!
//! A GGUF file names one end, or three; models have more, such as the end of a call of a tool, and converters often named
//! the end of a text where a model ends its turns otherwise. llama.cpp finds the others by their text (`llama-vocab.cpp`),
//! whatever their type, and so do we, but for three that are tags elsewhere. The tokens of filling in the middle, which
//! llama.cpp counts as ends too, are none in any model's own settings.

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

/// Those that are ordinary tags and words elsewhere: they count only where their type says that they are matched as a whole.
const ORDINARY_ELSEWHERE: [&str; 3] = ["</s>", "<eos>", "<EOT>"];

/// The ends of a vocabulary, whose tokens `find` tells apart: none where there is no token of that text, and else whether it
/// is matched as a whole.
pub(super) fn by_text(find: impl Fn(&str) -> Option<bool>) -> Vec<&'static str> {
    let not = not_ends(|text| find(text).is_some());
    let is_end = |text: &&str| match find(text) {
        Some(whole) => (whole || !ORDINARY_ELSEWHERE.contains(text)) && !not.contains(text),
        None => false,
    };
    ENDS.into_iter().filter(is_end).collect()
}

/// Those of a vocabulary that end nothing in it, even if a key names them.
pub(super) fn not_ends(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut not = Vec::new();
    // Between the messages of one answer, in models that have another token for its end.
    if (has("<|call|>") && has("<|return|>")) || (has("<|flush|>") && (has("<|call|>") || has("<|calls|>"))) {
        not.push("<|end|>");
    }
    // A tag of HTML in Gemma's vocabularies and others with ends of their own.
    if has("<eos>") || has("<|tool_response>") || has("<|plamo:eos|>") {
        not.push("</s>");
    }
    not
}

#[cfg(test)]
mod tests {
    use super::by_text;

    fn ends(tokens: &[&str]) -> Vec<&'static str> {
        by_text(|text| tokens.contains(&text).then_some(true))
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
        assert_eq!(ends(&["</s>", "<eos>", "<end_of_turn>"]), ["<end_of_turn>", "<eos>"]);
        assert_eq!(ends(&["<s>", "</s>"]), ["</s>"]);
    }

    #[test]
    fn tags_count_where_they_are_matched_as_a_whole() {
        let ordinary = |tokens: &'static [&str]| by_text(|text| tokens.contains(&text).then_some(false));
        assert_eq!(ordinary(&["<s>", "</s>", "<|im_end|>"]), ["<|im_end|>"]);
    }
}
