//! How a text is cut into words before merging: what `tokenizer.ggml.pre` stands for.
//!
//! GGUF names the pre-tokenizer instead of spelling it out: the names are in `table.rs`, the regular expressions in
//! `patterns.rs`. Any other name is refused, since another cut would give a model words that it has never seen.

mod patterns;
mod table;

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use self::patterns::GPT2;
pub(crate) use self::table::TABLE;
use crate::error::Error;

/// A way of cutting a text into pieces. Cuts apply in order, each to the pieces that the one before it left.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Every match of the pattern, and every stretch between matches, is a piece.
    Regex(&'static str),
    /// Every digit is a piece.
    Digits,
    /// The words of GPT-2, as its regular expression cuts them.
    Gpt2,
}

/// What a value of `tokenizer.ggml.pre` stands for.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    names: &'static [&'static str],
    cuts: &'static [Cut],
    /// Whether text is brought to normalisation form C first. llama.cpp has no normaliser, but the `tokenizer.json` of
    /// these models has, and that is what they were trained with.
    nfc: bool,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// Whether a text begins with the BOS token when `tokenizer.ggml.add_bos_token` does not say.
    pub(crate) add_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer that GGUF calls `name`.
    pub(crate) fn named(name: &str) -> Result<&'static Self, Error> {
        TABLE.iter().find(|row| row.names.contains(&name)).ok_or_else(|| Error::UnknownPreTokenizer {
            pre: name.to_owned(),
            known: TABLE.iter().flat_map(|row| row.names).copied().collect::<Vec<_>>().join(", "),
        })
    }

    /// The names it goes by, the usual one first.
    pub(crate) fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The normaliser, if there is one.
    pub(crate) fn normalizer(&self) -> Option<NormalizerWrapper> {
        self.nfc.then(|| NFC.into())
    }

    /// The cuts, then the change to the byte alphabet.
    pub(crate) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, Error> {
        let byte_level = |use_regex| ByteLevel::new(false, true, use_regex).into();
        let steps = match self.cuts.split_last() {
            // The library's byte-level step knows GPT-2's words itself; `tokenizer.json` files rely on that.
            Some((Cut::Gpt2, cuts)) => Self::steps(cuts, byte_level(true))?,
            _ => Self::steps(self.cuts, byte_level(false))?,
        };
        Ok(Sequence::new(steps).into())
    }

    fn steps(cuts: &[Cut], byte_level: PreTokenizerWrapper) -> Result<Vec<PreTokenizerWrapper>, Error> {
        let step = |cut: &Cut| match cut {
            Cut::Regex(pattern) => split(pattern),
            Cut::Digits => Ok(Digits::new(true).into()),
            Cut::Gpt2 => split(GPT2),
        };
        cuts.iter().map(step).chain([Ok(byte_level)]).collect()
    }
}

