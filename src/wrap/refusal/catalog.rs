//! docs/refusals.md: the cause and the cure of every refusal, by its code. The codes and sentences are read out of the source
//! files, so that neither can be missing here; `UPDATE_GOLDEN=1 cargo test --lib refusal` writes the page.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

/// What a reader of a refusal needs beside its sentence.
struct Help {
    code: &'static str,
    cause: &'static str,
    cure: &'static str,
}

const fn help(code: &'static str, cause: &'static str, cure: &'static str) -> Help {
    Help { code, cause, cure }
}

/// A part of the page: the codes of one or more source files.
struct Chapter {
    title: &'static str,
    intro: &'static str,
    /// The files, each with its text.
    sources: &'static [(&'static str, &'static str)],
    helps: &'static [Help],
}

/// An `#[error("…")]` attribute, with the variant that has it.
struct ErrorSentence {
    variant: String,
    text: String,
}

const PARTS: [Chapter; 4] = [
    Chapter {
        title: "The run",
        intro: "HTTP status 400. The run, its Pipeline or a Task has to change, or the run can't be wrapped.",
        sources: &[
            ("src/wrap/refusal.rs", include_str!("../refusal.rs")),
            ("src/limits.rs", include_str!("../../limits.rs")),
        ],
        helps: &[
            help("MissingParam", "A required param or annotation is absent or empty.", "Add it."),
            help(
                "UnknownParam",
                "The resolver `wrap` has no param of this name.",
                "Correct the name. The README lists all params.",
            ),
            help(
                "CacheResolver",
                "The run has `resolver: wrap.cache`, which the project that this one follows had begun. Its params don't say in which workspace the files of a key are, nor where the workspaces go.",
                "Use `resolver: wrap` and its param `cache`, see [caches.md](caches.md).",
            ),
            help("DuplicateParam", "One param is given twice.", "Remove one of them."),
            help(
                "InvalidParam",
                "A param, an annotation or a default in a ConfigMap has a value that it can't have, or a variable that can't be resolved.",
                "Correct the value at the place that the sentence names.",
            ),
            help(
                "UnknownAnnotation",
                "The run has an annotation `tekton-wrap.dev/…` that does not exist.",
                "Correct its name, or remove it.",
            ),
            help(
                "Contradiction",
                "A param and the annotation of the same name have different values.",
                "Remove one of them.",
            ),
            help(
                "AskedTwice",
                "The run asks to be wrapped both by `resolver: wrap` and by the annotation `tekton-wrap.dev/wrap`.",
                "Remove one of them.",
            ),
            help(
                "NothingToWrap",
                "The annotation is `auto`, and no workspace qualifies.",
                "Name the workspaces in the annotation, or remove the annotation.",
            ),
            help(
                "ChangedAfterWrapping",
                "The run is wrapped already, and another webhook or whoever created it again changed its tasks so that they would not see the right files.",
                "Create the run as it was before it was wrapped. If a webhook changed it, have that come before this one (the names of the configurations decide).",
            ),
            help(
                "AfterFailure",
                "The namespace has all its runs wrapped, and in this pipeline a task that runs after a failed one could see what that wrote: only on a volume it does. \
                 The run is not refused: it is stored as it is, with a warning.",
                "Set the annotation `tekton-wrap.dev/wrap` on the PipelineRun or its Pipeline to have it wrapped all the same, or `none` on the PipelineRun to leave out the warning.",
            ),
            help(
                "InvalidPipelineRef",
                "The `pipelineRef` of a run with the annotation can't be read.",
                "Correct the `pipelineRef`: `name`, or `resolver` and `params`.",
            ),
            help(
                "PipelineNotFound",
                "The namespace of the run has no Pipeline of this name.",
                "Create the Pipeline, or correct the name.",
            ),
            help(
                "TaskNotFound",
                "The namespace of the run has no Task of this name.",
                "Create the Task, or correct the `taskRef` in the Pipeline.",
            ),
            help(
                "Incomplete",
                "A Pipeline without `spec` or `tasks`, or a Task without `spec` or `steps`.",
                "Complete the object.",
            ),
            help(
                "NoRsync",
                "The target or the base is reached by rsync, and the image of the injected steps has no such program. The webhook looks for it where they run its own pod's image, and goes by `--image-has rsync` where `--image` names another one.",
                "Install an image that `images/build --with rsync` made ([stores.md](stores.md#rsync)), or name another kind of target.",
            ),
            help(
                "UndeclaredWorkspace",
                "The Pipeline does not declare a workspace that is to be wrapped, and no embedded task uses it.",
                "Correct the name, or declare the workspace in the Pipeline.",
            ),
            help(
                "AmbiguousField",
                "An object has one field in two spellings (`volumeMounts` and `VolumeMounts`), or a field with `ſ` or the sign of Kelvin in it. Tekton merges such fields, and in another order than they are written in.",
                "Write each field once, as Tekton's documentation has it.",
            ),
            help(
                "InvalidGraph",
                "`runAfter` and result references do not form a graph: a cycle, a missing task, or two tasks of one name. The words are Tekton's.",
                "Correct the Pipeline.",
            ),
            help(
                "WorkspaceBound",
                "The run binds a wrapped workspace to a volume, whose files the wrapped run would not see.",
                "Remove the binding, or don't wrap this workspace.",
            ),
            help(
                "PipelineNamedTwice",
                "The `pipelineRef` has a `name` beside `resolver: wrap`.",
                "Name the Pipeline only in the param `pipelineref`.",
            ),
            help(
                "BothRefAndSpec",
                "The run has both a `pipelineRef` and a `pipelineSpec`; Tekton refuses that too.",
                "Remove one of them.",
            ),
            help(
                "InliningForbidden",
                "Tekton's feature flag `disable-inline-spec` forbids embedded specs, and wrapping embeds them.",
                "Run the Pipeline unwrapped, or have the cluster's operator change the flag.",
            ),
            help(
                "VerificationPolicy",
                "A Pipeline or Task from a resolver has to be verified by Tekton, which can't verify an inlined one.",
                "Run it unwrapped, or put a verified copy into the namespace and refer to it by name.",
            ),
            help(
                "TooLarge",
                "With everything inlined, the run is larger than etcd stores: Tekton stores the pipeline twice.",
                "Split the Pipeline, or wrap fewer workspaces: only tasks that use a wrapped workspace are inlined.",
            ),
            help(
                "LimitExceeded",
                "The run, its Pipeline or a Task has more of something than one review may take. The sentence names the limit.",
                "Make it smaller: the limits are far beyond what Pipelines have.",
            ),
            help(
                "TooManyTaskRuns",
                "The matrices of the Pipeline create more TaskRuns than can be wrapped.",
                "Make the matrices smaller.",
            ),
            help(
                "RewriteTooLong",
                "The rewrite took longer than 2 s: within the other limits it takes milliseconds.",
                "Create the run again: the machine may have been busy. If that does not help, make the Pipeline smaller.",
            ),
            help(
                "CacheWithoutTask",
                "No task of the Pipeline can restore a cache of param `cache`: none uses its workspace, or none that does begins with the files that its key is made of.",
                "Name the tasks that are to restore it in its field `task`, or take files that an earlier task leaves in a workspace. `docs/caches.md` says which tasks restore a cache.",
            ),
            help("PatchDoesNotApply", "A bug in tekton-wrap.", "Report it, with the PipelineRun and its Pipeline."),
        ],
    },
    Chapter {
        title: "A task that uses a wrapped workspace",
        intro: "HTTP status 400. Each sentence begins with `task \"…\" uses the wrapped workspace \"…\", but`. Tasks that use no wrapped workspace are \
                never refused: they stay as they are.",
        sources: &[("src/wrap/refusal/task.rs", include_str!("task.rs"))],
        helps: &[
            help(
                "PipelineInPipeline",
                "The task is a Pipeline of its own; its run has volumes of its own.",
                "Wrap the inner Pipeline.",
            ),
            help(
                "CustomTask",
                "A custom task has no pod, so it can have no injected steps.",
                "Remove the workspace from the task.",
            ),
            help("TaskWithoutSpec", "The task has neither `taskRef` nor `taskSpec`.", "Add one."),
            help("ClusterTask", "Tekton has removed ClusterTasks.", "Use the resolver `cluster`."),
            help("UnknownTaskKind", "The `taskRef` has a `kind` that is not `Task`.", "Remove `kind`."),
            help(
                "TaskRefApiVersion",
                "Tekton takes any `taskRef` with an `apiVersion` for a custom task.",
                "Remove `apiVersion`.",
            ),
            help("InvalidTaskRef", "The `taskRef` can't be read.", "Correct the `taskRef`."),
            help(
                "LateVariable",
                "The `taskRef` has a variable without a value when the run is created, for example a result.",
                "Write the value, or use a param.",
            ),
            help(
                "LongVariable",
                "A param makes a string of a `taskRef` longer than what is wrapped.",
                "Give the param a shorter value.",
            ),
            help("InvalidTaskName", "No Kubernetes object can have this name.", "Correct the `taskRef`."),
            help("WindowsTask", "The injected steps are Linux programs.", "Remove the workspace from the task."),
            help(
                "WorkingDir",
                "The step has a `workingDir` below the workspace, and no shell script that could change directory after the restore. The container runtime would create the directory too early.",
                "Change directory in a shell script. As root, and with a writable workspace, it works without.",
            ),
            help(
                "WorkspaceBoundTwice",
                "The task binds one workspace under two names, and mounts them in some of its steps only.",
                "Bind the workspace once.",
            ),
            help(
                "InvalidPaths",
                "The Task, or the embedded task, has an annotation `tekton-wrap.dev/paths` that is not a list of patterns.",
                "Write patterns as in `.gitignore`, with commas between, or remove the annotation.",
            ),
            help(
                "LateVolume",
                "A volume mount's name has no value when the run is created, so it could become the volume of the injected steps.",
                "Write the name, or use a param.",
            ),
            help(
                "TemplateOfAction",
                "The param `credentials` keeps a Secret for the injected steps. What a stepTemplate gives to every step is moved into the user's steps then, which a StepAction has no room for.",
                "Take environment and mounts out of the `stepTemplate`, and give them to the steps that need them.",
            ),
            help(
                "MountPath",
                "A mount would hide, or might hide, the folder of the injected steps.",
                "Choose another `mountPath`.",
            ),
        ],
    },
    Chapter {
        title: "Reading Pipelines and Tasks",
        intro: "HTTP status 400, 500 for `Misconfigured`, 503 for `Unavailable`, which clients of Kubernetes try again by themselves, or 504 for `Timeout`. \
                An object may exist but could not be read, so the run is refused rather than wrapped in part. The sentence names the object and the reason.",
        sources: &[
            ("src/source.rs", include_str!("../../source.rs")),
            ("src/resolve/cluster.rs", include_str!("../../resolve/cluster.rs")),
            ("src/resolve/requests.rs", include_str!("../../resolve/requests.rs")),
            ("src/resolve/requests/query.rs", include_str!("../../resolve/requests/query.rs")),
            ("src/admission/verdict.rs", include_str!("../../admission/verdict.rs")),
        ],
        helps: &[
            help(
                "DryRun",
                "A dry run may create nothing, so nothing is resolved. The run is not refused: it is shown unwrapped, with a warning.",
                "None needed. `tekton-wrap render` shows the wrapped run.",
            ),
            help(
                "Timeout",
                "A resolver or the Kubernetes API did not answer within the time of the review.",
                "Create the run again: nothing was stored, and an answer that arrives meanwhile is used.",
            ),
            help(
                "Unavailable",
                "The Kubernetes API does not answer or is overloaded, ResolutionRequests can't be watched, or as many resolutions as the webhook takes are in flight.",
                "None needed if it is soon over; kubectl and other clients try again by themselves. Else do what the sentence says: nothing was stored.",
            ),
            help(
                "Misconfigured",
                "The webhook may not read what it needs, or Tekton is not where it looks.",
                "Do what the sentence says: it names missing RBAC rules and missing CRDs.",
            ),
            help(
                "Unreadable",
                "What a resolver returned is not a valid Pipeline or Task, or a file can't be read.",
                "Do what the sentence says: it names what is wrong with the object.",
            ),
            help(
                "NotResolved",
                "The ResolutionRequest failed, or could not be created.",
                "Correct the resolver's params; the sentence has the resolver's own message.",
            ),
            help(
                "Unanswered",
                "The resolver did not answer within `--resolution-timeout`.",
                "Check that the resolver exists and is enabled.",
            ),
            help(
                "UnsupportedVersion",
                "The webhook is registered for another version than v1.",
                "Apply `webhook-config`, which registers it for v1 with `matchPolicy: Equivalent`.",
            ),
            help(
                "SelfCheck",
                "A bug in tekton-wrap: applying the patch does not give the wrapped run. HTTP status 500.",
                "Report it, with the PipelineRun and its Pipeline.",
            ),
        ],
    },
    Chapter {
        title: "Requests that are not reviews",
        intro: "The apiserver, or another client, gets an HTTP error and no AdmissionReview. The codes are in the log of the webhook and in \
                `tekton_wrap_admission_requests_total{outcome=\"rejected\"}`.",
        sources: &[
            ("src/admission/webhook.rs", include_str!("../../admission/webhook.rs")),
            ("src/admission/capacity.rs", include_str!("../../admission/capacity.rs")),
        ],
        helps: &[
            help(
                "WrongPath",
                "A path other than `/wrap` and `/wrap-namespace`.",
                "Correct `clientConfig.service.path`.",
            ),
            help("WrongMethod", "A method other than POST.", "None: no apiserver sends that."),
            help("WrongContentType", "A content type other than `application/json`.", "None: no apiserver sends that."),
            help("TooLarge", "The review is larger than any that an apiserver sends.", "None."),
            help(
                "TooSlow",
                "The review did not arrive within 5 s, or within its own timeout.",
                "Check the network between apiserver and webhook.",
            ),
            help(
                "Busy",
                "As many large reviews as the webhook has memory for are arriving, and this one waited in vain for its turn, or as many as may wait do so.",
                "Create the run again: nothing was stored. If it goes on, add replicas, or look for who sends so much.",
            ),
            help(
                "Broken",
                "The connection broke while the review arrived.",
                "Check the network between apiserver and webhook.",
            ),
            help("Unreadable", "The body is not an AdmissionReview v1.", "Apply `webhook-config`."),
            help("Unwritable", "A bug in tekton-wrap: the answer can't be written as JSON.", "Report it."),
        ],
    },
];

