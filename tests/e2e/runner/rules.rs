//! The pure rules that the runner plays by.

use std::time::Duration;

use serde_json::json;
use support::runner::rules::{Vars, duration, expand, holds, inherit, parents};

#[test]
fn durations_are_parsed() {
    for (text, wanted) in [("1h0m1s", 3_601_000), ("1.5m", 90_000), ("20ms", 20), ("0", 0)] {
        assert_eq!(duration(text), Ok(Duration::from_millis(wanted)));
    }
    assert!(duration("5 days").is_err());
}

#[test]
fn cel_is_evaluated() {
    for (program, wanted) in [
        ("'a' == 'a'", true),
        ("'a'=='b'", false),
        ("'a' != \"b\" && !('a' == 'b')", true),
        ("'a' == 'b' || 'a' in ['x', 'a']", true),
        ("'a' in []", false),
        ("true && false || true", true),
    ] {
        assert_eq!(holds(program), Ok(wanted), "{program}");
    }
    for program in ["'a'", "size('a') == 1", "'a' == 'b' 'c'", "('a' == 'b'", "'a' && true", "'a' == 'it\\'s'"] {
        assert!(holds(program).is_err(), "{program}");
    }
}

#[test]
fn parents_are_found_in_run_after_and_results() {
    let task = json!({
        "runAfter": ["a"],
        "params": [{"name": "p", "value": ["$(tasks.b.results.r[*])"]}],
        "when": [{"input": "$(tasks.c.results.r[1]) $(tasks.no.results['r.x'])", "operator": "in", "values": ["$(tasks.d.results.o.key)"]}],
        "workspaces": [{"name": "w", "subPath": "$(tasks.no.results.r)"}],
        "taskSpec": {
            "stepTemplate": {"image": "$(tasks.no.results.r)"},
            "steps": [{
                "script": "echo $(cat $(tasks.e.results.r))",
                "volumeMounts": [{"name": "$(tasks.no.results.r)"}],
                "env": [{"name": "E", "value": "$(tasks.f.status) $(tasks.a.results.r)"}]
            }]
        }
    });
    assert_eq!(parents(&task), ["a", "b", "c", "d", "e"]);
}

#[test]
fn environment_variables_expand_as_kubernetes_does() {
    let env = [("A".to_owned(), "1".to_owned())];
    for (text, wanted) in [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B) $A $", "$(B) $A $"), ("$(cat $(A))", "$(cat $(A))")]
    {
        assert_eq!(expand(text, &env), wanted);
    }
}

#[test]
fn a_step_wins_over_its_template() {
    let mut step = json!({"args": [], "command": ["c"], "env": [{"name": "A", "value": "1"}]});
    let template = json!({
        "args": ["x"], "command": ["t"], "workingDir": "/w",
        "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    });
    inherit(&mut step, &template);
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]);
    assert_eq!(step, json!({"args": ["x"], "command": ["c"], "env": env, "workingDir": "/w"}));
}

fn vars() -> Vars {
    let mut vars = Vars::default();
    vars.define_param("s", &json!("one"));
    vars.define_param("l", &json!(["a", "b"]));
    vars.define_param("o", &json!({"k": "v"}));
    vars.define_result("t", "r.x", &json!("res"));
    vars
}

#[test]
fn variables_are_replaced_in_strings() {
    for (text, wanted) in [
        ("$(params.s)-$(params['s'])-$(params[\"s\"])", "one-one-one"),
        ("$(params.l[1]) $(params.l)", "b $(params.l)"),
        ("$(params.o.k) $(params['o'].k)", "v $(params['o'].k)"),
        ("$(tasks.t.results['r.x'])", "res"),
        ("$(cat $(params.s)) $(unknown) $(", "$(cat one) $(unknown) $("),
    ] {
        assert_eq!(vars().text(text), wanted);
    }
}

#[test]
fn variables_are_replaced_in_lists_and_values() {
    assert_eq!(vars().list(&[json!("x"), json!("$(params.l[*])")]), [json!("x"), json!("a"), json!("b")]);
    assert_eq!(vars().value(&json!("$(params.o[*])")), json!({"k": "v"}));
    assert_eq!(vars().value(&json!("$(params.l[*])")), json!(["a", "b"]));
}

#[test]
fn passed_params_shadow() {
    let seen = vars().shadowed(&[json!({"name": "s", "value": "two"}), json!({"name": "l", "value": "$(late[*])"})]);
    assert_eq!(seen.text("$(params.s) $(params.l[0])"), "two a");
    assert!(seen.list(&[json!("$(params.l[*])")]).is_empty());
}
