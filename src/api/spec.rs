//! What a user asks for.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, VerteilTokenStatus, Workload};

/// One OAuth2 access token, kept in a Secret and asked for anew only when it has reached its end.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "verteil.dev",
    version = "v1alpha1",
    kind = "VerteilToken",
    plural = "verteiltokens",
    shortname = "vt",
    namespaced,
    status = "VerteilTokenStatus",
    derive = "PartialEq",
    doc = "A VerteilToken keeps one OAuth2 access token (client credentials grant, RFC 6749 section 4.4) in a Secret that pods mount. A new token is requested only when the stored one has reached its end.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "True while the Secret holds a valid token for the current inputs"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is ready or not"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt", description = "When the stored token expires"),
    printcolumn(name = "Renews", type_ = "string", json_path = ".status.renewalTime", description = "When the next token is requested"),
    printcolumn(name = "Issued", type_ = "integer", json_path = ".status.tokensIssued", description = "Tokens issued for this resource so far", priority = "1"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName", description = "The Secret that holds the token"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name becomes a label value: write a name of at most 63 characters"),
    validation = Rule::new("(has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name) != self.spec.credentialsSecretRef.name").message("the token Secret and the credentials Secret are one and the same: write another name in spec.secret.name (default: the resource's name) or in spec.credentialsSecretRef.name")
)]
#[x_kube(validation = Rule::new("!(has(self.clientAuthentication) && self.clientAuthentication == 'Body' && has(self.parametersIn) && self.parametersIn == 'Query')").message("clientAuthentication: Body with parametersIn: Query would put the password into the URL: write parametersIn: Body or clientAuthentication: Basic"))]
#[serde(rename_all = "camelCase")]
pub struct VerteilTokenSpec {
    /// The token endpoint (RFC 6749 section 3.2), an https URL such as https://api.stage.verteil.com/oauth2/token. It carries no
    /// user name, password or fragment. An http URL is held back unless the operator runs with --allow-http.
    #[serde(rename = "tokenURL")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && self.matches('^https?://[^/?#:]')").message("write an absolute URL that starts with https://, such as https://api.stage.verteil.com/oauth2/token"))]
    #[x_kube(validation = Rule::new("!self.matches('^[^/?#]*//[^/?#]*@')").message("no user name or password belongs into the URL: put them into the Secret that credentialsSecretRef names"))]
    #[x_kube(validation = Rule::new("!self.contains('#')").message("a token endpoint has no fragment (RFC 6749 section 3.2): leave out the part from # on"))]
    pub token_url: String,

    /// The Secret in the same namespace that holds the client's user name and password.
    pub credentials_secret_ref: CredentialsSecretRef,

    /// Scopes asked for, sent as one space-separated parameter `scope` (RFC 6749 section 3.3). Their order does not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(s, s.matches('^[!#-\\\\[\\\\]-~]+$'))").message("a scope is one word of printable ASCII without blanks, quotes or backslashes: write one list item for each scope"))]
    pub scopes: Vec<String>,

    /// Extra request parameters, such as audience. Not those that the operator sends itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k in ['grant_type', 'scope', 'client_id', 'client_secret'])").message("grant_type, scope, client_id and client_secret are sent by the operator itself: use spec.scopes, spec.credentialsSecretRef and spec.clientAuthentication"))]
    #[x_kube(validation = Rule::new("self.all(k, k.size() >= 1 && k.size() <= 128)").message("a parameter's name has 1 to 128 characters"))]
    pub parameters: BTreeMap<String, String>,

    /// Where the parameters go: Body (form-encoded, RFC 6749) or Query (in the URL, with an empty body).
    #[serde(default)]
    pub parameters_in: ParametersIn,

    /// How the client shows who it is: Basic (Authorization header) or Body (client_id and client_secret among the parameters).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,

    /// Where the token endpoint's certificate authority stands, if it is not one of the system's. Only the certificates there are
    /// trusted then: whoever wants the system's as well adds them to the bundle. It is no input of the token: whatever becomes
    /// of it, a stored token stays, and the next request is made with what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<Box<CaBundleRef>>,

    /// How long one token request may take as a whole, from 1s to 15s.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(h|m|s))+$')").message("write a duration of whole numbers with the units h, m or s, such as 10s"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('15s'))").message("write a timeout from 1s to 15s"))]
    pub timeout: Duration,

    /// How long before its expiry a token is renewed: at most a fifth of the token's lifetime counts, and a part of it spreads
    /// the renewals of many resources. 0s renews strictly after expiry.
    #[serde(default = "default_renew_before")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(h|m|s))+$')").message("write a duration of whole numbers with the units h, m or s, such as 10m or 1h30m"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s))+$') || duration(self) <= duration('168h')").message("write at most 168h"))]
    pub renew_before: Duration,

    /// True stops all requests and all writes of the Secret, which stays as it is.
    #[serde(default)]
    pub suspend: bool,

