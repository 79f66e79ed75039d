//! Filters and tests as Jinja2 has them, where minijinja's answer otherwise or take fewer arguments.

use std::sync::Arc;

use minijinja::value::{ArgType, DynObject, Kwargs, Rest, StringInput, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

use super::limits::Budget;
use super::methods::lines;
use super::python::escaped;
use super::repr::Printed;

/// Puts them into an environment, in place of minijinja's.
pub(crate) fn install(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    environment.add_test("callable", |value: &Value| {
        let name = value.as_object().map(DynObject::type_name).unwrap_or_default();
        ["::Macro", "::BoxedFunction", "::Method"].iter().any(|end| name.ends_with(end))
    });
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("items", |value: &Value| {
        if value.is_undefined() { Ok(Value::from(Vec::<Value>::new())) } else { filters::items(value) }
    });
    environment.add_filter(
        "int",
        |state: &State, value: &Value, default: Option<Value>, base: Option<u32>, rest: Kwargs| {
            let default = named(default, &rest, "default")?;
            filters::int(state, value, Some(default.unwrap_or_else(|| 0.into())), base, rest)
        },
    );
    environment.add_filter("float", |state: &State, value: &Value, default: Option<Value>, rest: Kwargs| {
        let default = named(default, &rest, "default")?;
        filters::float(state, value, Some(default.unwrap_or_else(|| 0.0.into())), rest)
    });
    environment.add_filter("trim", |value: StringInput<'_>, chars: Option<String>, rest: Kwargs| {
        let chars = named(chars, &rest, "chars")?;
        rest.assert_all_used()?;
        Ok::<_, Error>(filters::trim(value, chars.map(Into::into)))
    });
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    for name in ["escape", "e", "forceescape"] {
        let own = budget.clone();
        environment.add_filter(name, move |value: &Value| {
            if value.is_safe() && name != "forceescape" {
                return Ok::<_, Error>(value.clone());
            }
            Ok(Value::from_safe_string(escaped(&own, &own.text(|out| write!(out, "{}", Printed(value)))?)?))
        });
    }
    environment.add_filter("sort", |state: &State, value: Value, given: Rest<Value>, rest: Kwargs| {
        let mut all = rest.args().map(|name| Ok((name, rest.get(name)?))).collect::<Result<Vec<_>, Error>>()?;
        all.extend(["reverse", "case_sensitive", "attribute"].into_iter().zip(given.iter().cloned()));
        filters::sort(state, value, all.into_iter().collect())
    });
    let own = budget.clone();
    environment.add_filter(
        "indent",
        move |value: StringInput<'_>, width: Option<Value>, first: Option<bool>, blank: Option<bool>, rest: Kwargs| {
            let width = named(width, &rest, "width")?;
            let first = named(first, &rest, "first")?;
            let blank = named(blank, &rest, "blank")?;
            rest.assert_all_used()?;
            indent(&own, value.as_str(), width, first.unwrap_or_default(), blank.unwrap_or_default())
        },
    );
}

/// An argument given by its place, or else by its name.
fn named<T>(placed: Option<T>, rest: &Kwargs, name: &'static str) -> Result<Option<T>, Error>
where
    Option<T>: for<'a> ArgType<'a, Output = Option<T>>,
{
    if placed.is_some() { Ok(placed) } else { rest.get::<Option<T>>(name) }
}

/// The length of what has one; what is undefined is empty.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { filters::length(value) }
}

/// The value, or another for one that is undefined, and if asked for one that is false. The other may be none.
#[allow(clippy::needless_pass_by_value)] // filters take their arguments by value
fn default(value: Value, given: Rest<Value>, rest: Kwargs) -> Result<Value, Error> {
    let argument = |index: usize, name: &'static str| match given.get(index) {
        None if rest.has(name) => rest.get::<Value>(name).map(Some),
        placed => Ok(placed.cloned()),
    };
    let (other, or_false) = (argument(0, "default_value")?, argument(1, "boolean")?);
    rest.assert_all_used()?;
    if given.len() > 2 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let missing = value.is_undefined() || (or_false.is_some_and(|or_false| or_false.is_true()) && !value.is_true());
    Ok(if missing { other.unwrap_or_else(|| "".into()) } else { value })
}

/// The lines of a text behind `width` spaces, or behind `width` itself if it is a text.
fn indent(budget: &Budget, text: &str, width: Option<Value>, first: bool, blank: bool) -> Result<String, Error> {
    let width = width.unwrap_or_else(|| 4.into());
    // As in Jinja2, for the line behind a line break at the end.
    let text = format!("{text}\n");
    let lines = lines(&text, false);
    let spaces = match width.as_str() {
        Some(_) => 0,
        None => width.as_usize().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("indent: the width must be a number or a text, not {width}"),
            )
        })?,
    };
    let each = width.as_str().map_or(spaces, str::len);
    budget.charge(lines.len().saturating_mul(each).saturating_add(text.len()))?;
    let spaces = " ".repeat(spaces);
    let before = width.as_str().unwrap_or(&spaces);
    let mut out = String::new();
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(before);
        }
        out.push_str(line);
    }
    Ok(out)
}
