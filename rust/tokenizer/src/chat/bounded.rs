//! Operators, filters and methods that make large values of small ones, within a budget.

use std::sync::Arc;

use minijinja::formatting::{self, FormatStyle};
use minijinja::value::{Kwargs, Rest, StringInput, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::limits::{Budget, EACH, Limit};
use super::methods;
use super::program;
use super::python;
use super::repr::Printed;
use super::source::UNCHANGED;

/// The most elements of a `range`, and of a part of `batch` and `slice`, as minijinja has it for `range`.
const MAX_RANGE: usize = 100_000;

/// Puts them into an environment, in place of minijinja's.
pub(crate) fn install(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    // What a template has no other use for than to print everything there is.
    environment.remove_global("debug");
    operators(environment, budget);
    texts(environment, budget);
    lists(environment, budget);
    let own = budget.clone();
    environment.set_unknown_method_callback(move |state, value, name, args| method(&own, state, value, name, args));
    let own = budget.clone();
    environment.set_formatter(move |out, state, value| {
        let plain = matches!(state.auto_escape(), AutoEscape::None);
        own.emit(own.length(value)?.saturating_mul(if plain { 1 } else { 6 }))?;
        if plain {
            return write!(out, "{}", Printed(value)).map_err(Error::from);
        }
        minijinja::escape_formatter(out, state, value)
    });
}

fn operators(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    environment.add_filter(UNCHANGED, |value: Value| value);
    let own = budget.clone();
    environment.add_filter(program::ADMIT, move |value: Value| own.admit(value));
    let own = budget.clone();
    environment.add_filter(program::TICK, move |_: &Value| own.tick());
    let own = budget.clone();
    environment.add_filter(program::BEFORE_SET, move |value: Value, namespace: Value| {
        own.keep(&value)?;
        Ok::<_, Error>(Value::from(Tuple::from([namespace, value])))
    });
    let own = budget.clone();
    environment.add_filter(program::ADD, move |left: &Value, right: &Value| python::add(&own, left, right));
    environment.add_filter(program::BEFORE_IN, |value: Value, container: Value| {
        if container.as_str().is_some() && value.as_str().is_none() {
            let kind = value.kind();
            return Err(Error::new(ErrorKind::InvalidOperation, format!("a {kind} cannot be looked for in a string")));
        }
        Ok(Value::from(Tuple::from([container, value])))
    });
    let own = budget.clone();
    environment.add_filter(program::BEFORE_MUL, move |left: Value, right: Value| {
        for (value, times) in [(&left, &right), (&right, &left)] {
            let size =
                value.as_str().map(str::len).or_else(|| value.as_object().and(value.len()).map(|len| EACH * len));
            if let (Some(size), Some(times)) = (size, times.as_usize()) {
                own.fits(size.saturating_mul(times))?;
            }
        }
        let repeats = |value: &Value| matches!(value.kind(), ValueKind::String | ValueKind::Seq);
        let (left, right) = match (repeats(&left), repeats(&right)) {
            (true, _) => (left, python::times(right)),
            (_, true) => (python::times(left), right),
            _ => (left, right),
        };
        Ok::<_, Error>(Value::from(Tuple::from([right, left])))
    });
    environment.add_filter(program::BEFORE_ORDER, |left: Value, right: Value| {
        python::ordered(&left, &right)?;
        Ok::<_, Error>(Value::from(Tuple::from([right, left])))
    });
    environment.add_filter(program::ITERABLE, |value: Value| {
        let none = || Error::new(ErrorKind::InvalidOperation, "none is not iterable");
        if value.is_none() { Err(none()) } else { Ok(value) }
    });
    environment.add_filter(program::ATTRIBUTE, |value: &Value, name: &str| methods::attribute(value, name));
    let own = budget.clone();
    environment.add_filter(program::CONCAT, move |left: &Value, right: &Value| {
        let text = own.text(|out| write!(out, "{}{}", Printed(left), Printed(right)))?;
        own.admit(Value::from(text))
    });
    let own = budget.clone();
    environment.add_filter(program::REMAINDER, move |left: &Value, right: Value| match left.as_str() {
        Some(_) => {
            let arguments = if right.is_tuple() { own.items(&right)? } else { vec![right] };
            format(&own, left, &arguments)
        }
        None => python::remainder(left, &right),
    });
    let own = budget.clone();
    environment.add_filter(program::SLICE, move |value: &Value, start: &Value, stop: &Value, step: &Value| {
        own.admit(python::slice(&own, value, start, stop, step)?)
    });
}

fn texts(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let own = budget.clone();
    environment.add_filter("string", move |value: &Value| match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => own.text(|out| write!(out, "{}", Printed(value))).map(Value::from),
    });
    let own = budget.clone();
    environment.add_filter("pprint", move |value: &Value| own.text(|out| write!(out, "{value:#?}")));
    let own = budget.clone();
    environment.add_filter(
        "replace",
        move |state: &mut State,
              value: StringInput<'_>,
              from: StringInput<'_>,
              to: StringInput<'_>,
              count: Option<usize>| {
            replaceable(&own, value.as_str(), from.as_str(), to.as_str())?;
            match count {
                Some(count) => Ok(value.as_str().replacen(from.as_str(), to.as_str(), count).into()),
                None => filters::replace(state, value, from, to),
            }
        },
    );
    let own = budget.clone();
    environment.add_filter("format", move |text: &Value, arguments: Rest<ValueOrKwargs>| {
        format(&own, text, &arguments.into_values())
    });
    let own = budget.clone();
    environment.add_filter(
        "join",
        move |value: &Value, joiner: Option<&Value>, attribute: Option<&str>, rest: Kwargs| {
            let given = rest.get::<Option<Value>>("d")?;
            let attribute = attribute.or(rest.get("attribute")?);
            rest.assert_all_used()?;
            join(&own, value, joiner.or(given.as_ref()), attribute)
        },
    );
}