#[test]
fn the_page_lists_every_refusal() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/refusals.md");
    let text = text();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&page, &text).unwrap();
    }
    let is_up_to_date = fs::read_to_string(&page).unwrap_or_default() == text;
    assert!(is_up_to_date, "docs/refusals.md is not up to date: UPDATE_GOLDEN=1 cargo test --lib refusal");
}

#[test]
fn every_code_has_a_cause_and_a_cure() {
    for part in &PARTS {
        let mut codes: Vec<String> = part.sources.iter().flat_map(|(_, source)| codes(source)).collect();
        codes.sort();
        codes.dedup();
        let mut helps: Vec<&str> = part.helps.iter().map(|help| help.code).collect();
        helps.sort_unstable();
        assert_eq!(
            codes, helps,
            "{}: the codes in the source files (left) and those with a cause and a cure in src/wrap/refusal/catalog.rs (right) differ",
            part.title
        );
    }
}

#[test]
fn every_code_has_its_sentences() {
    for part in &PARTS {
        let sentences = sentences(part);
        let with_sentences = ["src/wrap/refusal.rs", "src/wrap/refusal/task.rs", "src/admission/webhook.rs"];
        if part.sources.iter().any(|(file, _)| with_sentences.contains(file)) {
            // A code that no `fn reason` has is that of a whole error type.
            let codes = part.sources.iter().flat_map(|(_, source)| reasons(source)).map(|(_, code)| code);
            for code in codes.filter(|code| !code.is_empty()) {
                assert!(sentences.contains_key(&code), "no sentence of {code} was found");
            }
        }
    }
}

