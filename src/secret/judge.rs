//! What a Secret that was read says about the token.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::ownership::is_handed_over;
use super::{Content, Neighbours, Ownership, annotation, build, key, ownership};
use crate::api::{
    IN_MEMORY_ANNOTATION, INPUT_SEAL_ANNOTATION, MANAGER, RECORD_SEAL_ANNOTATION, RENEWED_ANNOTATION, VerteilToken,
    VerteilTokenStatus,
};
use crate::decide::{Held, Lost, Stored};
use crate::token::{AccessToken, InputSeal, Inputs, Record, RecordError, RecordSeal, Verdict};

/// A Secret, judged.
pub struct Judged {
    /// What it means for deciding.
    pub stored: Stored,
    /// Its content, if it holds a record that counts.
    pub content: Option<Content>,
    /// Why it holds none.
    pub trouble: Option<String>,
    /// The field manager that wrote the Secret last.
    pub writer: Option<String>,
    /// Tokens that it shows although its record does not count: an issuer may answer with one of them.
    pub seen: Vec<AccessToken>,
}

/// Judges what was read. `inputs`: those wanted now, if they could be read. `verified`: generation and credentials are those
/// for which the status found everything as wanted. `neighbours`: who else names this Secret.
#[must_use]
pub fn judge(
    resource: &VerteilToken,
    secret: Option<&Secret>,
    inputs: Option<&Inputs>,
    verified: bool,
    neighbours: &Neighbours,
) -> Judged {
    let blank = VerteilTokenStatus::default();
    let status = resource.status.as_ref().unwrap_or(&blank);
    let Some(secret) = secret else {
        if let Some(first) = neighbours.contest() {
            return without_content(Stored::Foreign, Some(first));
        }
        return without_content(Stored::Absent { lost: lost(status) }, None);
    };
    if secret.metadata.deletion_timestamp.is_some() {
        return without_content(Stored::Terminating, Some("the Secret is being deleted".into()));
    }
    let handed_over = is_handed_over(resource, secret);
    let record = if handed_over { read_import(secret) } else { read_record(secret, status) };
    let sealed = record.as_ref().is_ok_and(|(_, annotated)| *annotated);
    if let Ownership::Foreign(who) = ownership(resource, secret, sealed, neighbours) {
        return without_content(Stored::Foreign, Some(who));
    }
    if handed_over && matches!(record, Err(RecordError::Missing)) {
        // Nothing to import: the first token is written beside its user's keys.
        return without_content(Stored::Absent { lost: Lost::Nothing }, None);
    }
    if annotation(secret, IN_MEMORY_ANNOTATION).is_some() && matches!(record, Err(RecordError::Missing)) {
        // Emptied by this operator: nobody has removed anything.
        return without_content(Stored::Absent { lost: lost(status) }, None);
    }
    let record = match record {
        Ok((record, _)) => record,
        Err(error) => {
            let seen = tokens_in(secret);
            let trouble = Some(error.to_string());
            return Judged { stored: Stored::Unusable, content: None, trouble, writer: last_writer(secret), seen };
        }
    };
    let written = annotation(secret, INPUT_SEAL_ANNOTATION);
    let verdict = match (inputs, written) {
        (Some(inputs), Some(text)) => Some(InputSeal::check(text, inputs, record.access_token())),
        (None, _) | (_, None) => None,
    };
    let current = match verdict {
        Some(Verdict::Broken) => verified,
        Some(Verdict::Holds | Verdict::Unknown) | None => true,
    };
    // A seal that does not hold is kept while the inputs differ; one that is lost or was altered by hand is made anew.
    let input_seal = match (verdict, inputs) {
        (Some(Verdict::Broken) | None, Some(inputs)) if current => {
            Some(InputSeal::of(inputs, record.access_token()).as_str().to_owned())
        }
        _ => written.map(str::to_owned),
    };
    let seal = RecordSeal::of(&record);
    let content = Content {
        record_seal: kept_or_made(secret, &seal),
        input_seal,
        renewed: annotation(secret, RENEWED_ANNOTATION)
            .map(str::to_owned)
            .or_else(|| status.last_renew_request.clone()),
        record,
    };
    let tidy = build(resource, Some(secret), &content) == *secret;
    let held = Held { validity: content.record.validity(), seal, current, tidy };
    Judged { stored: Stored::Held(held), content: Some(content), trouble: None, writer: None, seen: Vec::new() }
}

fn lost(status: &VerteilTokenStatus) -> Lost {
    if status.verified.is_none() && status.record_seal.is_none() {
        Lost::Nothing
    } else if status.in_memory == Some(true) {
        Lost::Memory
    } else {
        Lost::Secret
    }
}

fn without_content(stored: Stored, trouble: Option<String>) -> Judged {
    Judged { stored, content: None, trouble, writer: None, seen: Vec::new() }
}

/// The record, and whether the annotated seal vouches for it. Without the annotation the status' copy does; with neither, a
/// well-formed record in a Secret of ours is believed, since nothing says that it was altered.
fn read_record(secret: &Secret, status: &VerteilTokenStatus) -> Result<(Record, bool), RecordError> {
    let json = key(secret, Record::json_key()).ok_or(RecordError::Missing)?;
    let record = Record::parse(json)?;
    let verdict = |text: Option<&str>| text.map(|text| RecordSeal::check(text, &record));
    let annotated = verdict(annotation(secret, RECORD_SEAL_ANNOTATION));
    if matches!(annotated, Some(Verdict::Holds | Verdict::Unknown)) {
        return Ok((record, true));
    }
    match (annotated, verdict(status.record_seal.as_deref())) {
        (_, Some(Verdict::Holds)) | (None, Some(Verdict::Unknown) | None) => Ok((record, false)),
        (Some(_), _) | (None, Some(Verdict::Broken)) => Err(RecordError::Altered),
    }
}

/// The record of a Secret that its user hands over, as the file-based original wrote it. Nothing vouches for it but that.
fn read_import(secret: &Secret) -> Result<(Record, bool), RecordError> {
    let json = key(secret, Record::json_key()).ok_or(RecordError::Missing)?;
    Record::import(json).map(|record| (record, false))
}

/// The annotated seal if a newer version made it, else this version's.
fn kept_or_made(secret: &Secret, seal: &RecordSeal) -> String {
    let newer = annotation(secret, RECORD_SEAL_ANNOTATION).filter(|text| RecordSeal::is_newer(text));
    newer.unwrap_or_else(|| seal.as_str()).to_owned()
}

/// Who else wrote to the Secret, last.
fn last_writer(secret: &Secret) -> Option<String> {
    let writes = secret.metadata.managed_fields.iter().flatten();
    let others = writes.filter(|entry| entry.manager.as_deref() != Some(MANAGER));
    others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager.clone())
}

fn tokens_in(secret: &Secret) -> Vec<AccessToken> {
    let flat = key(secret, "access_token").and_then(|bytes| std::str::from_utf8(bytes).ok());
    let json = key(secret, Record::json_key())
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok())
        .and_then(|value| value.get("access_token")?.as_str().map(str::to_owned));
    flat.map(str::to_owned).into_iter().chain(json).map(AccessToken::from).collect()
}

/// `at` as annotations show it: RFC 3339, in UTC.
pub(super) fn rfc3339(at: Timestamp) -> String {
    at.to_string()
}
