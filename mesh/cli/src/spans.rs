//! Spans of time as people write them: `90s`, `5m`, `12h`, `90d`.

use std::time::Duration;

/// The longest span: ten years.
const MAX_SECONDS: u64 = 10 * 366 * 86_400;

/// Reads a whole number and a unit: s, m, h, d or w.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time span: write a number and s, m, h, d or w, such as 90s or 30d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let seconds_each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds_each) {
        Some(seconds) if (1..=MAX_SECONDS).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("'{text}' is out of range: a second to ten years")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_with_their_unit_and_within_ten_years() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(parse("3660d").is_ok());
        for bad in [
            "",
            "d",
            "90",
            "-1d",
            "1.5h",
            "0s",
            "3661d",
            "9y",
            "99999999999999999999d",
            "5é",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
