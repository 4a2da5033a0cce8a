//! A panic as a line of the log, without what it quotes: the words of a panic may hold what was being worked on, such as the text
//! that was cut in the middle of a character.

use std::any::Any;
use std::panic::PanicHookInfo;

/// Shown for words that were made when it happened.
const WITHHELD: &str = "(words withheld, since they may quote a secret)";

/// From now on panics are logged, each with its place.
pub fn log_panics() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name(), words = words(panic.payload()), "panicked");
}

/// The words that stand in the source. What was made when it happened may hold anything.
fn words(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(WITHHELD)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used, clippy::string_slice, reason = "that is what is looked at")]

    use std::panic::catch_unwind;

    use super::*;

    fn said(work: fn()) -> &'static str {
        words(&*catch_unwind(work).unwrap_err())
    }

    #[test]
    fn the_words_of_a_panic_are_told_unless_they_were_made_when_it_happened() {
        assert_eq!(said(|| panic!("the queue has ended")), "the queue has ended");
        assert_eq!(said(|| panic!("canary {}", std::hint::black_box(1))), WITHHELD);
        assert_eq!(said(|| drop(std::hint::black_box("canaryé")[..7].to_owned())), WITHHELD);
        assert_eq!(said(|| std::str::from_utf8(std::hint::black_box(b"canary\xff")).map(drop).unwrap()), WITHHELD);
    }
}
