//! The graph of a Pipeline's tasks, its edges exactly as Tekton's
//! (Tekton: pkg/apis/pipeline/v1/pipeline_types.go `Deps`, resultref.go `PipelineTaskResultRefs`).

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their place in the lists, and each list here has a place for all of them"
)]

use std::collections::HashMap;

use fixedbitset::FixedBitSet;
use serde_json::Value;

use super::{
    fields::{items, text},
    texts::edge_texts,
    variables::{references, result_task},
};

/// The tasks of a Pipeline, `tasks` first and then `finally`, by their index in these lists.
#[derive(Debug, Default)]
pub struct Graph {
    /// Names, in the Pipeline's own order.
    pub names: Vec<String>,
    /// How many of them are in `tasks`; the rest are in `finally`.
    pub dag_len: usize,
    /// Direct dependencies of each task. A finally task depends on every task of `tasks`.
    pub dependencies: Vec<Vec<usize>>,
    /// The direct dependencies whose results the task uses.
    pub result_dependencies: Vec<Vec<usize>>,
    /// All ancestors of each task: sets of indexes.
    pub ancestors: Vec<FixedBitSet>,
    /// Pipeline order of each task: its place in the topological order that follows the lists where the graph allows it.
    pub order: Vec<u32>,
}

/// Why a Pipeline has no graph. The words are Tekton's (pkg/reconciler/pipeline/dag/dag.go).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GraphError {
    /// Two tasks with one name.
    #[error("task {0} is already present in Graph, can't add it again: duplicate pipeline task")]
    Duplicate(String),
    /// A `runAfter` or a result reference to a task that is not in `tasks`.
    #[error("task {task} depends on {dependency} but {dependency} wasn't present in Pipeline")]
    Unknown {
        /// The task with the reference.
        task: String,
        /// What it names.
        dependency: String,
    },
    /// Tasks that wait for each other: the first of them by name, and those that it waits for.
    #[error("cycle detected; task {task:?} depends on {dependencies}")]
    Cycle {
        /// The task.
        task: String,
        /// Names, quoted, with commas.
        dependencies: String,
    },
}

impl Graph {
    /// Reads `tasks` and `finally` of a Pipeline's spec.
    pub fn new(spec: &Value) -> Result<Self, GraphError> {
        let (dag, finally) = (items(spec, "tasks"), items(spec, "finally"));
        let names: Vec<String> = dag.iter().chain(finally).map(|task| text(task, "name").to_owned()).collect();
        let mut by_name = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if by_name.insert(name.as_str(), index).is_some() {
                return Err(GraphError::Duplicate(name.clone()));
            }
        }
        let mut graph = Self {
            dag_len: dag.len(),
            dependencies: Vec::new(),
            result_dependencies: Vec::new(),
            ancestors: vec![FixedBitSet::with_capacity(names.len()); names.len()],
            order: vec![0; names.len()],
            names: Vec::new(),
        };
        for (index, task) in dag.iter().chain(finally).enumerate() {
            let find = |name: &str| {
                let unknown = || GraphError::Unknown { task: names[index].clone(), dependency: name.to_owned() };
                by_name.get(name).copied().filter(|&found| found < dag.len()).ok_or_else(unknown)
            };
            let results = collect(result_tasks(task).into_iter().map(find))?;
            let mut all = if index < dag.len() {
                collect(items(task, "runAfter").iter().filter_map(Value::as_str).map(find))?
            } else {
                (0..dag.len()).collect()
            };
            all.extend(&results);
            all.sort_unstable();
            all.dedup();
            graph.dependencies.push(all);
            graph.result_dependencies.push(results);
        }
        graph.names = names;
        graph.sort()?;
        Ok(graph)
    }

    /// Number of tasks.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// All task indices in pipeline order.
    pub fn in_order(&self) -> Vec<usize> {
        let mut tasks: Vec<usize> = (0..self.count()).collect();
        tasks.sort_unstable_by_key(|&task| self.order[task]);
        tasks
    }

    /// All tasks that come after each task: sets of indexes.
    pub fn descendants(&self) -> Vec<FixedBitSet> {
        let mut descendants = vec![FixedBitSet::with_capacity(self.count()); self.count()];
        for (task, ancestors) in self.ancestors.iter().enumerate() {
            ancestors.ones().for_each(|ancestor| descendants[ancestor].insert(task));
        }
        descendants
    }

    /// Fills in order and ancestors: always the first task of the lists whose dependencies are done.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "a task waits for as many as it depends on, and each is done once"
    )]
    fn sort(&mut self) -> Result<(), GraphError> {
        let mut waiting: Vec<usize> = self.dependencies.iter().map(Vec::len).collect();
        let mut dependents = vec![Vec::new(); self.count()];
        for (task, dependencies) in self.dependencies.iter().enumerate() {
            dependencies.iter().for_each(|&dependency| dependents[dependency].push(task));
        }
        let mut ready: std::collections::BTreeSet<usize> =
            (0..self.count()).filter(|&task| waiting[task] == 0).collect();
        let mut place = 0;
        while let Some(task) = ready.pop_first() {
            self.order[task] = place;
            place += 1;
            let mut ancestors = FixedBitSet::with_capacity(self.count());
            for &dependency in &self.dependencies[task] {
                ancestors.insert(dependency);
                ancestors.union_with(&self.ancestors[dependency]);
            }
            self.ancestors[task] = ancestors;
            for &dependent in &dependents[task] {
                waiting[dependent] -= 1;
                if waiting[dependent] == 0 {
                    ready.insert(dependent);
                }
            }
        }
        if place as usize == self.count() {
            return Ok(());
        }
        Err(self.cycle(&waiting))
    }

    /// Tekton's message about a cycle (dag.go `getInterdependencyError`); `waiting` is how many dependencies each task still
    /// waits for. A finally task that waits for the cycle is not part of it.
    fn cycle(&self, waiting: &[usize]) -> GraphError {
        let stuck = (0..self.dag_len).filter(|&task| waiting[task] > 0);
        let first = stuck.min_by_key(|&task| &self.names[task]).unwrap_or_default();
        let open = self.dependencies[first].iter().filter(|&&dependency| waiting[dependency] > 0);
        let mut names: Vec<&String> = open.map(|&dependency| &self.names[dependency]).collect();
        names.sort_unstable();
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        GraphError::Cycle { task: self.names[first].clone(), dependencies: names.join(", ") }
    }
}

