//! Stop strings against a search of the whole text.

use proptest::prelude::*;

use super::stop::StopStrings;

/// Feeds pieces as a stream does; returns what was handed out and the string that ended it.
fn streamed(pieces: &[String], strings: &[String], is_included: bool) -> (String, Option<String>) {
    let stop = StopStrings::new(strings.to_vec(), is_included);
    let (mut out, mut held) = (String::new(), String::new());
    for piece in pieces {
        let before = held.len();
        held.push_str(piece);
        if let Some((end, found)) = stop.find(&held, before) {
            held.truncate(end);
            return (out + &held, Some(found));
        }
        let rest = held.split_off(held.len() - stop.begun_in(&held));
        out.push_str(&std::mem::replace(&mut held, rest));
    }
    (out + &held, None)
}

/// The same by looking at all text there is after each piece.
fn searched(pieces: &[String], strings: &[String], is_included: bool) -> (String, Option<String>) {
    let mut text = String::new();
    for piece in pieces {
        text.push_str(piece);
        let found = strings.iter().filter_map(|string| Some((text.find(string.as_str())?, string))).min_by_key(|x| x.0);
        if let Some((at, string)) = found {
            text.truncate(if is_included { at + string.len() } else { at });
            return (text, Some(string.clone()));
        }
    }
    (text, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever pieces the text comes in, nothing of a stop string is handed out too early, and nothing is lost.
    #[test]
    fn what_is_handed_out_is_the_text_up_to_the_first_stop_string(
        pieces in prop::collection::vec("[abé\n]{0,4}", 0..12),
        strings in prop::collection::vec("[abé\n]{1,5}", 0..4),
        is_included: bool,
    ) {
        prop_assert_eq!(streamed(&pieces, &strings, is_included), searched(&pieces, &strings, is_included));
    }
}

#[test]
fn an_empty_string_stops_nothing() {
    let stop = StopStrings::new(vec![String::new(), "b".to_owned()], false);
    for (text, before) in [("", 0), ("a", 1), ("aé", 3), ("a", 0)] {
        assert_eq!((stop.find(text, before), stop.begun_in(text)), (None, 0));
    }
}

#[test]
fn a_string_that_ended_before_is_not_found_again() {
    let stop = StopStrings::new(vec!["ab".to_owned()], false);
    assert_eq!(stop.find("abxab", 2), Some((3, "ab".to_owned())));
    assert_eq!(stop.find("abx", 2), None);
    assert_eq!(stop.find("xab", 2), Some((1, "ab".to_owned())));
}
