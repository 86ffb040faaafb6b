//! The API of the examples on sockets: fields, proxies, TLS, and how it comes by its issuer's keys.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};

use super::issuer::{API, Issuer};
use super::signer::{Signer, base64url, sha256};
use super::{Api, face, now, on_both_apis, start_api};

on_both_apis!(
    an_api_answers_with_the_challenges_it_accepts,
    the_metadata_of_an_api_with_a_path_is_behind_the_well_known_part,
    a_proof_is_for_the_configured_url_whatever_the_host_field_says,
    client_cert_is_believed_from_a_trusted_proxy_alone,
    a_certificate_bound_token_works_on_a_connection_with_its_key,
    tokens_with_unknown_keys_cause_no_storm_of_fetches,
    without_the_issuers_keys_nobody_is_told_that_the_token_is_bad,
);

/// Starts the API for tokens of this issuer, with further arguments.
async fn start(api: Api, issuer: &Issuer, arguments: &[&str]) -> SocketAddr {
    start_api(api, &[&["--issuer", &issuer.url, "--resource", API, "--public-url", API][..], arguments].concat(), now)
        .await
}

async fn ask(address: SocketAddr, fields: &[(&str, &str)]) -> String {
    let mut request = reqwest::Client::new().get(format!("http://{address}/data"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    face(request.send().await.unwrap()).await
}

/// A request through a proxy.
fn with<'a>(bearer: &'a str, client_cert: &'a str) -> [(&'a str, &'a str); 2] {
    [("authorization", bearer), ("client-cert", client_cert)]
}

/// A request with a proof, to what somebody calls the host.
fn fields<'a>(authorization: &'a str, host: &'a str, proof: &'a str) -> [(&'a str, &'a str); 4] {
    [("authorization", authorization), ("dpop", proof), ("host", host), ("x-forwarded-host", host)]
}

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

const OK: &str = "200\n{\"read_by\":\"c\"}";

async fn an_api_answers_with_the_challenges_it_accepts(api: Api) {
    let issuer = Issuer::start(&[]).await;
    let address = start(api, &issuer, &[]).await;
    let none = ask(address, &[]).await;
    insta::allow_duplicates! {
        insta::assert_snapshot!(none, @r#"
        401
        Bearer resource_metadata="https://api.test/.well-known/oauth-protected-resource"
        DPoP algs="ES256 EdDSA PS256", resource_metadata="https://api.test/.well-known/oauth-protected-resource"
        "#);
    }
    let bearer = format!("Bearer {}", issuer.token(&Value::Null));
    assert_eq!(ask(address, &[("AUTHORIZATION", &bearer)]).await, OK);
    let twice = ask(address, &[("authorization", &bearer), ("authorization", &bearer)]).await;
    assert!(twice.starts_with("400\nBearer ") && twice.contains("error=\"invalid_request\""), "{twice}");
    let url = format!("http://{address}/data?access_token={}", issuer.token(&Value::Null));
    assert_eq!(face(reqwest::get(&url).await.unwrap()).await, none, "a token in the URL is none");
    let in_body = reqwest::Client::new().post(format!("http://{address}/data"));
    let in_body = in_body.header("content-type", "application/x-www-form-urlencoded");
    let in_body = in_body.body(format!("access_token={}", issuer.token(&Value::Null))).send().await.unwrap();
    assert_eq!(face(in_body).await, none, "nor is one in a body");
    let both = reqwest::Client::new().get(url).header("authorization", &bearer).send().await.unwrap();
    assert_eq!(both.status(), 400, "two ways at once");
    // The document that `resource_metadata` above names (RFC 9728 sections 2 and 3).
    let url = format!("http://{address}/.well-known/oauth-protected-resource");
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let metadata: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        metadata,
        json!({"resource": API, "authorization_servers": [issuer.url], "bearer_methods_supported": ["header"],
            "scopes_supported": ["read:data", "write:data"], "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "PS256"],
            "tls_client_certificate_bound_access_tokens": false})
    );
}

async fn the_metadata_of_an_api_with_a_path_is_behind_the_well_known_part(api: Api) {
    let issuer = Issuer::start(&[]).await;
    for (resource, path) in [
        ("https://api.test", WELL_KNOWN.to_owned()),
        ("https://api.test/", WELL_KNOWN.to_owned()),
        ("https://api.test/?x", WELL_KNOWN.to_owned()),
        ("https://api.test/v1", format!("{WELL_KNOWN}/v1")),
        ("https://api.test/v1/a/", format!("{WELL_KNOWN}/v1/a/")),
        ("urn:example:api", WELL_KNOWN.to_owned()),
    ] {
        let arguments = ["--issuer", &issuer.url, "--resource", resource, "--public-url", API];
        let address = start_api(api, &arguments, now).await;
        let told = ask(address, &[]).await;
        assert!(told.contains(&format!("resource_metadata=\"{API}{path}\"")), "{resource}: {told}");
        let text = reqwest::get(format!("http://{address}{path}")).await.unwrap().text().await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["resource"], resource);
    }
}

