//! What the Kubernetes API says when it does not do what it was asked for.

/// A clause for sentences.
pub fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            format!("the Kubernetes API answered {} {}", status.code, one_line(&status.message))
        }
        error => format!("the Kubernetes API can't be used: {}", root(error)),
    }
}

/// `text` without line breaks and repeated spaces.
pub fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What lies at the bottom of a client's error: "Connection refused" rather than "client error".
fn root(error: &kube::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
