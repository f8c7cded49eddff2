//! Numbers as people read them.

/// Writes a number of bytes with the largest binary unit that leaves at least one before the point:
/// `0 B`, `1023 B`, `1.0 KiB`, `12.3 GiB`.
pub fn show(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1_024.0;
    let mut unit = 0;
    // What would be written as 1024.0 goes into the next unit.
    while amount >= 1_023.95 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// How many there are of something, with its word: `1 copy`, `0 copies`, `7 copies`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `1%` to `100%`, without a fraction.
pub fn whole_percent(text: &str) -> Option<u8> {
    // The parser of numbers would also take a sign.
    let digits = text.strip_suffix('%').filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| (1..=100).contains(number))
}

/// A number of bytes, more than none, with a unit (K, M, G or T, powers of 1024).
pub fn bytes(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()? {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let count: u64 =
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    count.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::{counted, show};

    #[test]
    fn one_thing_is_not_several() {
        let said = [0, 1, 2].map(|count| counted(count, "copy", "copies"));
        assert_eq!(said, ["0 copies", "1 copy", "2 copies"]);
    }

    #[test]
    fn units_change_where_they_should() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (13_207_024_435, "12.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}
