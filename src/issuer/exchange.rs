//! What is sent, and what comes back. Pure.

use std::time::Duration;

use form_urlencoded::Serializer;
use secrecy::SecretString;
use url::Url;

use crate::api::{ClientAuthentication, ParametersIn, VerteilTokenSpec};
use crate::ca::CaBundle;
use crate::token::Inputs;

/// One request to a token endpoint. No `Debug`: it holds a password.
pub struct Exchange {
    /// Where to, with the query if parameters go there.
    pub url: Url,
    /// User name and password for the Authorization header, as they are: base64(username:password).
    pub basic: Option<(SecretString, SecretString)>,
    /// The form-encoded body; empty if parameters go into the query.
    pub body: SecretString,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Whom to trust as the server; the system's authorities if none.
    pub ca: Option<CaBundle>,
}

/// What an issuer answered, before it is understood. No `Debug`: it may hold a token.
#[derive(Default)]
pub struct RawAnswer {
    /// HTTP status code.
    pub status: u16,
    /// The header `Retry-After`, as sent.
    pub retry_after: Option<String>,
    /// The header `Location`, as sent.
    pub location: Option<String>,
    /// The header `Date`, as sent.
    pub date: Option<String>,
    /// There is a `Content-Encoding`: the body is compressed, although that was not asked for.
    pub encoded: bool,
    /// At most 64 KiB; none if there was more.
    pub body: Option<Vec<u8>>,
}

// === impl Exchange ===

impl Exchange {
    /// The request for `inputs`, sent to their token URL `url` as `spec` says, to the server that `ca` vouches for.
    #[must_use]
    pub fn new(mut url: Url, spec: &VerteilTokenSpec, inputs: &Inputs, ca: Option<CaBundle>) -> Self {
        let mut form = Serializer::new(String::with_capacity(512));
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = inputs.scope() {
            form.append_pair("scope", &scope);
        }
        for (name, value) in inputs.parameters() {
            form.append_pair(name, value);
        }
        let basic = match spec.client_authentication {
            ClientAuthentication::Basic => {
                Some((inputs.username().to_owned().into(), inputs.password().to_owned().into()))
            }
            ClientAuthentication::Body => {
                form.append_pair("client_id", inputs.username());
                form.append_pair("client_secret", inputs.password());
                None
            }
        };
        let parameters = form.finish();
        let body = match spec.parameters_in {
            ParametersIn::Body => parameters,
            ParametersIn::Query => {
                // The URL may have a query of its own, which stays (RFC 6749 section 3.2).
                let query = url.query().filter(|q| !q.is_empty()).map(|own| format!("{own}&{parameters}"));
                url.set_query(Some(&query.unwrap_or(parameters)));
                String::new()
            }
        };
        let timeout = Duration::try_from(spec.timeout.signed()).unwrap_or(Duration::from_secs(10));
        Self { url, basic, body: body.into(), timeout, ca }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    fn exchange(extra: &serde_json::Value) -> Exchange {
        let mut spec = json!({
            "tokenURL": "https://issuer.example/oauth2/token?tenant=a b",
            "credentialsSecretRef": {"name": "c"},
            "scopes": ["b", "a"],
            "parameters": {"audience": "x&y"},
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let spec: VerteilTokenSpec = serde_json::from_value(spec).unwrap();
        let inputs = Inputs::new(
            spec.token_url.clone(),
            "user".to_owned().into(),
            "p:ä&=".to_owned().into(),
            spec.scopes.clone(),
            spec.parameters.clone(),
        );
        Exchange::new(spec.token_url.parse().unwrap(), &spec, &inputs, None)
    }

    #[test]
    fn sends_parameters_in_the_body() {
        let exchange = exchange(&json!({}));
        assert_eq!(exchange.url.as_str(), "https://issuer.example/oauth2/token?tenant=a%20b");
        assert_eq!(exchange.body.expose_secret(), "grant_type=client_credentials&scope=a+b&audience=x%26y");
        assert!(exchange.basic.is_some());
    }

    #[test]
    fn sends_parameters_in_the_query_with_an_empty_body() {
        let exchange = exchange(&json!({"parametersIn": "Query"}));
        assert_eq!(exchange.url.query(), Some("tenant=a%20b&grant_type=client_credentials&scope=a+b&audience=x%26y"));
        assert_eq!(exchange.body.expose_secret(), "");
    }

    #[test]
    fn sends_credentials_in_the_body_where_asked() {
        let exchange = exchange(&json!({"clientAuthentication": "Body"}));
        assert!(exchange.basic.is_none());
        assert!(exchange.body.expose_secret().ends_with("&client_id=user&client_secret=p%3A%C3%A4%26%3D"));
    }
}
