//! Values as Python prints them.

use std::fmt::{self, Formatter, Write as _};

use minijinja::Value;
use minijinja::value::{DynObject, ValueKind};

/// Prints a value as Python's `str` does, and what lies within it as `repr` does.
pub(crate) struct Printed<'a>(pub(crate) &'a Value);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            Some(text) => f.write_str(text),
            None if self.0.is_undefined() => Ok(()),
            None => write(f, self.0),
        }
    }
}

fn write(f: &mut Formatter<'_>, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::Undefined => f.write_str("Undefined"),
        ValueKind::String => write_text(f, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            f.write_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN), "nan", "inf"))
        }
        ValueKind::Seq | ValueKind::Iterable if is_plain(value) => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            f.write_char(open)?;
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                write(f, &item)?;
            }
            f.write_str(if value.is_tuple() && value.len() == Some(1) { "," } else { "" })?;
            f.write_char(close)
        }
        ValueKind::Map if is_plain(value) => {
            f.write_char('{')?;
            let pairs = value.as_object().and_then(DynObject::try_iter_pairs);
            for (index, (key, item)) in pairs.into_iter().flatten().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                write(f, &key)?;
                f.write_str(": ")?;
                write(f, &item)?;
            }
            f.write_char('}')
        }
        _ => write!(f, "{value}"),
    }
}

/// Whether a value is a list or a mapping, not an object of the template engine that looks like one.
pub(crate) fn is_plain(value: &Value) -> bool {
    value.as_object().is_none_or(|object| !["::Loop", "::Macro"].iter().any(|end| object.type_name().ends_with(end)))
}

fn write_text(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    f.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if is_printable(c) => f.write_char(c)?,
            c if c <= '\u{ff}' => write!(f, "\\x{:02x}", u32::from(c))?,
            c if c <= '\u{ffff}' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "\\U{:08x}", u32::from(c))?,
        }
    }
    f.write_char(quote)
}

/// Python's `str.isprintable`: Rust escapes the same kinds of characters, but also a combining one that stands first.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || (c > '~' && !format!("a{c}").escape_debug().to_string().contains('\\'))
}

/// What Python's `float.__repr__` gives: the shortest digits, with an exponent below 1e-4 and from 1e16 on. `nan` and
/// `inf` are the words for what has no digits.
pub(crate) fn float(x: f64, nan: &str, inf: &str) -> String {
    if x.is_nan() {
        return nan.to_owned();
    }
    if x.is_infinite() {
        return format!("{}{inf}", if x > 0.0 { "" } else { "-" });
    }
    let shortest = format!("{x:e}");
    let Some((digits, exponent)) = shortest.split_once('e') else { return shortest };
    let (places, exponent) = (digits.trim_start_matches('-').len(), exponent.parse::<i32>().unwrap_or_default());
    let precision = places.saturating_sub(2);
    // Of two that are equally short and near, Python takes the even one, as Rust does only for a given precision.
    let nearest = format!("{x:.precision$e}");
    let is_fixed = (-4..16).contains(&exponent);
    match nearest.split_once('e').filter(|_| nearest.parse() == Ok(x)) {
        Some(_) if is_fixed => {
            let decimals = usize::try_from(precision as i32 - exponent).unwrap_or_default().max(1);
            format!("{x:.decimals$}")
        }
        None if is_fixed => format!("{x:?}"),
        even => {
            let digits = even.map_or(digits, |(digits, _)| digits);
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Tuple;
    use proptest::prelude::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let expected = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.000123, "0.000123"),
            (-12.5, "-12.5"),
            // Exactly between the two shortest.
            (846_495_558_757_189.0 / 8.0, "105811944844648.62"),
            (9_007_199_254_740_992.0, "9007199254740992.0"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.00001, "1e-05"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (x, text) in expected {
            assert_eq!(float(x, "NaN", "Infinity"), text);
        }
    }

    #[test]
    fn texts_within_values_are_quoted_and_escaped_as_python_does() {
        let of = |text: &str| Printed(&Value::from(vec![Value::from(text)])).to_string();
        assert_eq!(of("a"), "['a']");
        assert_eq!(of("it's"), r#"["it's"]"#);
        assert_eq!(of("it's \"b\""), r#"['it\'s "b"']"#);
        assert_eq!(of("\\\n\r\t"), r"['\\\n\r\t']");
        assert_eq!(of("\u{7}\u{7f}\u{a0}\u{200b}\u{e000}\u{e0001}"), r"['\x07\x7f\xa0\u200b\ue000\U000e0001']");
        assert_eq!(of("é\u{301}😀世"), "['é\u{301}😀世']");
    }

    #[test]
    fn values_are_printed_as_python_prints_them() {
        let nested = Value::from(Tuple::from([Value::from(vec![Value::from(1e20)])]));
        assert_eq!(Printed(&nested).to_string(), "([1e+20],)");
        let pairs = Value::from_pairs([("a", Value::from(())), ("b", Value::UNDEFINED), ("c", true.into())]);
        assert_eq!(Printed(&pairs).to_string(), "{'a': None, 'b': Undefined, 'c': True}");
        assert_eq!(Printed(&Value::UNDEFINED).to_string(), "");
        assert_eq!(Printed(&Value::from(f64::INFINITY)).to_string(), "inf");
    }

    proptest! {
        #[test]
        fn floats_survive(x in proptest::num::f64::NORMAL) {
            prop_assert_eq!(float(x, "nan", "inf").parse::<f64>().unwrap(), x);
        }
    }
}
