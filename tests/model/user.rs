//! What people and other programs do meanwhile.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;
use verteil_token_operator::api::{RENEW_ANNOTATION, RENEWED_ANNOTATION, VerteilTokenSpec};
use verteil_token_operator::clock::Clock as _;

use crate::apiserver::{FOREIGN, NAME};
use crate::schedule::Run;

pub const CREDENTIALS: &str = "credentials";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Tick,
    Scopes,
    Password,
    Labels,
    RenewBefore,
    Timeout,
    TouchCredentials,
    RemakeCredentials,
    DeleteCredentials,
    DeleteSecret,
    CorruptRecord,
    AlterRecord,
    DerivedKey,
    Annotation,
    Label,
    Owner,
    WipeStatus,
    Renew,
    RenewAgain,
    Suspend,
    Remake,
    Foreign,
    SetClock,
    Leadership,
    Restart,
}

pub const STEPS: [Step; 25] = [
    Step::Tick,
    Step::Scopes,
    Step::Password,
    Step::Labels,
    Step::RenewBefore,
    Step::Timeout,
    Step::TouchCredentials,
    Step::RemakeCredentials,
    Step::DeleteCredentials,
    Step::DeleteSecret,
    Step::CorruptRecord,
    Step::AlterRecord,
    Step::DerivedKey,
    Step::Annotation,
    Step::Label,
    Step::Owner,
    Step::WipeStatus,
    Step::Renew,
    Step::RenewAgain,
    Step::Suspend,
    Step::Remake,
    Step::Foreign,
    Step::SetClock,
    Step::Leadership,
    Step::Restart,
];

impl Step {
    /// Nothing comes of it where there is no Secret.
    pub const fn is_of_the_secret(self) -> bool {
        matches!(
            self,
            Self::DeleteSecret
                | Self::CorruptRecord
                | Self::AlterRecord
                | Self::DerivedKey
                | Self::Annotation
                | Self::Label
                | Self::Owner
        )
    }
}

