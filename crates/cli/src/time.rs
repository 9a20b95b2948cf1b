//! Times as people write them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Zoned, civil::DateTime, tz::TimeZone};

const FORMS: &str = "write it with its zone: 2026-11-22T21:30:00+01:00, 2026-11-22T20:30:00Z or \
                     '2026-11-22 21:30 Europe/Berlin'";

/// Reads an instant. Without a zone it is refused, since a guess could be hours off.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<Zoned>() {
        return Ok(time.timestamp());
    }
    if text.parse::<DateTime>().is_ok() {
        return Err(format!("it has no time zone; {FORMS}"));
    }
    let (time, zone) = text.rsplit_once(' ').ok_or(FORMS)?;
    let time: DateTime = time.trim().parse().map_err(|_| FORMS)?;
    let zone = match zone {
        "UTC" | "Z" | "GMT" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|_| format!("`{name}` is no time zone; {FORMS}"))?,
    };
    let zoned = zone.to_ambiguous_zoned(time);
    if zoned.is_ambiguous() {
        return Err(format!(
            "at that place the clock showed this time twice or not at all that day; {FORMS}"
        ));
    }
    zoned
        .compatible()
        .map(|zoned| zoned.timestamp())
        .map_err(|error| error.to_string())
}

/// Reads an instant as all the time that is written like it: the whole second, or the whole tenth of one.
pub fn span(text: &str) -> Result<(Timestamp, Timestamp), String> {
    let from = instant(text)?;
    // Behind the day, which is written YYYY-MM-DD, and before the zone.
    let rest = text.trim().get("YYYY-MM-DDT".len()..).unwrap_or_default();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let clock = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let fraction = clock.split_once('.').map(|(_, digits)| digits.len());
    let minutes_only = clock.matches(':').count() < 2;
    let nanoseconds = match fraction {
        Some(digits) => 1_000_000_000 / 10_i64.pow(u32::try_from(digits).unwrap_or(9).min(9)),
        None if minutes_only => 60_000_000_000,
        None => 1_000_000_000,
    };
    let to = from
        .checked_add(SignedDuration::from_nanos(nanoseconds))
        .map_err(|error| error.to_string())?;
    Ok((from, to))
}

/// Reads a duration such as 5min, 30s, 1h.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "a duration is written as 30s, 5min or 1h".to_owned();
    let duration: SignedDuration = text.parse().map_err(|_| bad())?;
    Duration::try_from(duration).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_a_zone_are_read_and_others_refused() {
        let expected: Timestamp = "2026-11-22T20:30:00Z".parse().unwrap();
        for text in [
            "2026-11-22T21:30:00+01:00",
            "2026-11-22 21:30:00+01",
            "2026-11-22T21:30:00[Europe/Berlin]",
            "2026-11-22 21:30 Europe/Berlin",
            "2026-11-22 20:30:00 UTC",
        ] {
            assert_eq!(instant(text), Ok(expected), "{text}");
        }
        for text in [
            "2026-11-22 21:30:00",
            "2026-11-22",
            "yesterday",
            "",
            "21:30",
            "2026-11-22 21:30 Nowhere",
        ] {
            assert!(instant(text).is_err(), "{text}");
        }
        assert!(
            instant("2026-10-25 02:30 Europe/Berlin")
                .unwrap_err()
                .contains("twice")
        );
    }

    #[test]
    fn spans_are_as_long_as_what_was_left_out() {
        for (text, seconds) in [
            ("2026-11-22T21:30:00Z", 1.0),
            ("2026-11-22T21:30:00.25+01:00", 0.01),
            ("2026-11-22 21:30 Europe/Berlin", 60.0),
            ("2026-11-22 21:30:00 UTC", 1.0),
            ("2026-11-22 21:30:00.123456Z", 0.000_001),
        ] {
            let (from, to) = span(text).unwrap();
            assert_eq!(to.duration_since(from).as_secs_f64(), seconds, "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("5min"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert!(duration("-1s").is_err());
        assert!(duration("5").is_err());
    }
}
