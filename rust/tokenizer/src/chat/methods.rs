//! Methods of Python's texts, lists and dicts that minijinja lacks, or has without some of their arguments.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

use super::limits::Budget;
use super::repr::is_plain;

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The methods of a dict that templates may call.
pub(crate) const METHODS_OF_DICTS: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];

/// A method of a dict that is not called: it is there, and has nothing in it.
#[derive(Debug)]
struct Method(String);

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.0)
    }
}

/// `value.name`, where the name is that of a method of dicts. As in Python the method goes before an item of that name,
/// which only `value['name']` reads.
pub(crate) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    let is_namespace = value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"));
    if value.kind() == ValueKind::Map && is_plain(value) && !is_namespace {
        return Ok(Value::from_object(Method(name.to_owned())));
    }
    value.get_attr(name)
}

/// What the method gives, or nothing where it is minijinja's to answer.
pub(crate) fn call(budget: &Budget, value: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match (value.as_str(), value.kind(), name) {
        (Some(text), ..) => of_text(budget, text, name, args),
        (None, ValueKind::Seq | ValueKind::Map, "copy") => {
            let () = from_args(args)?;
            Ok(Some(value.clone()))
        }
        (None, ValueKind::Seq, "index") => {
            let (wanted,): (&Value,) = from_args(args)?;
            let found = budget.items(value)?.iter().position(|item| item == wanted);
            found.map(|index| Some(index.into())).ok_or_else(|| invalid(format!("{wanted} is not in list")))
        }
        _ => Ok(None),
    }
}

fn of_text(budget: &Budget, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "split" | "rsplit" => {
            let [separator, most] = named(args, ["sep", "maxsplit"])?;
            let separator = separator.as_ref().filter(|separator| !separator.is_none()).map(text_of).transpose()?;
            let most = most.map(i64::try_from).transpose()?.and_then(|most| usize::try_from(most).ok());
            let parts = if name == "split" { split(text, separator, most) } else { rsplit(text, separator, most) };
            parts?.into_iter().map(Value::from).collect()
        }
        "splitlines" => {
            let [keep] = named(args, ["keepends"])?;
            lines(text, keep.is_some_and(|keep| keep.is_true())).into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(invalid(format!("{name}: empty separator")));
            }
            let parts = match name {
                "partition" => text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b]),
                _ => text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b]),
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "title" => {
            let () = from_args(args)?;
            title(text).into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            text.chars().map(swapped).collect::<String>().into()
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (i64, Option<&str>) = from_args(args)?;
            padded(budget, text, name, width, fill)?.into()
        }
        "index" | "rindex" | "find" | "rfind" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (before, part) = window(text, start, end);
            let found = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
            match found {
                Some(at) => (before + part[..at].chars().count()).into(),
                None if name.ends_with("find") => (-1).into(),
                None => return Err(invalid(format!("{name}: substring not found"))),
            }
        }
        "startswith" | "endswith" if args.len() > 1 => {
            let (ends, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let (_, part) = window(text, start, end);
            let mut any = false;
            for wanted in if ends.as_str().is_some() { vec![ends.clone()] } else { budget.items(ends)? } {
                let wanted = text_of(&wanted)?;
                any |= if name == "startswith" { part.starts_with(wanted) } else { part.ends_with(wanted) };
            }
            any.into()
        }
        _ => return Ok(None),
    }))
}

/// The arguments of a call that may be given by name, in order.
fn named<const N: usize>(args: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (given, by_name): (Rest<Value>, Kwargs) = from_args(args)?;
    if given.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut values = [const { None }; N];
    for (index, name) in names.into_iter().enumerate() {
        values[index] = match given.get(index) {
            Some(value) => Some(value.clone()),
            None => by_name.get(name)?,
        };
    }
    by_name.assert_all_used()?;
    Ok(values)
}

fn text_of(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| invalid(format!("must be a string, not {}", value.kind())))
}

fn split<'a>(text: &'a str, separator: Option<&str>, most: Option<usize>) -> Result<Vec<&'a str>, Error> {
    Ok(match (separator, most) {
        (Some(""), _) => return Err(invalid("split: empty separator".to_owned())),
        (Some(separator), Some(most)) => text.splitn(most.saturating_add(1), separator).collect(),
        (Some(separator), None) => text.split(separator).collect(),
        (None, None) => text.split_whitespace().collect(),
        (None, Some(most)) => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_start());
            while let Some((word, after)) = rest.split_once(char::is_whitespace).filter(|_| parts.len() < most) {
                parts.push(word);
                rest = after.trim_start();
            }
            parts.extend((!rest.is_empty()).then_some(rest));
            parts
        }
    })
}

