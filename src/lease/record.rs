//! What a Lease says, as far as the election is concerned.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

/// The duration that a released Lease names, in seconds: a Lease must name one (client-go's `release`).
const RELEASED_SECONDS: i32 = 1;

/// The election's fields of a Lease. Times are for people: none of them is ever compared with a clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `holderIdentity`; empty: nobody.
    pub holder: String,
    /// `leaseDurationSeconds`
    pub seconds: Option<i32>,
    /// `acquireTime`
    pub acquired: Option<Timestamp>,
    /// `renewTime`
    pub renewed: Option<Timestamp>,
    /// `leaseTransitions`
    pub transitions: Option<i32>,
}

/// A record and the version of the Lease that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What it says.
    pub record: Record,
    /// `metadata.resourceVersion`
    pub version: String,
}

// === impl Record ===

impl Record {
    /// The Lease of `holder` who has just got it from whoever had it `before`, or renews it.
    #[must_use]
    pub fn held(holder: &str, seconds: i32, before: Option<&Self>, now: Timestamp) -> Self {
        let now = Some(whole_microsecond(now));
        let transitions = before.and_then(|before| before.transitions).unwrap_or_default().max(0);
        let renews = before.filter(|before| before.holder == holder);
        Self {
            holder: holder.to_owned(),
            seconds: Some(seconds),
            acquired: renews.and_then(|before| before.acquired).or(now),
            renewed: now,
            transitions: Some(match (before, renews) {
                (_, Some(_)) | (None, None) => transitions,
                (Some(_), None) => transitions.saturating_add(1),
            }),
        }
    }

    /// The Lease that its holder lets go.
    #[must_use]
    pub fn released(&self, now: Timestamp) -> Self {
        let now = Some(whole_microsecond(now));
        Self {
            holder: String::new(),
            seconds: Some(RELEASED_SECONDS),
            acquired: now,
            renewed: now,
            transitions: self.transitions,
        }
    }

    /// Whether its holder has let it go.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.holder.is_empty() && self.seconds == Some(RELEASED_SECONDS)
    }

    /// What the JSON of a Lease says. A field that cannot be read counts as missing: the apiserver takes times that
    /// [`Timestamp`] cannot hold (9999-12-31), and one of them must not keep everybody from leading for ever.
    #[must_use]
    pub fn read_from(lease: &Value) -> Self {
        let spec = lease.get("spec").unwrap_or(&Value::Null);
        let number = |field| spec.get(field).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
        let time = |field| spec.get(field).and_then(Value::as_str).and_then(|text| text.parse().ok());
        Self {
            holder: spec.get("holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned(),
            seconds: number("leaseDurationSeconds"),
            acquired: time("acquireTime"),
            renewed: time("renewTime"),
            transitions: number("leaseTransitions"),
        }
    }

    /// Writes it into the JSON of a Lease; what others keep there stays.
    pub fn write_to(&self, lease: &mut Value) {
        let time = |time: Option<Timestamp>| json!(time.map(MicroTime));
        let fields = [
            ("holderIdentity", json!(self.holder)),
            ("leaseDurationSeconds", json!(self.seconds)),
            ("acquireTime", time(self.acquired)),
            ("renewTime", time(self.renewed)),
            ("leaseTransitions", json!(self.transitions)),
        ];
        if !lease.is_object() {
            *lease = json!({});
        }
        let Some(lease) = lease.as_object_mut() else { return };
        let spec = lease.entry("spec").or_insert_with(|| json!({}));
        if !spec.is_object() {
            *spec = json!({});
        }
        let Some(spec) = spec.as_object_mut() else { return };
        spec.extend(fields.map(|(field, value)| (field.to_owned(), value)));
    }
}

/// `at` as a Lease holds it.
fn whole_microsecond(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a failed test")]

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn the_times_and_the_count_are_kept_as_client_go_does() {
        let first = Record::held("a", 15, None, at(1));
        assert_eq!((first.acquired, first.renewed, first.transitions), (Some(at(1)), Some(at(1)), Some(0)));
        let renewed = Record::held("a", 15, Some(&first), at(3));
        assert_eq!((renewed.acquired, renewed.renewed, renewed.transitions), (Some(at(1)), Some(at(3)), Some(0)));
        let released = renewed.released(at(4));
        assert!(released.is_released());
        assert_eq!(released.transitions, Some(0));
        let taken = Record::held("b", 15, Some(&released), at(5));
        assert_eq!((taken.acquired, taken.renewed, taken.transitions), (Some(at(5)), Some(at(5)), Some(1)));
    }

    #[test]
    fn a_hand_edited_count_does_no_harm() {
        let before = |transitions| Record { transitions: Some(transitions), ..Record::default() };
        let after = [i32::MIN, -1, i32::MAX].map(|n| Record::held("a", 15, Some(&before(n)), at(1)).transitions);
        assert_eq!(after, [Some(1), Some(1), Some(i32::MAX)]);
    }

    #[test]
    fn a_lease_says_again_what_was_written_and_keeps_what_others_wrote() {
        let mut lease = json!({"spec": {"strategy": "OldestEmulationVersion", "holderIdentity": "b"}});
        let record = Record::held("a", 15, None, Timestamp::new(1_800_000_000, 123_456_999).unwrap_or_default());
        record.write_to(&mut lease);
        assert_eq!(lease["spec"]["renewTime"], "2027-01-15T08:00:00.123456Z");
        assert_eq!(Record::read_from(&lease), record);
        assert_eq!(lease["spec"]["strategy"], "OldestEmulationVersion");
    }

    #[test]
    fn what_cannot_be_read_counts_as_missing() {
        let never = "9999-12-31T23:59:59.999999Z";
        for garbage in [
            json!(null),
            json!({"spec": null}),
            json!({"spec": 7}),
            json!({"spec": {"holderIdentity": 5, "leaseDurationSeconds": "x", "renewTime": never, "acquireTime": []}}),
            json!({"spec": {"leaseDurationSeconds": 99_999_999_999_i64, "leaseTransitions": 0.5}}),
        ] {
            assert_eq!(Record::read_from(&garbage), Record::default(), "{garbage}");
            let mut lease = garbage.clone();
            let record = Record::held("a", 15, None, at(1));
            record.write_to(&mut lease);
            assert_eq!(Record::read_from(&lease), record, "{garbage}");
        }
    }
}