async fn a_proof_is_for_the_configured_url_whatever_the_host_field_says(api: Api) {
    let issuer = Issuer::start(&[]).await;
    let address = start(api, &issuer, &[]).await;
    let client = Signer::generate();
    let token = issuer.token(&json!({"jkt": client.jkt()}));
    let authorization = format!("DPoP {token}");
    let proof =
        |htu: &str| client.proof(&json!({"jti": htu, "htm": "GET", "htu": htu, "iat": now(), "ath": sha256(&token)}));
    let good = proof("https://api.test/data");
    assert_eq!(ask(address, &fields(&authorization, "whatever.test", &good)).await, OK);
    for (host, htu) in [("evil.test", "https://evil.test/data"), ("evil.test", "http://evil.test/data")] {
        let refused = ask(address, &fields(&authorization, host, &proof(htu))).await;
        assert!(refused.contains("the proof's htu is another URL"), "{refused}");
    }
    let two =
        [("authorization", authorization.as_str()), ("dpop", &good), ("dpop", &proof("https://api.test:443/data"))];
    assert!(ask(address, &two).await.contains("exactly one DPoP proof"));
}

async fn client_cert_is_believed_from_a_trusted_proxy_alone(api: Api) {
    let issuer = Issuer::start(&[]).await;
    let certificate = generate_simple_self_signed(["client.test".to_owned()]).unwrap().cert;
    let token = issuer.token(&json!({"x5t#S256": x5t(certificate.der())}));
    let bearer = format!("Bearer {token}");
    let field = format!(":{}:", BASE64_STANDARD.encode(certificate.der()));
    let other = format!(":{}:", BASE64_STANDARD.encode(b"another"));
    let behind = start(api, &issuer, &["--trusted-proxy", "127.0.0.1"]).await;
    assert_eq!(ask(behind, &with(&bearer, &field)).await, OK);
    for refused in [ask(behind, &with(&bearer, &other)).await, ask(behind, &[("authorization", &bearer)]).await] {
        assert!(refused.starts_with("401") && refused.contains("bound to another certificate"), "{refused}");
    }
    for malformed in ["", "::", field.trim_matches(':'), ":!:", &format!("{field}, {field}"), &field.replace(':', "\"")]
    {
        let refused = ask(behind, &with(&bearer, malformed)).await;
        assert!(refused.starts_with("400") && refused.contains("Client-Cert is malformed"), "{malformed}: {refused}");
    }
    let twice = [&with(&bearer, &field)[..], &[("client-cert", field.as_str())]].concat();
    assert!(ask(behind, &twice).await.contains("more than one Client-Cert"));
    let direct = start(api, &issuer, &["--trusted-proxy", "192.0.2.1"]).await;
    assert!(ask(direct, &with(&bearer, &field)).await.contains("bound to another certificate"), "forged");
}

async fn a_certificate_bound_token_works_on_a_connection_with_its_key(api: Api) {
    let issuer = Issuer::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key) = (file("cert.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()));
    let address = start(api, &issuer, &["--tls-cert", &cert, "--tls-key", &key]).await;
    let [mine, other] = ["a.test", "b.test"].map(|name| generate_simple_self_signed([name.to_owned()]).unwrap());
    let bearer = format!("Bearer {}", issuer.token(&json!({"x5t#S256": x5t(mine.cert.der())})));
    for (shown, expected) in [(Some(&mine), "200"), (Some(&other), "401"), (None, "401")] {
        let mut client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true);
        if let Some(shown) = shown {
            let pem = shown.cert.pem() + &shown.signing_key.serialize_pem();
            client = client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        let request = client.build().unwrap().get(format!("https://{address}/data"));
        // Without a trusted proxy the field is nothing.
        let field = format!(":{}:", BASE64_STANDARD.encode(mine.cert.der()));
        let request = request.header("authorization", &bearer).header("client-cert", field);
        let answer = face(request.send().await.unwrap()).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
}

async fn tokens_with_unknown_keys_cause_no_storm_of_fetches(api: Api) {
    let issuer = Issuer::start(&[]).await;
    let address = start(api, &issuer, &[]).await;
    let claims = json!({"iss": issuer.url, "aud": API});
    let forged: Vec<_> = (0..40)
        .map(|kid| {
            let header = json!({"typ": "at+jwt", "alg": "ES256", "kid": format!("unknown {kid}")});
            let bearer = format!("Bearer {}", Signer::generate().sign(&header, &claims));
            tokio::spawn(async move { ask(address, &[("authorization", &bearer)]).await })
        })
        .collect();
    for refused in forged {
        assert!(refused.await.unwrap().contains("the token's key is not known"));
    }
    assert_eq!(issuer.jwks_fetches.load(Ordering::SeqCst), 1);
    let bearer = format!("Bearer {}", issuer.token(&Value::Null));
    assert_eq!(ask(address, &[("authorization", &bearer)]).await, OK, "known keys go on verifying");
}

async fn without_the_issuers_keys_nobody_is_told_that_the_token_is_bad(api: Api) {
    let issuer = Issuer::start(&[]).await;
    let bearer = format!("Bearer {}", issuer.token(&Value::Null));
    // Nothing listens on port 1.
    let address = start_api(api, &["--issuer", "http://127.0.0.1:1", "--resource", API], now).await;
    let request = reqwest::Client::new().get(format!("http://{address}/data")).header("authorization", bearer);
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    assert!(!answer.headers().contains_key("www-authenticate"));
    // Metadata of another issuer are no metadata: the slash makes another.
    let address = start_api(api, &["--issuer", &format!("{}/", issuer.url), "--resource", API], now).await;
    let bearer = format!("Bearer {}", issuer.token(&Value::Null));
    assert!(ask(address, &[("authorization", &bearer)]).await.starts_with("503"));
}

fn x5t(der: &[u8]) -> String {
    base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref())
}
