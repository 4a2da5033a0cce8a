//! User name and password from the Secret that the resource names, and whether the issuer may be asked at all. Pure.

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;
use url::Url;

use crate::api::{ClientAuthentication, VerteilTokenSpec};
use crate::decide::{Reason, Trouble};
use crate::issuer::AllowedHosts;
use crate::secret;
use crate::token::Inputs;

/// The inputs of `spec`, with the credentials in `secret`.
///
/// # Errors
/// `CredentialsMissing` if something may still arrive, `CredentialsInvalid` if what is there cannot be sent.
pub fn read_inputs(spec: &VerteilTokenSpec, secret: Option<&Secret>) -> Result<Inputs, Trouble> {
    let source = &spec.credentials_secret_ref;
    let missing = |what: String| Trouble::new(Reason::CredentialsMissing, what);
    let Some(secret) = secret else {
        return Err(missing(format!(
            "Secret {0} does not exist: kubectl create secret generic {0} --from-literal={1}=… --from-literal={2}=…",
            source.name, source.username_key, source.password_key
        )));
    };
    let text = |key: &str| {
        let bytes = secret::key(secret, key).ok_or_else(|| {
            missing(format!(
                "Secret {} has no key {key}: add it, or name another key in spec.credentialsSecretRef",
                source.name
            ))
        })?;
        let invalid =
            |why: &str| Trouble::new(Reason::CredentialsInvalid, format!("key {key} of Secret {} {why}", source.name));
        match std::str::from_utf8(bytes) {
            Ok("") => Err(invalid("is empty")),
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(invalid("is not UTF-8 text")),
        }
    };
    let username = text(&source.username_key)?;
    let password: SecretString = text(&source.password_key)?.into();
    if spec.client_authentication == ClientAuthentication::Basic && username.contains(':') {
        return Err(Trouble::new(
            Reason::CredentialsInvalid,
            format!(
                "key {} of Secret {} contains a colon, which HTTP Basic cannot carry in a user name",
                source.username_key, source.name
            ),
        ));
    }
    Ok(Inputs::new(spec.token_url.clone(), username.into(), password, spec.scopes.clone(), spec.parameters.clone()))
}

/// Whether the operator's flags let it ask `token_url`. Nothing is sent to an issuer that they do not allow.
pub fn check_issuer(token_url: &str, allow_http: bool, hosts: &AllowedHosts) -> Result<Url, Trouble> {
    let refuse = |why: String| Trouble::new(Reason::IssuerNotAllowed, why);
    let url = Url::parse(token_url).map_err(|error| refuse(format!("spec.tokenURL is not a URL: {error}")))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return Err(refuse(
                "spec.tokenURL is plain http, which would send the password in the clear: write https://, or run the operator with --allow-http".into(),
            ));
        }
        other => return Err(refuse(format!("spec.tokenURL has the scheme {other}: write https://"))),
    }
    if hosts.allow(&url) {
        return Ok(url);
    }
    Err(refuse(format!(
        "host {} is not among the operator's --allowed-issuer-hosts ({hosts})",
        crate::issuer::host_of(&url)
    )))
}

/// A hint for a request that was refused with `words`: where to look, and what people get wrong when they make the Secret.
#[must_use]
pub fn hint(spec: &VerteilTokenSpec, inputs: &Inputs, words: &str) -> String {
    if words.contains("invalid_scope") {
        return "; look at spec.scopes".into();
    }
    if ["invalid_target", "invalid_request", "unsupported_grant_type"].iter().any(|code| words.contains(code)) {
        return "; look at spec.parameters, spec.parametersIn and spec.clientAuthentication".into();
    }
    let source = &spec.credentials_secret_ref;
    let stray = |key: &str, value: &str| {
        if value.ends_with(['\n', '\r']) {
            format!(" ({key} ends in a line break: use --from-literal, or echo -n)")
        } else if value.trim() == value {
            String::new()
        } else {
            format!(" ({key} begins or ends with a blank)")
        }
    };
    let (username, password) = (&source.username_key, &source.password_key);
    format!(
        "; look at keys {username} and {password} of Secret {}{}{}",
        source.name,
        stray(username, inputs.username()),
        stray(password, inputs.password())
    )
}
