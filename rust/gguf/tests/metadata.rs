//! The typed look-ups of metadata.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::borrow::Cow;

use common::sample;
use nanovllm_gguf::{Array, Error, Metadata, Value};

fn map(pairs: &[(&str, Value)]) -> Metadata {
    let mut map = Metadata::default();
    for (key, value) in pairs {
        map.insert((*key).to_owned(), value.clone()).unwrap();
    }
    map
}

#[test]
fn integers_of_any_type_that_fit() {
    let file = sample(3).open();
    let map = file.metadata();
    for (key, value) in [("u8", 200), ("u16", 60_000), ("u32", 4_000_000_000), ("u64", u64::MAX)] {
        assert_eq!(map.u64(key).unwrap(), value);
        assert_eq!(map.opt_u64(key).unwrap(), Some(value));
    }
    for key in ["i8", "i16", "i32", "i64"] {
        let error = map.u64(key).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error:?}");
        assert!(error.to_string().contains(key), "{error}");
    }
    assert!(matches!(map.u64("f32"), Err(Error::WrongType { got: "f32", .. })));
}

#[test]
fn scalars() {
    let file = sample(3).open();
    let map = file.metadata();
    assert_eq!(map.f32("f32").unwrap().to_bits(), 1e-5f32.to_bits());
    assert_eq!(map.f32("f64").unwrap().to_bits(), 0.1f32.to_bits());
    assert!(map.bool("bool").unwrap());
    assert_eq!(map.str("general.architecture").unwrap(), "llama");
    assert_eq!(map.strings("a.string").unwrap(), ["Ġthe", ""]);
}

#[test]
fn arrays() {
    let file = sample(3).open();
    let map = file.metadata();
    assert!(matches!(map.i32s("a.i32").unwrap(), Cow::Borrowed([-1, 2, 3])));
    for key in ["a.i8", "a.i16", "a.i64"] {
        assert_eq!(*map.i32s(key).unwrap(), [-1, 2]);
    }
    for key in ["a.u8", "a.u16", "a.u32", "a.u64"] {
        assert_eq!(*map.i32s(key).unwrap(), [1, 2]);
    }
    assert!(map.i32s("a.none").unwrap().is_empty());
    assert!(matches!(map.f32s("a.f32").unwrap(), Cow::Borrowed([v]) if v.to_bits() == 0.5f32.to_bits()));
    assert!(matches!(map.f32s("a.f64").unwrap(), Cow::Owned(v) if v == [0.25]));
    let large = self::map(&[("k", Value::Array(Array::U32(vec![1, 1 << 31])))]);
    assert!(matches!(large.i32s("k"), Err(Error::OutOfRange { value: 0x8000_0000, .. })));
}

#[test]
fn missing_keys() {
    let map = Metadata::default();
    let missing = |error: Error| {
        assert!(matches!(&error, Error::MissingKey { key } if key == "k"), "{error:?}");
    };
    missing(map.u64("k").unwrap_err());
    missing(map.f32("k").unwrap_err());
    missing(map.bool("k").unwrap_err());
    missing(map.str("k").unwrap_err());
    missing(map.strings("k").unwrap_err());
    missing(map.i32s("k").unwrap_err());
    missing(map.f32s("k").unwrap_err());
    assert_eq!(map.opt_u64("k").unwrap(), None);
    assert_eq!(map.opt_f32("k").unwrap(), None);
    assert_eq!(map.opt_bool("k").unwrap(), None);
    assert_eq!(map.opt_str("k").unwrap(), None);
    assert_eq!(map.opt_strings("k").unwrap(), None);
    assert_eq!(map.opt_i32s("k").unwrap(), None);
    assert_eq!(map.opt_f32s("k").unwrap(), None);
}

/// A look-up succeeds on the types it names and gives `WrongType`, with the type found, on all others.
#[test]
fn wrong_types() {
    let is = |result: Option<Error>, allowed: bool, value: &Value| match result {
        Some(Error::WrongType { key, got, .. }) => {
            assert!(!allowed && key == "k" && got == value.type_name(), "{key} {got}");
        }
        Some(Error::OutOfRange { .. }) | None => assert!(allowed, "{value:?}"),
        Some(other) => panic!("{other:?}"),
    };
    for (_, value) in common::values() {
        let map = map(&[("k", value.clone())]);
        let name = value.type_name();
        let int = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"];
        is(map.opt_u64("k").err(), int.contains(&name), &value);
        is(map.opt_f32("k").err(), ["f32", "f64"].contains(&name), &value);
        is(map.opt_bool("k").err(), name == "bool", &value);
        is(map.opt_str("k").err(), name == "string", &value);
        is(map.opt_strings("k").err(), name == "array of string", &value);
        let element = name.strip_prefix("array of ").unwrap_or("");
        is(map.opt_i32s("k").err(), int.contains(&element), &value);
        is(map.opt_f32s("k").err(), ["f32", "f64"].contains(&element), &value);
    }
}

#[test]
fn duplicates_leave_the_map_as_it_was() {
    let mut map = map(&[("k", Value::U8(1))]);
    assert!(matches!(map.insert("k".into(), Value::U8(2)), Err(Error::DuplicateKey { .. })));
    assert_eq!((map.len(), map.get("k")), (1, Some(&Value::U8(1))));
}

#[test]
fn pairs_are_replaced_in_place_and_taken_out() {
    let pairs = [("a", Value::U8(1)), ("b", Value::U8(2)), ("c", Value::U8(3))];
    let mut map = map(&pairs);
    map.set("b", Value::Bool(true));
    map.set("d", Value::U8(4));
    assert_eq!(map.remove("a"), Some(Value::U8(1)));
    assert_eq!(map.remove("a"), None);
    let left: Vec<_> = map.iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(left, [("b", Value::Bool(true)), ("c", Value::U8(3)), ("d", Value::U8(4))]);
    assert!(left.iter().all(|(key, value)| map.get(key) == Some(value)), "look-ups follow the move");
}

#[test]
fn values_print_for_people() {
    assert_eq!(Value::F32(0.5).to_string(), "0.5");
    assert_eq!(Value::Array(Array::Bool(vec![true; 3])).to_string(), "array of bool [3]");
}
