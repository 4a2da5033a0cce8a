//! Which token endpoints may be asked.

use url::Url;
use verteil_token_operator::credentials::check_issuer;
use verteil_token_operator::issuer::{AllowedHost, AllowedHosts};

use super::FAKE;

/// A line with the list, and one with a token URL.
pub fn hosts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (list, url) = text.split_once('\n').unwrap_or((text, ""));
    let list: Vec<AllowedHost> = list.split(',').filter_map(|entry| entry.parse().ok()).collect();
    for entry in &list {
        allows_what_it_names(entry);
    }
    let url = url.trim_end_matches('\n');
    let allowed = AllowedHosts::new(list.clone());
    for allow_http in [false, true] {
        match check_issuer(url, allow_http, &allowed) {
            Ok(checked) => {
                assert!(checked.scheme() == "https" || (allow_http && checked.scheme() == "http"), "{checked}");
                assert!(list.iter().any(|entry| names(entry, &checked)), "{checked} is not in {allowed}");
            }
            Err(trouble) => shows_no_user(url, &allowed, &trouble.message),
        }
    }
}

/// Printed and read it is the same, and it allows the host that it names and no other.
fn allows_what_it_names(entry: &AllowedHost) {
    let printed = entry.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(entry), "{printed}");
    let only = AllowedHosts::new(vec![entry.clone()]);
    let allows = |host: &str| {
        let url = Url::parse(&format!("https://{host}/token")).unwrap_or_else(|error| panic!("{host}: {error}"));
        only.allow(&url)
    };
    match printed.strip_prefix('*') {
        Some("") => assert!(allows("other.example")),
        Some(port) if port.starts_with(':') => assert!(allows(&format!("other.example{port}"))),
        Some(domain) => {
            let domain = &domain[1..];
            assert!(allows(&format!("a.{domain}")), "{printed}");
            assert!(!allows(domain) && !allows(&format!("evil{domain}")), "{printed}");
        }
        None => {
            assert!(allows(&printed), "{printed}");
            assert!(!allows("other.example") || printed.starts_with("other.example"), "{printed}");
        }
    }
}

/// What an entry says, read without its parser.
fn names(entry: &AllowedHost, url: &Url) -> bool {
    let printed = entry.to_string();
    let (name, port) = match printed.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (printed.as_str(), None),
    };
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    let below = |domain: &str| domain.is_empty() || host.len() > domain.len() && host.ends_with(domain);
    let named = name.strip_prefix('*').map_or(host == name, below);
    let usual = if url.scheme() == "https" { 443 } else { 80 };
    named && (name == "*" && port.is_none() || url.port_or_known_default() == Some(port.unwrap_or(usual)))
}

/// User name and password do not belong into a token URL, and are told to nobody.
fn shows_no_user(url: &str, allowed: &AllowedHosts, message: &str) {
    assert!(message.len() < url.len() * 3 + allowed.to_string().len() + 300);
    let Ok(url) = Url::parse(url) else { return };
    let host = url.host_str().unwrap_or_default();
    let elsewhere = host.contains(FAKE) || url.scheme().contains(FAKE) || allowed.to_string().contains(FAKE);
    assert!(elsewhere || !message.contains(FAKE), "{message}");
}
