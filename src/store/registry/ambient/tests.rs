//! The identities of three clouds, from fakes of their endpoints on the loopback interface.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, UNIX_EPOCH},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};

use super::*;
use crate::store::cloud::tests::{Response, serve, serve_late};

fn ok(start: &'static str, body: &str) -> Response {
    Response { start, status: 200, body: body.to_owned() }
}

fn ambient(variables: &[(&str, &str)]) -> Ambient {
    // Nothing outside of the test is asked.
    let disabled = [("AWS_EC2_METADATA_DISABLED", "true")];
    let all = disabled.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ambient::with(Environment::new(all.collect(), None), &HttpOptions::default()).unwrap()
}

fn none() -> FoundCredentials {
    FoundCredentials { candidates: Vec::new(), searched: "add credentials".to_owned() }
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: password.to_owned().into() }
}

#[test]
fn google() {
    let path = "GET /computeMetadata/v1/instance/service-accounts/default/token?scopes=https://www.googleapis.com/auth/cloud-platform ";
    let (host, requests) = serve(vec![ok(path, r#"{"access_token":"ya29","expires_in":3599,"token_type":"Bearer"}"#)]);
    let found = ambient(&[("GCE_METADATA_HOST", &host)]).complete("europe-docker.pkg.dev", none());
    assert_eq!(found.candidates, [basic("oauth2accesstoken", "ya29")]);
    assert_eq!(
        found.searched,
        "check the credentials of the service account of this machine or pod (its metadata server)"
    );
    assert!(requests.recv().unwrap().to_ascii_lowercase().contains("metadata-flavor: google"));
    // A server that is not one, and none at all.
    let (host, _requests) = serve(vec![ok("GET", "<html>")]);
    let found = ambient(&[("GCE_METADATA_HOST", &host)]).complete("gcr.io", none());
    assert!(found.candidates.is_empty());
    assert_eq!(
        found.searched,
        "add credentials; the metadata server of this machine gave an unexpected response: no token in it"
    );
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(ambient(&[("GCE_METADATA_HOST", &nobody)]).complete("gcr.io", none()).searched, "add credentials");
}

#[test]
fn azure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "a.federated.token\n").unwrap();
    let refresh = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp":4000000000}"#));
    let (host, requests) = serve(vec![
        ok("POST /the-tenant/oauth2/v2.0/token ", r#"{"access_token":"entra","token_type":"Bearer"}"#),
        ok("POST /oauth2/exchange ", &format!(r#"{{"refresh_token":"{refresh}"}}"#)),
    ]);
    let authority = format!("http://{host}/");
    let variables = [
        ("AZURE_CLIENT_ID", "the-client"),
        ("AZURE_TENANT_ID", "the-tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", &authority),
    ];
    let Ambient { environment, fetch } = ambient(&variables);
    let identity = azure::obtain(&format!("http://{host}"), "mine.azurecr.io", &environment, &fetch).unwrap();
    assert_eq!(identity.keys, Some(Credential::IdentityToken(refresh.into())));
    assert_eq!(identity.expires, Some(UNIX_EPOCH + Duration::from_secs(4_000_000_000)));
    let (first, second) = (requests.recv().unwrap(), requests.recv().unwrap());
    assert!(
        first.contains("client_id=the-client&") && first.contains("client_assertion=a.federated.token&"),
        "{first}"
    );
    assert!(first.ends_with("scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default"), "{first}");
    assert!(
        second.ends_with("grant_type=access_token&service=mine.azurecr.io&tenant=the-tenant&access_token=entra"),
        "{second}"
    );
    // The token is not in what is said of a refusal.
    let refusal =
        r#"{"error":"invalid_client","error_description":"AADSTS70021: No matching federated identity record"}"#;
    let (host, _requests) = serve(vec![Response { start: "POST", status: 401, body: refusal.to_owned() }]);
    let authority = format!("http://{host}");
    let variables = [variables[0], variables[1], variables[2], ("AZURE_AUTHORITY_HOST", &authority)];
    let found = ambient(&variables).complete("mine.azurecr.io", none());
    assert_eq!(
        found.searched,
        "add credentials; Microsoft Entra ID, asked for a token of the client the-client, refuses (401: AADSTS70021: No matching federated identity record)"
    );
    assert_eq!(ambient(&variables[..2]).complete("mine.azurecr.io", none()).searched, "add credentials");
}

#[test]
fn aws() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "the.web.identity").unwrap();
    let keys = "<R><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s1</SecretAccessKey>\
                <SessionToken>t1</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>";
    let (sts, identities) = serve(vec![ok("POST / ", keys)]);
    let token = BASE64_STANDARD.encode("AWS:the-password");
    let body = format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":1.8E9}}]}}"#);
    let (ecr, requests) = serve(vec![ok("POST / ", &body)]);
    let (sts, ecr) = (format!("http://{sts}"), format!("http://{ecr}"));
    let variables = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/builds"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ENDPOINT_URL_STS", &sts),
        ("AWS_ENDPOINT_URL_ECR", &ecr),
    ];
    let found = ambient(&variables).complete("123456789012.dkr.ecr.eu-west-1.amazonaws.com", none());
    assert_eq!(found.candidates, [basic("AWS", "the-password")], "{}", found.searched);
    assert!(identities.recv().unwrap().contains("WebIdentityToken=the.web.identity"));
    let request = requests.recv().unwrap().to_ascii_lowercase();
    for part in [
        "x-amz-target: amazonec2containerregistry_v20150921.getauthorizationtoken",
        "/eu-west-1/ecr/aws4_request",
        "x-amz-security-token: t1",
    ] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
    assert_eq!(ambient(&[]).complete("123456789012.dkr.ecr.eu-west-1.amazonaws.com", none()).candidates, []);
}

