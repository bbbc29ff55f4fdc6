//! Param `cache`: workspaces, and folders of them, that start from what an earlier run left.

mod entry;

use serde_json::Value;

use self::entry::CacheEntry;
use super::{WORKSPACE, check_template, parse, retention::duration, values::Values};
use crate::{
    globs::Globs,
    limits::MAX_CACHES,
    step::{CacheFiles, CacheStep, HASH},
    target::Target,
    tekton::{fields::text, tasks::all_tasks},
    wrap::refusal::Refusal,
};

/// One cache, as a run asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Name of the workspace in the Pipeline.
    pub workspace: String,
    /// What the steps are told of it; its place in pipeline order is not known yet.
    pub step: CacheStep,
    /// The tasks that restore and save it; empty: those that the graph gives.
    pub tasks: Vec<String>,
    /// Whether it is one of the defaults, which are for other Pipelines too.
    pub is_default: bool,
}

impl Cache {
    /// How sentences name it: the workspace, and the folder in it.
    pub fn shown(&self) -> String {
        self.step.shown(&self.workspace)
    }
}

/// All caches of a run that wraps `workspaces`, of a Pipeline with `spec`; `target` is that of a workspace. As a list in YAML, or
/// in short `source/node_modules=source/package-lock.json, cache=source/go.sum, source/tools/go.sum`.
pub fn read(
    values: &Values<'_>,
    workspaces: &[String],
    spec: Option<&Value>,
    target: &str,
) -> Result<Vec<Cache>, Refusal> {
    let reader = Reader { values, workspaces, spec, target, is_default: values.is_default_value("cache") };
    let entries = entry::all(values)?;
    if entries.len() > MAX_CACHES {
        return Err(
            reader.invalid(format!("it has {} caches, more than the {MAX_CACHES} that a run may have", entries.len()))
        );
    }
    let caches = entries.iter().map(|entry| reader.cache(entry)).collect::<Result<Vec<_>, _>>()?;
    let caches: Vec<Cache> = caches.into_iter().flatten().collect();
    reader.check_places(&caches)?;
    reader.check_order(&caches)?;
    Ok(caches)
}

struct Reader<'a> {
    values: &'a Values<'a>,
    workspaces: &'a [String],
    spec: Option<&'a Value>,
    target: &'a str,
    is_default: bool,
}

