//! The CA of the token endpoint, read live.

use super::Pass;
use crate::api::{CaBundleKind, ObjectVersion, VerteilToken};
use crate::ca::{CaBundle, Found, read_ca};
use crate::cluster::{ApiError, config_map_key, version};
use crate::decide::Trouble;
use crate::memory::Key;
use crate::reconcile::Context;
use crate::secret;
use k8s_openapi::api::core::v1::Secret;

/// What the resource names as its CA.
pub(super) struct Authority {
    /// The bundle, none if the system's authorities are trusted; or why it cannot be used.
    pub(super) bundle: Result<Option<CaBundle>, Trouble>,
    /// The version of the object that holds it.
    pub(super) version: Option<ObjectVersion>,
}

// === impl Pass ===

impl Pass<'_> {
    /// Reads the CA, if there is one. `credentials` was just read, and may hold it as well.
    pub(super) async fn fetch_authority(&self, credentials: Option<&Secret>) -> Result<Authority, ApiError> {
        let Some(source) = &self.token.spec.ca_bundle_ref else {
            return Ok(Authority { bundle: Ok(None), version: None });
        };
        let key = self.key.beside(source.name.as_str());
        let (bundle, version) = match source.kind {
            CaBundleKind::Secret => {
                let other;
                let secret = if source.name == self.token.spec.credentials_secret_ref.name {
                    credentials
                } else {
                    other = self.ctx.cluster.data(&key).await?;
                    self.ctx.versions.note(&key, other.as_deref().map(|secret| &secret.metadata));
                    other.as_deref()
                };
                let content = secret.map(|secret| secret::key(secret, &source.key));
                (read_ca(source, &found(content)), secret.and_then(|secret| version(&secret.metadata)))
            }
            CaBundleKind::ConfigMap => {
                let map = self.ctx.cluster.config_map(&key).await?;
                let map = map.as_deref();
                self.ctx.config_maps.note(&key, map.map(|map| &map.metadata));
                let content = map.map(|map| config_map_key(map, &source.key));
                (read_ca(source, &found(content)), map.and_then(|map| version(&map.metadata)))
            }
        };
        Ok(Authority { bundle: bundle.map(Some), version })
    }
}

#[expect(clippy::option_option, reason = "no object, no key, or content")]
fn found(content: Option<Option<&[u8]>>) -> Found<'_> {
    content.map_or(Found::Nothing, |content| content.map_or(Found::Object, Found::Content))
}

/// Whether the CA that `token` names exists in version `verified`, as far as the watches have told.
pub(super) fn is_unchanged(key: &Key, token: &VerteilToken, verified: Option<&ObjectVersion>, ctx: &Context) -> bool {
    let Some(source) = &token.spec.ca_bundle_ref else { return true };
    let versions = match source.kind {
        CaBundleKind::Secret => &ctx.versions,
        CaBundleKind::ConfigMap => &ctx.config_maps,
    };
    verified.is_some_and(|verified| versions.is(&key.beside(source.name.as_str()), verified))
}
