//! Numbers and text as people read them.

/// A number of bytes with a binary unit, such as "93.8 MiB".
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count with a decimal unit, such as "134.5 M".
pub(crate) fn count(n: u64) -> String {
    let (divisor, unit) = match n {
        1_000_000_000.. => (1e9, " B"),
        1_000_000.. => (1e6, " M"),
        10_000.. => (1e3, " k"),
        _ => return n.to_string(),
    };
    format!("{:.1}{unit}", n as f64 / divisor)
}

/// Text from a file as one harmless line: control characters, which a terminal would obey, are escaped.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(super::printable("a\n\u{1b}[31m é"), "a\\n\\u{1b}[31m é");
    }

    #[test]
    fn units_follow_size() {
        assert_eq!(super::bytes(0), "0 B");
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(98_362_432), "93.8 MiB");
        assert_eq!(super::bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(super::count(9_999), "9999");
        assert_eq!(super::count(134_515_008), "134.5 M");
        assert_eq!(super::count(7_600_000_000), "7.6 B");
    }
}
