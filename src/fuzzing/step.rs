//! The configuration of an injected step, as it is in the environment of a container.

use crate::{
    globs::Glob,
    step::{ENV, StepConfig},
    target::Target,
    workspace::{files::mounts::MountPoints, path::TreePath, selection::Selection},
};

/// What variables stand for: values that would be something else, were they a part of the JSON or of a path.
const VALUES: [&str; 4] = ["0f0e8a3c-5b7d", "\",\"base\":\"evil", "../../$(context.taskRun.name)", "a/b:c@d"];

/// Takes `bytes` for the value of [`ENV`]: what is accepted is the same once it was written and read again, no value becomes
/// a part of its structure, and all that it names can be judged. Gives whether it is accepted.
pub fn step(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let plain = |name: &str| Some(format!("${name}"));
    let Ok(config) = StepConfig::parse(text, plain) else { return false };
    let env = config.to_env();
    let value = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let written = value(ENV).expect("the configuration");
    assert!(!written.contains('$'), "Tekton or the kubelet could substitute in it");
    assert_eq!(StepConfig::parse(&written, value).expect("it was written by us"), config);
    for value in VALUES {
        let Ok(other) = StepConfig::parse(text, |_| Some(value.to_owned())) else { continue };
        assert_eq!(shape(&other), shape(&config), "a value changed the structure");
        judge(other);
    }
    true
}

/// Everything but the strings.
fn shape(config: &StepConfig) -> (u32, Option<u32>, Option<usize>, Vec<[usize; 5]>) {
    let lists = config.workspaces.iter().map(|step| {
        [step.after.len(), step.parallel.len(), step.joined.len(), step.mounts.len(), usize::from(step.base.is_some())]
    });
    (
        config.order,
        config.matrix.as_ref().map(|matrix| matrix.most),
        config.expires.as_ref().map(|_| 0),
        lists.collect(),
    )
}

fn judge(config: StepConfig) {
    let Ok(config) = config.of_combination() else { return };
    for rule in &config.conflict_rules {
        let _ = Glob::new(&rule.paths);
    }
    for step in &config.workspaces {
        let _ = step.target.parse::<Target>();
        // The UID itself is Kubernetes'.
        let tag = StepConfig::tag("0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6b", config.order, &step.name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(tag.len() <= 128 && tag.chars().all(is_plain), "{tag:?}");
        let mounts = MountPoints::new(&step.mounts);
        assert!(step.mounts.is_empty() || !mounts.contains(&TreePath::root()));
        if let Ok(selection) = Selection::new(&step.paths) {
            assert_eq!(selection.shown.is_empty(), step.paths.iter().all(String::is_empty));
        }
        for task in &step.after {
            assert!(!task.name_of(task.order).is_empty() || task.task.is_empty());
        }
    }
}
