use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn plan(json: &str) -> Result<Plan> {
    Plan::new(Config::parse(json.as_bytes()).unwrap())
}

fn problems(json: &str) -> String {
    plan(json).unwrap_err().to_string()
}

#[test]
fn a_name_is_a_directory_under_the_base_and_a_path_names_its_stack() {
    let plan = plan(r#"{"baseDir": "/srv", "stacks": ["web", {"path": "/data/immich"}]}"#);
    let stacks = plan.unwrap().stacks;
    assert_eq!(stacks[0].dir(), Path::new("/srv/web"));
    assert_eq!(stacks[1].name, "immich");
    assert_eq!(stacks[1].start_timeout, Duration::from_secs(180));
}

#[test]
fn a_stack_overrides_the_defaults_and_adds_to_the_excludes() {
    let plan = plan(
        r#"{"defaults": {"stopTimeout": 30, "startTimeout": 60, "exclude": ["*.tmp"]},
            "stacks": [{"name": "a", "stopTimeout": 5, "exclude": ["cache/"]}]}"#,
    );
    let stack = &plan.unwrap().stacks[0];
    assert_eq!(stack.stop_timeout, Some(Duration::from_secs(5)));
    assert_eq!(stack.start_timeout, Duration::from_secs(60));
    assert!(stack.exclude.is_excluded(Path::new("x/y.tmp"), false));
    assert!(stack.exclude.is_excluded(Path::new("cache"), true));
}

