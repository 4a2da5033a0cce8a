//! Rest: what must hold once nothing happens any more but time.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::ResourceExt;
use verteil_token_operator::api::{RENEW_ANNOTATION, RENEWED_ANNOTATION, VerteilToken};
use verteil_token_operator::clock::Clock;
use verteil_token_operator::cluster::number;
use verteil_token_operator::decide::condition;
use verteil_token_operator::memory::Key;
use verteil_token_operator::metrics::Exposition;

use crate::apiserver::{NAME, NAMESPACE};
use crate::schedule::Run;
use crate::user::CREDENTIALS;

/// Passes after which rest must have come.
const MOST_PASSES: usize = 400;

impl Run<'_> {
    /// Everything is mended; the operators do what they do, by their own timers and bells, until there is rest.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.say(|| "== mended".into());
        self.mend();
        let mut passes = 0;
        loop {
            self.collect();
            let elapsed = self.clock.elapsed();
            let moves: Vec<usize> = (0..self.operators.len())
                .filter(|op| {
                    let news = self.has_news(*op);
                    let operator = &self.operators[*op];
                    let due = operator.wake.is_some_and(|wake| wake <= elapsed);
                    operator.stop.is_some() || news || due
                })
                .collect();
            if !moves.is_empty() {
                let op = self.random.pick(&moves);
                passes += usize::from(self.operators[op].stop.is_none());
                if passes > MOST_PASSES {
                    return Err(format!("no rest: {:?}, {:?}", self.at_rest(), self.server.token()));
                }
                self.go_on(op, false).await?;
                continue;
            }
            // Whoever waits for the shortest gap only has something to do.
            let soon = elapsed + Duration::from_secs(6);
            let waited_for = self.operators.iter().any(|operator| operator.wake.is_some_and(|wake| wake < soon));
            let why = match self.at_rest() {
                Ok(()) if waited_for => "somebody is about to go on".to_owned(),
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if why.starts_with("SecretNotOurs") && self.server.secrets.contains_key(NAME) {
                self.say(|| "somebody deletes a Secret that nobody knows".into());
                self.delete_secret();
                continue;
            }
            let wake = self.operators.iter().filter_map(|operator| operator.wake).min();
            let wake = wake.ok_or_else(|| format!("nobody will look again: {why}"))?;
            self.let_pass(wake.checked_sub(elapsed).unwrap().max(Duration::from_millis(1))).await?;
        }
    }

    /// Whether something has changed that `op` has not seen and would be rung for. Its own writes of the status are told to it
    /// too, and ring only where the operator says so.
    fn has_news(&mut self, op: usize) -> bool {
        let version = self.server.version();
        let operator = &mut self.operators[op];
        if operator.seen == Some(version) {
            return false;
        }
        let untold = self.server.history.get(operator.cached + 1..).unwrap_or_default();
        if operator.stop.is_some() || untold.is_empty() || operator.told != self.server.secret_events.len() {
            return true;
        }
        let key = Key::new(NAMESPACE, NAME);
        let echo = |token: &VerteilToken| operator.ctx.memory.is_echo(&key, number(&token.metadata));
        if !untold.iter().all(|token| token.as_ref().is_some_and(echo)) {
            return true;
        }
        operator.cached += untold.len();
        operator.seen = Some(version);
        false
    }

    /// Another pass of everybody, and of a process that was just started, costs nothing.
    pub async fn quiet(&mut self) -> Result<(), String> {
        let before = (self.server.writes, self.ledger.posts.len());
        let was = self.server.token().cloned();
        if !self.in_memory {
            self.launch(None);
        }
        for op in 0..self.operators.len() {
            self.go_on(op, false).await?;
            while self.operators[op].stop.is_some() {
                self.go_on(op, false).await?;
            }
        }
        let after = (self.server.writes, self.ledger.posts.len());
        if after == before {
            Ok(())
        } else {
            Err(format!(
                "writes and requests at rest: {before:?}, then {after:?}: {was:#?} became {:#?}",
                self.server.token()
            ))
        }
    }

    /// Every loss was counted.
    pub fn accounted(&self) -> Result<(), String> {
        let losses = self.ledger.losses + self.ledger.doubled();
        if losses == 0 {
            return Ok(());
        }
        let name = "verteil_token_ambiguous_generations_total ";
        let counted: u64 = self
            .metrics
            .iter()
            .map(|metrics| {
                let text = metrics.encode(Exposition::Plain).unwrap();
                text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<u64>().unwrap()
            })
            .sum();
        if counted >= losses {
            return Ok(());
        }
        Err(format!("{losses} tokens were lost, {counted} counted as ambiguous"))
    }

    fn at_rest(&self) -> Result<(), String> {
        let token = self.server.token().ok_or("no resource")?;
        let status = token.status.as_ref().ok_or("no status")?;
        let is = |name: &str| condition(status, name).map(|c| (c.status == "True", c.reason.clone()));
        match is("Ready") {
            Some((true, _)) => {}
            Some((false, reason)) => return Err(format!("{reason}: not Ready")),
            None => return Err("no condition Ready".into()),
        }
        let not = |name: &str| is(name).is_some_and(|(is, _)| !is);
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        check(not("RenewalFailing") && not("Reconciling") && not("Stalled"), "a condition says otherwise")?;
        check(status.observed_generation == token.metadata.generation, "the generation was not observed")?;
        check(status.claim.is_none(), "a claim stands")?;
        check(status.next_attempt_time.is_none(), "an attempt is announced")?;
        check(status.verified.is_some(), "nothing is verified")?;
        let unsaved = self.operators.iter().any(|operator| !operator.ctx.memory.unsaved().is_empty());
        check(!unsaved, "a token is unsaved")?;
        self.stored()
    }

    /// The Secret as it must be.
    fn stored(&self) -> Result<(), String> {
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let token = self.server.token().ok_or("no resource")?;
        let secret = self.kept_in().ok_or("no Secret")?;
        let told = token.status.as_ref().and_then(|status| status.in_memory).unwrap_or_default();
        check(self.in_memory == told, "another place than is told")?;
        check(!self.in_memory || !self.server.secrets.contains_key(NAME), "a Secret, though nothing is to be stored")?;
        let record = self.record().ok_or("no record")?;
        let value = record.access_token().expose();
        check(self.clock.now() < record.validity().expires_at, "the token has expired")?;
        check(self.ledger.last().is_none_or(|last| last == value), "it is not the last token issued")?;
        let key = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
        for (name, bytes) in record.keys() {
            check(key(name) == Some(&bytes), name)?;
        }
        check(key("access_token") == Some(value.as_bytes()), "access_token")?;
        let label = |name: &str, value: &str| secret.labels().get(name).is_some_and(|found| found == value);
        check(label("verteil.dev/token", NAME), "the label of the resource")?;
        check(label("app.kubernetes.io/managed-by", "verteil-token-operator"), "the label of the operator")?;
        check(token.spec.secret.labels.iter().all(|(name, value)| label(name, value)), "a label of the spec")?;
        for name in ["issued-at", "expires-at", "record-seal", "input-seal"] {
            check(secret.annotations().contains_key(&format!("verteil.dev/{name}")), name)?;
        }
        let owned = secret.owner_references().iter().filter(|o| Some(&o.uid) == token.metadata.uid.as_ref()).count();
        let retained = token.spec.secret.deletion_policy == verteil_token_operator::api::DeletionPolicy::Retain;
        check(secret.owner_references().len() == owned && owned == usize::from(!retained), "the owner")?;
        let wish = token.annotations().get(RENEW_ANNOTATION);
        check(wish.is_none() || wish == secret.annotations().get(RENEWED_ANNOTATION), "the renewal asked for")?;
        check(self.server.secrets.contains_key(CREDENTIALS), "no credentials")?;
        let basic = STANDARD.encode(format!("user:{}", self.password));
        let scope = token.spec.scopes.join("+");
        let inputs = format!("/{}/token Basic {basic} grant_type=client_credentials&scope={scope}", self.tag);
        check(self.seal_lost || self.ledger.was_issued_for(value, &inputs), "a token for other inputs")
    }
}
