//! What says who we are to a cloud.

use std::{
    collections::HashMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::{Cache, aws};

/// The variables that clouds' tools read, and a mounted Secret whose keys are such variables and go before them. Copies
/// share the credentials that were fetched.
#[derive(Clone, Default)]
pub struct Environment(Arc<Inner>);

#[derive(Default)]
struct Inner {
    variables: HashMap<String, String>,
    secret: Option<PathBuf>,
    anonymous: bool,
    aws: Cache<aws::Keys>,
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
    pub fn aws_cache(&self) -> &Cache<aws::Keys> {
        &self.0.aws
    }

    fn in_secret(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.secret_file(name)?).ok()
    }
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
    fn no_value_is_shown() {
        let variables = [("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())].into();
        assert!(!format!("{:?}", Environment::new(variables, None)).contains("hunter2"));
    }
}
