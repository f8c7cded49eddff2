//! Lengths of time as an administrator writes them: `30s`, `5m`, `2h`, `30d`, `4w`, `6mo`, `1y`.

use std::time::Duration;

/// The longest span there is, 100 years. Clocks can be counted on by so much, and spans be added to each other,
/// without an overflow anywhere; nobody waits for so long.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads a length of time; several parts may follow each other (`1h30m`).
///
/// A month is 30 days and a year 365 days: such spans say how old something may get, never a date.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str =
        "expected a length of time such as \"30s\", \"5m\", \"2h\", \"30d\" or \"1h30m\"";
    let text = text.trim();
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(EXPECTED.into());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let seconds: u64 = match &rest[digits..digits + letters] {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            "mo" => 30 * 86_400,
            "y" => 365 * 86_400,
            _ => return Err(format!("{EXPECTED}, not {text:?}")),
        };
        let count: u64 = rest[..digits].parse().map_err(|_| format!("{EXPECTED}, not {text:?}"))?;
        total = count
            .checked_mul(seconds)
            .and_then(|part| total.checked_add(Duration::from_secs(part)))
            .filter(|total| *total <= LONGEST)
            .ok_or_else(|| format!("{text:?} is too long a time: at most 100y"))?;
        rest = rest[digits + letters..].trim_start();
    }
    Ok(total)
}

/// Takes a length of time that must be one.
///
/// # Errors
/// When it is none.
pub fn longer_than_nothing(span: Duration) -> Result<Duration, &'static str> {
    if span.is_zero() { Err("must be longer than nothing") } else { Ok(span) }
}

/// Writes a length of time for people, in its two largest units: `3d 4h`, `12m 5s`, `40s`.
pub fn show(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(units.len() - 1);
    let (unit, size) = units[first];
    let mut text = format!("{}{unit}", seconds / size);
    if let Some((unit, next)) = units.get(first + 1) {
        let rest = seconds % size / next;
        if rest > 0 {
            text.push_str(&format!(" {rest}{unit}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(parse("1h30m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(parse("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(parse("1h 5s").unwrap(), Duration::from_secs(3_605));
        assert_eq!(parse("100y").unwrap(), LONGEST);
        let bad = [
            "",
            "5",
            "m",
            "5x",
            "-5m",
            "1.5h",
            "99999999999999999999s",
            "999999999999999999y",
            "18446744073709551615s",
            "100y1s",
        ];
        for bad in bad {
            assert!(parse(bad).is_err(), "{bad:?} was read as a time");
        }
    }

    #[test]
    fn shows_two_units() {
        assert_eq!(show(Duration::from_secs(0)), "0s");
        assert_eq!(show(Duration::from_secs(3 * 86_400 + 4 * 3_600 + 59)), "3d 4h");
        assert_eq!(show(Duration::from_secs(3_600)), "1h");
    }
}
