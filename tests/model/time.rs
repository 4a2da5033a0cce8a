//! Time goes by: what it makes due, and what hangs for too long.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use verteil_token_operator::clock::Clock;
use verteil_token_operator::token::{Record, RecordSeal, renewal_point};

use crate::apiserver::NAME;
use crate::operator::Stop;
use crate::schedule::Run;

/// A call that hangs for longer is given up by the operator.
const CALL_LIMIT: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Where the token is kept.
    pub fn kept_in(&self) -> Option<Secret> {
        if self.in_memory {
            self.operators.first()?.ctx.store.kept(self.server.token()?)
        } else {
            self.server.secrets.get(NAME).cloned()
        }
    }

    pub fn record(&self) -> Option<Record> {
        let secret = self.kept_in()?;
        Record::parse(&secret.data.as_ref()?.get(Record::json_key())?.0).ok()
    }

    /// The stored token's renewal point, that of an issuer which repeats, and the ends of tokens that wait to be saved.
    pub fn points(&self) -> Vec<Timestamp> {
        let mut points = Vec::new();
        if let Some(record) = self.record() {
            let spec = self.server.token().map_or(&self.spec, |token| &token.spec);
            let (seal, before) = (RecordSeal::of(&record), spec.renew_before.signed());
            points.extend([false, true].map(|repeats| renewal_point(record.validity(), before, &seal, repeats)));
        }
        points
    }

    /// Which of them have passed.
    pub fn reached(&self) -> Vec<bool> {
        let now = self.clock.now();
        self.points().into_iter().chain(self.ledger.unsaved_ends()).map(|point| now >= point).collect()
    }

    pub fn note_reached(&mut self, before: &[bool]) {
        if self.reached().iter().zip(before).any(|(after, before)| *after && !before) {
            self.ledger.cause();
        }
    }

    /// Time goes by. What hangs for too long is given up, whether it took effect or not.
    pub async fn let_pass(&mut self, by: Duration) -> Result<(), String> {
        let late = self.clock.elapsed() + by;
        let mut given_up = Vec::new();
        for op in 0..self.operators.len() {
            let limit = match &self.operators[op].stop {
                Some((Stop::Call(..), since)) => *since + CALL_LIMIT,
                Some((Stop::Post(_), since)) => *since + self.operators[op].timeout,
                None => continue,
            };
            if late < limit {
                continue;
            }
            let (stop, _) = self.operators[op].stop.take().unwrap();
            let effect = self.random.chance(500);
            match &stop {
                Stop::Call(call, _) if effect => drop(self.handle(op, call)?),
                Stop::Call(..) => {}
                Stop::Post(_) => self.lose(op, effect),
            }
            given_up.push((op, stop));
        }
        let reached = self.reached();
        self.clock.advance(by);
        self.note_reached(&reached);
        for (op, stop) in given_up {
            self.say_of(op, "is not answered in time", "");
            drop(stop);
            self.arrive(op).await?;
        }
        Ok(())
    }
}
