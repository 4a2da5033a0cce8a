async fn token(client: &reqwest::Client, url: &str) -> Result<String, Box<dyn std::error::Error>> {
    let bearer = std::fs::read_to_string("/var/run/token-api/token")?; // the kubelet renews it: read it each time
    let answer = client.get(format!("{url}?wait=30s")).bearer_auth(bearer.trim()).send().await?;
    Ok(answer.error_for_status()?.text().await?) // access_token, token_type, expires_in, token_expiry
}
