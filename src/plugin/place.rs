//! Where a run says that its files are. Whoever made the run chose that, not who looks at it: a registry and a bucket are asked
//! with what the user has for them, but no folder of the user's machine is read, and rsync is not run with a machine that the
//! user did not name. It shows a daemon who the user is, and such a daemon can have it tell what is in files here.

use super::PluginError;
use crate::{store::RegistrySettings, target::Target};

/// Refuses to go to `target`, which the run `run` names.
pub fn check(run: &str, target: &Target) -> Result<(), PluginError> {
    let problem = match target {
        Target::Registry(_) | Target::S3(_) | Target::Gcs(_) => return Ok(()),
        Target::Dir { .. } => {
            "a folder of the machines that it runs on, and here it would be one of yours: tekton-wrap \
                               inspect and restore read it by its name, if that is meant"
                .to_owned()
        }
        Target::Rsync(place) => {
            let server = place.server();
            let named = RegistrySettings::of_process()?.rsync_hosts;
            if named.iter().any(|host| host.eq_ignore_ascii_case(&server)) {
                return Ok(());
            }
            format!(
                "and rsync is run only with machines that you name: give --rsync-hosts {server} if you know that one"
            )
        }
    };
    Err(PluginError::Elsewhere { run: run.to_owned(), place: target.to_string(), problem })
}