fn text() -> String {
    let mut text = "# Refusals\n\n\
        A run that can't be wrapped correctly is refused when it is created, with one sentence. The *code* is the `reason` of the \
        Status that the client gets, of the webhook's log line, and of `tekton_wrap_admission_requests_total`. Codes are stable; \
        sentences may change.\n\n\
        This page is generated from the code: `UPDATE_GOLDEN=1 cargo test --lib refusal`.\n"
        .to_owned();
    for part in &PARTS {
        let sentences = sentences(part);
        write!(text, "\n## {}\n\n{}\n", part.title, part.intro).unwrap();
        for Help { code, cause, cure } in part.helps {
            write!(text, "\n### {code}\n\n").unwrap();
            for sentence in sentences.get(*code).into_iter().flatten() {
                writeln!(text, "> {sentence}\n").unwrap();
            }
            write!(text, "- Cause: {cause}\n- Cure: {cure}\n").unwrap();
        }
    }
    text
}

/// All codes in `source`: string literals in CamelCase where a reason is expected.
fn codes(source: &str) -> Vec<String> {
    let source = source.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut found: Vec<String> = reasons(source).into_iter().map(|(_, code)| code).collect();
    for start in ["reason: \"", "&str = \""] {
        found.extend(source.split(start).skip(1).filter_map(camel_case));
    }
    found
}