/// The tasks whose results `task` refers to where such a reference makes an edge.
fn result_tasks(task: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    edge_texts(task, &mut |text| found.extend(references(text).filter_map(result_task)));
    found
}

fn collect(found: impl Iterator<Item = Result<usize, GraphError>>) -> Result<Vec<usize>, GraphError> {
    let mut list = found.collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(name: &str, after: &[&str]) -> Value {
        json!({"name": name, "runAfter": after})
    }

    #[test]
    fn every_place_that_makes_an_edge() {
        let reference = "$(tasks.a.results.r)";
        for with in [
            json!({"runAfter": ["a"]}),
            json!({"params": [{"name": "p", "value": reference}]}),
            json!({"params": [{"name": "p", "value": ["x", reference]}]}),
            json!({"params": [{"name": "p", "value": {"k": reference}}]}),
            json!({"matrix": {"params": [{"name": "p", "value": ["$(tasks.a.results.r[*])"]}]}}),
            json!({"matrix": {"include": [{"name": "i", "params": [{"name": "p", "value": reference}]}]}}),
            json!({"when": [{"input": reference, "operator": "in", "values": ["x"]}]}),
            json!({"when": [{"input": "x", "operator": "in", "values": [reference]}]}),
            json!({"when": [{"cel": "'$(tasks.a.results.r)' == 'x'"}]}),
            json!({"taskSpec": {"steps": [{"script": reference}]}}),
            json!({"taskSpec": {"steps": [{"workingdir": reference}]}}),
            json!({"taskSpec": {"steps": [{"env": [{"name": "E", "value": reference}]}]}}),
            json!({"taskSpec": {"steps": [{"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": reference}}}]}]}}),
            json!({"taskSpec": {"sidecars": [{"args": [reference]}]}}),
        ] {
            let mut b = with.clone();
            b["name"] = json!("b");
            let graph = Graph::new(&json!({"tasks": [b, {"name": "a"}]})).unwrap();
            assert_eq!(graph.dependencies, [vec![1], vec![]], "{with}");
            assert_eq!(graph.order, [1, 0]);
        }
    }

    #[test]
    fn places_that_make_no_edge() {
        let reference = "$(tasks.a.results.r)";
        for with in [
            json!({"workspaces": [{"name": "w", "subPath": reference}]}),
            json!({"displayName": reference}),
            json!({"taskRef": {"name": reference, "params": [{"name": "p", "value": reference}]}}),
            json!({"taskSpec": {"steps": [{"volumeMounts": [{"name": reference}]}]}}),
            json!({"taskSpec": {"stepTemplate": {"workingDir": reference}}}),
            json!({"taskSpec": {"volumes": [{"name": reference}]}}),
            json!({"params": [{"name": "p", "value": "$(tasks.a.status)"}]}),
        ] {
            let mut b = with.clone();
            b["name"] = json!("b");
            let graph = Graph::new(&json!({"tasks": [b, {"name": "a"}]})).unwrap();
            assert!(graph.dependencies.iter().all(Vec::is_empty), "{with}");
        }
    }

    #[test]
    fn ancestors_and_order() {
        let spec = json!({
            "tasks": [task("join", &["left", "right"]), task("left", &["root"]), task("right", &["root"]), task("root", &[])],
            "finally": [{"name": "clean"}, {"name": "report", "params": [{"name": "p", "value": "$(tasks.join.results.r)"}]}],
        });
        let graph = Graph::new(&spec).unwrap();
        assert_eq!(graph.order, [3, 1, 2, 0, 4, 5]);
        assert_eq!(graph.in_order(), [3, 1, 2, 0, 4, 5]);
        assert!((1..4).all(|task| graph.ancestors[0].contains(task)));
        assert!(graph.ancestors[1].contains(3) && !graph.ancestors[1].contains(2));
        assert!((0..4).all(|task| graph.ancestors[4].contains(task)) && !graph.ancestors[5].contains(4));
        assert_eq!(graph.result_dependencies[5], [0]);
    }

    #[test]
    fn rejects() {
        for (spec, message) in [
            (json!({"tasks": [task("a", &["b"])]}), "task a depends on b but b wasn't present in Pipeline"),
            (
                json!({"tasks": [task("z", &["b"]), task("c", &["b", "z"]), task("b", &["z", "c", "aa"]), task("aa", &[])], "finally": [{"name": "a"}]}),
                r#"cycle detected; task "b" depends on "c", "z""#,
            ),
            (json!({"tasks": [task("a", &["a"])]}), r#"cycle detected; task "a" depends on "a""#),
            (
                json!({"tasks": [task("a", &[])], "finally": [task("a", &[])]}),
                "task a is already present in Graph, can't add it again: duplicate pipeline task",
            ),
            // A finally task is no dependency.
            (
                json!({"tasks": [task("a", &["f"])], "finally": [{"name": "f"}]}),
                "task a depends on f but f wasn't present in Pipeline",
            ),
        ] {
            assert_eq!(Graph::new(&spec).err().unwrap().to_string(), message);
        }
    }
}
