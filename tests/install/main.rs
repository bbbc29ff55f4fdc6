//! What an operator applies: overlays, components, the chart, certificates without cert-manager, and what watches over it.
//! With the real kubectl, against a real kube-apiserver.

mod authority;
mod chart;
mod first_run;
mod kubectl;
mod monitoring;
mod namespaces;
mod on_cluster;
mod overlays;
mod own_image;
mod release;
mod strict;
