//! Access keys, from files and from servers on the loopback interface.

use std::{collections::HashMap, fs, path::Path};

use super::{super::tests::server, *};
use crate::store::net::http::HttpOptions;

const KEYS: &str = "<R><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s1</SecretAccessKey>\
                    <SessionToken>t1</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>";
const JSON_KEYS: &str =
    r#"{"AccessKeyId":"ASIA2","SecretAccessKey":"s2","Token":"t2","Expiration":"2099-01-01T00:00:00Z"}"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    // Nothing outside of the test is asked.
    let disabled = [("AWS_EC2_METADATA_DISABLED", "true")];
    let all = disabled.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Environment::new(all.collect::<HashMap<_, _>>(), None)
}

fn search(environment: &Environment) -> Result<Obtained<Keys>, String> {
    find(environment, &Fetch::new(&HttpOptions::default()).unwrap()).map_err(|problem| problem.clause)
}

fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".aws")).unwrap();
    files.iter().for_each(|(name, text)| fs::write(folder.path().join(".aws").join(name), text).unwrap());
    folder
}

fn id(found: &Obtained<Keys>) -> &str {
    found.keys.as_ref().map_or("none", |keys| &keys.id)
}

#[test]
fn static_keys_come_first() {
    let variables =
        [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/absent")];
    let found = search(&environment(&variables)).unwrap();
    assert_eq!((id(&found), found.searched.as_str()), ("AKIA", "check the credentials of AWS_ACCESS_KEY_ID"));
    assert_eq!(
        search(&environment(&variables[..1])).unwrap_err(),
        "AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY"
    );
}

#[test]
fn where_there_are_none_every_place_is_named() {
    let found = search(&environment(&[])).unwrap();
    assert_eq!(
        (id(&found), found.searched.as_str()),
        (
            "none",
            "add credentials: there are none in AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, ~/.aws/credentials (HOME is not set), AWS_CONTAINER_CREDENTIALS_FULL_URI, the metadata service of this machine"
        )
    );
    let home = home(&[]);
    let found = search(&environment(&[("HOME", home.path().to_str().unwrap())])).unwrap();
    assert!(
        found.searched.contains(&format!("{}/.aws/credentials (absent)", home.path().display())),
        "{}",
        found.searched
    );
}

#[test]
fn a_secret_goes_before_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    secret("credentials", "[default]\naws_access_key_id = AKIA1 # a comment\naws_secret_access_key=s/=\n");
    let of = |path: &Path| search(&Environment::new(HashMap::new(), Some(path))).unwrap();
    assert_eq!((id(&of(folder.path())), of(folder.path()).keys.unwrap().secret.expose()), ("AKIA1", "s/="));
    secret("AWS_ACCESS_KEY_ID", "AKIA2\n");
    secret("AWS_SECRET_ACCESS_KEY", "s2\n");
    let found = of(folder.path());
    let place = format!("check the credentials of {}/AWS_ACCESS_KEY_ID", folder.path().display());
    assert_eq!((id(&found), found.searched.as_str()), ("AKIA2", place.as_str()));
}

