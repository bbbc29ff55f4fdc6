//! Access tokens, from files and from servers on the loopback interface.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use super::{super::tests::server, *};
use crate::store::net::http::HttpOptions;

/// Made for this test and used nowhere else.
const KEY: &str = include_str!("test-key.pem");

const TOKEN: &str = r#"{"access_token":"token1","expires_in":3599,"token_type":"Bearer"}"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    // Nothing outside of the test is asked.
    let none = [("NO_GCE_CHECK", "true")];
    let all = none.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Environment::new(all.collect::<HashMap<_, _>>(), None)
}

fn search(environment: &Environment) -> Result<Obtained<AccessToken>, String> {
    find(environment, &Fetch::new(&HttpOptions::default()).unwrap()).map_err(|problem| problem.clause)
}

/// What is found with a file of this content; `FILE` in the error stands for its name.
fn with_file(content: &Value) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adc.json");
    fs::write(&path, content.to_string()).unwrap();
    let shown = path.display().to_string();
    let found =
        search(&environment(&[("GOOGLE_APPLICATION_CREDENTIALS", &shown)])).map_err(|e| e.replace(&shown, "FILE"))?;
    assert_eq!(found.searched, format!("check the credentials of {shown}"));
    let token = found.keys.unwrap().secret;
    assert_eq!(found.secrets, [token.expose()]);
    Ok(token.expose().to_owned())
}

#[test]
fn a_service_account_signs() {
    let (tokens, requests) = server(&[("POST /token", 200, TOKEN)]);
    let audience = format!("{tokens}/token");
    let file = json!({"type": "service_account", "client_email": "ci@p.iam.gserviceaccount.com", "private_key": KEY,
                      "private_key_id": "k1", "token_uri": audience});
    assert_eq!(with_file(&file).unwrap(), "token1");
    let request = requests.recv().unwrap();
    let (_, assertion) =
        request.split_once("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=").unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let parts: Vec<Value> = signed.split('.').map(|part| serde_json::from_slice(&decode(part)).unwrap()).collect();
    assert_eq!(parts[0], json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    assert_eq!(
        (&parts[1]["iss"], &parts[1]["aud"], &parts[1]["scope"]),
        (&json!("ci@p.iam.gserviceaccount.com"), &json!(audience), &json!(SCOPE))
    );
    let der: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&base64::prelude::BASE64_STANDARD.decode(der).unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref().to_vec());
    public.verify(signed.as_bytes(), &decode(signature)).unwrap();
}

#[test]
fn a_token_of_another_issuer_is_exchanged() {
    let folder = tempfile::tempdir().unwrap();
    let subject = folder.path().join("token");
    fs::write(&subject, "jwt\n").unwrap();
    let (sts, requests) = server(&[
        ("POST /v1/token", 200, TOKEN),
        ("POST /impersonate", 200, r#"{"accessToken":"token2","expireTime":"2099-01-01T00:00:00Z"}"#),
        ("GET /subject", 200, r#"{"value":"jwt2"}"#),
    ]);
    let mut file = json!({
        "type": "external_account", "audience": "//iam.googleapis.com/projects/1/pool", "token_url": format!("{sts}/v1/token"),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": {"file": subject},
    });
    assert_eq!(with_file(&file).unwrap(), "token1");
    let request = requests.recv().unwrap();
    for part in [
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        "audience=%2F%2Fiam.googleapis.com%2Fprojects%2F1%2Fpool",
        "&subject_token=jwt",
    ] {
        assert!(request.contains(part), "{request}");
    }
    file["service_account_impersonation_url"] = json!(format!("{sts}/impersonate"));
    file["credential_source"] = json!({"url": format!("{sts}/subject"), "headers": {"Metadata": "True"}, "format": {"type": "json", "subject_token_field_name": "value"}});
    assert_eq!(with_file(&file).unwrap(), "token2");
    let seen: Vec<String> = requests.try_iter().collect();
    assert!(seen[0].to_lowercase().contains("metadata: true"));
    assert!(seen[1].ends_with("&subject_token=jwt2"), "{}", seen[1]);
    assert!(seen[2].contains("authorization: Bearer token1"), "{}", seen[2]);
    let source = json!({"type": "impersonated_service_account", "service_account_impersonation_url": format!("{sts}/impersonate"), "source_credentials": file});
    assert_eq!(with_file(&source).unwrap(), "token2");
}

#[test]
fn what_is_wrong_is_said() {
    let external = |changes: Value| {
        let mut file = json!({"type": "external_account", "audience": "a", "token_url": "https://sts.googleapis.com/v1/token", "subject_token_type": "t"});
        file.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        file
    };
    for (file, says) in [
        (json!([]), "FILE: it is not a file with Google credentials: it has no type"),
        (
            json!({"type": "gdch_service_account"}),
            "FILE: credentials of type \"gdch_service_account\" are not supported",
        ),
        (
            json!({"type": "service_account", "client_email": "a", "private_key": "hunter2"}),
            "FILE: its private_key is not an RSA key in PEM form (PKCS #8)",
        ),
        (
            external(json!({"credential_source": {"file": "/absent"}})),
            "/absent, which FILE takes the token from, can't be read: No such file or directory (os error 2)",
        ),
        (
            external(json!({"credential_source": {"executable": {}}})),
            "FILE: its credential_source is neither a file nor a url, the only ones that are supported",
        ),
        (
            external(json!({"token_url": "http://example.com", "credential_source": {"file": "/dev/null"}})),
            "FILE: \"http://example.com\" is without HTTPS; credentials are not sent there",
        ),
    ] {
        let error = with_file(&file).unwrap_err();
        assert_eq!(error, says);
    }
    let (refuses, _requests) =
        server(&[("POST /", 400, r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#)]);
    let file = json!({"type": "service_account", "client_email": "a", "private_key": KEY, "token_uri": refuses});
    assert_eq!(
        with_file(&file).unwrap_err(),
        format!("{refuses}, asked for a token for FILE, refuses (400: Invalid JWT Signature)")
    );
    let absent = search(&environment(&[("GOOGLE_APPLICATION_CREDENTIALS", "/absent")])).unwrap_err();
    assert_eq!(absent, "/absent can't be read: No such file or directory (os error 2)");
}

#[test]
fn a_pod_has_a_service_account() {
    let (metadata, requests) =
        server(&[("GET /computeMetadata/v1/instance/service-accounts/default/token", 200, TOKEN)]);
    let host = metadata.strip_prefix("http://").unwrap();
    let found = search(&environment(&[("NO_GCE_CHECK", "false"), ("GCE_METADATA_HOST", host)])).unwrap();
    assert_eq!(found.keys.unwrap().secret.expose(), "token1");
    assert!(requests.recv().unwrap().contains("metadata-flavor: Google"));
}

#[test]
fn where_there_are_none_every_place_is_named() {
    let found = search(&environment(&[("HOME", "/nowhere")])).unwrap();
    assert!(found.keys.is_none());
    assert_eq!(
        found.searched,
        "add credentials: there are none in GOOGLE_APPLICATION_CREDENTIALS, /nowhere/.config/gcloud/application_default_credentials.json (absent), the metadata server of this machine"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key.json"), "[]").unwrap();
    let environment = Environment::new(
        HashMap::from([("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), "/absent".to_owned())]),
        Some(folder.path()),
    );
    let error = search(&environment).unwrap_err();
    assert!(error.starts_with(&format!("{}/key.json: ", folder.path().display())), "{error}");
}
