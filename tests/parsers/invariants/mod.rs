//! What holds whatever comes in, for every parser that reads what others wrote. One place for the fuzz targets in `fuzz/` and
//! for the tests beside this file. Each function takes bytes as they lie in `fuzz/seeds/` and panics when something does not
//! hold.

mod answer;
mod ca;
mod duration;
mod hosts;
mod lease;
mod record;
mod template;

pub use answer::answer;
pub use ca::ca;
pub use duration::duration;
pub use hosts::hosts;
pub use lease::lease;
pub use record::record;
pub use template::template;

use jiff::Timestamp;

/// What is asserted of an input.
pub type Holds = fn(&[u8]);

/// Every target, with the name that it has in `fuzz/`.
pub const TARGETS: [(&str, Holds); 7] = [
    ("answer", answer),
    ("ca", ca),
    ("duration", duration),
    ("hosts", hosts),
    ("lease", lease),
    ("record", record),
    ("template", template),
];

/// Every request is sent at this second.
const NOW: i64 = 1_800_000_000;
/// Secrets in the seeds begin like this.
const FAKE: &str = "fake-";

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("in range")
}

/// Nothing that changes lines, colours or the direction of writing where people read it.
fn is_fit_to_be_shown(text: &str) -> bool {
    let hidden = |c| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !text.chars().any(|c| c.is_control() || hidden(c))
}

/// Lower case letter by letter: that of a whole text depends on what stands beside a letter.
fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