#[test]
fn hooks_of_the_defaults_come_first_and_a_wrong_one_is_named() {
    let with = |defaults: &str, own: &str| {
        let hook = |command: &str| {
            format!(r#"[{{"when": "whileDown", "host": true, "command": [{command}]}}]"#)
        };
        format!(
            r#"{{"defaults": {{"downLimit": 30, "hooks": {}}}, "stacks": [{{"name": "a", "hooks": {}}}]}}"#,
            hook(defaults),
            hook(own)
        )
    };
    let hooks = &plan(&with(r#""first""#, r#""second""#)).unwrap().stacks[0].hooks;
    let commands: Vec<String> = hooks.iter().map(ToString::to_string).collect();
    assert_eq!(
        commands,
        ["whileDown host: first", "whileDown host: second"]
    );
    // While the stack is down, a hook has no more time than the copy.
    assert_eq!(hooks[0].command.timeout_secs, 30);
    for (defaults, own, expected) in [
        ("", r#""x""#, "`defaults`: `hooks[0]`: `command`: is empty"),
        (
            r#""x""#,
            "",
            "`stacks[0]` (a): `hooks[0]`: `command`: is empty",
        ),
    ] {
        let problems = problems(&with(defaults, own));
        assert!(problems.starts_with(expected), "{problems}");
    }
    let array = r#"{"stacks": [{"name": "a", "hooks": [["finally"]]}]}"#;
    let error = format!("{:#}", Config::parse(array.as_bytes()).unwrap_err());
    assert!(error.contains("expected an object such as"), "{error}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = problems(
        r#"{"baseDir": "stacks", "backupDir": "/opt/a/backups", "retention": {"keepLast": 0},
            "stacks": ["b/c", {"name": "a", "path": "/opt/a"}, {"name": "a", "path": "/x"},
                       {"name": "d", "path": "/x/../y"}, {},
                       {"path": "/e", "exclude": ["["]}]}"#,
    );
    for expected in [
        "`baseDir`: must be an absolute path",
        "`stacks[0]` (b/c): `b/c` is not a valid name of a stack",
        "stack a: would archive its own archives",
        "stack a is configured twice",
        "`stacks[3]` (d): `path`: /x/../y: must not contain `..`",
        "`stacks[4]`: needs a `name` or a `path`",
        "`stacks[5]`: `exclude`: pattern \"[\"",
        "`retention`: keeps nothing",
    ] {
        assert!(
            problems.contains(expected),
            "{expected} is not in:\n{problems}"
        );
    }
}

#[test]
fn a_problem_in_the_defaults_is_not_attributed_to_a_stack() {
    for stacks in ["[]", r#"["a", "b"]"#] {
        for (options, expected) in [
            (r#""exclude": ["["]"#, "`exclude`: pattern \"[\""),
            (r#""unshared": ["["]"#, "`unshared`: pattern \"[\""),
            (
                r#""startTimeout": 0"#,
                "`startTimeout`: 0 leaves no time to start",
            ),
        ] {
            let json = format!(r#"{{"stacks": {stacks}, "defaults": {{{options}}}}}"#);
            let problems = problems(&json);
            let expected = format!("`defaults`: {expected}");
            assert!(problems.starts_with(&expected), "{problems}");
            assert_eq!(problems.lines().count(), 1, "{problems}");
        }
    }
}

#[test]
fn options_that_would_fail_in_a_run_are_refused() {
    for (stack, expected) in [
        (r#""unshared": ["["]"#, "`unshared`: pattern \"[\""),
        (
            r#""startTimeout": 0"#,
            "`startTimeout`: 0 leaves no time to start",
        ),
        (
            r#""project": "My Project""#,
            "`project`: \"My Project\" is not a valid project name",
        ),
        (
            r#""project": "_p""#,
            "`project`: \"_p\" is not a valid project name",
        ),
        (
            r#""project": """#,
            "`project`: \"\" is not a valid project name",
        ),
    ] {
        let problems = problems(&format!(r#"{{"stacks": [{{"name": "a", {stack}}}]}}"#));
        let expected = format!("`stacks[0]` (a): {expected}");
        assert!(problems.starts_with(&expected), "{problems}");
    }
    plan(r#"{"stacks": [{"name": "a", "project": "0my_project-2", "startTimeout": 1}]}"#).unwrap();
    let state = r#"{"stacks": [{"path": "/srv/web"}], "stateDir": "/srv/web"#;
    for within in ["", "/state"] {
        let problems = problems(&format!(r#"{state}{within}"}}"#));
        assert!(problems.contains("`stateDir` /srv/web"), "{problems}");
    }
    plan(&format!(r#"{state}-state"}}"#)).unwrap();
}

#[test]
fn two_stacks_share_a_directory_only_as_different_projects() {
    let shared = r#"{"stacks": [{"name": "a", "path": "/x"}, {"name": "b", "path": "/x"}]}"#;
    assert!(problems(shared).contains("stacks a and b have the same path /x"));
    let projects = r#"{"stacks": [{"name": "a", "path": "/x", "project": "a"},
                                  {"name": "b", "path": "/x", "project": "b"}]}"#;
    assert!(plan(projects).is_ok());
}

#[test]
fn selecting_keeps_the_configured_order_and_refuses_unknown_names() {
    let mut plan = plan(r#"{"stacks": ["a", "b", "c"]}"#).unwrap();
    let error = plan.select(&["x".to_owned()]).unwrap_err().to_string();
    assert_eq!(error, "no stack `x` is configured (there are: a, b, c)");
    plan.select(&["c".to_owned(), "a".to_owned()]).unwrap();
    let names: Vec<_> = plan.stacks.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn a_store_that_overlaps_a_stack_is_refused() {
    let overlap = |store: &str| {
        let json = format!(
            r#"{{"baseDir": "/srv", "backupDir": "{store}",
                "stacks": ["web", {{"path": "/data/db", "includeBinds": ["/mnt/media"]}}]}}"#
        );
        plan(&json).map_err(|error| error.to_string())
    };
    for store in [
        "/srv",
        "/srv/web",
        "/srv/web/backups",
        "/data",
        "/mnt",
        "/mnt/media/x",
    ] {
        let problems = overlap(store).unwrap_err();
        assert!(problems.contains("`backupDir`"), "{store}: {problems}");
    }
    for store in ["/srv/backups", "/srv/website", "/backups"] {
        assert!(overlap(store).is_ok(), "{store}");
    }
}

#[test]
fn binds_to_ignore_are_paths_or_users_and_a_stack_adds_to_the_defaults() {
    let configured = |bind: &str| {
        format!(
            r#"{{"baseDir": "/srv", "defaults": {{"ignoreBinds": ["/mnt"]}},
                "stacks": [{{"name": "a", "ignoreBinds": ["{bind}"]}},
                           {{"name": "b", "includeBinds": ["/data"]}}]}}"#
        )
    };
    for bind in ["/srv/media", "app:/media"] {
        let stacks = plan(&configured(bind)).unwrap().stacks;
        assert_eq!(stacks[0].ignore_binds, ["/mnt", bind]);
        let others = ["/srv/b", "/data"].map(PathBuf::from);
        assert_eq!(stacks[0].other_stacks, others);
        assert_eq!(stacks[1].other_stacks, [Path::new("/srv/a")]);
    }
    for bind in ["media", "app:media", "/srv/../media"] {
        let problems = problems(&configured(bind));
        assert!(
            problems.contains("`stacks[0]` (a): `ignoreBinds`: a bind is named"),
            "{problems}"
        );
    }
}

#[test]
fn the_engine_that_a_stack_of_units_names_is_checked() {
    let planned = |options: &str| {
        let units = r#""name": "db", "units": ["db.service"], "paths": ["/var/lib/db"]"#;
        plan(&format!(r#"{{"stacks": ["web", {{{units}{options}}}]}}"#)).unwrap()
    };
    let podman = "unix:///run/podman/podman.sock";
    let named = planned(&format!(r#", "engine": "{podman}""#));
    let found = engines(&named.stacks);
    assert!(found[0].is_default());
    assert_eq!(found[1].to_string(), podman);
    assert_eq!(found.len(), 2);
    // So its containers count as writers to the data of the other stack, and the reverse.
    assert_eq!(named.stacks[0].other_engines, [found[1].clone()]);
    assert_eq!(named.stacks[1].other_engines, [found[0].clone()]);
    // The control: without one, it needs none.
    let mut unnamed = planned("");
    unnamed.stacks.remove(0);
    assert!(engines(&unnamed.stacks).is_empty());
}

#[test]
fn a_stack_of_units_has_paths_and_nothing_of_a_compose_project() {
    let stack = |options: &str| plan(&format!(r#"{{"stacks": [{{"name": "db", {options}}}]}}"#));
    let units = r#""units": ["postgresql.service", "app@1.socket"]"#;
    let paths = r#""paths": ["/var/lib/db", "/etc/db.conf"]"#;
    let planned = stack(&format!("{units}, {paths}"))
        .unwrap()
        .stacks
        .remove(0);
    assert!(planned.is_of_units());
    assert_eq!(planned.dir(), Path::new("/var/lib/db"));
    assert_eq!(planned.include_binds, [Path::new("/etc/db.conf")]);
    for (options, expected) in [
        (units.to_owned(), "`units` needs `paths`"),
        (paths.to_owned(), "`paths` needs `units`"),
        (
            format!(r#"{units}, "paths": ["data"]"#),
            "`paths`: data: must be an absolute path",
        ),
        (
            format!(r#"{units}, {paths}, "path": "/srv/db""#),
            "`path` is for a stack of Docker Compose",
        ),
        (
            format!(r#"{units}, {paths}, "stopMethod": "pause""#),
            "`stopMethod` is for a stack of Docker Compose",
        ),
        (
            format!(
                r#"{units}, {paths}, "hooks": [{{"when": "beforeCopy", "service": "a", "command": ["b"]}}]"#
            ),
            "`hooks`: a stack with `units` has no services",
        ),
    ] {
        let problems = stack(&options).unwrap_err().to_string();
        let expected = format!("`stacks[0]` (db): {expected}");
        assert!(problems.starts_with(&expected), "{problems}");
    }
    for name in [
        "",
        "postgresql",
        "multi-user.target",
        ".service",
        "app@.service",
        "--user.service",
        "a b.service",
        "a*.service",
        "../a.service",
    ] {
        let units = serde_json::json!([name]);
        let problems = stack(&format!(r#""units": {units}, {paths}"#))
            .unwrap_err()
            .to_string();
        assert!(
            problems.contains("is not a unit that can be"),
            "{name}: {problems}"
        );
    }
    // What is a default of all stacks does not concern it.
    let with_default = format!(
        r#"{{"stacks": [{{"name": "db", {units}, {paths}}}], "defaults": {{"stopMethod": "pause"}}}}"#
    );
    let planned = plan(&with_default).unwrap().stacks.remove(0);
    assert_eq!(planned.stop_method, None);
}

#[test]
fn a_unit_and_a_path_belong_to_one_stack() {
    let both = |unit: &str, path: &str| {
        let json = format!(
            r#"{{"stacks": [
                {{"name": "a", "units": ["a.service"], "paths": ["/var/lib/a"]}},
                {{"name": "b", "units": ["{unit}"], "paths": ["{path}"]}}]}}"#
        );
        plan(&json)
    };
    let problem = |unit, path| both(unit, path).unwrap_err().to_string();
    let shared = problem("a.service", "/var/lib/b");
    assert_eq!(shared, "stacks a and b have the same unit a.service");
    let shared = problem("b.service", "/var/lib/a");
    assert_eq!(shared, "stacks a and b have the same path /var/lib/a");
    both("b.service", "/var/lib/b").unwrap();
}
