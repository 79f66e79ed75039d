//! The table of devices, and how one is made by its name.

use crate::any::{AnyBackend, Owned};
#[cfg(feature = "candle")]
use crate::candle;
use crate::cpu;
use crate::error::Error;
use crate::options::{OptionSpec, Options};

/// What there is to know of a device before it is made.
pub struct DeviceRow {
    /// The name by which a user asks for it.
    pub name: &'static str,
    /// The options it takes; those of other devices it refuses.
    pub options: &'static [OptionSpec],
    /// Makes it, given options that it takes.
    open: fn(&Options) -> Result<AnyBackend<Owned>, Error>,
}

impl DeviceRow {
    fn option(&self, name: &str) -> Option<&OptionSpec> {
        self.options.iter().find(|spec| spec.name == name)
    }
}

/// Every device of this build.
pub static DEVICES: &[DeviceRow] = &[
    DeviceRow { name: "cpu", options: cpu::OPTIONS, open: cpu::open },
    #[cfg(feature = "candle")]
    DeviceRow { name: "candle", options: &[], open: |_| candle::open(false) },
    #[cfg(feature = "candle")]
    DeviceRow { name: "candle-f32", options: &[], open: |_| candle::open(true) },
];

/// What is added to the names of devices where an unknown one is refused: what this build could have had.
#[cfg(feature = "candle")]
const LACKS: &str = "";
#[cfg(not(feature = "candle"))]
const LACKS: &str = " (this build lacks the feature \"candle\")";

/// The names of all devices.
pub fn names() -> impl Iterator<Item = &'static str> {
    DEVICES.iter().map(|row| row.name)
}

/// The names of the options that some device takes, each once.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    let all: std::collections::BTreeSet<_> = DEVICES.iter().flat_map(|row| row.options).map(|spec| spec.name).collect();
    all.into_iter()
}

/// Makes the device called `name`.
///
/// # Errors
/// [`Error::UnknownDevice`]; [`Error::Option`] for an option out of range, or one of another device that is not left at its
/// default; [`Error::Backend`] for what this machine cannot honour.
pub fn open(name: &str, options: &Options) -> Result<AnyBackend<Owned>, Error> {
    let row = DEVICES.iter().find(|row| row.name == name).ok_or_else(|| {
        let known: Vec<String> = names().map(|name| format!("{name:?}")).collect();
        Error::UnknownDevice { expected: format!("{}{LACKS}", known.join(", ")), got: name.to_owned() }
    })?;
    for (field, given) in options.iter().filter(|(field, _)| row.option(field).is_none()) {
        let other = DEVICES.iter().find_map(|row| Some((row.name, &row.option(field)?.default)));
        let expected = match other {
            Some((_, default)) if default == given => continue,
            Some((other, default)) => {
                format!("left at {default} with the device {name:?} (it is an option of {other:?})")
            }
            None => "left out: no device has such an option".to_owned(),
        };
        return Err(Error::Option { field, expected, got: given.to_string() });
    }
    (row.open)(options)
}
