//! One list of steps: who goes on next, what becomes of each call, and who crashes where.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use verteil_token_operator::api::VerteilTokenSpec;
use verteil_token_operator::clock::Clock;
use verteil_token_operator::issuer::Issuer;
use verteil_token_operator::memory::Key;
use verteil_token_operator::metrics::Metrics;

use crate::apiserver::{Apiserver, Call, NAME, NAMESPACE, failure};
use crate::clock::ModelClock;
use crate::issuer::Endpoint;
use crate::ledger::Ledger;
use crate::operator::{Arrival, Operator, Stop};
use crate::random::Random;
use crate::user::{CREDENTIALS, STEPS, Step};

/// What may happen in one list: the lists differ in kind, not only in order.
pub struct Kind {
    steps: Vec<Step>,
    length: usize,
    call_faults: usize,
    issuer_faults: usize,
    crashes: usize,
    stale: usize,
    pub lifetime: u64,
    pub repeats: bool,
}

pub struct Run<'a> {
    pub random: Random,
    pub clock: Arc<ModelClock>,
    pub server: Apiserver,
    pub operators: Vec<Operator>,
    pub ledger: Ledger,
    pub metrics: Vec<Arc<Metrics>>,
    pub trace: Vec<String>,
    pub password: String,
    pub spec: VerteilTokenSpec,
    pub renewals: u32,
    pub seal_lost: bool,
    pub tag: String,
    pub kind: Kind,
    /// Tokens are kept in memory only, by one operator.
    pub in_memory: bool,
    issuer: &'a Issuer,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    sender: mpsc::UnboundedSender<Arrival>,
    processes: u64,
    /// The token that the issuer gave last, and its end by the issuer's clock.
    pub given: Option<(String, Duration)>,
    /// The token that memory held by the last look.
    kept: Option<String>,
}

impl Kind {
    fn of(random: &mut Random, in_memory: bool) -> Self {
        let steps = STEPS.into_iter().filter(|step| random.chance(350) && !(in_memory && step.is_of_the_secret()));
        let steps = steps.chain([Step::Tick, Step::Tick]).collect();
        let kind = Self {
            steps,
            length: 4 + random.below(14),
            call_faults: random.pick(&[0, 0, 30, 150]),
            issuer_faults: random.pick(&[0, 0, 200, 600]),
            crashes: random.pick(&[0, 0, 0, 10, 40]),
            stale: random.pick(&[0, 300, 600]),
            lifetime: random.pick(&[43_199, 43_199, 3600, 300, 60]),
            repeats: random.chance(200),
        };
        // Else a status is hardly ever wiped while a request is in flight and nothing else is worth a token.
        if random.chance(100) {
            Self { steps: vec![Step::WipeStatus], crashes: 0, lifetime: 43_199, ..kind }
        } else {
            kind
        }
    }
}

impl<'a> Run<'a> {
    pub fn new(seed: u64, in_memory: bool, issuer: &'a Issuer, endpoint: &Endpoint) -> Self {
        let mut random = Random::new(seed);
        let kind = Kind::of(&mut random, in_memory);
        let (sender, arrivals) = mpsc::unbounded_channel();
        let tag = format!("list-{seed}");
        let url = endpoint.url(&tag, sender.clone());
        let retain = if random.chance(500) { "Retain" } else { "Delete" };
        let spec = serde_json::from_value(serde_json::json!({
            "tokenURL": url, "credentialsSecretRef": {"name": CREDENTIALS}, "scopes": ["s0"],
            "secret": {"deletionPolicy": retain},
        }));
        let spec: VerteilTokenSpec = spec.unwrap();
        let mut run = Self {
            random,
            clock: Arc::new(ModelClock::new()),
            server: Apiserver::default(),
            operators: Vec::new(),
            ledger: Ledger::default(),
            metrics: Vec::new(),
            trace: Vec::new(),
            password: "p0".into(),
            spec: spec.clone(),
            renewals: 0,
            seal_lost: false,
            tag,
            kind,
            in_memory,
            issuer,
            arrivals,
            sender,
            processes: 0,
            given: None,
            kept: None,
        };
        run.make_credentials();
        run.server.create_token(spec);
        let operators = if in_memory { 1 } else { 1 + run.random.below(2) };
        for _ in 0..operators {
            run.launch(None);
        }
        run
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        let at = self.clock.elapsed().as_secs() - 1000;
        self.trace.push(format!("{at:>6} s #{:<3} {}", self.ledger.now(), line()));
    }

