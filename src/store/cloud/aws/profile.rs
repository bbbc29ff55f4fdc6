//! The files of `aws configure` (AWS CLI User Guide, "Configuration and credential file settings").

use std::{collections::HashMap, fs, io, path::PathBuf};

use super::{super::Environment, Keys, Problem};

/// What both files say, by profile.
pub struct Profiles {
    profiles: HashMap<String, HashMap<String, String>>,
}

/// One profile, as far as it concerns us.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Where its requests go.
    pub region: Option<String>,
    /// How to become it; none where it says nothing of that.
    pub login: Option<Login>,
}

/// How to become a profile.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    /// With these.
    Keys(Keys),
    /// By a role that another profile may take.
    Role { role: String, source: String, external_id: Option<String>, session: Option<String> },
    /// By a role that a token of another issuer lets one take.
    WebIdentity { role: String, token_file: String, session: Option<String> },
    /// In a way that only Amazon's own tools know.
    Unsupported { name: String, setting: &'static str },
}

/// Settings that log in by way of a browser, a program or something else that an injected step does not have.
const UNSUPPORTED: [&str; 5] =
    ["sso_session", "sso_start_url", "credential_process", "login_session", "credential_source"];

impl Profiles {
    /// Reads both files; one that is absent says nothing.
    pub fn read(environment: &Environment) -> Result<Self, Problem> {
        let mut profiles: HashMap<String, HashMap<String, String>> = HashMap::new();
        for (path, prefixed) in [(config_file(environment), true), (credentials_file(environment), false)] {
            let Some(path) = path else { continue };
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(Problem::lasting(format!("{} can't be read: {error}", path.display()))),
            };
            for (section, settings) in parse(&text) {
                let name = match section.strip_prefix("profile ") {
                    Some(name) if prefixed => name.trim(),
                    // Of the file `config` only the section `default` has a bare name.
                    None if !prefixed || section == "default" => &section,
                    _ => continue,
                };
                profiles.entry(name.to_owned()).or_default().extend(settings);
            }
        }
        Ok(Self { profiles })
    }

    /// The profile that `environment` names.
    pub fn of(&self, environment: &Environment) -> Profile {
        self.named(&chosen(environment)).unwrap_or_default()
    }

    /// The profile `name`, if there is one.
    pub fn named(&self, name: &str) -> Option<Profile> {
        let settings = self.profiles.get(name)?;
        let get = |key: &str| settings.get(key).filter(|value| !value.is_empty()).cloned();
        let session = get("role_session_name");
        let keys = || {
            let (id, secret) = (get("aws_access_key_id")?, get("aws_secret_access_key")?);
            Some(Keys { id, secret: secret.into(), token: get("aws_session_token").map(Into::into), expires: None })
        };
        let unsupported = || {
            let setting = UNSUPPORTED.into_iter().find(|setting| get(setting).is_some())?;
            Some(Login::Unsupported { name: name.to_owned(), setting })
        };
        let login = match (get("role_arn"), get("web_identity_token_file"), get("source_profile")) {
            (Some(role), Some(token_file), _) => Some(Login::WebIdentity { role, token_file, session }),
            (Some(role), None, Some(source)) => {
                Some(Login::Role { role, source, external_id: get("external_id"), session })
            }
            _ => keys().map(Login::Keys).or_else(unsupported),
        };
        Some(Profile { region: get("region"), login })
    }

    /// How sentences name the profile of `environment`.
    pub fn place(&self, environment: &Environment) -> String {
        let files = [credentials_file(environment), config_file(environment)];
        let files: Vec<String> =
            files.into_iter().flatten().filter(|file| file.is_file()).map(|f| f.display().to_string()).collect();
        format!("profile {:?} of {}", chosen(environment), files.join(" and "))
    }

    /// The same where it says nothing; a profile that somebody asked for has to be there.
    pub fn searched(&self, environment: &Environment) -> Result<String, Problem> {
        let (file, profile) = (credentials_file(environment), chosen(environment));
        if environment.get("AWS_PROFILE").is_some() && !self.profiles.contains_key(&profile) {
            let file = file.map_or_else(|| "~/.aws/credentials".to_owned(), |file| file.display().to_string());
            return Err(Problem::lasting(format!("profile {profile:?}, named by AWS_PROFILE, is not in {file}")));
        }
        Ok(match file {
            Some(file) if file.is_file() => format!("profile {profile:?} of {}", file.display()),
            Some(file) => format!("{} (absent)", file.display()),
            None => "~/.aws/credentials (HOME is not set)".to_owned(),
        })
    }
}

fn chosen(environment: &Environment) -> String {
    environment.get("AWS_PROFILE").unwrap_or_else(|| "default".to_owned())
}

fn credentials_file(environment: &Environment) -> Option<PathBuf> {
    file(environment, "credentials", "AWS_SHARED_CREDENTIALS_FILE")
}

fn config_file(environment: &Environment) -> Option<PathBuf> {
    file(environment, "config", "AWS_CONFIG_FILE")
}

fn file(environment: &Environment, name: &str, variable: &str) -> Option<PathBuf> {
    let named = || environment.get(variable).map(PathBuf::from);
    environment.secret_file(name).or_else(named).or_else(|| environment.home(&format!(".aws/{name}")))
}

/// Sections and their settings. Lines that are indented belong to a setting that we don't need.
fn parse(text: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut sections: Vec<(String, HashMap<String, String>)> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name) {
            sections.push((name.trim().to_owned(), HashMap::new()));
        } else if let (Some((_, settings)), Some((key, value))) = (sections.last_mut(), trimmed.split_once('=')) {
            // A comment begins behind a space.
            let value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default();
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    sections
}
