//! The image of the webhook's own pod: the one that its injected steps run too, so that whoever sets an image (an overlay, a
//! chart, a cluster that rewrites images to a mirror's) sets one.

use std::time::Duration;

use serde_json::Value;

use super::{Cluster, ConnectError};
use crate::tekton::{fields::items, reference::is_object_name};

/// The container of the webhook, where its pod has others too (`webhook-config/base/deployment.yaml`).
const CONTAINER: &str = "webhook";

/// So often the API is asked, a second apart: a node's network may be ready later than its pods.
const TRIES: usize = 20;

impl Cluster {
    /// The image that the webhook's pod, which is named `pod`, runs.
    ///
    /// # Errors
    /// Where the API does not tell.
    pub async fn own_image(&self, pod: &str) -> Result<String, ConnectError> {
        self.image_of_pod(pod, TRIES, Duration::from_secs(1)).await
    }

    pub(super) async fn image_of_pod(&self, pod: &str, tries: usize, pause: Duration) -> Result<String, ConnectError> {
        let namespace = &self.namespace;
        let fail = |why: String| ConnectError::OwnImage { pod: pod.to_owned(), namespace: namespace.clone(), why };
        if !is_object_name(pod) {
            return Err(fail("no pod can have this name".to_owned()));
        }
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let mut tries = tries;
        loop {
            let error = match self.reader.read(&path, None).await {
                Ok(pod) => return image(&pod).ok_or_else(|| fail(format!("it has no container {CONTAINER:?}"))),
                Err(error) => error,
            };
            tries = tries.saturating_sub(1);
            match error.code() {
                Some(403) => {
                    return Err(fail(
                        "the webhook's account is forbidden by RBAC to get it; apply webhook-config".into(),
                    ));
                }
                Some(404) => return Err(fail("there is no such pod".to_owned())),
                _ if tries == 0 => return Err(fail(error.to_string())),
                _ => tokio::time::sleep(pause).await,
            }
        }
    }
}

/// The image of the webhook's container, or of the only one.
fn image(pod: &Value) -> Option<String> {
    let containers = items(&pod["spec"], "containers");
    let own = containers.iter().find(|container| container["name"] == CONTAINER);
    let container = own.or(if let [only] = containers { Some(only) } else { None })?;
    container["image"].as_str().filter(|image| !image.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_the_webhooks_container() {
        let container = |name: &str| json!({"name": name, "image": format!("quay.io/me/{name}:v1")});
        for (containers, expected) in [
            (json!([container("webhook")]), Some("quay.io/me/webhook:v1")),
            (json!([container("istio-proxy"), container("webhook")]), Some("quay.io/me/webhook:v1")),
            (json!([container("renamed")]), Some("quay.io/me/renamed:v1")),
            (json!([container("istio-proxy"), container("renamed")]), None),
            (json!([{"name": "webhook", "image": ""}]), None),
            (json!([]), None),
        ] {
            let pod = json!({"spec": {"containers": containers}});
            assert_eq!(image(&pod).as_deref(), expected, "{pod}");
        }
    }
}