fn rsplit<'a>(text: &'a str, separator: Option<&str>, most: Option<usize>) -> Result<Vec<&'a str>, Error> {
    let mut parts: Vec<_> = match (separator, most) {
        (Some(""), _) => return Err(invalid("rsplit: empty separator".to_owned())),
        (Some(separator), Some(most)) => text.rsplitn(most.saturating_add(1), separator).collect(),
        (Some(separator), None) => text.rsplit(separator).collect(),
        (None, None) => text.split_whitespace().rev().collect(),
        (None, Some(most)) => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_end());
            while let Some((before, word)) = rest.rsplit_once(char::is_whitespace).filter(|_| parts.len() < most) {
                parts.push(word);
                rest = before.trim_end();
            }
            parts.extend((!rest.is_empty()).then_some(rest));
            parts
        }
    };
    parts.reverse();
    Ok(parts)
}

/// Python's `text.splitlines(keep)`, with its idea of what ends a line.
pub(crate) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends =
        |c| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((at, end)) = rest.char_indices().find(|&(_, c)| ends(c)) {
        let after = at + if rest[at..].starts_with("\r\n") { 2 } else { end.len_utf8() };
        parts.push(&rest[..if keep { after } else { at }]);
        rest = &rest[after..];
    }
    parts.extend((!rest.is_empty()).then_some(rest));
    parts
}

/// Each letter that follows none as a capital, each other as a small one.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        if within {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        within = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// `ljust`, `rjust`, `center` or `zfill`.
fn padded(budget: &Budget, text: &str, name: &str, width: i64, fill: Option<&str>) -> Result<String, Error> {
    let fill = if name == "zfill" { "0" } else { fill.unwrap_or(" ") };
    if fill.chars().count() != 1 {
        return Err(invalid(format!("{name}: the fill must be one character")));
    }
    let width = usize::try_from(width).unwrap_or_default();
    budget.charge(width.saturating_mul(fill.len()).saturating_add(text.len()))?;
    let missing = width.saturating_sub(text.chars().count());
    let (sign, digits) = text.split_at(usize::from(name == "zfill" && text.starts_with(['-', '+'])));
    let before = match name {
        "ljust" => 0,
        // Python's own rule of where the odd one goes.
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    Ok([sign, &fill.repeat(before), digits, &fill.repeat(missing - before)].concat())
}

/// `text[start:end]`, and how many characters stand before it.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let len = text.chars().count() as i64;
    let place = |at: i64| (if at < 0 { at.saturating_add(len).max(0) } else { at.min(len) }) as usize;
    let start = start.map_or(0, place);
    let end = end.map_or(len as usize, place).max(start);
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    (start, &text[byte(start)..byte(end)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_split_from_the_right() {
        let of = |text, separator, most| rsplit(text, separator, most).unwrap();
        assert_eq!(of("a.b.c", Some("."), Some(1)), ["a.b", "c"]);
        assert_eq!(of("a.b.c", Some("."), None), ["a", "b", "c"]);
        assert_eq!(of(" a  b c ", None, Some(1)), [" a  b", "c"]);
        assert_eq!(of(" a  b c ", None, Some(0)), [" a  b c"]);
        assert_eq!(of(" a  b c ", None, None), ["a", "b", "c"]);
        assert!(of("  ", None, Some(1)).is_empty());
        assert!(rsplit("a", Some(""), None).is_err());
    }

    #[test]
    fn texts_split_from_the_left() {
        let of = |text, separator, most| split(text, separator, most).unwrap();
        assert_eq!(of("a.b.c", Some("."), Some(1)), ["a", "b.c"]);
        assert_eq!(of(" a  b c ", None, Some(1)), ["a", "b c "]);
        assert_eq!(of(" a  b c ", None, Some(0)), ["a  b c "]);
        assert!(split("a", Some(""), None).is_err());
    }

    #[test]
    fn lines_end_where_python_ends_them() {
        assert_eq!(lines("a\n\nb\r\nc\rd\u{b}e\u{2028}", false), ["a", "", "b", "c", "d", "e"]);
        assert_eq!(lines("a\r\n\nb", true), ["a\r\n", "\n", "b"]);
        assert!(lines("", true).is_empty());
    }

    #[test]
    fn windows_are_in_characters() {
        assert_eq!(window("äbcdé", Some(1), Some(-1)), (1, "bcd"));
        assert_eq!(window("äbcdé", Some(-9), None), (0, "äbcdé"));
        assert_eq!(window("äbcdé", Some(9), Some(1)), (5, ""));
        assert_eq!(window("äbcdé", Some(i64::MIN), Some(i64::MAX)), (0, "äbcdé"));
    }
}
