//! One time for everybody: it moves when a step says so.

use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use verteil_token_operator::clock::Clock;

/// Where the time of day begins.
const BEGIN: i64 = 1_800_000_000;

pub struct ModelClock(Mutex<(Timestamp, Duration)>);

impl ModelClock {
    pub fn new() -> Self {
        Self(Mutex::new((Timestamp::from_second(BEGIN).unwrap(), Duration::from_secs(1000))))
    }

    /// Time goes by.
    pub fn advance(&self, by: Duration) {
        let mut time = self.0.lock().unwrap();
        time.0 = time.0.checked_add(SignedDuration::try_from(by).unwrap()).unwrap();
        time.1 += by;
    }

    /// Somebody sets the time of day.
    pub fn step(&self, by: SignedDuration) {
        let mut time = self.0.lock().unwrap();
        time.0 = time.0.checked_add(by).unwrap();
    }
}

impl Clock for ModelClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}