    /// The list, up to where rest is to be found.
    pub async fn unrest(&mut self) -> Result<(), String> {
        for _ in 0..self.kind.length {
            for _ in 0..self.random.pick(&[0, 1, 2, 4, 8, 16]) {
                let op = self.random.below(self.operators.len());
                self.go_on(op, true).await?;
            }
            let step = self.random.below(self.kind.steps.len());
            self.step(self.kind.steps[step]).await?;
            if self.random.chance(200) {
                self.collect();
            }
        }
        Ok(())
    }

    /// Starts a process, in the place of another or besides.
    pub fn launch(&mut self, place: Option<usize>) {
        self.processes += 1;
        let mut operator = Operator::start(self.processes, self.in_memory, self.issuer, &self.clock, &self.sender);
        self.metrics.push(Arc::clone(&operator.ctx.metrics));
        // Its watches begin with lists.
        operator.cached = self.server.history.len() - 1;
        operator.told = self.server.secret_events.len();
        let versions = &operator.ctx.versions;
        self.server.token().into_iter().for_each(|token| operator.ctx.remember(&Key::of(token), token));
        self.server.secrets.values().for_each(|secret| drop(versions.applied(&Key::of(secret), &secret.metadata)));
        let listed = self.server.secrets.keys().map(|name| Key::new(NAMESPACE, name.as_str()));
        versions.relisted(None, &listed.collect(), true);
        match place {
            Some(place) => self.operators[place] = operator,
            None => self.operators.push(operator),
        }
    }

    pub async fn crash(&mut self, op: usize) {
        let process = self.operators[op].process;
        if let Some((Stop::Post(_), _)) = self.operators[op].stop.take() {
            let made = self.random.chance(500);
            self.lose(op, made);
        }
        self.say(|| format!("operator {process} crashes"));
        if let Some(pass) = self.operators[op].pass.take() {
            pass.abort();
            drop(pass.await);
        }
        self.ledger.crash(process);
        if self.in_memory {
            // Its token is gone.
            self.ledger.cause();
        }
        self.launch(Some(op));
    }

    pub fn collect(&mut self) {
        if self.server.collect() {
            self.ledger.cause();
            self.say(|| "the garbage collector takes the Secret".into());
        }
    }

    /// One operator starts a pass, or its call goes through.
    pub async fn go_on(&mut self, op: usize, unrest: bool) -> Result<(), String> {
        let Some((stop, _)) = self.operators[op].stop.take() else { return self.look(op, unrest).await };
        match stop {
            Stop::Call(call, reply) => {
                let fault = unrest && self.random.chance(self.kind.call_faults);
                let crash = unrest && self.random.chance(self.kind.crashes);
                let fate = if fault || crash { self.random.below(6) } else { usize::MAX };
                let write = call.verb != http::Method::GET;
                let secret = call.path.contains("/secrets");
                let answer = match fate {
                    0 => Some(failure(500, "InternalError")),
                    1 if write && !crash => Some(failure(409, "Conflict")),
                    2 if write && secret && !crash => Some(failure(403, "Forbidden")),
                    1..=2 => None,
                    _ => Some(self.handle(op, &call)?),
                };
                if crash {
                    drop(reply);
                    self.crash(op).await;
                    return Ok(());
                }
                match answer.filter(|_| !(3..=4).contains(&fate)) {
                    Some((status, body)) => {
                        self.say_of(op, call.name, &format!("{status}{}", if fault { " (fault)" } else { "" }));
                        drop(reply.send((status, serde_json::to_vec(&body).unwrap())));
                    }
                    None => self.say_of(op, call.name, "no answer"),
                }
            }
            Stop::Post(reply) => {
                let crash = unrest && self.random.chance(5 * self.kind.crashes);
                let fault = unrest && self.random.chance(self.kind.issuer_faults);
                let answer = self.answer(op, fault, crash);
                if crash {
                    self.crash(op).await;
                    return Ok(());
                }
                if let Some(answer) = answer {
                    drop(reply.send(answer));
                }
            }
        }
        self.arrive(op).await
    }

