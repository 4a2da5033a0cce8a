//! The way that costs nothing: versions say that all is as it was found to be.

use jiff::Timestamp;
use kube::ResourceExt;

use super::Context;
use super::authority::is_unchanged;
use crate::api::{RENEW_ANNOTATION, VerteilToken};
use crate::decide::{SECRET_CONTESTED, condition, contest, rollout_is_settled};
use crate::memory::Key;
use crate::secret::FORMAT;
use crate::token::{RecordSeal, Validity, renewal_point};

/// The renewal point of a resource whose status, Secret, credentials and CA carry the versions that were verified; none if a look
/// is needed. No call is made.
#[must_use]
pub fn settled_until(key: &Key, token: &VerteilToken, ctx: &Context) -> Option<Timestamp> {
    let status = token.status.as_ref()?;
    let verified = status.verified.as_ref()?;
    let seen = |name: &str, version| ctx.versions.is(&key.beside(name), version);
    let in_memory_only = ctx.store.is_in_memory();
    let is_stored = |version| {
        if in_memory_only { ctx.store.seen(token).is(version) } else { seen(token.secret_name(), version) }
    };
    let unchanged = verified.generation == token.metadata.generation?
        && verified.format == FORMAT
        && is_stored(&verified.secret)
        && seen(&token.spec.credentials_secret_ref.name, &verified.credentials)
        && is_unchanged(key, token, verified.ca.as_ref(), ctx);
    let served =
        token.annotations().get(RENEW_ANNOTATION).is_none_or(|v| Some(v) == status.last_renew_request.as_ref());
    let calm = status.claim.is_none()
        && !token.spec.suspend
        && token.metadata.deletion_timestamp.is_none()
        && condition(status, "Ready").is_some_and(|c| c.status == "True")
        && condition(status, "RenewalFailing").is_some_and(|c| c.status == "False")
        && rollout_is_settled(&token.spec.rollout_restart, ctx.rollout_restart, status);
    let contested = condition(status, SECRET_CONTESTED).map(|c| c.message.as_str());
    let name = (!in_memory_only).then(|| token.secret_name());
    let rivals = if in_memory_only { Vec::new() } else { ctx.rivals.of(key, token.secret_name()) };
    let in_place = status.former_secret_name.is_none()
        && status.secret_name.as_deref() == name
        && status.in_memory == in_memory_only.then_some(true)
        && contested == contest(token.secret_name(), &rivals).as_deref();
    let in_memory = ctx.memory.is_unsaved(key);
    if !unchanged || !in_place || !served || !calm || in_memory {
        return None;
    }
    let validity = Validity { issued_at: status.issued_at.as_ref()?.0, expires_at: status.expires_at.as_ref()?.0 };
    let repeats = status.issuer_repeats.as_ref() == Some(&token.spec.token_url);
    let seal = RecordSeal::written(status.record_seal.clone()?);
    let renewal = renewal_point(validity, token.spec.renew_before.signed(), &seal, repeats);
    let told = status.renewal_time.as_ref().is_some_and(|time| time.0 == renewal);
    (told && ctx.clock.now() < renewal).then_some(renewal)
}
