//! Points in time, always given: nothing here asks a clock.
//!
//! A guest's clock belongs to the host and a verifier may judge old evidence, so
//! every check of validity takes the time from its caller.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// Text is not a time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written YYYY-MM-DDTHH:MM:SSZ")]
pub struct TimestampError;

struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Timestamp {
    /// From seconds since 1970-01-01T00:00:00Z.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn unix_seconds(self) -> i64 {
        self.0
    }

    /// From an X.509 UTCTime, `YYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5.1).
    pub(crate) fn from_utc_time(text: &[u8]) -> Option<Self> {
        let (short, rest) = text.split_at_checked(2)?;
        let year = digits(short)?;
        let century = if year >= 50 { 1900 } else { 2000 };
        Self::from_compact(century + year, rest)
    }

    /// From an X.509 GeneralizedTime, `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5.2).
    pub(crate) fn from_generalized_time(text: &[u8]) -> Option<Self> {
        let (year, rest) = text.split_at_checked(4)?;
        Self::from_compact(digits(year)?, rest)
    }

    fn from_compact(year: i64, rest: &[u8]) -> Option<Self> {
        let [m1, m2, d1, d2, h1, h2, n1, n2, s1, s2, b'Z'] = *rest else {
            return None;
        };
        Self::from_calendar(&Calendar {
            year,
            month: digits(&[m1, m2])?,
            day: digits(&[d1, d2])?,
            hour: digits(&[h1, h2])?,
            minute: digits(&[n1, n2])?,
            second: digits(&[s1, s2])?,
        })
    }

    fn from_calendar(at: &Calendar) -> Option<Self> {
        let days = days_in_month(at.year, at.month)?;
        let in_range = (1..=days).contains(&at.day)
            && (0..24).contains(&at.hour)
            && (0..60).contains(&at.minute)
            && (0..60).contains(&at.second);
        let seconds = at.hour * 3600 + at.minute * 60 + at.second;
        in_range.then(|| Self(days_since_epoch(at.year, at.month, at.day) * 86400 + seconds))
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let mut compact = Vec::with_capacity(15);
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        for (at, byte) in text.bytes().enumerate().take(21) {
            match separators.iter().find(|(place, _)| *place == at) {
                Some((_, separator)) if *separator == byte => {}
                Some(_) => return Err(TimestampError),
                None => compact.push(byte),
            }
        }
        Self::from_generalized_time(&compact).ok_or(TimestampError)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.div_euclid(86400), self.0.rem_euclid(86400));
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar. Years are counted
/// from March, so that the leap day is the last of its year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days.div_euclid(366);
    while days_since_epoch(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_since_epoch(year, month + 1, 1) <= days {
        month += 1;
    }
    (year, month, days - days_since_epoch(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_seconds_agree() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2025-06-01T00:00:00Z", 1_748_736_000),
            ("2048-05-15T20:03:12Z", 2_473_185_792),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(time.unix_seconds(), seconds);
            assert_eq!(time.to_string(), text);
        }
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in [
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-06-01T24:00:00Z",
            "2025-06-01T00:00:00",
            "2025-06-01 00:00:00Z",
            "2025-06-01T00:00:00ZZ",
            "2025-06-01T00:00:00+02",
            "",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    #[test]
    fn short_years_turn_at_1950() {
        assert_eq!(
            Timestamp::from_utc_time(b"491231235959Z")
                .unwrap()
                .to_string(),
            "2049-12-31T23:59:59Z"
        );
        assert_eq!(
            Timestamp::from_utc_time(b"500101000000Z")
                .unwrap()
                .to_string(),
            "1950-01-01T00:00:00Z"
        );
        assert!(Timestamp::from_utc_time(b"500101000000+0100").is_none());
    }
}