impl Reader<'_> {
    fn invalid(&self, problem: impl Into<String>) -> Refusal {
        self.values.invalid("cache", problem)
    }

    /// None if it is a default for other Pipelines.
    fn cache(&self, entry: &CacheEntry) -> Result<Option<Cache>, Refusal> {
        let Some(whole) = entry.text("path").filter(|path| !path.is_empty()) else {
            return Err(
                self.invalid("a cache needs a path: a workspace, or a folder in one, such as source/node_modules")
            );
        };
        let (workspace, path) = self.place(whole, "path")?;
        let wraps = |name: &str| self.workspaces.iter().any(|wrapped| wrapped == name);
        let files = self.files(entry, whole)?;
        let foreign =
            [workspace].into_iter().chain(files.iter().map(|files| &*files.workspace)).find(|name| !wraps(name));
        if let Some(foreign) = foreign {
            let problem = format!("cache {whole:?}: {foreign:?} is not a workspace that is wrapped");
            return if self.is_default { Ok(None) } else { Err(self.invalid(problem)) };
        }
        if path.is_empty() && files.iter().any(|files| files.workspace == workspace) {
            let problem = format!(
                "cache {whole:?}: its files lie in what it restores: cache a folder of the workspace, or take files of another one"
            );
            return Err(self.invalid(problem));
        }
        let key = self.key(entry, whole, !files.is_empty())?;
        let restore_keys = match (entry.list("restore-keys"), entry.text("key")) {
            (Some(keys), _) => keys.to_vec(),
            // The short form: the newest.
            (None, None) => vec![String::new()],
            (None, Some(_)) => Vec::new(),
        };
        for text in
            restore_keys.iter().map(String::as_str).chain(entry.text("scope")).chain(entry.text("default-scope"))
        {
            check_template(self.values, "cache", text)?;
        }
        let (scope, default_scope) = (entry.text("scope").unwrap_or_default(), entry.text("default-scope"));
        if scope.is_empty() && default_scope.is_some() {
            return Err(self.invalid(format!("cache {whole:?}: default-scope needs a scope, such as $(params.branch)")));
        }
        let ignore_mtimes = match entry.text("mtime") {
            None | Some("keep") => false,
            Some("ignore") => true,
            Some(other) => {
                let problem = format!("cache {whole:?}: mtime is {other:?}, which is not one of \"keep\", \"ignore\"");
                return Err(self.invalid(problem));
            }
        };
        let step = CacheStep {
            path: path.to_owned(),
            target: self.repository(entry, whole, workspace)?,
            key,
            files,
            restore_keys,
            scope: scope.to_owned(),
            default_scope: default_scope.map(str::to_owned),
            ignore_mtimes,
            expires: entry.text("expires").map(|text| duration(self.values, "cache", text)).transpose()?,
            order: 0,
        };
        let Some(tasks) = self.tasks(entry, whole)? else { return Ok(None) };
        Ok(Some(Cache { workspace: workspace.to_owned(), step, tasks, is_default: self.is_default }))
    }

    /// A workspace, and what follows it; a clause names it `what`.
    fn place<'t>(&self, text: &'t str, what: &str) -> Result<(&'t str, &'t str), Refusal> {
        let (workspace, path) = text.split_once('/').unwrap_or((text, ""));
        let path = path.trim_end_matches('/');
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        if workspace.is_empty() || what == "path" && !path.is_empty() && !path.split('/').all(is_name) {
            let problem = format!("{what} {text:?} is not of the form WORKSPACE or WORKSPACE/folder, without . and ..");
            return Err(self.invalid(problem));
        }
        Ok((workspace, path))
    }

    /// What the hash is of, by workspace. A pattern begins at the root of its workspace.
    fn files(&self, entry: &CacheEntry, whole: &str) -> Result<Vec<CacheFiles>, Refusal> {
        let mut files: Vec<CacheFiles> = Vec::new();
        let listed = entry.list("files").unwrap_or_default().iter().flat_map(|text| text.split(','));
        for text in listed.map(str::trim).filter(|text| !text.is_empty()) {
            let (workspace, pattern) = self.place(text, "file")?;
            if pattern.is_empty() {
                let problem = format!("cache {whole:?}: file {text:?} is not of the form WORKSPACE/PATTERN");
                return Err(self.invalid(problem));
            }
            let pattern = match pattern.strip_prefix('!') {
                Some(pattern) => format!("!/{pattern}"),
                None => format!("/{pattern}"),
            };
            match files.iter_mut().find(|files| files.workspace == workspace) {
                Some(known) => known.patterns.push(pattern),
                None => files.push(CacheFiles { workspace: workspace.to_owned(), patterns: vec![pattern] }),
            }
        }
        for CacheFiles { patterns, .. } in &files {
            Globs::new(patterns).map_err(|error| self.invalid(format!("cache {whole:?}: {error}")))?;
        }
        Ok(files)
    }

    fn key(&self, entry: &CacheEntry, whole: &str, has_files: bool) -> Result<String, Refusal> {
        let key = match entry.text("key") {
            Some(key) if !key.is_empty() => key,
            _ if has_files => HASH,
            _ => {
                let problem = format!(
                    "cache {whole:?} needs a key, or files whose content is the key, such as files: source/go.sum"
                );
                return Err(self.invalid(problem));
            }
        };
        check_template(self.values, "cache", &key.replace(HASH, ""))?;
        match (key.contains(HASH), has_files) {
            (true, false) => {
                Err(self.invalid(format!("cache {whole:?}: its key has {HASH} in it, but it has no files")))
            }
            (false, true) => {
                Err(self.invalid(format!("cache {whole:?}: it has files, but its key has no {HASH} in it")))
            }
            _ => Ok(key.to_owned()),
        }
    }

    /// Where it is stored: in one repository for all runs.
    fn repository(&self, entry: &CacheEntry, whole: &str, workspace: &str) -> Result<String, Refusal> {
        let own = entry.text("target");
        let text = own.unwrap_or(self.target);
        check_template(self.values, "cache", text)?;
        let text = text.replace(WORKSPACE, workspace);
        let target = parse(self.values, "cache", &text)?;
        let has_tag = target.reference() != "latest" || text.ends_with(":latest");
        if own.is_some() && has_tag {
            let problem = format!("cache {whole:?}: its target {text:?} is an image: name a repository, without a tag");
            return Err(self.invalid(problem));
        }
        let of_run = |name: &str| {
            let text = text.replace("$(context.pipelineRun.name)", name).replace("$(context.pipelineRun.uid)", name);
            text.parse::<Target>().map(|target| target.repository()).ok()
        };
        if of_run("a") != of_run("b") {
            let problem = format!(
                "cache {whole:?} would be in {text:?}, a repository of this run alone, where no other run looks for it: give it a target, such as quay.io/me/caches, or move the run's name into the tag"
            );
            return Err(self.invalid(problem));
        }
        Ok(text)
    }

    /// The tasks that it names; none if it is a default for other Pipelines.
    fn tasks(&self, entry: &CacheEntry, whole: &str) -> Result<Option<Vec<String>>, Refusal> {
        let known: Vec<&str> = self.spec.into_iter().flat_map(all_tasks).map(|task| text(task, "name")).collect();
        let listed = entry.list("task").unwrap_or_default().iter().flat_map(|text| text.split(','));
        let tasks: Vec<String> = listed.map(|task| task.trim().to_owned()).filter(|task| !task.is_empty()).collect();
        match tasks.iter().find(|task| !known.contains(&task.as_str())) {
            Some(_) if self.is_default => Ok(None),
            Some(task) => Err(self.invalid(format!("cache {whole:?}: {task:?} is not a task of the pipeline"))),
            None => Ok(Some(tasks)),
        }
    }

    /// Refuses folders that lie in each other: a file would be in two caches.
    fn check_places(&self, caches: &[Cache]) -> Result<(), Refusal> {
        for (i, one) in caches.iter().enumerate() {
            for other in caches.iter().take(i).filter(|other| other.workspace == one.workspace) {
                let lies_in = |a: &str, b: &str| {
                    b.is_empty() || a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'))
                };
                let (a, b) = (&one.step.path, &other.step.path);
                if lies_in(a, b) || lies_in(b, a) {
                    let problem =
                        format!("caches {:?} and {:?} lie in each other: keep one", other.shown(), one.shown());
                    return Err(self.invalid(problem));
                }
            }
        }
        Ok(())
    }

    /// Refuses workspaces that would each have to be restored before the other.
    fn check_order(&self, caches: &[Cache]) -> Result<(), Refusal> {
        let mut left: Vec<&str> = self.workspaces.iter().map(String::as_str).collect();
        let waits = |workspace: &str, left: &[&str]| {
            let own = caches.iter().filter(|cache| cache.workspace == workspace);
            let mut files = own.flat_map(|cache| &cache.step.files).map(|files| files.workspace.as_str());
            files.any(|other| other != workspace && left.contains(&other))
        };
        while let Some(free) = left.iter().position(|workspace| !waits(workspace, &left)) {
            left.remove(free);
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(self
            .invalid(format!("the caches of the workspaces {} have their files in each other", super::quoted(&left))))
    }
}
