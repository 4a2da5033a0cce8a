//! What the issuer answers.

use std::time::Duration;

use jiff::Timestamp;
use verteil_token_operator::clock::Clock;

use crate::issuer::Reply;
use crate::ledger::Outcome;
use crate::schedule::Run;

impl Run<'_> {
    /// The request in flight comes to nothing, `made` or not.
    pub fn lose(&mut self, op: usize, made: bool) {
        let process = self.operators[op].process;
        if made {
            let (token, expires, _, _) = self.give();
            self.ledger.answered(process, Outcome::Lost, Some((token, expires)));
        } else {
            self.ledger.answered(process, Outcome::Failed(Duration::from_secs(60)), None);
        }
    }

    /// What the issuer answers; none breaks the connection.
    pub fn answer(&mut self, op: usize, fault: bool, crash: bool) -> Option<Reply> {
        let fate = if fault || crash { self.random.below(7) } else { usize::MAX };
        if crash || fate < 2 {
            self.lose(op, fate % 2 == 0);
            self.say_of(op, "POST", "breaks");
            return None;
        }
        let failed = |status, headers, body: &str, wait| Some(((status, headers, body.to_owned()), wait));
        let failed = match fate {
            2 => failed(503, "", "", 5),
            3 => failed(429, "Retry-After: 7\r\n", "", 7),
            4 => failed(401, "", r#"{"error":"Unauthorized"}"#, 180),
            5 => failed(404, "", "<html>", 60),
            6 => failed(200, "", "no JSON", 60),
            _ => None,
        };
        let process = self.operators[op].process;
        if let Some((reply, wait)) = failed {
            self.ledger.answered(process, Outcome::Failed(Duration::from_secs(wait)), None);
            self.say_of(op, "POST", &format!("{}", reply.0));
            return Some(reply);
        }
        let (token, expires, repeated, lives) = self.give();
        self.say_of(op, "POST", &format!("200 {token} {lives} s"));
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{lives}}}"#);
        let outcome = if lives == 0 { Outcome::Lifeless } else { Outcome::Token { repeated } };
        self.ledger.answered(process, outcome, Some((token, expires)).filter(|_| lives > 0));
        if lives > 0 && self.clock.now() >= expires {
            // The clock was set meanwhile.
            self.ledger.cause();
        }
        Some((200, "", body))
    }

    /// A token, its end by the time of day, whether it was given before, and the seconds that it lives.
    fn give(&mut self) -> (String, Timestamp, bool, u64) {
        let elapsed = self.clock.elapsed();
        let kept = self.given.clone().filter(|(_, end)| self.kind.repeats && elapsed <= *end);
        let repeated = kept.is_some();
        let end = elapsed + Duration::from_secs(self.kind.lifetime);
        let (token, end) = kept.unwrap_or_else(|| (format!("token-{}", self.ledger.now()), end));
        let lives = end.checked_sub(elapsed).unwrap().as_secs();
        self.given = Some((token.clone(), end));
        let asked = self.ledger.posts.last().unwrap().asked;
        let expires =
            asked.saturating_add(jiff::SignedDuration::try_from(Duration::from_secs(lives)).unwrap()).unwrap();
        (token, expires, repeated, lives)
    }
}
