//! Further keys of the Secret: `spec.secret.template`, a template for each.
//!
//! Before a request [`check_templates`] finds what is wrong whatever token comes: syntax, unknown names, unknown filters, and
//! all that a rendering with a placeholder shows. What only the values of one token show is found when that token is rendered:
//! it is stored all the same, and the key stays as it was.
//!
//! # Guarantees
//! - No error holds a value of a record.
//! - Time, memory and size of what is rendered are bounded, whatever the text.

mod engine;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::ResourceExt;
use minijinja::{Value, context};

use super::build::placeholder_record;
use super::judge::rfc3339;
use crate::api::VerteilToken;
use crate::token::Record;
use engine::{Depth, Fault};

/// The longest text, in characters. The definition says the same; this holds if an older one is installed.
const LONGEST_TEXT: usize = 4096;
/// The longest value that a template may render to, in bytes.
const LONGEST_VALUE: usize = 64 * 1024;
/// The most that all templates may render to: beside a long token it fits into a Secret (1 MiB).
const MOST_IN_ALL: usize = 256 * 1024;

/// Why a key was not rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.secret.template, key {key}, {fault}")]
pub struct TemplateError {
    key: String,
    fault: Fault,
}

/// What was rendered.
#[derive(Default)]
pub struct Rendered {
    /// The keys and their values. No `Debug`: they hold the token.
    pub keys: BTreeMap<String, ByteString>,
    /// Why one is missing: the first, in the order of the keys.
    pub failed: Option<TemplateError>,
}

/// The keys that are written by templates.
pub fn template_keys(resource: &VerteilToken) -> impl Iterator<Item = &str> {
    resource.spec.secret.template.keys().map(String::as_str)
}

/// Finds what is wrong with a template whatever token comes.
pub fn check_templates(resource: &VerteilToken) -> Result<(), TemplateError> {
    let Some(record) = placeholder_record() else { return Ok(()) };
    match render_all(resource, record, Depth::All).failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Renders every key that can be rendered with `record`.
#[must_use]
pub fn render_templates(resource: &VerteilToken, record: &Record) -> Rendered {
    render_all(resource, record, Depth::Values)
}

fn render_all(resource: &VerteilToken, record: &Record, depth: Depth) -> Rendered {
    let templates = &resource.spec.secret.template;
    let Some(first) = templates.keys().next() else { return Rendered::default() };
    let values = values(resource, record);
    engine::on_a_deep_stack(|| render_each(templates, &values, depth)).unwrap_or_else(|fault| {
        let failed = Some(TemplateError { key: first.clone(), fault });
        Rendered { keys: BTreeMap::new(), failed }
    })
}

fn render_each(templates: &BTreeMap<String, String>, values: &Value, depth: Depth) -> Rendered {
    let (mut rendered, mut room) = (Rendered::default(), MOST_IN_ALL);
    for (key, text) in templates {
        match render_one(text, values, depth, room) {
            Ok(value) => {
                room = room.saturating_sub(value.len());
                rendered.keys.insert(key.clone(), ByteString(value.into_bytes()));
            }
            Err(fault) => {
                rendered.failed.get_or_insert(TemplateError { key: key.clone(), fault });
            }
        }
        if depth == Depth::All && rendered.failed.is_some() {
            break;
        }
    }
    rendered
}

fn render_one(text: &str, values: &Value, depth: Depth, room: usize) -> Result<String, Fault> {
    if text.chars().count() > LONGEST_TEXT {
        return Err(Fault::new("a template has at most 4096 characters"));
    }
    let value = engine::render(text, values, depth)?;
    if value.len() > LONGEST_VALUE {
        return Err(Fault::new("it renders to more than 64 KiB"));
    }
    if value.len() > room {
        return Err(Fault::new("all templates together render to more than 256 KiB"));
    }
    Ok(value)
}

/// What a template can name.
fn values(resource: &VerteilToken, record: &Record) -> Value {
    let validity = record.validity();
    context! {
        access_token => record.access_token().expose(),
        token_type => record.token_type(),
        expires_in => record.expires_in(),
        token_expiry => record.token_expiry(),
        saved_at => record.saved_at(),
        issued_at => rfc3339(validity.issued_at),
        expires_at => rfc3339(validity.expires_at),
        name => resource.name_any(),
        namespace => resource.namespace().unwrap_or_default(),
    }
}