impl Run<'_> {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of step")]
    pub async fn step(&mut self, step: Step) -> Result<(), String> {
        self.say(|| format!("-- {step:?}"));
        match step {
            Step::Tick => {
                let seconds = self.random.pick(&[1, 1, 4, 5, 9, 11, 26, 61, 300, 900, 3600, 28_800, 43_200]);
                self.let_pass(Duration::from_secs(seconds)).await?;
            }
            Step::Scopes => {
                let scope = format!("s{}", self.random.below(3));
                self.edit_spec(true, |spec| spec.scopes = vec![scope]);
            }
            Step::Password => {
                let password = format!("p{}", self.random.below(3));
                self.set_password(&password);
            }
            Step::Labels => {
                let value = format!("l{}", self.random.below(3));
                self.edit_spec(false, |spec| drop(spec.secret.labels.insert("team".into(), value)));
            }
            Step::RenewBefore => {
                let before = self.random.pick(&["0s", "1m", "10m", "2h"]);
                let reached = self.reached();
                self.edit_spec(false, |spec| spec.renew_before = before.parse().unwrap());
                self.note_reached(&reached);
            }
            Step::Timeout => {
                let timeout = self.random.pick(&["5s", "10s", "15s"]);
                self.edit_spec(false, |spec| spec.timeout = timeout.parse().unwrap());
            }
            Step::TouchCredentials => {
                let value = self.random.below(1000).to_string();
                self.server.edit_secret(CREDENTIALS, |s| drop(s.labels_mut().insert("touched".into(), value)));
                self.ledger.lift();
            }
            Step::RemakeCredentials => {
                if !self.server.delete_secret(CREDENTIALS) || self.random.chance(500) {
                    self.make_credentials();
                }
                self.ledger.lift();
            }
            Step::DeleteCredentials => {
                self.server.delete_secret(CREDENTIALS);
                self.ledger.lift();
            }
            Step::DeleteSecret => self.delete_secret(),
            Step::CorruptRecord => {
                let bytes = self.random.pick(&["", "{}", "no JSON"]);
                self.edit_record(|_| bytes.as_bytes().to_vec());
            }
            Step::AlterRecord => self.edit_record(|record| {
                String::from_utf8(record.to_vec()).unwrap().replace("token-", "forged-").into_bytes()
            }),
            Step::DerivedKey => {
                let key = self.random.pick(&["access_token", "token_expiry", "saved_at", "token_type"]);
                self.edit_own(|secret| {
                    secret.data.get_or_insert_default().insert(key.into(), ByteString(b"edited".to_vec()));
                });
            }
            Step::Annotation => {
                let name = self.random.pick(&["issued-at", "expires-at", "record-seal", "input-seal"]);
                self.seal_lost |= name == "input-seal";
                self.edit_own(|secret| drop(secret.annotations_mut().remove(&format!("verteil.dev/{name}"))));
            }
            Step::Label => {
                let name = self.random.pick(&["app.kubernetes.io/managed-by", "verteil.dev/token"]);
                self.edit_own(|secret| drop(secret.labels_mut().remove(name)));
            }
            Step::Owner => self.edit_own(|secret| secret.metadata.owner_references = None),
            Step::WipeStatus => {
                self.server.wipe_status();
                self.ledger.wipe();
            }
            Step::Renew => {
                self.renewals += 1;
                let value = self.renewals.to_string();
                self.server.edit_token(|token| drop(token.annotations_mut().insert(RENEW_ANNOTATION.into(), value)));
                self.ledger.cause();
                self.ledger.lift();
            }
            Step::RenewAgain => self.renew_again(),
            Step::Suspend => {
                let on = self.random.chance(500);
                self.edit_spec(false, |spec| spec.suspend = on);
            }
            Step::Remake => self.remake(),
            Step::Foreign => self.foreign(),
            Step::SetClock => {
                let by = SignedDuration::from_secs(self.random.pick(&[-3600, 3600]));
                let reached = self.reached();
                self.clock.step(by);
                self.note_reached(&reached);
                self.ledger.step();
            }
            Step::Leadership => {
                let (op, leads) = (self.random.below(self.operators.len()), self.random.chance(500));
                let elapsed = self.clock.elapsed();
                self.operators[op].lead(leads, elapsed);
            }
            Step::Restart => {
                let op = self.random.below(self.operators.len());
                self.crash(op).await;
            }
        }
        Ok(())
    }

    fn edit_spec(&mut self, input: bool, edit: impl FnOnce(&mut VerteilTokenSpec)) {
        let before = self.server.version();
        self.server.edit_token(|token| edit(&mut token.spec));
        if self.server.version() != before {
            self.ledger.lift();
            if input {
                self.ledger.cause();
            }
        }
    }

    fn set_password(&mut self, password: &str) {
        if self.password != password {
            password.clone_into(&mut self.password);
            self.ledger.cause();
        }
        self.make_credentials();
        self.ledger.lift();
    }

    /// Makes the credentials what they should be.
    pub fn make_credentials(&mut self) {
        let wanted: Secret = serde_json::from_value(json!({"metadata": {"name": CREDENTIALS}})).unwrap();
        let mut secret = self.server.secrets.get(CREDENTIALS).cloned().unwrap_or(wanted);
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = [("username".into(), text("user")), ("password".into(), text(&self.password))];
        secret.data = Some(data.into());
        self.server.put_secret(secret);
    }

    pub fn delete_secret(&mut self) {
        if self.server.delete_secret(NAME) {
            self.ledger.cause();
        }
    }

    fn edit_own(&mut self, edit: impl FnOnce(&mut Secret)) {
        if !self.is_foreign() {
            self.server.edit_secret(NAME, edit);
        }
    }

    fn edit_record(&mut self, edit: impl FnOnce(&[u8]) -> Vec<u8>) {
        self.edit_own(|secret| {
            let data = secret.data.get_or_insert_default();
            let record = data.get("verteil_token.json").map(|bytes| bytes.0.clone()).unwrap_or_default();
            data.insert("verteil_token.json".into(), ByteString(edit(&record)));
        });
        self.ledger.cause();
    }

    fn is_foreign(&self) -> bool {
        self.server.secrets.get(NAME).is_some_and(|secret| secret.annotations().contains_key(FOREIGN))
    }

    /// Takes the annotation away, or sets the last value again.
    fn renew_again(&mut self) {
        if self.renewals == 0 {
            return;
        }
        let (value, remove) = (self.renewals.to_string(), self.random.chance(500));
        let kept = self.kept_in();
        let served = kept.as_ref().and_then(|secret| secret.annotations().get(RENEWED_ANNOTATION));
        if !remove && served != Some(&value) {
            self.ledger.cause();
        }
        self.server.edit_token(|token| {
            token.annotations_mut().remove(RENEW_ANNOTATION);
            if !remove {
                token.annotations_mut().insert(RENEW_ANNOTATION.into(), value);
            }
        });
        self.ledger.lift();
    }

    /// Deletes the resource; the next time, or at once, it is made again.
    pub fn remake(&mut self) {
        if let Some(token) = self.server.token() {
            self.spec = token.spec.clone();
            self.server.delete_token();
            self.ledger.remake();
            if self.in_memory {
                // With the resource its token goes.
                self.ledger.cause();
            }
            if self.random.chance(500) {
                return;
            }
        }
        self.server.create_token(self.spec.clone());
    }

    /// Puts somebody else's Secret into the place of ours, or takes it away again.
    fn foreign(&mut self) {
        let foreign = self.is_foreign();
        self.delete_secret();
        if foreign {
            return;
        }
        let secret =
            json!({"metadata": {"name": NAME, "annotations": {FOREIGN: "yes"}}, "data": {"access_token": "eA=="}});
        self.server.put_secret(serde_json::from_value(secret).unwrap());
    }

    /// Everything that stands in the way of rest is mended.
    pub fn mend(&mut self) {
        if self.server.token().is_none() {
            self.server.create_token(self.spec.clone());
        }
        self.edit_spec(false, |spec| spec.suspend = false);
        self.make_credentials();
        self.ledger.lift();
        if self.is_foreign() {
            self.delete_secret();
        }
        let elapsed = self.clock.elapsed();
        for operator in &mut self.operators {
            operator.lead(true, elapsed);
        }
    }
}