    /// The Secret that receives the token.
    #[serde(default)]
    pub secret: SecretSpec,

    /// Workloads in the same namespace that are restarted after the token has changed, as kubectl rollout restart does. Needs an
    /// operator that runs with --rollout-restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub rollout_restart: Vec<Workload>,
}

/// Which keys of which Secret hold the client's credentials.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecretRef {
    /// Name of the Secret, in the resource's own namespace.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("write the name of a Secret in this namespace: lower case letters, digits, '-' and '.', such as verteil-credentials"))]
    pub name: String,
    /// Key of the user name (client_id).
    #[serde(default = "default_username_key")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')").message("write a key of the Secret: letters, digits, '-', '_' and '.', such as username"))]
    pub username_key: String,
    /// Key of the password (client_secret).
    #[serde(default = "default_password_key")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')").message("write a key of the Secret: letters, digits, '-', '_' and '.', such as password"))]
    pub password_key: String,
}

/// Which key of which object holds certificates.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleRef {
    /// ConfigMap or Secret.
    pub kind: CaBundleKind,
    /// Its name, in the resource's own namespace.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("write the name of a ConfigMap or Secret in this namespace: lower case letters, digits, '-' and '.', such as corp-ca"))]
    pub name: String,
    /// Key of the certificates, in PEM: one or more, 512 KiB at most.
    #[serde(default = "default_ca_key")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')").message("write a key of the ConfigMap or Secret: letters, digits, '-', '_' and '.', such as ca.crt"))]
    pub key: String,
}

/// What holds certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum CaBundleKind {
    /// A ConfigMap, in data or binaryData.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Where request parameters are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ParametersIn {
    /// Form-encoded in the body.
    #[default]
    Body,
    /// In the URL's query, with an empty body.
    Query,
}

/// How the client authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ClientAuthentication {
    /// HTTP Basic.
    #[default]
    Basic,
    /// client_id and client_secret in the form body.
    Body,
}

/// What becomes of the Secret when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It goes with the resource (owner reference).
    #[default]
    Delete,
    /// It stays, with a token that a re-created resource takes up.
    Retain,
}

/// The Secret that receives the token.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// Name of the Secret; the resource's name if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("write the name of a Secret: lower case letters, digits, '-' and '.', such as verteil-token"))]
    pub name: Option<String>,
    /// Labels added to the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.startsWith('verteil.dev/') || k == 'app.kubernetes.io/managed-by')").message("verteil.dev/ and app.kubernetes.io/managed-by are the operator's own: write labels under another name"))]
    #[x_kube(validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue() && !format.labelValue().validate(self[k]).hasValue())").message("not a label: a key is a name of at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it if need be; a value is of the same letters"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.startsWith('verteil.dev/'))").message("verteil.dev/ is the operator's own: write annotations under another name"))]
    #[x_kube(validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue())").message("not an annotation's key: write a name of at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it if need be"))]
    pub annotations: BTreeMap<String, String>,
    /// Further keys of the Secret, each with a template of its value, such as AUTHORIZATION with "Bearer {{ access_token }}".
    /// Names: access_token, token_type, expires_in, token_expiry, saved_at, issued_at, expires_at, name, namespace. Filters:
    /// b64encode, lower, tojson, upper.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("!self.exists(k, k in ['access_token', 'token_type', 'expires_in', 'token_expiry', 'saved_at', 'verteil_token.json'])").message("access_token, token_type, expires_in, token_expiry, saved_at and verteil_token.json are written by the operator itself: write the template under another key"))]
    #[x_kube(validation = Rule::new("self.all(k, k.size() <= 253 && k.matches('^[-._a-zA-Z0-9]+$') && k != '.' && !k.startsWith('..'))").message("write keys of a Secret: at most 253 letters, digits, '-', '_' and '.', such as AUTHORIZATION"))]
    pub template: BTreeMap<String, String>,
    /// What becomes of the Secret when the resource is deleted: Delete or Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

// === impl CaBundleKind ===

impl CaBundleKind {
    /// The kind, as Kubernetes names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

// === impl VerteilToken ===

impl VerteilToken {
    /// The name of the Secret that holds the token.
    #[must_use]
    pub fn secret_name(&self) -> &str {
        self.spec.secret.name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    /// The name of the Secret that holds or held the token, if the spec names another one now.
    #[must_use]
    pub fn former_secret_name(&self) -> Option<&str> {
        let status = self.status.as_ref()?;
        let present = self.secret_name();
        let names = [&status.secret_name, &status.former_secret_name];
        names.into_iter().flatten().map(String::as_str).find(|name| *name != present)
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_renew_before() -> Duration {
    Duration::from_secs(600)
}

fn default_username_key() -> String {
    "username".into()
}

fn default_password_key() -> String {
    "password".into()
}

fn default_ca_key() -> String {
    "ca.crt".into()
}