/// Each store of a process has an [`Ambient`] of its own; what they share is the environment.
#[test]
fn an_identity_is_asked_for_once_by_all_stores_of_a_process() {
    const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    const GOOGLE: &str = r#"{"access_token":"ya29","expires_in":3599}"#;
    let amazon = |expires: u64| {
        let token = BASE64_STANDARD.encode("AWS:the-password");
        format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":{expires}.125}}]}}"#)
    };
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    let far = soon + 12 * 3600;
    // What is asked for, by whom, the answer, and how many requests of three stores that leads to.
    for (case, registries, body, expected) in [
        ("a token for twelve hours", [ECR, ECR, ECR], amazon(far), 1),
        ("one that ends within five minutes", [ECR, ECR, ECR], amazon(soon), 3),
        ("hosts in capital letters", [ECR, "123456789012.DKR.ECR.eu-west-1.amazonaws.com", ECR], amazon(far), 1),
        ("two registries", [ECR, "210987654321.dkr.ecr.eu-west-1.amazonaws.com", ECR], amazon(far), 2),
        ("Google, whose token is for all", ["gcr.io", "europe-docker.pkg.dev", "gcr.io"], GOOGLE.to_owned(), 1),
    ] {
        let (host, requests) = serve(vec![ok("", &body)]);
        let address = format!("http://{host}");
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIA1"),
            ("AWS_SECRET_ACCESS_KEY", "s1"),
            ("AWS_ENDPOINT_URL_ECR", &address),
            ("GCE_METADATA_HOST", &host),
        ];
        let Ambient { environment, .. } = ambient(&variables);
        let store = || Ambient::with(environment.clone(), &HttpOptions::default()).unwrap();
        for registry in registries {
            assert_eq!(store().complete(registry, none()).candidates.len(), 1, "{case}");
        }
        assert_eq!(requests.try_iter().count(), expected, "{case}");
        // One that was refused is fetched again, once for all; another registry's refusal of another one changes nothing.
        let first = registries[0];
        let used = store().complete(first, none()).candidates;
        requests.try_iter().count();
        store().refused(first, &[basic("me", "p")]);
        store().refused("quay.io", &used);
        store().complete(first, none());
        let kept = requests.try_iter().count();
        assert_eq!(kept, usize::from(expected == 3), "{case}");
        store().refused(first, &used);
        store().complete(first, none());
        assert_eq!(requests.try_iter().count(), 1, "{case}");
    }
}

/// A metadata server may not be there yet when a pod starts.
#[test]
fn an_identity_that_did_not_answer_is_asked_for_again() {
    let token = BASE64_STANDARD.encode("AWS:p");
    let ecr = format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":4.0E9}}]}}"#);
    for (registry, expected) in [
        ("gcr.io", basic("oauth2accesstoken", "ya29")),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", basic("AWS", "p")),
    ] {
        let (host, _requests) = serve_late(
            1,
            vec![
                ok("GET /computeMetadata/", r#"{"access_token":"ya29","expires_in":3599}"#),
                ok("PUT /latest/api/token", "session"),
                ok(
                    "GET /latest/meta-data/iam/security-credentials/builds",
                    r#"{"AccessKeyId":"ASIA1","SecretAccessKey":"s1","Token":"t1"}"#,
                ),
                ok("GET /latest/meta-data/iam/security-credentials/", "builds"),
                ok("POST /", &ecr),
            ],
        );
        let address = format!("http://{host}");
        let ambient = ambient(&[
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &address),
            ("AWS_ENDPOINT_URL_ECR", &address),
            ("GCE_METADATA_HOST", &host),
        ]);
        assert_eq!(ambient.complete(registry, none()).candidates, []);
        ambient.refused(registry, &[]);
        assert_eq!(ambient.complete(registry, none()).candidates, [expected]);
    }
}

#[test]
fn only_registries_of_that_cloud_get_an_identity() {
    let registry = |region: &str, domain: &str| {
        Some(aws::Registry::parse(&format!("123456789012.dkr.ecr.{region}.{domain}")).is_some())
    };
    assert_eq!(registry("us-east-1", "amazonaws.com"), Some(true));
    assert_eq!(registry("cn-north-1", "amazonaws.com.cn"), Some(true));
    for host in
        ["123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.com", "1.dkr.ecr.us-east-1.amazonaws.com", "public.ecr.aws"]
    {
        assert_eq!(aws::Registry::parse(host), None, "{host}");
    }
    for (host, is_azure, is_google) in [
        ("mine.azurecr.io", true, false),
        ("azurecr.io.evil.com", false, false),
        ("europe-docker.pkg.dev", false, true),
        ("eu.gcr.io", false, true),
        ("evilgcr.io", false, false),
        ("quay.io", false, false),
    ] {
        assert_eq!((azure::is_registry(host), google::is_registry(host)), (is_azure, is_google), "{host}");
    }
    // What a file has goes first.
    let own = || FoundCredentials { candidates: vec![basic("me", "p")], searched: "check".to_owned() };
    assert_eq!(ambient(&[]).complete("gcr.io", own()).candidates, [basic("me", "p")]);
}
