//! Durations as people write them in a resource: `90s`, `10m`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest duration that can be written: a year of 365 days.
const LONGEST: i64 = 365 * 24 * 3600;
/// Longest text that is looked at.
const LONGEST_TEXT: usize = 20;

/// A span of whole seconds, from 0 to 365 days, written with the units `h`, `m` and `s`, such as `1h30m`.
///
/// Own type because `kube::core::Duration` panics on hostile input, and any tenant may write a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(i64);

/// Why a text is not a [`Duration`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DurationError {
    /// Not of the form number and unit, repeated.
    #[error("not a duration: write whole numbers with the units h, m or s, such as 90s, 10m or 1h30m")]
    Syntax,
    /// More than a year.
    #[error("longer than 8760h")]
    TooLong,
}

// === impl Duration ===

impl Duration {
    /// A duration of `seconds`, held between 0 and 365 days.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        let seconds = seconds as i64;
        Self(if seconds > LONGEST { LONGEST } else { seconds })
    }

    /// The length in whole seconds.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0
    }

    /// The same length in the type that time arithmetic uses.
    #[must_use]
    pub const fn signed(self) -> SignedDuration {
        SignedDuration::from_secs(self.0)
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.is_empty() || text.len() > LONGEST_TEXT {
            return Err(DurationError::Syntax);
        }
        let mut total: i64 = 0;
        let mut number: Option<i64> = None;
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let next = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(i64::from(digit)));
                number = Some(next.ok_or(DurationError::TooLong)?);
                continue;
            }
            let unit = match c {
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return Err(DurationError::Syntax),
            };
            let part = number.take().ok_or(DurationError::Syntax)?.checked_mul(unit);
            total = part.and_then(|p| total.checked_add(p)).ok_or(DurationError::TooLong)?;
        }
        if number.is_some() {
            return Err(DurationError::Syntax);
        }
        if total > LONGEST { Err(DurationError::TooLong) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = (self.0 / 3600, self.0 % 3600 / 60, self.0 % 60);
        if h > 0 {
            write!(f, "{h}h")?;
        }
        if m > 0 {
            write!(f, "{m}m")?;
        }
        if s > 0 || self.0 == 0 {
            write!(f, "{s}s")?;
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(|e| de::Error::custom(format_args!("{e}")))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The form is checked by CEL rather than `pattern`, so that the refusal says what to write instead.
        json_schema!({ "type": "string", "maxLength": LONGEST_TEXT })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h1h", 7200), ("8760h", LONGEST)]
        {
            assert_eq!(text.parse::<Duration>().unwrap().as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        use DurationError::{Syntax, TooLong};
        for (text, error) in [
            ("", Syntax),
            ("10", Syntax),
            ("s", Syntax),
            ("-5m", Syntax),
            ("1.5h", Syntax),
            ("1h 30m", Syntax),
            ("5d", Syntax),
            ("٣s", Syntax),
            ("8761h", TooLong),
            ("9999999999999999999", TooLong),
            ("9999999999999999h", TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            prop_assert!(text.parse::<Duration>().is_ok_and(|d| d.as_secs() <= LONGEST) || text.parse::<Duration>().is_err());
        }

        #[test]
        fn never_panics_on_what_looks_right(text in "([0-9]{0,20}[hms]){0,4}") {
            prop_assert!(text.parse::<Duration>().map_or(true, |d| (0..=LONGEST).contains(&d.as_secs())));
        }

        #[test]
        fn prints_what_it_reads(seconds in 0u32..=31_536_000) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }
    }
}