#[test]
fn profiles() {
    let config = "[default]\nregion = eu-west-1\ns3 =\n  endpoint_url = x\n[profile dev]\nregion=us-west-2\nrole_arn=arn:dev\nsource_profile=keys\n\
                  [profile sso]\nsso_session = x\n[profile loop]\nrole_arn=arn:a\nsource_profile=loop\n[dev]\nregion=wrong\n";
    let home =
        home(&[("config", config), ("credentials", "[keys]\naws_access_key_id=AKIA\naws_secret_access_key=s\n")]);
    let (sts, requests) = server(&[("POST /", 200, KEYS)]);
    let with = |profile: &str| {
        environment(&[
            ("HOME", home.path().to_str().unwrap()),
            ("AWS_PROFILE", profile),
            ("AWS_ENDPOINT_URL_STS", &sts),
        ])
    };
    assert_eq!(region(&with("dev")).unwrap().as_deref(), Some("us-west-2"));
    assert_eq!(region(&with("default")).unwrap().as_deref(), Some("eu-west-1"));
    let found = search(&with("keys")).unwrap();
    assert_eq!(id(&found), "AKIA");
    assert!(found.searched.starts_with("check the credentials of profile \"keys\" of "), "{}", found.searched);
    assert_eq!(id(&search(&with("dev")).unwrap()), "ASIA1");
    let request = requests.recv().unwrap();
    assert!(request.contains("Action=AssumeRole&") && request.contains("RoleArn=arn%3Adev"), "{request}");
    assert!(request.contains("Credential=AKIA/") && request.contains("/us-west-2/sts/aws4_request"), "{request}");
    for (profile, says) in [
        (
            "sso",
            "profile \"sso\" logs in by sso_session, which takes Amazon's own tools: set the variables that `aws configure export-credentials --profile sso --format env` prints",
        ),
        ("loop", "the source_profile \"loop\" of role arn:a has no credentials"),
    ] {
        assert_eq!(search(&with(profile)).unwrap_err(), says);
    }
    let error = search(&with("absent")).unwrap_err();
    assert_eq!(
        error,
        format!("profile \"absent\", named by AWS_PROFILE, is not in {}/.aws/credentials", home.path().display())
    );
}

#[test]
fn a_service_account_becomes_a_role() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "jwt\n").unwrap();
    let (sts, requests) = server(&[("POST /", 200, KEYS)]);
    let token = token.to_str().unwrap();
    let mut variables = vec![
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/a"),
        ("AWS_ENDPOINT_URL_STS", &sts),
    ];
    let found = search(&environment(&variables)).unwrap();
    let keys = found.keys.unwrap();
    assert_eq!((keys.id.as_str(), keys.secret.expose(), keys.token.unwrap().expose()), ("ASIA1", "s1", "t1"));
    assert!(keys.expires.unwrap() > SystemTime::now());
    let request = requests.recv().unwrap();
    assert!(
        request.ends_with("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa&RoleSessionName=tekton-wrap&WebIdentityToken=jwt"),
        "{request}"
    );
    let (refuses, _requests) = server(&[(
        "POST /",
        403,
        "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>",
    )]);
    variables[2].1 = &refuses;
    assert_eq!(
        search(&environment(&variables)).unwrap_err(),
        format!(
            "AWS STS, asked for role arn:aws:iam::1:role/a with the token in {token}, refuses (403: AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity)"
        )
    );
}

#[test]
fn a_container_has_an_agent() {
    let (agent, requests) = server(&[("GET /v1/credentials", 200, JSON_KEYS)]);
    let address = format!("{agent}/v1/credentials");
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token")];
    assert_eq!(id(&search(&environment(&variables)).unwrap()), "ASIA2");
    assert!(requests.recv().unwrap().contains("authorization: token"));
    assert_eq!(
        search(&environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/")])).unwrap_err(),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI names \"http://example.com/\", which is neither HTTPS nor on this machine"
    );
}

#[test]
fn a_machine_has_a_role() {
    let (service, requests) = server(&[
        ("PUT /latest/api/token", 200, "imds"),
        ("GET /latest/meta-data/iam/security-credentials/ ", 200, "node\n"),
        ("GET /latest/meta-data/iam/security-credentials/node", 200, JSON_KEYS),
    ]);
    let on = |service: &str| {
        environment(&[("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service)])
    };
    assert_eq!(id(&search(&on(&service)).unwrap()), "ASIA2");
    let seen: Vec<String> = requests.try_iter().collect();
    assert!(
        seen[0].contains("x-aws-ec2-metadata-token-ttl-seconds: 300")
            && seen[2].contains("x-aws-ec2-metadata-token: imds")
    );
    // Another cloud's service, and a machine without a role.
    let (other, _requests) = server(&[]);
    assert_eq!(id(&search(&on(&other)).unwrap()), "none");
}

#[test]
fn nothing_shows_a_secret() {
    let found = search(&environment(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "hunter2")])).unwrap();
    assert!(!format!("{:?}", found.keys).contains("hunter2"));
    assert_eq!(found.secrets, ["hunter2"]);
}
