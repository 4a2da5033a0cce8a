//! A Lease, which anybody with the right to it may have written.

use jiff::Timestamp;
use serde_json::Value;
use verteil_token_operator::lease::Record;

use super::now;

/// The JSON of a Lease.
pub fn lease(data: &[u8]) {
    let Ok(lease) = serde_json::from_slice::<Value>(data) else { return };
    let read = Record::read_from(&lease);
    let ours = Record::held("us", 15, Some(&read), now());
    assert!(ours.transitions.is_some_and(|transitions| transitions >= 0));
    assert!(!ours.is_released() && ours.released(now()).is_released());
    for record in [&read, &ours, &ours.released(now())] {
        let mut written = lease.clone();
        record.write_to(&mut written);
        let again = Record::read_from(&written);
        assert_eq!(
            (&again.holder, again.seconds, again.transitions),
            (&record.holder, record.seconds, record.transitions)
        );
        for (told, was) in [(again.acquired, record.acquired), (again.renewed, record.renewed)] {
            holds_the_time(told, was);
        }
        keeps_what_others_wrote(&lease, &written);
    }
}

/// A Lease holds whole microseconds, from the year 0 on.
fn holds_the_time(told: Option<Timestamp>, was: Option<Timestamp>) {
    let year_0: Timestamp = "0000-01-01T00:00:00Z".parse().expect("a time");
    let Some(was) = was.filter(|was| *was >= year_0) else { return };
    let lost = told.map(|told| was.duration_since(told).as_nanos());
    assert!(lost.is_some_and(|lost| (0..1000).contains(&lost)), "{was} was written as {told:?}");
}

fn keeps_what_others_wrote(before: &Value, after: &Value) {
    let ours = ["holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"];
    let fields = |lease: &Value| lease.as_object().cloned().unwrap_or_default();
    let (mut before, mut after) = (fields(before), fields(after));
    let spec = |lease: &mut serde_json::Map<String, Value>| {
        let mut spec = lease.remove("spec").as_ref().map(fields).unwrap_or_default();
        spec.retain(|name, _| !ours.contains(&name.as_str()));
        spec
    };
    assert_eq!(spec(&mut before), spec(&mut after));
    assert_eq!(before, after);
}
