//! Operators of Python that minijinja lacks, or that panic there.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::limits::Budget;

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `left + right` of two numbers, texts, lists or tuples. Of two texts of which one is marked as safe for HTML, the other is
/// escaped, as with Jinja2's `Markup`.
pub(crate) fn add(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        budget.fits(a.len() + b.len())?;
        return Ok(match (left.is_safe(), right.is_safe()) {
            (false, false) => Value::from([a, b].concat()),
            (true, true) => Value::from_safe_string([a, b].concat()),
            (true, false) => Value::from_safe_string([a, &escaped(budget, b)?].concat()),
            (false, true) => Value::from_safe_string([&escaped(budget, a)?, b].concat()),
        });
    }
    let unsupported =
        || Err(invalid(format!("tried to use + operator on unsupported types {} and {}", left.kind(), right.kind())));
    match (left.kind(), right.kind()) {
        (ValueKind::Seq | ValueKind::Iterable, ValueKind::Seq | ValueKind::Iterable) => {
            if left.is_tuple() != right.is_tuple() {
                return unsupported();
            }
            let mut items = budget.items(left)?;
            items.extend(budget.items(right)?);
            Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
        }
        (ValueKind::Number | ValueKind::Bool, ValueKind::Number | ValueKind::Bool) => {
            if is_float(left) || is_float(right) {
                return Ok(Value::from(real(left)? + real(right)?));
            }
            let sum = i128::try_from(left.clone())?.checked_add(i128::try_from(right.clone())?);
            let sum = sum.ok_or_else(|| invalid(format!("unable to calculate {left} + {right}")))?;
            Ok(i64::try_from(sum).map_or_else(|_| Value::from(sum), Value::from))
        }
        _ => unsupported(),
    }
}

/// A text with HTML's special characters as Jinja2 writes them.
pub(crate) fn escaped(budget: &Budget, text: &str) -> Result<String, Error> {
    budget.text(|out| {
        text.chars().try_for_each(|c| match c {
            '&' => out.write_str("&amp;"),
            '<' => out.write_str("&lt;"),
            '>' => out.write_str("&gt;"),
            '\'' => out.write_str("&#39;"),
            '"' => out.write_str("&#34;"),
            c => out.write_char(c),
        })
    })
}

fn is_float(value: &Value) -> bool {
    value.kind() == ValueKind::Number && !value.is_integer()
}

/// The value of a number or a bool.
fn real(value: &Value) -> Result<f64, Error> {
    if value.kind() == ValueKind::Bool { Ok(f64::from(value.is_true())) } else { f64::try_from(value.clone()) }
}

/// `left % right` of numbers: the remainder has the sign of `right`.
pub(crate) fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(left) || !number(right) {
        let (left, right) = (left.kind(), right.kind());
        return Err(invalid(format!("tried to use % operator on unsupported types {left} and {right}")));
    }
    let impossible = || invalid(format!("unable to calculate {left} % {right}"));
    if is_float(left) || is_float(right) {
        let (a, b) = (real(left)?, real(right)?);
        if b == 0.0 {
            return Err(impossible());
        }
        let rest = a % b;
        let rest = if rest == 0.0 { 0f64.copysign(b) } else { rest };
        return Ok(Value::from(if (rest < 0.0) == (b < 0.0) { rest } else { rest + b }));
    }
    let (a, b) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
    let rest = if b == -1 { 0 } else { a.checked_rem(b).ok_or_else(impossible)? };
    let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
    Ok(i64::try_from(rest).map_or_else(|_| Value::from(rest), Value::from))
}

/// An error where Python has no order for two values; minijinja orders any.
pub(crate) fn ordered(left: &Value, right: &Value) -> Result<(), Error> {
    let kind = |value: &Value| match value.kind() {
        ValueKind::Bool => ValueKind::Number,
        kind => kind,
    };
    match (kind(left), kind(right)) {
        (a, b) if a == b && matches!(a, ValueKind::Number | ValueKind::String | ValueKind::Seq) => Ok(()),
        (a, b) => Err(invalid(format!("values of types {a} and {b} have no order"))),
    }
}

