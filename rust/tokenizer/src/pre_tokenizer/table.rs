//! The values of `tokenizer.ggml.pre`.
//!
//! The names and what they stand for were read in llama.cpp's `src/llama-vocab.cpp`. Names of one row differ in nothing that
//! matters here. Missing is `whitespace`, of a model that encodes sentences and has no bytes among its tokens. Those in
//! SentencePiece's style (`gemma4` and others) are in [`crate::gguf`].

use super::patterns::*;
use super::{Cut, PreTokenizer};

const PLAIN: PreTokenizer = PreTokenizer { names: &[], cuts: &[], nfc: false, ignore_merges: false, add_bos: false };

/// Every pre-tokenizer known, the usual name first in each row.
pub(crate) const TABLE: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        cuts: &[Cut::Gpt2],
        ..PLAIN
    },
    // The tokenizer of GPT-NeoX.
    PreTokenizer { names: &["olmo", "mpt", "modern-bert"], cuts: &[Cut::Gpt2], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        cuts: &[Cut::Digits, Cut::Gpt2],
        ..PLAIN
    },
    PreTokenizer { names: &["command-r"], cuts: &[Cut::Digits, Cut::Gpt2], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["falcon"],
        cuts: &[Cut::Regex(FALCON_PUNCTUATION), Cut::Regex(GPT2), Cut::Regex(THREE_DIGITS)],
        ..PLAIN
    },
    PreTokenizer {
        // What llama.cpp falls back on, which is much like Falcon's cut.
        names: &["default"],
        cuts: &[Cut::Regex(DEFAULT_PUNCTUATION), Cut::Regex(GPT2), Cut::Regex(r"\p{N}+"), Cut::Regex(THREE_DIGITS)],
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        cuts: &[Cut::Regex(LLAMA3)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["glm4", "glm5"], cuts: &[Cut::Regex(LLAMA3)], ignore_merges: true, ..PLAIN },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], cuts: &[Cut::Regex(LLAMA3)], ..PLAIN },
    PreTokenizer { names: &["jais-2"], cuts: &[Cut::Regex(JAIS2)], ..PLAIN },
    PreTokenizer {
        names: &["minicpm5"],
        cuts: &[Cut::Regex(BY_THREES), Cut::Regex(MINICPM5)],
        ignore_merges: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "f2llmv2"],
        cuts: &[Cut::Regex(QWEN2)],
        nfc: true,
        ..PLAIN
    },
    PreTokenizer {
        // The regular expression of the last three is written otherwise, and cuts the same.
        names: &["stablelm2", "hunyuan", "solar-open", "grok-2", "kormo", "bailingmoe", "bailingmoe2", "llada-moe"],
        cuts: &[Cut::Regex(QWEN2)],
        ..PLAIN
    },
    PreTokenizer { names: &["laguna"], cuts: &[Cut::Regex(LINES), Cut::Regex(QWEN2)], ..PLAIN },
    PreTokenizer { names: &["qwen35"], cuts: &[Cut::Regex(QWEN35)], nfc: true, ..PLAIN },
    PreTokenizer { names: &["seed-coder"], cuts: &[Cut::Regex(SEED_CODER)], ..PLAIN },
    PreTokenizer { names: &["ufakzeka"], cuts: &[Cut::Regex(UFAKZEKA)], ..PLAIN },
    PreTokenizer { names: &["exaone-moe"], cuts: &[Cut::Regex(EXAONE_MOE)], ..PLAIN },
    PreTokenizer { names: &["tekken"], cuts: &[Cut::Regex(TEKKEN)], ignore_merges: true, add_bos: true, ..PLAIN },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        cuts: &[Cut::Regex(GPT4O)],
        ..PLAIN
    },
    PreTokenizer { names: &["granite-embed-multi-97m"], cuts: &[Cut::Regex(GPT4O)], ignore_merges: true, ..PLAIN },
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        cuts: &[Cut::Regex(COHERE_BY_THREES), Cut::Regex(GPT4O)],
        ..PLAIN
    },
    PreTokenizer { names: &["kimi-k2"], cuts: &[Cut::Regex(KIMI_K2)], ..PLAIN },
    PreTokenizer {
        names: &["youtu"],
        cuts: &[Cut::Regex(YOUTU_SCRIPTS), Cut::Regex(YOUTU)],
        ignore_merges: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        cuts: &[
            Cut::Regex(r"[\r\n]"),
            Cut::Regex(DEEPSEEK_LLM_WORDS),
            Cut::Regex(DEEPSEEK_LLM_PUNCTUATION),
            Cut::Regex(r"\s+$"),
            Cut::Regex(EAST_ASIAN),
            Cut::Regex(r"\p{N}+"),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        cuts: &[
            Cut::Regex(r"[\r\n]"),
            Cut::Regex(r"\s?\p{L}+"),
            Cut::Regex(r"\s?\p{P}+"),
            Cut::Regex(EAST_ASIAN),
            Cut::Digits,
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        cuts: &[Cut::Regex(BY_THREES), Cut::Regex(CHINESE_JAPANESE), Cut::Regex(DEEPSEEK_V3)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["spark2_5"],
        cuts: &[Cut::Regex(BY_THREES), Cut::Regex(CHINESE_JAPANESE), Cut::Regex(SPARK), Cut::Digits],
        ..PLAIN
    },
    PreTokenizer {
        names: &["afmoe"],
        cuts: &[Cut::Regex(BY_THREES_FROM_RIGHT), Cut::Regex(ARCEE_SCRIPTS), Cut::Regex(DEEPSEEK_V3)],
        ..PLAIN
    },
    PreTokenizer { names: &["superbpe"], cuts: &[Cut::Regex(r"\p{N}+"), Cut::Regex(BETWEEN_THREES)], ..PLAIN },
    PreTokenizer { names: &["bloom", "poro-chat", "gpt3-finnish"], cuts: &[Cut::Regex(BLOOM)], ..PLAIN },
    PreTokenizer { names: &["viking"], cuts: &[Cut::Regex(BLOOM), Cut::Digits], ..PLAIN },
    PreTokenizer {
        names: &["chameleon"],
        cuts: &[
            Cut::Regex("<sentinel:[0-9]+>"),
            Cut::Regex("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            Cut::Regex(r"([\t\n]|    |  )"),
            Cut::Digits,
            Cut::Regex(r"[\p{P}!-/:-@\[-`{-~]"),
            Cut::Gpt2,
        ],
        add_bos: true,
        ..PLAIN
    },
];
