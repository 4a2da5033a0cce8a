//! The record of a Secret, and the file of the original that is imported.

use jiff::Timestamp;
use verteil_token_operator::token::{Record, RecordError, RecordSeal, Verdict};

use super::FAKE;

/// What stands under the record's key.
pub fn record(data: &[u8]) {
    let (read, imported) = (Record::parse(data), Record::import(data));
    for error in [read.as_ref().err(), imported.as_ref().err()].into_iter().flatten() {
        holds_for_an_error(*error);
    }
    for record in [&read, &imported].into_iter().flatten() {
        reads_back(record);
    }
    if let Ok(read) = read.as_ref()
        && read.expires_in() > 0
    {
        let imported = imported.as_ref().map(Record::to_json);
        assert!(imported == Ok(read.to_json()), "import makes something else of a good record");
    }
}

fn holds_for_an_error(error: RecordError) {
    let told = format!("{error} {error:?}");
    assert!(told.len() < 300 && !told.contains(FAKE), "{told}");
}

/// What is written is read again as the same, from the record's key and from the others, and its seal holds.
pub fn reads_back(record: &Record) {
    let json = record.to_json();
    let again = Record::parse(&json).expect("it was written by us");
    assert!(again.to_json() == json, "written and read, it is another");
    assert!(again.validity() == record.validity());
    let keys = record.keys();
    let value = |name: &str| &keys.iter().find(|(key, _)| *key == name).expect("one of the keys").1;
    assert!(keys.iter().all(|(name, _)| Record::is_key(name)));
    assert!(value(Record::json_key()) == &json);
    assert!(value("access_token") == record.access_token().expose().as_bytes());
    assert!(value("token_expiry") == record.token_expiry().to_string().as_bytes());
    assert_eq!(RecordSeal::check(RecordSeal::of(record).as_str(), &again), Verdict::Holds);
    times_agree(record);
    for at in [Timestamp::MIN, record.validity().expires_at, Timestamp::MAX] {
        let longer = record.extended_to(at);
        assert!(longer.validity().expires_at >= record.validity().expires_at);
        assert!(longer.access_token().is_same(record.access_token()));
        times_agree(&longer);
    }
}

fn times_agree(record: &Record) {
    let validity = record.validity();
    assert_eq!(validity.expires_at.as_second(), record.token_expiry());
    assert_eq!(validity.issued_at.as_second().checked_add(record.expires_in()), Some(record.token_expiry()));
}