/// The arms of `fn reason`: a variant and its code.
fn reasons(source: &str) -> Vec<(String, String)> {
    let body = source.split_once("fn reason(&self)").map_or("", |(_, rest)| rest);
    let body = body.split_once("\n    }").map_or("", |(body, _)| body);
    let mut found = Vec::new();
    for line in body.lines() {
        let Some((variants, code)) = line.split_once(" => \"") else { continue };
        let names = variants
            .split("Self::")
            .skip(1)
            .map(|name| name.chars().take_while(|c| c.is_ascii_alphanumeric()).collect::<String>());
        let code = camel_case(code).unwrap_or_default();
        found.extend(names.map(|name| (name, code.clone())));
    }
    found
}

/// The string literal that `text` begins with, if it is one word in CamelCase.
fn camel_case(text: &str) -> Option<String> {
    let (word, _) = text.split_once('"')?;
    let is_code = word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphabetic());
    is_code.then(|| word.to_owned())
}

/// The sentences of each code of `part`, as a reader sees them, with names in the place of values.
fn sentences(part: &Chapter) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, source) in part.sources {
        let all = attributes(source);
        for (variant, code) in reasons(source) {
            for sentence in all.iter().filter(|sentence| sentence.variant == variant) {
                found.entry(code.clone()).or_default().push(sentence.text.clone());
            }
        }
    }
    found
}

