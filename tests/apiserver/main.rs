//! What a real kube-apiserver makes of the manifests and of the webhook.

mod clients;
mod creation;
mod manifests;
mod namespaces;
mod reinvocation;
mod resolution;
mod shapes;
mod traces;
