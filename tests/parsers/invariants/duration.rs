//! Durations in a resource: the definition's rules and the parser must agree, or the apiserver would keep a resource that the
//! operator cannot read.

use verteil_token_operator::api::Duration;

/// A year of 365 days.
const LONGEST: i64 = 365 * 24 * 3600;

/// A duration as somebody writes it.
pub fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = text.parse::<Duration>();
    let json = serde_json::from_value::<Duration>(text.into());
    assert_eq!(json.as_ref().ok(), read.as_ref().ok(), "{text:?}");
    if let Some(seconds) = as_the_definition_reads(text) {
        let expected = (seconds <= LONGEST).then_some(seconds);
        assert_eq!(read.as_ref().ok().map(|read| read.as_secs()), expected, "{text:?}");
    }
    match read {
        Ok(read) => {
            assert!((0..=LONGEST).contains(&read.as_secs()), "{text:?}");
            assert!(text.bytes().all(|byte| b"0123456789hms".contains(&byte)), "{text:?}");
            let printed = read.to_string();
            assert_eq!(printed.parse(), Ok(read), "{text:?}");
            assert_eq!(as_the_definition_reads(&printed), Some(read.as_secs()), "{text:?} is printed as {printed}");
        }
        Err(error) => assert!(error.to_string().len() < 200),
    }
}

/// What `maxLength: 20` and the rule `^([0-9]{1,5}(h|m|s))+$` let pass, and how long CEL takes it to be.
fn as_the_definition_reads(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split_inclusive(['h', 'm', 's']).collect();
    if parts.is_empty() || text.chars().count() > 20 {
        return None;
    }
    let seconds = |part: &&str| {
        let (number, unit) = part.split_at_checked(part.len() - 1).filter(|(number, _)| {
            (1..=5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
        })?;
        let unit = [("h", 3600), ("m", 60), ("s", 1)].into_iter().find(|(name, _)| *name == unit)?.1;
        number.parse::<i64>().ok().map(|number| number * unit)
    };
    parts.iter().map(seconds).sum()
}