fn lists(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    environment.add_function("range", range);
    let own = budget.clone();
    environment.add_filter("chain", move |value: Value, others: Rest<Value>| {
        let all = std::iter::once(&value).chain(others.iter());
        if all.clone().all(|value| value.kind() == ValueKind::Map) {
            let pairs = all.filter_map(|value| value.as_object()?.try_iter_pairs()).flatten();
            return Ok(pairs.collect::<Value>());
        }
        let mut items = Vec::new();
        for value in all {
            items.extend(own.items(value)?);
        }
        Ok::<_, Error>(Value::from(items))
    });
    let own = budget.clone();
    environment.add_filter("batch", move |state: &State, value: Value, count: usize, fill: Option<Value>| {
        parts(&own, count)?;
        filters::batch(state, value, count, fill)
    });
    let own = budget.clone();
    environment.add_filter("slice", move |state: &State, value: Value, count: usize, fill: Option<Value>| {
        parts(&own, count)?;
        filters::slice(state, value, count, fill)
    });
}

/// A method of a text that minijinja does not know, or any other.
fn method(budget: &Budget, state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(text), "replace") => {
            let (from, to, _): (&str, &str, Option<i32>) = from_args(args)?;
            replaceable(budget, text, from, to)?;
        }
        (Some(_), "join") => {
            let (items,): (&Value,) = from_args(args)?;
            return join(budget, items, Some(value), None);
        }
        (Some(text), "format") => formattable(budget, text, args)?,
        _ => {}
    }
    if let Some(answer) = methods::call(budget, value, name, args)? {
        return Ok(answer);
    }
    unknown_method_callback(state, value, name, args)
}

/// Whether `text` with `to` for each `from` is of an acceptable size.
fn replaceable(budget: &Budget, text: &str, from: &str, to: &str) -> Result<(), Error> {
    let times = if to.len() > from.len() { text.matches(from).count() } else { 0 };
    budget.charge(times.saturating_mul(to.len()).saturating_add(text.len()))
}

fn join(budget: &Budget, items: &Value, joiner: Option<&Value>, attribute: Option<&str>) -> Result<Value, Error> {
    let items = items.try_iter().map_err(|error| {
        Error::new(ErrorKind::InvalidOperation, format!("cannot join value of type {}", items.kind()))
            .with_source(error)
    })?;
    let mut failed = None;
    let text = budget.text(|out| {
        for (index, item) in items.checked().enumerate() {
            let item = match item {
                Ok(item) => attribute.map_or_else(|| item.clone(), |path| part(&item, path)),
                Err(error) => {
                    failed = Some(error);
                    return Ok(());
                }
            };
            if let Some(joiner) = joiner.filter(|joiner| index > 0 && !joiner.is_undefined()) {
                write!(out, "{}", Printed(joiner))?;
            }
            write!(out, "{}", Printed(&item))?;
        }
        Ok(())
    })?;
    failed.map_or_else(|| Ok(Value::from(text)), Err)
}

/// The attribute at a path such as `function.name`; undefined where there is none.
fn part(item: &Value, path: &str) -> Value {
    path.split('.').fold(item.clone(), |item, name| {
        let part = name.parse().map_or_else(|_| item.get_attr(name), |index| item.get_item_by_index(index));
        part.unwrap_or_default()
    })
}

fn format(budget: &Budget, text: &Value, arguments: &[Value]) -> Result<Value, Error> {
    let text = text.as_str().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "value is not a string"))?;
    formattable(budget, text, arguments)?;
    formatting::format(FormatStyle::Printf, text, arguments).map(Value::from)
}

/// Whether a format, in either style, gives a text of an acceptable size. Every number in it is taken for a width; a width
/// may also be an argument.
fn formattable(budget: &Budget, format: &str, arguments: &[Value]) -> Result<(), Error> {
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
    let places = format.matches(['%', '{']).count();
    let nested = has_nested_fields(format);
    let mut longest = 0;
    for argument in arguments {
        let width = argument.as_usize().filter(|_| format.contains('*') || nested);
        longest = longest.max(budget.length(argument)?).max(width.unwrap_or_default());
    }
    let all = places.saturating_mul(longest.saturating_add(32)).saturating_add(widths).saturating_add(format.len());
    budget.charge(all)
}

/// Whether a field of a format, such as `{:{}}`, may take its width from an argument.
fn has_nested_fields(format: &str) -> bool {
    let depths = format.chars().scan(0usize, |depth, c| {
        *depth = match c {
            '{' => *depth + 1,
            '}' => depth.saturating_sub(1),
            _ => *depth,
        };
        Some(*depth)
    });
    depths.max().unwrap_or_default() > 1
}

fn parts(budget: &Budget, count: usize) -> Result<(), Error> {
    if count > MAX_RANGE {
        return Err(Limit { what: "the parts of `batch` and `slice`", limit: MAX_RANGE }.into());
    }
    budget.charge(count * EACH)
}

/// Python's `range`.
fn range(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step.unwrap_or(1)));
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "cannot create range with step of 0"));
    }
    let len = ((stop - start) * step.signum() + step.abs() - 1).max(0) / step.abs();
    if len > MAX_RANGE as i128 {
        return Err(Limit { what: "the elements of a range", limit: MAX_RANGE }.into());
    }
    Ok(Value::from((0..len).map(|index| (start + index * step) as i64).map(Value::from).collect::<Vec<_>>()))
}