/// The `#[error("…")]` attributes of `source`.
fn attributes(source: &str) -> Vec<ErrorSentence> {
    let mut found = Vec::new();
    for rest in source.split("#[error(").skip(1) {
        let Some(rest) = rest.trim_start().strip_prefix('"') else { continue };
        let mut literal = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next() {
                Some('\\') => literal.extend(chars.next()),
                Some('"') | None => break,
                Some(c) => literal.push(c),
            }
        }
        let after = chars.as_str().split_once(")]").map_or("", |(_, after)| after);
        let variant = after.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        found.push(ErrorSentence { variant, text: readable(&literal) });
    }
    found
}

/// A format string for a reader: `{name:?}` as `"<name>"`.
fn readable(format: &str) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        let (field, after) = after.split_once('}').unwrap_or((after, ""));
        let (name, quoted) = field.split_once(":?").map_or((field, false), |(name, _)| (name, true));
        let shown = match name {
            "" | "0" => "…".to_owned(),
            "WRAP" => crate::annotations::WRAP.to_owned(),
            "MAX_TASK_RUNS" => super::MAX_TASK_RUNS.to_string(),
            "PATH" => "/wrap".to_owned(),
            "NAMESPACE_PATH" => "/wrap-namespace".to_owned(),
            name => format!("\\<{}\\>", name.replace('_', " ")),
        };
        text.push_str(before);
        text.push_str(&if quoted { format!("\"{shown}\"") } else { shown });
        rest = after;
    }
    text + rest
}
