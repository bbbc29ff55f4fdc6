//! What says who we are to a cloud.

use std::{
    collections::HashMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::{CredentialCache, Problem, aws, google};
use crate::store::{credentials::Credential, rsync};

/// The variables that clouds' tools read, and a mounted Secret whose keys are such variables and go before them. Copies
/// share the credentials that were fetched.
#[derive(Clone, Default)]
pub struct Environment(Arc<Inner>);

#[derive(Default)]
struct Inner {
    variables: HashMap<String, String>,
    secret: Option<PathBuf>,
    anonymous: bool,
    aws: CredentialCache<aws::Keys>,
    google: CredentialCache<google::AccessToken>,
    /// By host.
    registries: Mutex<HashMap<String, Arc<CredentialCache<Credential>>>>,
}

impl Environment {
    /// That of this process, with the folder of a mounted Secret. All stores of a process share what was fetched.
    pub fn of_process(secret: Option<&Path>) -> Self {
        static ALL: LazyLock<Mutex<HashMap<Option<PathBuf>, Environment>>> = LazyLock::new(Mutex::default);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let variables =
                env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
            Self::new(variables.collect(), secret)
        };
        all.entry(secret.map(Path::to_owned)).or_insert_with(made).clone()
    }

    /// These variables and no others.
    pub fn new(variables: HashMap<String, String>, secret: Option<&Path>) -> Self {
        Self(Arc::new(Inner { variables, secret: secret.map(Path::to_owned), ..Inner::default() }))
    }

    /// The same places, asked as nobody.
    pub fn anonymous(&self) -> Self {
        let (variables, secret) = (self.0.variables.clone(), self.0.secret.clone());
        Self(Arc::new(Inner { variables, secret, anonymous: true, ..Inner::default() }))
    }

    /// Whether nothing is to be shown that says who we are.
    pub fn is_anonymous(&self) -> bool {
        self.0.anonymous
    }

    /// The value of a variable, of the Secret or else of the environment; an empty one is none.
    pub fn get(&self, name: &str) -> Option<String> {
        let own = || self.0.variables.get(name).cloned();
        self.in_secret(name).or_else(own).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The path of a key of the Secret, if it has it.
    pub fn secret_file(&self, key: &str) -> Option<PathBuf> {
        self.0.secret.as_ref().map(|folder| folder.join(key)).filter(|file| file.is_file())
    }

    /// That the Secret is not there: where it is optional, the kubelet mounts an empty folder for it.
    pub fn check_secret(&self) -> Result<(), Problem> {
        match &self.0.secret {
            Some(folder) if names(folder).is_empty() => Err(Problem::lasting(format!(
                "{}: a Secret with credentials is expected there, and nothing is; does the Secret exist in the namespace of the run?",
                folder.display()
            ))),
            _ => Ok(()),
        }
    }

    /// How sentences name a variable: one of the Secret by its path.
    pub fn name_of(&self, variable: &str) -> String {
        match self.secret_file(variable) {
            Some(file) => file.display().to_string(),
            None => variable.to_owned(),
        }
    }

    /// The Secret's folder.
    pub fn secret(&self) -> Option<&Path> {
        self.0.secret.as_deref()
    }

    /// `path` below the user's folder.
    pub fn home(&self, path: &str) -> Option<PathBuf> {
        self.0.variables.get("HOME").filter(|home| !home.is_empty()).map(|home| Path::new(home).join(path))
    }

    /// Access keys that were fetched.
    pub fn aws_cache(&self) -> &CredentialCache<aws::Keys> {
        &self.0.aws
    }

    /// Access tokens of Google that were fetched.
    pub fn google_cache(&self) -> &CredentialCache<google::AccessToken> {
        &self.0.google
    }

    /// Credentials that a cloud gave for its registry at `host`.
    pub fn registry_cache(&self, host: &str) -> Arc<CredentialCache<Credential>> {
        let mut caches = self.0.registries.lock().unwrap_or_else(PoisonError::into_inner);
        caches.entry(host.to_owned()).or_default().clone()
    }

    fn in_secret(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.secret_file(name)?).ok()
    }
}

/// Whether the Secret in `folder` has anything that is for a cloud or for rsync and not for a registry.
pub fn is_for_another_store(folder: &Path) -> bool {
    let is_key = |name: &String| {
        ["AWS_", "GOOGLE_", "STORAGE_"].iter().any(|start| name.starts_with(start))
            || name == "credentials"
            || google::SECRET_KEYS.contains(&name.as_str())
            || rsync::SECRET_KEYS.contains(&name.as_str())
    };
    names(folder).iter().any(is_key)
}

/// The keys of a mounted Secret; what begins with two dots is the kubelet's.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with("..")).collect()
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("secret", &self.0.secret)
            .field("anonymous", &self.0.anonymous)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_secret_goes_before_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("AWS_REGION"), "eu-west-1\n").unwrap();
        let variables = [("AWS_REGION", "us-east-1"), ("AWS_PROFILE", "x"), ("EMPTY", " ")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let environment = Environment::new(variables, Some(folder.path()));
        assert_eq!(environment.get("AWS_REGION").as_deref(), Some("eu-west-1"));
        assert_eq!(environment.get("AWS_PROFILE").as_deref(), Some("x"));
        assert_eq!(environment.get("EMPTY"), None);
        assert_eq!(environment.name_of("AWS_PROFILE"), "AWS_PROFILE");
        assert_eq!(environment.name_of("AWS_REGION"), folder.path().join("AWS_REGION").display().to_string());
        assert!(environment.anonymous().is_anonymous() && !environment.is_anonymous());
    }

    #[test]
    fn a_secret_that_is_absent_or_for_a_registry() {
        let folder = tempfile::tempdir().unwrap();
        let with =
            || Environment::new(HashMap::new(), Some(folder.path())).check_secret().map_err(|problem| problem.clause);
        let expected = format!(
            "{}: a Secret with credentials is expected there, and nothing is; does the Secret exist in the namespace of the run?",
            folder.path().display()
        );
        assert_eq!(with(), Err(expected));
        fs::create_dir(folder.path().join("..data")).unwrap();
        assert!(with().is_err() && !is_for_another_store(folder.path()));
        fs::write(folder.path().join(".dockerconfigjson"), "{}").unwrap();
        assert!(with().is_ok() && !is_for_another_store(folder.path()));
        fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), "a").unwrap();
        assert!(is_for_another_store(folder.path()));
    }

    #[test]
    fn no_value_is_shown() {
        let variables = [("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())].into();
        assert!(!format!("{:?}", Environment::new(variables, None)).contains("hunter2"));
    }
}