fn split(pattern: &str) -> Result<PreTokenizerWrapper, Error> {
    Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
        .map(Into::into)
        .map_err(Error::build)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::PreTokenizerWrapper;
    use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    /// The words of `text`, in the byte alphabet (`Ġ` is a space, `Ċ` a line feed).
    fn words(pre: &str, text: &str) -> Vec<String> {
        let cut: PreTokenizerWrapper = PreTokenizer::named(pre).unwrap().pre_tokenizer().unwrap();
        let mut pieces = PreTokenizedString::from(text);
        cut.pre_tokenize(&mut pieces).unwrap();
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, _, _)| word.to_owned()).collect()
    }

    #[test]
    fn every_row_builds_and_no_name_is_listed_twice() {
        let mut seen = std::collections::HashSet::new();
        for row in TABLE {
            row.pre_tokenizer().unwrap();
            assert!(row.names.iter().all(|name| seen.insert(*name)), "{:?}", row.names);
        }
    }

    #[test]
    fn words_are_those_of_each_model_family() {
        let text = "It'S 1234  x\n\n";
        assert_eq!(words("gpt-2", text), ["It", "'", "S", "Ġ1234", "Ġ", "Ġx", "ĊĊ"]);
        assert_eq!(words("smollm", text), ["It", "'", "S", "Ġ", "1", "2", "3", "4", "Ġ", "Ġx", "ĊĊ"]);
        assert_eq!(words("llama-bpe", text), ["It", "'S", "Ġ", "123", "4", "Ġ", "Ġx", "ĊĊ"]);
        assert_eq!(words("qwen2", text), ["It", "'S", "Ġ", "1", "2", "3", "4", "Ġ", "Ġx", "ĊĊ"]);
        assert_eq!(words("deepseek-v3", text), ["It", "'S", "Ġ", "123", "4", "Ġ", "Ġx", "ĊĊ"]);
        assert_eq!(words("deepseek-coder", "\tfn f1()\n"), ["ĉfn", "Ġf", "1", "()", "Ċ"]);
        assert_eq!(words("gpt-4o", "fooBar'll"), ["foo", "Bar'll"]);
        assert_eq!(words("tekken", "fooBar12/\n"), ["foo", "Bar", "1", "2", "/Ċ"]);
        assert_eq!(words("default", "a=12345"), ["a", "=", "123", "45"]);
        assert_eq!(words("falcon", "a` 12345"), ["a", "`", "Ġ", "123", "45"]);
        assert_eq!(words("deepseek-llm", "naïve f1 12\n"), ["na", "Ã¯", "ve", "Ġf", "1", "Ġ", "12", "Ċ"]);
        assert_eq!(words("superbpe", "a b 1234567 c"), ["aĠbĠ", "1", "234", "567", "Ġc"]);
        assert_eq!(words("afmoe", "x 1234567"), ["x", "Ġ", "1", "234", "567"]);
        assert_eq!(words("tiny_aya", "1234567 1234x"), ["1", "234", "567", "Ġ", "123", "4", "x"]);
        assert_eq!(words("bloom", "one, two|x"), ["one", ",", "Ġtwo", "|", "x"]);
        assert_eq!(words("viking", "x12"), ["x", "1", "2"]);
        assert_eq!(words("chameleon", "IMGIMGABZa  b\tc!"), ["IMGIMGABZ", "a", "ĠĠ", "b", "ĉ", "c", "!"]);
        assert_eq!(words("laguna", "a \nb"), ["a", "Ġ", "Ċ", "b"]);
        assert_eq!(words("jais-2", "x    y"), ["x", "ĠĠ", "Ġ", "Ġy"]);
        assert_eq!(words("exaone-moe", "one two, 3"), ["oneĠtwo", ",", "Ġ", "3"]);
        assert_eq!(words("seed-coder", "a;\n"), ["a", ";", "Ċ"]);
        assert_eq!(words("ufakzeka", "it's"), ["it", "'s"]);
        assert_eq!(words("ufakzeka", "it'se"), ["it", "'se"]);
        assert_eq!(words("minicpm5", "a  12345"), ["a", "ĠĠ", "123", "45"]);
        assert_eq!(words("kimi-k2", "ab'll漢字x").len(), 3);
        assert_eq!(words("youtu", "한국a1").len(), 3);
        assert_eq!(words("spark2_5", "a!\n"), ["a", "!", "Ċ"]);
    }

    proptest! {
        /// As the models' own regular expressions cut it, which take the square of a number's length.
        #[test]
        fn numbers_are_cut_as_models_cut_them(text in "([0-9]{0,14}|[0-9½ax ]{0,14}|٣{0,7}){0,5}") {
            for (own, linear) in [
                (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", patterns::BY_THREES_FROM_RIGHT),
                (r"\d{1,3}(?=(?:\d{3})*\b)", patterns::COHERE_BY_THREES),
                (r"(?=(\d{3})+(?!\d))", patterns::BETWEEN_THREES),
            ] {
                let pieces = |pattern: &str| {
                    let mut pieces = PreTokenizedString::from(text.as_str());
                    split(pattern).unwrap().pre_tokenize(&mut pieces).unwrap();
                    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
                    splits.into_iter().map(|(word, _, _)| word.to_owned()).collect::<Vec<_>>()
                };
                prop_assert_eq!(pieces(linear), pieces(own), "{}", own);
            }
        }
    }

    #[test]
    fn long_numbers_take_linear_time() {
        for pre in ["afmoe", "tiny_aya", "superbpe"] {
            assert_eq!(words(pre, &"1".repeat(30_001)).len(), 10_001, "{pre}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let message = PreTokenizer::named("martian").unwrap_err().to_string();
        assert!(message.contains("martian") && message.contains("qwen2"), "{message}");
    }
}
