//! Google Cloud: an access token of the workload's service account (Artifact Registry, "Authentication to a repository",
//! access token; Compute Engine, "About VM metadata"; GKE, "Workload Identity Federation").

use http::Request;

use super::{CloudIdentity, json_field};
use crate::store::{
    cloud::{Environment, Fetch, Problem},
    credentials::Credential,
};

const METADATA_SERVER: &str = "metadata.google.internal";

/// Whether `host` is Artifact Registry or its older form.
pub fn is_registry(host: &str) -> bool {
    host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io")
}

/// A token from the metadata server, which `GCE_METADATA_HOST` may name; none if there is none.
pub fn credential(environment: &Environment, fetch: &Fetch) -> Result<Option<CloudIdentity>, Problem> {
    let what = "the metadata server of Google Cloud";
    let host = environment.get("GCE_METADATA_HOST").unwrap_or_else(|| METADATA_SERVER.to_owned());
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let request = Request::get(url).header("Metadata-Flavor", "Google").body(String::new());
    let request =
        request.map_err(|_| Problem::lasting(format!("{host:?}, named by GCE_METADATA_HOST, is not a host")))?;
    let Some(fetched) = fetch.near(what, request)? else { return Ok(None) };
    let password = json_field(what, &fetched.text, "access_token")?.into();
    let credential = Credential::Basic { username: "oauth2accesstoken".to_owned(), password };
    Ok(Some(CloudIdentity { credential, origin: "its Google service account" }))
}
