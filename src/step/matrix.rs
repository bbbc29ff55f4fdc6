//! Steps of a task with a matrix: one configuration for all combinations, until a step knows which one it belongs to.

use serde::{Deserialize, Serialize};

use super::{CACHE_PLACES, StepConfig};

/// How a step tells which combination of its task's matrix it belongs to: there is no variable for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatrixStep {
    /// Name of the TaskRun. Its end is the number of the combination.
    pub task_run: String,
    /// The TaskRun's uncut name if there is only one combination: then it has no number (Tekton: pipelinerunresolution.go
    /// `getNewRunNames`). None if there are certainly more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single: Option<String>,
    /// How many combinations there may be.
    pub most: u32,
}

/// A matrix has more combinations than were allowed for when the run was created.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "combination {combination} of the matrix of task {task:?} can't be told apart from other tasks: a matrix whose values come from results may have {most} combinations at most"
)]
pub struct TooManyCombinations {
    task: String,
    combination: u32,
    most: u32,
}

impl StepConfig {
    /// The same for this one combination of a matrix, as if it were an ordinary task. Messages and snapshots name it
    /// `build[2]`.
    pub fn of_combination(self) -> Result<Self, TooManyCombinations> {
        let Some(matrix) = &self.matrix else { return Ok(self) };
        let combination = matrix.combination(&self.task);
        if combination >= matrix.most {
            return Err(TooManyCombinations { task: self.task, combination, most: matrix.most });
        }
        let task = format!("{}[{combination}]", self.task);
        let order = self.order.saturating_add(combination);
        let mut own = Self { order, task, matrix: None, ..self };
        for cache in own.workspaces.iter_mut().flat_map(|workspace| &mut workspace.caches) {
            cache.order = cache.order.saturating_add(combination.saturating_mul(CACHE_PLACES));
        }
        Ok(own)
    }
}

impl MatrixStep {
    /// The number of the combination of `task`.
    fn combination(&self, task: &str) -> u32 {
        if self.single.as_ref().is_some_and(|single| is_single(&self.task_run, single, task)) {
            return 0;
        }
        let number = self.task_run.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        number.unwrap_or_default()
    }
}

/// Whether `name` is the TaskRun's name `single`, which is cut and hashed if it is too long: the hash is in front of the
/// task's name or of the beginning of it (knative: kmeta/names.go `ChildName`).
fn is_single(name: &str, single: &str, task: &str) -> bool {
    const LONGEST: usize = 63;
    const HASH: usize = 32;
    if single.len() <= LONGEST {
        return name == single;
    }
    let suffix = format!("-{task}");
    (0..=suffix.len()).filter_map(|end| name.strip_suffix(suffix.get(..end)?)).any(|rest| {
        let start = rest.len().saturating_sub(HASH);
        rest.len() >= HASH && rest[start..].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_of_a_matrix() {
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        let long = "a-task-whose-name-is-longer-than-a-hash-leaves-3-room";
        for (task, run, task_run, combination) in [
            ("build-2", "run", None, None),
            ("build-2", "run", Some("run-build-2".to_owned()), Some(0)),
            ("build-2", "run", Some("run-build-2-0".to_owned()), Some(0)),
            ("build-2", "run", Some("run-build-2-13".to_owned()), Some(13)),
            // A task whose name is a number.
            ("1", "run", Some("run-1".to_owned()), Some(0)),
            ("1", "run", Some("run-1-1".to_owned()), Some(1)),
            ("1", "run-1", Some("run-1-1".to_owned()), Some(0)),
            // Cut and hashed, the name of the task behind the hash, or the beginning of it.
            ("build-2", &"r".repeat(60), Some(format!("{}{hash}-build-2", "r".repeat(23))), Some(0)),
            ("build-2", &"r".repeat(60), Some(format!("{}{hash}-build-2-7", "r".repeat(21))), Some(7)),
            (long, "run", Some(format!("run{hash}-{}", &long[..27])), Some(0)),
            (long, "run", Some(format!("run{hash}-{}-3", &long[..24])), Some(3)),
            (long, &"r".repeat(60), Some(format!("{}{hash}", "r".repeat(31))), Some(0)),
            (long, &"r".repeat(60), Some(format!("{}{}-12", "r".repeat(31), &hash[..29])), Some(12)),
        ] {
            let matrix = task_run.map(
                |task_run| serde_json::json!({"taskRun": task_run, "single": format!("{run}-{task}"), "most": 14}),
            );
            let config = serde_json::json!({"run": "u", "task": task, "order": 7, "matrix": matrix, "workspaces": []});
            let config: StepConfig = serde_json::from_value(config).unwrap();
            let shown = format!("{:?}", config.matrix);
            let combined = config.of_combination().unwrap();
            let name = combination.map_or(task.to_owned(), |number| format!("{task}[{number}]"));
            assert_eq!((combined.order, &combined.task), (7 + combination.unwrap_or(0), &name), "{shown}");
            assert_eq!(combined.matrix, None);
        }
    }

    #[test]
    fn combinations_that_are_known_to_be_several() {
        let config = |number: u32| {
            let text = format!(
                r#"{{"run":"u","task":"1","order":7,"matrix":{{"taskRun":"run-1-{number}","most":2}},"workspaces":[]}}"#
            );
            serde_json::from_str::<StepConfig>(&text).unwrap()
        };
        assert_eq!(config(1).of_combination().unwrap().order, 8);
        assert_eq!(
            config(2).of_combination().unwrap_err().to_string(),
            r#"combination 2 of the matrix of task "1" can't be told apart from other tasks: a matrix whose values come from results may have 2 combinations at most"#
        );
    }
}
