//! The time of day, formatted as Python formats it.

use jiff::Zoned;
use minijinja::{Error, ErrorKind};

/// What Python's `datetime.now().strftime(format)` gives, for templates that print the date.
pub(crate) fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(translated(format), &Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}

/// The format that jiff takes for Python's: where no locale is set, and of a time without a zone.
fn translated(format: &str) -> String {
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    while let Some((before, directive)) = rest.split_once('%') {
        out.push_str(before);
        let letter = directive.chars().next();
        out.push_str(match letter {
            Some('c') => "%a %b %e %H:%M:%S %Y",
            Some('x') => "%m/%d/%y",
            Some('r') => "%I:%M:%S %p",
            Some('f') => "%6f",
            Some('z' | 'Z') => "",
            Some('%') => "%%",
            _ => "%",
        });
        let is_taken = letter.is_some_and(|letter| "cxrfzZ%".contains(letter));
        rest = &directive[usize::from(is_taken)..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn only_what_differs_is_translated() {
        assert_eq!(translated("a%x%Zé%Y%"), "a%m/%d/%yé%Y%");
        assert_eq!(translated("%%c%-d%c|%f"), "%%c%-d%a %b %e %H:%M:%S %Y|%6f");
        assert_eq!(translated("%é%"), "%é%");
    }
}
