//! YAML as Kubernetes reads it: YAML 1.1 scalars (`yes`, `on`, `0644`) to JSON, and back to YAML that means the same.
//!
//! Tekton and kubectl decode with sigs.k8s.io/yaml (go-yaml v2); a document must mean the same here. A parser handles the
//! syntax; the meaning of plain scalars is implemented here.

mod read;
mod scalar;
mod write;

pub use read::{YamlError, parse, parse_within};
pub use write::to_string;
