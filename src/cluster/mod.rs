//! The apiserver: every call that is made to it, each with a time-out, and every watch.

mod bell;
mod calls;
mod decode;
mod error;
mod events;
mod occurrence;
mod reads;
mod reviews;
mod rivals;
mod versions;
mod watch;
mod workloads;

pub use bell::Bell;
pub use calls::Cluster;
pub(crate) use calls::{config_map_key, version};
pub use decode::Tokens;
pub use error::ApiError;
pub use events::{Events, Note, Severity};
pub use occurrence::Occurrence;
pub use reads::Reads;
pub use rivals::Rivals;
pub use versions::{Seen, Versions, number};
pub use watch::{Change, Listed, News, bells, tokens};
