//! A bad world, in simulated milliseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::Timestamp;

use super::super::{Action, Elector, Observed, Outcome, Record, Timings};

pub(super) const SECOND: u64 = 1000;
pub(super) const LEASE: u64 = 15 * SECOND;
pub(super) const DEADLINE: u64 = 10 * SECOND;
pub(super) const RETRY: u64 = 2 * SECOND;
pub(super) const CALL_TIMEOUT: u64 = 5 * SECOND;
/// A write may still arrive this long after it was sent.
pub(super) const LONGEST_DELAY: u64 = 12 * SECOND;
pub(super) const LONGEST_FREEZE: u64 = 25 * SECOND;
/// A lease that names an absurd duration is believed for so long.
pub(super) const LONGEST_LEASE: u64 = 600 * SECOND;
/// By then everybody has seen a leader, be the weather not too bad.
pub(super) const FIRST_EDIT: u64 = 60 * SECOND;

/// How bad the world is, until it is calm.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) seed: u64,
    pub(super) candidates: usize,
    pub(super) calm_from: u64,
    /// In a thousand: calls that are slow, calls whose answer is lost, waits that a freeze follows, crashes.
    pub(super) slow: u64,
    pub(super) lost: u64,
    pub(super) frozen: u64,
    pub(super) crashes: u64,
    /// Hand edits, about one in so many milliseconds.
    pub(super) edits: Option<u64>,
    /// None of which looks like a release, or is a deletion, which leaves no version by which it could be known.
    pub(super) careful: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A candidate's loop goes on.
    Wake { who: usize, life: u64 },
    /// A call reaches the apiserver.
    Arrive { who: usize, life: u64, call: u64, write: Option<(Vec<u8>, Option<String>)> },
    /// Its answer, or its time-out, reaches the candidate.
    Answer { who: usize, life: u64, call: u64, answer: Answer },
    /// Somebody edits the Lease.
    Edit,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    TimedOut,
    Seen(Option<(Vec<u8>, String)>),
    Written(String),
    Conflict,
}

pub(super) struct Candidate {
    pub(super) elector: Elector,
    /// Which process of this place it is.
    pub(super) life: u64,
    /// What its monotonic clock shows at time 0, and by how much its wall clock is off, in milliseconds.
    born: u64,
    skew: i64,
    frozen_until: u64,
    /// The call whose answer it waits for.
    call: Option<(u64, bool)>,
}

pub(super) struct World {
    pub(super) weather: Weather,
    pub(super) now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    numbers: u64,
    random: u64,
    records: Vec<Record>,
    lease: Option<(Vec<u8>, String)>,
    pub(super) candidates: Vec<Candidate>,
}

// === impl World ===

impl World {
    pub(super) fn new(weather: Weather) -> Self {
        let random = weather.seed | 1;
        let mut world = Self {
            now: 0,
            events: BinaryHeap::new(),
            numbers: 0,
            random,
            records: Vec::new(),
            lease: None,
            candidates: Vec::new(),
            weather,
        };
        for who in 0..world.weather.candidates {
            let candidate = world.candidate(who, 0);
            world.candidates.push(candidate);
            let start = world.below(20 * SECOND);
            world.at(start, Event::Wake { who, life: 0 });
        }
        if world.weather.edits.is_some() {
            world.at(FIRST_EDIT, Event::Edit);
        }
        world
    }

    fn candidate(&mut self, who: usize, life: u64) -> Candidate {
        let span = |milliseconds| Duration::from_millis(milliseconds);
        let timings = Timings::new(span(LEASE), span(DEADLINE), span(RETRY));
        let born = self.below(1 << 40);
        let skew = i64::try_from(self.below(1 << 36)).unwrap_or_default() - (1 << 35);
        let elector = timings.map(|timings| Elector::new(&format!("{who}-{life}"), timings));
        let elector = elector.unwrap_or_else(|error| unreachable!("{error}"));
        Candidate { elector, life, born, skew, frozen_until: 0, call: None }
    }

    /// xorshift64
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound.max(1)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn at(&mut self, time: u64, event: Event) {
        let number = self.number();
        self.events.push(Reverse((time, number, event)));
    }

    fn calm(&self) -> bool {
        self.now >= self.weather.calm_from
    }

    /// One in a thousand times `odds`, while the weather is bad.
    fn happens(&mut self, odds: u64) -> bool {
        !self.calm() && self.below(1000) < odds
    }

    pub(super) fn elapsed(&self, who: usize) -> Duration {
        Duration::from_millis(self.now + self.candidates.get(who).map_or(0, |c| c.born))
    }

    /// Who considers itself the leader, frozen or not: what it would say if it were asked.
    pub(super) fn leaders(&self) -> Vec<usize> {
        (0..self.candidates.len())
            .filter(|who| self.candidates.get(*who).is_some_and(|c| c.elector.leads(self.elapsed(*who))))
            .collect()
    }

