//! What a token in memory means, which no Secret is known to hold yet.

use crate::decide::{Order, Unsaved};
use crate::memory::Issued;
use crate::secret::{Content, Judged};
use crate::token::{InputSeal, Inputs, RecordSeal, Verdict};

/// What `issued` means beside what is stored. `own`: it was requested for this very resource. None if it was not, and nothing tells yet whether
/// it is for the same inputs: until then it is nobody's.
pub(super) fn unsaved(
    issued: &Issued,
    own: bool,
    judged: &Judged,
    inputs: Option<&Inputs>,
    wish: Option<&String>,
) -> Option<Unsaved> {
    let content = &issued.content;
    let current = match (inputs, &content.input_seal) {
        (Some(inputs), Some(seal)) => InputSeal::check(seal, inputs, content.record.access_token()) != Verdict::Broken,
        // Inputs that cannot be read count as unchanged: of the resource that they were read for.
        (None, _) | (_, None) if own => true,
        (None, _) | (_, None) => return None,
    };
    let saved = judged.content.as_ref().is_some_and(|stored| {
        stored.record_seal == content.record_seal
            && stored.input_seal == content.input_seal
            // A token that serves no renewal says nothing of one served before.
            && (content.renewed.is_none() || stored.renewed == content.renewed)
    });
    let stored = judged.content.as_ref().map(|stored| RecordSeal::of(&stored.record));
    let succeeds = stored.is_some() && stored == issued.replaces;
    let serves = |content: &Content| content.renewed.as_ref() == wish;
    let outrun = wish.is_some() && judged.content.as_ref().is_some_and(serves) && !serves(content);
    let order = match (succeeds, outrun) {
        // First, since a repeated token has the same record.
        (_, true) => Order::Predecessor,
        (true, false) => Order::Successor,
        (false, false) => Order::ByTime,
    };
    Some(Unsaved { validity: content.record.validity(), current, saved, order })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use jiff::Timestamp;

    use super::*;
    use crate::api::IssueReason;
    use crate::decide::{Lost, Stored};
    use crate::token::Record;

    fn inputs(password: &str) -> Inputs {
        let (url, username) = ("https://a.b/token".into(), "user".to_owned().into());
        Inputs::new(url, username, password.to_owned().into(), Vec::new(), [].into())
    }

    fn issued() -> Issued {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let record = Record::new("fake-token".to_owned().into(), "Bearer".into(), 3600, at, at).unwrap();
        let content = Content {
            record_seal: RecordSeal::of(&record).as_str().to_owned(),
            input_seal: Some(InputSeal::of(&inputs("one"), record.access_token()).as_str().to_owned()),
            renewed: None,
            record,
        };
        Issued {
            owner: Some("u".into()),
            content,
            reason: IssueReason::Initial,
            repeated: false,
            trouble: None,
            requested_at: at,
            replaces: None,
            counted: false,
            claim: None,
        }
    }

    #[test]
    fn another_resource_of_the_same_name_has_it_only_for_the_same_inputs() {
        let stored = Stored::Absent { lost: Lost::Nothing };
        let judged = Judged { stored, content: None, trouble: None, writer: None, seen: Vec::new() };
        let current = |own, inputs: Option<Inputs>| {
            unsaved(&issued(), own, &judged, inputs.as_ref(), None).map(|unsaved| unsaved.current)
        };
        for own in [true, false] {
            assert_eq!(current(own, Some(inputs("one"))), Some(true));
            assert_eq!(current(own, Some(inputs("two"))), Some(false), "it is dropped");
        }
        assert_eq!(current(true, None), Some(true));
        assert_eq!(current(false, None), None, "it is kept, and nobody's");
    }
}