/// How often a text or list is repeated by a factor: Python takes a negative one for 0.
pub(crate) fn times(factor: Value) -> Value {
    if factor.is_integer() && factor < Value::from(0) { 0.into() } else { factor }
}

/// `value[start:stop:step]`.
pub(crate) fn slice(budget: &Budget, value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let bound = |value: &Value| if value.is_none() { Ok(None) } else { i64::try_from(value.clone()).map(Some) };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("cannot slice by step size of 0".to_owned()));
    }
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let len = text.chars().count();
            let (first, last) = ends(len, start, stop, step);
            if step == 1 {
                let text = text.chars().skip(first as usize).take((last - first).max(0) as usize);
                return Ok(Value::from(text.collect::<String>()));
            }
            budget.fits(len * size_of::<char>())?;
            let chars = text.chars().collect::<Vec<_>>();
            Ok(Value::from(indices(first, last, step).map(|index| chars[index]).collect::<String>()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = budget.items(value)?;
            let (first, last) = ends(items.len(), start, stop, step);
            let items = indices(first, last, step).map(|index| items[index].clone()).collect::<Vec<_>>();
            Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
        }
        ValueKind::Undefined => Err(invalid("an undefined value cannot be sliced".to_owned())),
        // Jinja2 takes it for an attribute that is not there.
        _ => Ok(Value::UNDEFINED),
    }
}

/// Where a slice of `len` items begins, and where it ends, exclusively: Python's `slice.indices`.
fn ends(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> (i64, i64) {
    let len = len as i64;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |at: i64| if at < 0 { (at.saturating_add(len)).max(low) } else { at.min(high) };
    if step > 0 {
        (start.map_or(low, place), stop.map_or(high, place))
    } else {
        (start.map_or(high, place), stop.map_or(low, place))
    }
}

fn indices(first: i64, last: i64, step: i64) -> impl Iterator<Item = usize> {
    let next = move |at: &i64| at.checked_add(step);
    let within = move |at: &i64| if step > 0 { *at < last } else { *at > last };
    std::iter::successors(Some(first), next).take_while(within).map(|at| at as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_python_s() {
        let cut = |len, start, stop, step| {
            let (first, last) = ends(len, start, stop, step);
            indices(first, last, step).collect::<Vec<_>>()
        };
        assert_eq!(cut(5, None, None, 1), [0, 1, 2, 3, 4]);
        assert_eq!(cut(5, Some(1), Some(-1), 2), [1, 3]);
        assert_eq!(cut(5, None, None, -2), [4, 2, 0]);
        assert_eq!(cut(5, Some(1), Some(4), -1), [0; 0]);
        assert_eq!(cut(5, Some(-9), Some(9), i64::MAX), [0]);
        assert_eq!(cut(5, Some(9), Some(i64::MIN), -1), [4, 3, 2, 1, 0]);
        assert_eq!(cut(5, Some(i64::MIN), None, i64::MIN), [0; 0]);
        assert_eq!(cut(0, None, None, -1), [0; 0]);
    }

    #[test]
    fn remainders_have_the_sign_of_the_divisor() {
        let of = |a: Value, b: Value| remainder(&a, &b).map(|rest| rest.to_string()).unwrap();
        assert_eq!(of(7.into(), (-3).into()), "-2");
        assert_eq!(of((-7).into(), 3.into()), "2");
        assert_eq!(of((-6).into(), 3.into()), "0");
        assert_eq!(of((-7.5).into(), 2.into()), "0.5");
        assert_eq!(of(true.into(), 2.into()), "1");
        assert_eq!(of(1.5.into(), true.into()), "0.5");
        assert_eq!(of(Value::from(i128::MIN), (-1).into()), "0");
        assert!(remainder(&1.into(), &0.into()).is_err());
        assert!(remainder(&1.0.into(), &0.into()).is_err());
        assert!(remainder(&Value::from(()), &1.into()).is_err());
    }
}