    /// The next event; false if it lies beyond `end`.
    pub(super) fn step(&mut self, end: u64) -> bool {
        match self.events.pop() {
            Some(Reverse((time, _, event))) if time <= end => {
                self.now = time.max(self.now);
                self.handle(event);
                true
            }
            Some(later) => {
                self.events.push(later);
                self.now = end;
                false
            }
            None => false,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { who, life } | Event::Answer { who, life, .. } if !self.runs(who, life) => {}
            Event::Wake { who, .. } | Event::Answer { who, .. } if self.thaws(who) > self.now => {
                self.at(self.thaws(who), event);
            }
            Event::Wake { who, life } => {
                if self.happens(self.weather.crashes) {
                    let candidate = self.candidate(who, life + 1);
                    self.candidates[who] = candidate;
                    let start = self.now + self.below(30 * SECOND);
                    return self.at(start, Event::Wake { who, life: life + 1 });
                }
                self.act(who, life);
            }
            Event::Arrive { who, life, call, write } => {
                let answer = self.serve(write);
                let answers_at = self.now + self.delay();
                if !self.happens(self.weather.lost) {
                    self.at(answers_at, Event::Answer { who, life, call, answer });
                }
            }
            Event::Answer { who, life, call, answer } => self.answered(who, life, call, answer),
            Event::Edit => self.edit(),
        }
    }

    fn runs(&self, who: usize, life: u64) -> bool {
        self.candidates.get(who).is_some_and(|candidate| candidate.life == life)
    }

    fn thaws(&self, who: usize) -> u64 {
        self.candidates.get(who).map_or(0, |candidate| candidate.frozen_until)
    }

    fn delay(&mut self) -> u64 {
        if self.happens(self.weather.slow) { self.below(LONGEST_DELAY / 2) } else { self.below(50) }
    }

    fn act(&mut self, who: usize, life: u64) {
        if self.happens(self.weather.frozen) {
            // It stops here, or on its way: a freeze hits whatever comes next.
            let until = self.now + self.below(LONGEST_FREEZE);
            self.candidates[who].frozen_until = until;
            if self.below(2) == 0 {
                return self.at(until, Event::Wake { who, life });
            }
        }
        let (elapsed, skew) = (self.elapsed(who), self.candidates[who].skew);
        let wall = Timestamp::from_millisecond(skew.saturating_add_unsigned(self.now)).unwrap_or_default();
        let (write, is_write) = match self.candidates[who].elector.next(elapsed, wall) {
            Action::Wait { until } => {
                let late = if self.happens(self.weather.slow) { self.below(3 * SECOND) } else { 0 };
                let time = u64::try_from((until.saturating_sub(elapsed)).as_nanos().div_ceil(1_000_000)).unwrap_or(0);
                return self.at(self.now + time.max(1) + late, Event::Wake { who, life });
            }
            Action::Look => (None, false),
            Action::Create(record) => (Some((self.keep(record), None)), true),
            Action::Replace(record, version) => (Some((self.keep(record), Some(version))), true),
        };
        let call = self.number();
        self.candidates[who].call = Some((call, is_write));
        let arrives_at = self.now + self.delay();
        let reaches = !self.happens(self.weather.lost);
        if reaches {
            self.at(arrives_at, Event::Arrive { who, life, call, write });
        }
        self.at(self.now + CALL_TIMEOUT, Event::Answer { who, life, call, answer: Answer::TimedOut });
    }

    /// Records travel as their number, since events must be comparable.
    fn keep(&mut self, record: Record) -> Vec<u8> {
        self.records.push(record);
        (self.records.len() - 1).to_be_bytes().to_vec()
    }

    fn kept(&self, number: &[u8]) -> Record {
        let number = number.iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
        self.records.get(number).cloned().unwrap_or_default()
    }

    fn serve(&mut self, write: Option<(Vec<u8>, Option<String>)>) -> Answer {
        let Some((record, version)) = write else { return Answer::Seen(self.lease.clone()) };
        if version != self.lease.as_ref().map(|(_, version)| version.clone()) {
            return Answer::Conflict;
        }
        let version = self.number().to_string();
        self.lease = Some((record, version.clone()));
        Answer::Written(version)
    }

    fn answered(&mut self, who: usize, life: u64, call: u64, answer: Answer) {
        let Some((_, is_write)) = self.candidates[who].call.take_if(|(waits_for, _)| *waits_for == call) else {
            return;
        };
        let elapsed = self.elapsed(who);
        let found = match &answer {
            Answer::Seen(Some((record, version))) => {
                Some(Observed { record: self.kept(record), version: version.clone() })
            }
            Answer::Seen(None) | Answer::TimedOut | Answer::Written(_) | Answer::Conflict => None,
        };
        let elector = &mut self.candidates[who].elector;
        match answer {
            Answer::Seen(_) => elector.observed(found, elapsed),
            Answer::TimedOut if is_write => elector.wrote(Outcome::Unknown, elapsed),
            Answer::TimedOut => elector.unseen(elapsed),
            Answer::Written(version) => elector.wrote(Outcome::Written { version }, elapsed),
            Answer::Conflict => elector.wrote(Outcome::Conflict, elapsed),
        }
        self.act(who, life);
    }

    fn edit(&mut self) {
        let Some(every) = self.weather.edits.filter(|_| !self.calm()) else { return };
        let mut record = self.lease.as_ref().map(|(record, _)| self.kept(record)).unwrap_or_default();
        match self.below(if self.weather.careful { 4 } else { 6 }) {
            5 => self.lease = None,
            0 => record = Record::default(),
            1 => record.seconds = Some(i32::from_ne_bytes(self.below(1 << 32).to_ne_bytes()[..4].try_into().unwrap())),
            2 => record.holder = "0-0".into(),
            3 => record.holder = "mallory".into(),
            _ => record = record.released(Timestamp::MIN),
        }
        if self.lease.is_some() {
            let version = self.number().to_string();
            self.lease = Some((self.keep(record), version));
        }
        let next = self.now + self.below(2 * every);
        self.at(next, Event::Edit);
    }
}
