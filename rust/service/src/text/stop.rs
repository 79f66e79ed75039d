//! Texts that end an answer, looked for as it grows.

/// The stop strings of a request.
pub(super) struct StopStrings {
    strings: Vec<String>,
    /// Whether what is found stays in the text.
    is_included: bool,
}

impl StopStrings {
    /// Those of a request; an empty one, which is everywhere, stops nothing.
    pub(super) fn new(mut strings: Vec<String>, is_included: bool) -> Self {
        strings.retain(|string| !string.is_empty());
        Self { strings, is_included }
    }

    /// Whether what ends a text stays in it.
    pub(super) fn is_included(&self) -> bool {
        self.is_included
    }

    /// Where `text` ends by the stop string that begins first in it, of those that end behind the first `before` bytes, and that string;
    /// of several at one place the first of the request's list.
    pub(super) fn find(&self, text: &str, before: usize) -> Option<(usize, String)> {
        fn place<'a>(text: &str, before: usize, string: &'a String) -> Option<(usize, &'a String)> {
            let mut from = (before + 1).saturating_sub(string.len());
            while !text.is_char_boundary(from) {
                from += 1; // a match begins with a character
            }
            let at = from + text.get(from..)?.find(string.as_str())?;
            Some((at, string))
        }
        // The first of equal ones is the least.
        let (at, found) =
            self.strings.iter().filter_map(|string| place(text, before, string)).min_by_key(|(at, _)| *at)?;
        Some((if self.is_included { at + found.len() } else { at }, found.clone()))
    }

    /// How many bytes at the end of `text` may be the beginning of a stop string.
    pub(super) fn begun_in(&self, text: &str) -> usize {
        let begun = |string: &String| {
            let begins = (1..string.len()).rev().filter(|&len| string.is_char_boundary(len));
            begins.into_iter().find(|&len| text.ends_with(&string[..len]))
        };
        self.strings.iter().filter_map(begun).max().unwrap_or(0)
    }
}
