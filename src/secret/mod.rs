//! The token Secret: whose it is, what it says, what it should look like. Pure: it reads and builds objects, others send them.

mod build;
mod emptied;
mod judge;
mod ownership;
mod prune;
mod supersede;
mod template;

pub use build::{Content, FORMAT, build, placeholder, would_add_owner};
pub use emptied::{emptied, for_memory};
pub use judge::{Judged, judge};
pub use ownership::{Labelled, Neighbours, Ownership, is_adopted, ownership};
pub use supersede::supersede;
pub use template::{Rendered, TemplateError, check_templates, render_templates, template_keys};

use k8s_openapi::api::core::v1::Secret;

use crate::token::Record;

/// The value of an annotation.
#[must_use]
pub fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// All values but those that tell nothing of the token.
pub fn confidential(secret: &Secret) -> impl Iterator<Item = &[u8]> {
    let data = secret.data.iter().flatten().filter(|(name, _)| !Record::is_public_key(name));
    data.map(|(_, bytes)| bytes.0.as_slice())
        .chain(secret.string_data.iter().flatten().map(|(_, text)| text.as_bytes()))
}

/// The bytes of a key.
#[must_use]
pub fn key<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(name).map(|bytes| bytes.0.as_slice())
}
