//! Who somebody is and what they may do: asked of the apiserver, which alone knows.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::Request;

use super::{ApiError, Cluster};
use crate::api::VerteilToken;
use crate::memory::Key;

// === impl Cluster ===

impl Cluster {
    /// Whose `token` is, if it is good for `audience`.
    pub async fn review_token(&self, token: &str, audience: &str) -> Result<Option<UserInfo>, ApiError> {
        let audiences = Some(vec![audience.to_owned()]);
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
        let review = TokenReview { spec, ..TokenReview::default() };
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let request = Request::new(TokenReview::url_path(&(), None)).create(&PostParams::default(), body);
        let answer: TokenReview = self.send("create TokenReview", request).await?;
        Ok(answer.status.and_then(|status| known_user(status, audience)))
    }

    /// Whether `user` may get the token of the VerteilToken `key`.
    pub async fn may_get_token(&self, user: &UserInfo, key: &Key) -> Result<bool, ApiError> {
        let attributes = ResourceAttributes {
            namespace: Some(key.namespace.to_string()),
            verb: Some("get".into()),
            group: Some(VerteilToken::group(&()).into_owned()),
            version: Some(VerteilToken::version(&()).into_owned()),
            resource: Some(VerteilToken::plural(&()).into_owned()),
            subresource: Some("token".into()),
            name: Some(key.name.to_string()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let request = Request::new(SubjectAccessReview::url_path(&(), None)).create(&PostParams::default(), body);
        let answer: SubjectAccessReview = self.send("create SubjectAccessReview", request).await?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

/// An authenticator that knows nothing of audiences tells none: what it accepts may be meant for anybody.
fn known_user(status: TokenReviewStatus, audience: &str) -> Option<UserInfo> {
    let meant = status.audiences.iter().flatten().any(|meant| meant == audience);
    let named = status.user.as_ref().is_some_and(|user| user.username.as_ref().is_some_and(|name| !name.is_empty()));
    status.user.filter(|_| status.authenticated == Some(true) && meant && named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_accepted_for_no_or_another_audience_is_nobody() {
        let status = |authenticated, audiences: Option<&[&str]>, name: &str| TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: audiences.map(|all| all.iter().map(ToString::to_string).collect()),
            user: Some(UserInfo { username: Some(name.into()), ..UserInfo::default() }),
            ..TokenReviewStatus::default()
        };
        let known = |status| known_user(status, "ours").is_some();
        assert!(known(status(true, Some(&["theirs", "ours"]), "a")));
        for nobody in [
            status(false, Some(&["ours"]), "a"),
            status(true, None, "a"),
            status(true, Some(&["theirs"]), "a"),
            status(true, Some(&["ours"]), ""),
        ] {
            assert!(!known(nobody));
        }
    }
}