    /// A pass begins, from what the caches hold.
    async fn look(&mut self, op: usize, unrest: bool) -> Result<(), String> {
        let stale = |run: &mut Self, from: usize, to: usize| {
            let lags = unrest && run.random.chance(run.kind.stale);
            if lags { from + run.random.below(to - from + 1) } else { to }
        };
        let cached = stale(self, self.operators[op].cached, self.server.history.len() - 1);
        let told = stale(self, self.operators[op].told, self.server.secret_events.len());
        let seen = self.server.version();
        let operator = &mut self.operators[op];
        for token in &self.server.history[operator.cached..=cached] {
            match token {
                Some(token) => operator.ctx.remember(&Key::of(token), token),
                None => {
                    let key = Key::new(NAMESPACE, NAME);
                    operator.ctx.memory.forget(&key, self.clock.now());
                    operator.ctx.store.forget(&key);
                    operator.ctx.withdraw(&key);
                }
            }
        }
        for (exists, meta) in &self.server.secret_events[operator.told..told] {
            let versions = &operator.ctx.versions;
            let key = Key::new(NAMESPACE, meta.name.as_deref().unwrap());
            drop(if *exists { versions.applied(&key, meta) } else { versions.deleted(&key, meta) });
        }
        (operator.cached, operator.told) = (cached, told);
        let fresh = cached + 1 == self.server.history.len() && told == self.server.secret_events.len();
        operator.seen = fresh.then_some(seen);
        operator.wake = None;
        let Some(token) = self.server.history[cached].clone() else { return Ok(()) };
        operator.look(token, &self.sender);
        self.say_of(
            op,
            "pass begins",
            if cached + 1 == self.server.history.len() { "" } else { "with a stale object" },
        );
        self.arrive(op).await
    }

    /// Waits until the pass of `op`, the only one that can move, stops or ends.
    pub async fn arrive(&mut self, op: usize) -> Result<(), String> {
        let since = self.clock.elapsed();
        loop {
            let process = self.operators[op].process;
            let arrival = tokio::time::timeout(Duration::from_secs(60), self.arrivals.recv()).await;
            match arrival.map_err(|_| "a pass hangs")?.unwrap() {
                Arrival::Call { process: from, call, reply } if from == process => {
                    self.operators[op].stop = Some((Stop::Call(call, reply), since));
                }
                Arrival::Post { inputs, reply } => {
                    let (read, timeout) = (self.operators[op].read, self.operators[op].timeout);
                    self.say_of(op, "POST", inputs.split('&').next_back().unwrap_or_default());
                    self.ledger.post(process, read, timeout, (self.clock.now(), since), inputs)?;
                    self.operators[op].stop = Some((Stop::Post(reply), since));
                }
                Arrival::End { process: from, result } if from == process => {
                    let result = result.ok_or("a pass panicked")?;
                    self.operators[op].pass = None;
                    self.operators[op].ended(&result, since);
                    self.say_of(op, "pass ends", &format!("{result:?}"));
                }
                // Of a process that has crashed.
                Arrival::Call { .. } | Arrival::End { .. } => continue,
            }
            self.note_kept(op);
            return Ok(());
        }
    }

    pub fn say_of(&mut self, op: usize, what: &str, how: &str) {
        let process = self.operators[op].process;
        self.say(|| format!("operator {process}: {what} {how}"));
    }

    pub fn handle(&mut self, op: usize, call: &Call) -> Result<(u16, serde_json::Value), String> {
        let answer = self.server.handle(call);
        if let Some(trespass) = self.server.trespass.take() {
            return Err(trespass);
        }
        if call.path.ends_with(CREDENTIALS) {
            self.operators[op].read = self.ledger.now();
        }
        if answer.0 == 200 && call.verb != http::Method::GET {
            if call.path.ends_with("/status") {
                let timeout = self.server.token().unwrap().spec.timeout.signed();
                self.operators[op].timeout = Duration::try_from(timeout).unwrap();
                let status = self.server.token().and_then(|token| token.status.clone()).unwrap_or_default();
                let reasons: Vec<_> = status.conditions.iter().map(|c| format!("{}={}", c.type_, c.reason)).collect();
                let claim = status.claim.map(|claim| claim.id);
                self.say_of(op, "says", &format!("{} claim {claim:?}", reasons.join(" ")));
            } else if !call.dry_run {
                self.landed(self.operators[op].process);
            }
        }
        Ok(answer)
    }

    /// What a pass has written to its memory, no call tells.
    fn note_kept(&mut self, op: usize) {
        let kept = self.record().map(|record| record.access_token().expose().to_owned());
        if self.in_memory && kept.is_some() && kept != self.kept {
            self.landed(self.operators[op].process);
        }
        self.kept = kept;
    }

    /// A token that is written after its renewal point has passed is due at once.
    fn landed(&mut self, process: u64) {
        let Some(record) = self.record() else { return };
        let repeated = self.ledger.landed(process, record.access_token().expose());
        let due = self.points().first().is_some_and(|point| self.clock.now() >= *point);
        if due && !repeated {
            self.ledger.cause();
        }
    }
}
